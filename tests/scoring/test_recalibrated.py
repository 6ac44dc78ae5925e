"""VaR and CVaR that follow how earlier forecasts turned out, over a whole history."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from glow_bt.errors import ConfigError
from glow_bt.risk.recalibration import Recalibration
from glow_bt.scoring import ScheduledScorer, Scorer
from tests.models import sp500_bars, unseen_bars
from tests.scoring.samples import (
    COUNT,
    EVERY_RISK,
    FIRST_NEW,
    WARM_UP,
    arrays,
    later_model,
    model_of_two_horizons,
)

QUICK = Recalibration(step=0.05)


@pytest.fixture(scope="module")
def bars():
    return unseen_bars(COUNT)


def tracked_by_hand(bars, models, first, horizon, recalibration=QUICK, p=0.05):
    """VaR at p, one bar after another: `models` are pairs of first position and artifact.

    The forecasts from position `first` on are judged.
    """
    options = {"horizon": horizon, "allow_training_bars": True}
    plain = [(start, Scorer(model, **options).distribution(bars)) for start, model in models]
    log_close = np.log(bars["close"].to_numpy())

    def at(t):
        own = [distribution for start, distribution in plain if start <= t][-1]
        return own.rows(slice(t - WARM_UP, t - WARM_UP + 1))

    level = recalibration.levels.index(p)
    q = norm.ppf(p) + recalibration.offsets[level]
    var = np.full(len(bars), np.nan)
    for t in range(first, len(bars)):
        made = t - horizon
        if made >= first:
            z = at(made).latent(log_close[[t]] - log_close[[made]])[0]
            q += recalibration.step * (p - (z < q))
        var[t] = at(t).at_latent(np.array([[q]]))[0, 0]
    return var, q - norm.ppf(p)


@pytest.mark.parametrize("horizon", [1, 5])
def test_var_follows_the_share_of_violations(bars, horizon):
    model = model_of_two_horizons()
    scorer = Scorer(model, var_level=0.05, horizon=horizon, recalibrate=QUICK)
    expected, offset = tracked_by_hand(bars, [(0, model)], WARM_UP, horizon)
    var = scorer.score(bars)["var"]
    assert scorer.min_bars == WARM_UP + 1 + horizon
    assert var.iloc[: WARM_UP + horizon].isna().all()
    np.testing.assert_allclose(var.iloc[WARM_UP + horizon :], expected[WARM_UP + horizon :])
    last = scorer.recalibrated(bars)
    assert last.offsets[last.levels.index(0.05)] == pytest.approx(offset, abs=1e-12)
    plain = Scorer(model, var_level=0.05, horizon=horizon).score(bars)["var"]
    assert (var - plain).abs().max() > 1e-3


@pytest.mark.parametrize("horizon", [1, 5])
def test_a_recalibration_goes_on_from_model_to_model(bars, horizon):
    first, border = WARM_UP + 30, WARM_UP + 150
    models = [(first, model_of_two_horizons()), (border, later_model())]
    scheduled = ScheduledScorer(
        [(bars.index[start], model) for start, model in models],
        var_level=0.05,
        horizon=horizon,
        recalibrate=QUICK,
    )
    expected, offset = tracked_by_hand(bars, models, first, horizon)
    scores = scheduled.score(bars)
    np.testing.assert_allclose(scores["var"], expected, equal_nan=True)
    assert scores["cvar"].notna().equals(scores["var"].notna())
    last = scheduled.recalibrated(bars)
    assert last.offsets[last.levels.index(0.05)] == pytest.approx(offset, abs=1e-12)


@pytest.mark.parametrize("horizon", [1, 5])
def test_no_outcome_of_a_forecast_on_training_bars_counts(horizon):
    """The first bar that is scored is the first new one: forecasts before were in sample."""
    model = model_of_two_horizons()
    options = {"horizon": horizon, "var_level": 0.05}
    scorer = Scorer(model, recalibrate=QUICK, **options)
    bars = sp500_bars(FIRST_NEW - (scorer.min_bars - 1), FIRST_NEW + 100)
    first = scorer.min_bars - 1
    var = scorer.score(bars)["var"].iloc[first:]
    plain = Scorer(model, **options).score(bars.iloc[horizon:])["var"].iloc[WARM_UP:]
    np.testing.assert_allclose(var.iloc[:horizon], plain.iloc[:horizon])
    assert not np.isclose(var.iloc[horizon], plain.iloc[horizon], rtol=1e-6)
    expected, _ = tracked_by_hand(bars, [(0, model)], first, horizon)
    np.testing.assert_allclose(var, expected[first:])
    seen = Scorer(model, recalibrate=QUICK, allow_training_bars=True, **options).score(bars)
    expected, _ = tracked_by_hand(bars, [(0, model)], first - horizon, horizon)
    np.testing.assert_allclose(seen["var"].iloc[first:], expected[first:])


def test_a_schedules_first_model_is_not_judged_on_training_bars_either():
    model, horizon = model_of_two_horizons(), 5
    bars = sp500_bars(FIRST_NEW - WARM_UP - horizon, FIRST_NEW + 60)
    schedule = [(bars.index[WARM_UP + horizon], model)]
    options = {"horizon": horizon, "recalibrate": QUICK}
    alone = Scorer(model, **options).score(bars)
    pd.testing.assert_frame_equal(ScheduledScorer(schedule, **options).score(bars), alone)


@pytest.mark.parametrize("risk", EVERY_RISK)
def test_no_row_knows_a_later_bar(bars, risk):
    scorer = Scorer(model_of_two_horizons(), **risk)
    whole = scorer.score(bars)
    for row in (scorer.min_bars - 1, WARM_UP + 90, len(bars) - 2):
        others = bars.copy()
        others.iloc[row + 1 :] *= [0.3] * 4 + [5.0]
        changed = scorer.score(others)
        pd.testing.assert_frame_equal(changed.iloc[: row + 1], whole.iloc[: row + 1])
        assert not np.allclose(changed.iloc[row + 1 :], whole.iloc[row + 1 :])


@pytest.mark.parametrize("horizon", [1, 5])
def test_a_step_of_0_never_corrects(bars, horizon):
    model = model_of_two_horizons()
    still = Scorer(model, horizon=horizon, recalibrate=Recalibration(step=0)).score(bars)
    plain = Scorer(model, horizon=horizon).score(bars)
    rows = slice(WARM_UP + horizon, None)
    # The shortfall is another quadrature of the same integral.
    np.testing.assert_allclose(still.iloc[rows], plain.iloc[rows], rtol=1e-6)
    np.testing.assert_allclose(still.iloc[rows, :-1], plain.iloc[rows, :-1], rtol=1e-9)


@pytest.mark.parametrize("horizon", [1, 5])
def test_it_can_be_gone_on_from(bars, horizon):
    """As long as the rows that are scored meet."""
    options = {"horizon": horizon}
    model, border = model_of_two_horizons(), WARM_UP + 111
    whole = Scorer(model, recalibrate=True, **options)
    saved = whole.recalibrated(bars.iloc[:border])
    second = Scorer(model, recalibrate=saved, **options)
    part = bars.iloc[border - second.min_bars + 1 :]
    # The forecast that comes due at the first row has not been judged before.
    np.testing.assert_allclose(
        second.score(part).iloc[second.min_bars - 1 :], whole.score(bars).iloc[border:], rtol=1e-9
    )
    assert second.recalibrated(part) == whole.recalibrated(bars)


def test_before_any_outcome_is_known_it_stands_where_it_stood(bars):
    scheduled = ScheduledScorer(
        [(bars.index[-1] + pd.Timedelta("1D"), model_of_two_horizons())], recalibrate=QUICK
    )
    assert scheduled.recalibrated(bars) == QUICK
    short = ScheduledScorer(
        [(bars.index[-2], model_of_two_horizons())], horizon=5, recalibrate=QUICK
    )
    assert short.recalibrated(bars) == QUICK


@pytest.mark.parametrize("horizon", [1, 5])
def test_distribution_and_value_at_risk_are_those_of_the_scores(bars, horizon):
    scorer = Scorer(model_of_two_horizons(), horizon=horizon, recalibrate=QUICK)
    distribution, scores = scorer.distribution(bars), scorer.score(bars)
    table = scorer.value_at_risk(bars, [0.01, 0.95])
    rows = slice(scorer.min_bars - 1, None)
    np.testing.assert_allclose(distribution.quantile(0.01), scores["var"].iloc[rows])
    np.testing.assert_allclose(distribution.shortfall(0.01), scores["cvar"].iloc[rows])
    np.testing.assert_allclose(distribution.quantile(0.95), table[0.95].iloc[rows])
    np.testing.assert_array_equal(table[0.01], scores["var"])


def test_only_one_that_recalibrates_can_say_how_it_stands(bars):
    with pytest.raises(ConfigError, match="a scorer that recalibrates, found recalibrate=False"):
        Scorer(model_of_two_horizons()).recalibrated(bars)


@pytest.mark.parametrize("wrong", [1, 0.05, None, "yes"])
def test_how_to_recalibrate_is_a_yes_a_no_or_a_state(wrong):
    with pytest.raises(ConfigError, match="expected recalibrate=True, False or a Recalibration"):
        Scorer(model_of_two_horizons(), recalibrate=wrong)


def test_the_error_of_var_is_that_of_the_rows_that_are_scored(bars):
    stamps, array = arrays(bars)
    plain = Scorer(model_of_two_horizons(), horizon=5).var_error(stamps, array)
    own = Scorer(model_of_two_horizons(), horizon=5, recalibrate=True).var_error(stamps, array)
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(own)), np.arange(WARM_UP + 5))
    np.testing.assert_allclose(own[WARM_UP + 5 :], plain[WARM_UP + 5 :], rtol=1e-9)
