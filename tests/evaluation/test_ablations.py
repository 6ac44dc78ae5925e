"""Ablations run on the scores of the first contender, with all costs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from glow_bt.cli.contenders import contenders, fee_of
from glow_bt.evaluation.ablations import usual_var_limit
from glow_bt.evaluation.study import Contender, run_study
from glow_bt.evaluation.walk_forward import FoldModel
from glow_bt.policy import PolicyParams, var_exposure_limit
from glow_bt.scoring import Scorer
from strategies.glow_baselines import ScoredGlow
from tests.models import small_artifact, sp500_bars
from tests.scoring.samples import with_funding

TRADING = {
    "dead_band": 0.02,
    "leverage_cap": 1.0,
    "error_margin": 1.0,
    "es_budget": None,
    "risk_budget": 0.03,
    "stance": 0.0,
    "half_life": 0.0,
    "slippage_bps": 1.0,
    "cash": 1e5,
    "var_horizon": 1,
    "recalibrate": False,
    "liquidity": "taker",
    "ablations": True,
    "long_only": False,
    "seed": 0,
}
ABLATIONS = [
    "no_filter",
    "no_direction",
    "no_var_sizing",
    "no_averaging",
    "direction_alone",
    "random_direction",
]


@pytest.fixture(scope="module")
def bars():
    return sp500_bars(0, 800)


def models_of(bars):
    """One model in two folds, so that a position is carried from one to the other."""
    artifact = small_artifact()
    first, border = bars.index[artifact.training.n_bars], bars.index[700]
    return [
        FoldModel(1, first, bars.index[699], artifact),
        FoldModel(2, border, bars.index[-1], artifact),
    ]


def test_a_study_runs_the_strategy_its_baselines_and_its_ablations(bars):
    ran = contenders(TRADING, bars, small_artifact())
    assert [c.name for c in ran] == ["glow", "buy_and_hold", "volatility_target", *ABLATIONS]
    assert [c.name for c in ran if c.uses_scores] == ABLATIONS
    quick = contenders({**TRADING, "ablations": False}, bars, small_artifact())
    assert [c.name for c in quick] == ["glow", "buy_and_hold", "volatility_target"]
    changed = {c.name: c.params for c in ran}
    assert changed["random_direction"]["toss_every"] == 5
    assert changed["no_var_sizing"]["constant_limit"] > 0
    assert changed["no_direction"]["stance"] == 1.0  # none would hold nothing at all


@pytest.mark.parametrize("error_margin", [0.0, 1.0])
def test_scores_are_worked_out_once_for_all(bars, monkeypatch, error_margin):
    trading = {**TRADING, "error_margin": error_margin, "stance": 0.5, "half_life": 5.0}
    ran = contenders(trading, bars, small_artifact())
    same = Contender("same", ScoredGlow, ran[3].params | {"use_filter": True}, uses_scores=True)
    calls = []
    score = Scorer.score_arrays

    def counted(self, *arrays):
        calls.append(len(arrays[0]))
        return score(self, *arrays)

    monkeypatch.setattr(Scorer, "score_arrays", counted)
    study = run_study(bars, small_artifact(), [*ran, same], draws=None)
    assert len(calls) == 1 + 2  # the strategy, and VaR at two levels
    own, again = study.results["glow"], study.results["same"]
    assert len(own.orders) > 10
    pd.testing.assert_series_equal(again.states["equity"], own.states["equity"], rtol=1e-12)
    for name in ABLATIONS:
        other = study.results[name].states
        assert list(other.index) == list(own.states.index)
        assert not np.allclose(other["equity"], own.states["equity"])


def test_each_ablation_leaves_its_part_out(bars):
    ran = contenders({**TRADING, "dead_band": 0.0}, bars, small_artifact())
    results = run_study(bars, small_artifact(), ran, draws=None).results
    states = results["glow"].states
    outside = (states["in_distribution"] == 0.0).to_numpy()[:-1]
    exposure = {name: own.states["exposure"].to_numpy()[1:] for name, own in results.items()}
    assert outside.any()
    assert (exposure["glow"][outside] == 0.0).all()
    assert (exposure["no_filter"][outside] != 0.0).mean() > 0.9
    assert (exposure["no_direction"] >= 0.0).all()
    assert (exposure["no_direction"][outside] == 0.0).all()
    assert (exposure["random_direction"] < 0.0).any()
    assert (exposure["random_direction"] > 0.0).any()


@pytest.fixture(scope="module")
def funded(bars):
    rated = with_funding(bars)
    ran = contenders({**TRADING, "risk_budget": 0.08}, rated, small_artifact())
    return run_study(rated, models_of(rated), ran, draws=None)


def test_every_contender_pays_fees_slippage_and_funding(funded):
    for name, own in funded.metrics["strategies"].items():
        costs = own["costs"]
        assert costs["commission"] > 0.0, name
        assert costs["slippage"] > 0.0, name
        assert costs["funding"] != 0.0, name
        result = funded.results[name]
        notional = (result.orders["size"].abs() * result.orders["price"]).sum()
        assert costs["commission"] == pytest.approx(0.00055 * notional)
    assert funded.metrics["costs"] == {
        "liquidity": "taker",
        "fee": 0.00055,
        "slippage_bps": 1.0,
        "funding": True,
    }


def test_equity_is_what_prices_gave_less_all_costs(bars, funded):
    """At the last bar, for one contender: nothing is charged twice, nothing left out."""
    result = funded.results["buy_and_hold"]
    size, price = result.orders[["size", "price"]].iloc[0]
    opened = bars["open"].loc[result.orders.index[0]]
    earned = size * (bars["close"].iloc[-1] - opened)
    costs = funded.metrics["strategies"]["buy_and_hold"]["costs"]
    assert costs["slippage"] == pytest.approx(size * (price - opened))
    left = 1e5 + earned - sum(costs.values())
    assert result.states["equity"].iloc[-1] == pytest.approx(left)


def test_positions_are_carried_from_fold_to_fold(bars, funded):
    result = funded.results["buy_and_hold"]
    assert len(result.orders) == 1
    assert len(result.trades) == 0
    other = funded.results["no_filter"]
    around = other.states.loc[bars.index[698] : bars.index[702], "exposure"]
    assert (around != 0.0).all()
    sizes = other.orders["size"].cumsum()
    before, after = sizes.loc[: bars.index[699]].iloc[-1], sizes.loc[: bars.index[701]].iloc[-1]
    assert before * after > 0.0


def test_makers_pay_the_makers_fee(bars):
    trading = {**TRADING, "liquidity": "maker", "ablations": False}
    assert fee_of(trading) == 0.0002
    ran = contenders(trading, bars, small_artifact())
    assert ran[0].params["cost_rate"] == pytest.approx(0.0003)
    study = run_study(bars, small_artifact(), ran, liquidity="maker", draws=None)
    orders = study.results["glow"].orders
    paid = study.metrics["strategies"]["glow"]["costs"]["commission"]
    assert paid == pytest.approx(0.0002 * (orders["size"].abs() * orders["price"]).sum())
    assert study.metrics["costs"]["liquidity"] == "maker"


def test_the_usual_limit_is_that_of_bars_before_the_unseen_ones(bars):
    artifact, params = small_artifact(), PolicyParams(risk_budget=0.01, error_margin=0.0)
    past = bars.loc[: artifact.training.trained_until]
    var = Scorer(artifact, allow_training_bars=True).score(past)["var"].dropna()
    expected = np.median([var_exposure_limit(value, params) for value in var])
    assert 0.1 < expected < 0.9
    assert usual_var_limit(bars, artifact, params) == pytest.approx(expected)
    assert usual_var_limit(bars, models_of(bars), params) == pytest.approx(expected)
    changed = bars.copy()
    changed.loc[artifact.training.trained_until + pd.Timedelta("1D") :] *= 0.5
    assert usual_var_limit(changed, artifact, params) == pytest.approx(expected)
    careful = PolicyParams(risk_budget=0.01, error_margin=2.0)
    assert usual_var_limit(bars, artifact, careful) < expected


def test_without_a_past_the_usual_limit_is_the_largest_position(bars):
    params = PolicyParams(leverage_cap=2.0)
    assert usual_var_limit(bars.iloc[500:], small_artifact(), params) == pytest.approx(1.98)
