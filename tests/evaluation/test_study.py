"""A study: what is run, on which bars, and that its numbers are right."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from glow_bt.errors import DataError, TooFewBarsError
from glow_bt.evaluation.study import Contender, run_study, unseen_span, var_metrics
from glow_bt.evaluation.walk_forward import FoldModel
from glow_bt.risk import christoffersen_test, kupiec_test
from glow_bt.scoring import SCORE_COLUMNS, Scorer
from glow_bt.training import train
from strategies.glow_baselines import BuyAndHold
from strategies.glow_strategy import GlowStrategy
from tests.models import small_artifact, small_config, sp500_bars
from tests.scoring.samples import model_of_funding, model_of_two_horizons, with_funding

CONTENDERS = [
    Contender("glow", GlowStrategy, {"risk_budget": 0.05, "dead_band": 0.0}, uses_model=True),
    Contender("buy_and_hold", BuyAndHold, {}),
]


@pytest.fixture(scope="module")
def bars():
    return sp500_bars(0, 800)


@pytest.fixture(scope="module")
def study(bars):
    return run_study(bars, small_artifact(), CONTENDERS)


def test_only_unseen_bars_are_traded_and_all_of_them(bars, study):
    until = small_artifact().training.trained_until
    first = bars.index.get_loc(until) + 1
    for result in study.results.values():
        assert list(result.states.index) == list(bars.index[first:])
        assert (result.orders.index > until).all()
    assert study.metrics["span"]["bars"] == len(bars) - first
    assert list(study.latents.index) == list(bars.index[first:])


def test_every_contender_starts_at_the_same_bar(bars, study):
    bought = study.results["buy_and_hold"].orders
    first_unseen = study.results["glow"].states.index[0]
    assert list(bought["created"]) == [first_unseen]
    assert list(bought.index) == [bars.index[bars.index.get_loc(first_unseen) + 1]]


def test_the_model_metrics_are_those_of_its_scores(bars, study):
    span = unseen_span(bars, small_artifact())
    scores = Scorer(small_artifact()).score(span).dropna()
    model = study.metrics["model"]
    assert model["mean_log_likelihood"] == pytest.approx(scores["log_prob"].mean(), abs=1e-9)
    scaled = scores["log_prob"] - small_artifact().scaler.log_det
    assert model["nll"] == pytest.approx(-scaled.mean(), abs=1e-9)
    assert model["bits_per_dim"] == pytest.approx(model["nll"] / 16 / math.log(2))
    assert model["in_distribution_share"] == pytest.approx(scores["in_distribution"].mean())


def test_var_metrics_are_those_of_the_next_bars_returns(bars):
    span = unseen_span(bars, small_artifact())
    scores = Scorer(small_artifact(), var_level=0.05).score(span)
    realised = np.log(span["close"]).diff().shift(-1)
    known = scores["var"].notna() & realised.notna()
    violations = (realised < scores["var"])[known].to_numpy()
    found = var_metrics(span, small_artifact(), 0.05)
    assert found["n"] == known.sum() == len(span) - small_artifact().min_bars
    assert found["violations"] == violations.sum() > 0
    assert found["kupiec_p"] == pytest.approx(kupiec_test(violations, 0.05).pvalue)
    assert found["christoffersen_p"] == pytest.approx(christoffersen_test(violations).pvalue)


def test_a_schedule_equals_its_models_one_after_the_other(bars):
    artifact, span = small_artifact(), unseen_span(bars, small_artifact())
    middle = span.index[150]
    models = [
        FoldModel(1, span.index[120], span.index[149], artifact),
        FoldModel(2, middle, span.index[-1], artifact),
    ]
    together = run_study(bars, models, CONTENDERS)
    alone = run_study(bars, artifact, CONTENDERS)
    pd.testing.assert_frame_equal(
        together.results["glow"].states, alone.results["glow"].states, rtol=1e-9
    )
    pd.testing.assert_frame_equal(together.latents, alone.latents, rtol=1e-9)
    assert together.metrics["var"] == alone.metrics["var"]


def test_bars_that_end_before_the_training_did_are_refused():
    with pytest.raises(DataError, match="seen them all"):
        unseen_span(sp500_bars(0, 560), small_artifact())
    with pytest.raises(TooFewBarsError, match="at least 123 bars"):
        unseen_span(sp500_bars(0, 561), small_artifact())


def test_bars_that_begin_after_the_training_warm_up_on_themselves():
    span = unseen_span(sp500_bars(650, 800), small_artifact())
    assert len(span) == 150


@pytest.fixture(scope="module")
def longer():
    return sp500_bars(0, 900)


@pytest.fixture(scope="module")
def two_models(longer):
    """Two folds with different models; the second was trained on later bars as well."""
    first = small_artifact()
    second = train(longer, small_config(seed=5), previous=first)
    second = replace(second, direction=replace(first.direction, slope_belief=0.9))
    return [
        FoldModel(1, longer.index[first.training.n_bars], longer.index[749], first),
        FoldModel(2, longer.index[750], longer.index[-1], second),
    ]


@pytest.fixture(scope="module")
def two_model_study(longer, two_models):
    return run_study(longer, two_models, CONTENDERS)


def test_each_fold_is_scored_by_its_own_model(longer, two_models, two_model_study):
    states = two_model_study.results["glow"].states[list(SCORE_COLUMNS)]
    by = [
        Scorer(m.artifact, allow_training_bars=True).score(longer).loc[states.index]
        for m in two_models
    ]
    border = two_models[1].valid_from
    before = states.index < border
    assert 0 < before.sum() < len(states) - 100
    pd.testing.assert_frame_equal(states[before], by[0][before], rtol=1e-9, atol=1e-9)
    pd.testing.assert_frame_equal(states[~before], by[1][~before], rtol=1e-9, atol=1e-9)
    others = ["log_prob", "direction", "var", "cvar"]
    assert (by[0].loc[border, others] != by[1].loc[border, others]).all()


def test_each_folds_latents_and_regimes_are_its_own_models(longer, two_models, two_model_study):
    border = two_models[1].valid_from
    found = two_model_study.latents.loc[border:].drop(columns="regime")
    regimes = two_model_study.latents.loc[border:, "regime"]
    first, second = (
        Scorer(m.artifact, allow_training_bars=True).latents(longer).loc[border:]
        for m in two_models
    )
    pd.testing.assert_frame_equal(found, second, rtol=1e-9, atol=1e-9)
    assert not np.allclose(found, first)
    firsts, own = (m.artifact.regime_of(second.to_numpy()) for m in two_models)
    assert list(regimes) == list(own)
    assert list(own) != list(firsts)
    states = two_model_study.results["glow"].states.loc[border:]
    assert list(regimes) == list(states["regime"])


def test_var_and_likelihood_are_measured_over_both_models(longer, two_models, two_model_study):
    """The schedule's numbers are those of its states, and no single model's."""
    states = two_model_study.results["glow"].states
    likelihood = two_model_study.metrics["model"]["mean_log_likelihood"]
    assert likelihood == pytest.approx(states["log_prob"].mean())
    span = unseen_span(longer, two_models)
    alone = var_metrics(span, two_models[0].artifact, 0.01)
    measured = two_model_study.metrics["var"]["0.01"]
    realised = np.log(states["close"]).diff().shift(-1)
    assert measured["violations"] == (realised < states["var"]).sum()
    assert measured["quantile_loss"] != alone["quantile_loss"]


@pytest.mark.parametrize("slippage_bps", [0.0, 25.0])
def test_every_fill_lies_off_the_open_by_the_slippage(bars, slippage_bps):
    study = run_study(bars, small_artifact(), CONTENDERS, slippage_bps=slippage_bps)
    for result in study.results.values():
        fills = result.orders
        opens = bars["open"].loc[fills.index].to_numpy()
        side = np.sign(fills["size"].to_numpy())
        expected = opens * (1.0 + side * slippage_bps * 1e-4)
        np.testing.assert_allclose(fills["price"], expected, rtol=1e-12)
        paid = np.sum(fills["size"].abs().to_numpy() * opens * slippage_bps * 1e-4)
        assert result.costs["slippage"] == pytest.approx(paid, rel=1e-9, abs=1e-9)
    sizes = study.results["glow"].orders["size"]
    assert (sizes > 0.0).any()
    assert (sizes < 0.0).any()
    measured = study.metrics["strategies"]["glow"]["costs"]["slippage"]
    assert (measured > 0.0) == (slippage_bps > 0.0)


def test_var_over_several_bars_is_tested_on_returns_that_do_not_overlap(bars):
    model = model_of_two_horizons()
    span = unseen_span(bars, model, late=5)
    assert len(span) == len(unseen_span(bars, model)) + 5
    risk = {"horizon": 5, "recalibrate": True}
    found = var_metrics(span, model, 0.05, **risk)
    scores = Scorer(model, var_level=0.05, **risk).score(span)["var"]
    log_close = np.log(span["close"])
    first = Scorer(model, **risk).min_bars - 1
    rows = np.arange(first, len(span) - 5, 5)
    returns = log_close.iloc[rows + 5].to_numpy() - log_close.iloc[rows].to_numpy()
    violations = returns < scores.iloc[rows].to_numpy()
    assert found["n"] == len(rows)
    assert found["violations"] == violations.sum()
    assert found["kupiec_p"] == pytest.approx(kupiec_test(violations, 0.05).pvalue)


def test_a_model_that_is_recalibrated_trades_from_the_first_unseen_bar_on(bars):
    model = model_of_two_horizons()
    own = {**CONTENDERS[0].params, "horizon": 5, "recalibrate": True}
    found = run_study(bars, model, [replace(CONTENDERS[0], params=own), CONTENDERS[1]])
    first = bars.index.get_loc(model.training.trained_until) + 1
    for result in found.results.values():
        assert list(result.states.index) == list(bars.index[first:])
    assert list(found.latents.index) == list(bars.index[first:])
    recalibrated = found.results["glow"].states["var"]
    plain = Scorer(model).score(unseen_span(bars, model))["var"].dropna()
    assert not np.allclose(recalibrated, plain, rtol=0.1)


def test_a_model_that_knows_funding_is_studied_on_bars_that_have_it(bars):
    model = model_of_funding()
    found = run_study(with_funding(bars), model, CONTENDERS)
    scores = Scorer(model).score(unseen_span(with_funding(bars), model)).dropna()
    np.testing.assert_allclose(found.results["glow"].states["var"], scores["var"], rtol=1e-9)
    assert found.metrics["var"]["0.01"]["n"] == len(scores) - 1
