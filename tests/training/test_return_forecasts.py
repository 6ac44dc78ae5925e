"""Forecasts out of sample, fold by fold."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from glow_bt.errors import ConfigError, DataError, TooFewBarsError
from glow_bt.features import ContextSpec
from glow_bt.folds import Fold, walk_forward_folds
from glow_bt.risk.recalibration import Recalibration
from glow_bt.training import TrainConfig, walk_forward_returns
from glow_bt.training import returns as module
from glow_bt.training.returns import ReturnFitter
from tests.models import sp500_bars

DAY = 86_400.0
LEVELS = (0.01, 0.05, 0.95, 0.99)
CONFIG = TrainConfig(return_members=2, return_hidden_dim=4)
FOLDS = walk_forward_folds(900, 3, purge=62, test_fraction=0.5)
FIRST = FOLDS[0].test.start
QUICK = Recalibration(step=0.05)


@pytest.fixture(autouse=True, scope="module")
def _few_steps():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_STEPS", 12)
        yield


@pytest.fixture(scope="module")
def bars():
    return sp500_bars(0, 900)


@pytest.fixture(scope="module")
def forecasts(bars):
    return walk_forward_returns(bars, FOLDS, LEVELS, config=CONFIG, recalibration=QUICK)


def models_by_hand(bars):
    """One model a fold, of all bars before its test block."""
    stamps, array = bars.index.as_unit("ns").asi8, bars.to_numpy()
    for fold in FOLDS:
        known = slice(fold.train.start, fold.test.start)
        yield fold, ReturnFitter(CONFIG).fit(array[known], stamps[known], DAY, ContextSpec())[0]


def test_row_i_is_the_return_into_test_bar_i(bars, forecasts):
    log_close = np.log(bars["close"].to_numpy())
    for own in forecasts:
        assert own.levels == LEVELS
        np.testing.assert_allclose(
            own.returns, log_close[FIRST:900] - log_close[FIRST - 1 : 899], rtol=0, atol=1e-14
        )
        assert np.isfinite(own.quantiles).all()
        assert np.isfinite(own.shortfalls).all()
        assert (np.diff(own.quantiles, axis=1) > 0).all()
        assert (own.shortfalls[:, 0] < own.quantiles[:, 0]).all()
        assert (own.shortfalls[:, -1] > own.quantiles[:, -1]).all()


def test_they_are_those_of_a_model_a_fold_and_of_quantiles_that_are_tracked(bars, forecasts):
    """The recalibration by hand, over all folds as one."""
    plain, recalibrated = forecasts
    stamps, array = bars.index.as_unit("ns").asi8, bars.to_numpy()
    q, row = norm.ppf(0.05), 0
    for fold, model in models_by_hand(bars):
        known = slice(fold.test.start - 121, fold.test.stop - 1)
        distribution = model.distribution(model.contexts(array[known], stamps[known]))
        rows = slice(row, row + len(fold.test))
        own = plain.rows(rows)
        for column, level in enumerate(LEVELS):
            np.testing.assert_allclose(own.quantiles[:, column], distribution.quantile(level))
            np.testing.assert_allclose(own.shortfalls[:, column], distribution.shortfall(level))
        np.testing.assert_allclose(own.log_prob, distribution.log_prob(own.returns))
        latents = distribution.latent(own.returns)
        np.testing.assert_allclose(own.pit, norm.cdf(latents), rtol=1e-9)
        for i, z in enumerate(latents):
            at = distribution.rows(slice(i, i + 1)).at_latent(np.array([[q]]))[0, 0]
            assert recalibrated.quantile(0.05)[row] == pytest.approx(at, rel=1e-9)
            q += 0.05 * (0.05 - (z < q))
            row += 1
    assert row == len(plain)
    assert not np.allclose(plain.quantiles, recalibrated.quantiles, rtol=1e-3)


@pytest.mark.parametrize(
    "cut", [FIRST - 1, FIRST, FOLDS[1].test.start - 1, FOLDS[1].test.start + 40]
)
def test_no_forecast_knows_a_later_bar(bars, forecasts, cut):
    """Row i is known at the close of bar FIRST - 1 + i."""
    others = bars.copy()
    rng = np.random.default_rng(0)
    others.iloc[cut + 1 :] *= np.exp(rng.normal(0, 0.3, (899 - cut, 1))) * [1, 1, 1, 1, 2]
    changed = walk_forward_returns(others, FOLDS, LEVELS, config=CONFIG, recalibration=QUICK)
    known = slice(0, cut - FIRST + 2)
    for own, other in zip(forecasts, changed, strict=True):
        # Rows are read off together: the last bit may hang on their neighbours.
        np.testing.assert_allclose(own.quantiles[known], other.quantiles[known], rtol=1e-13)
        np.testing.assert_allclose(own.shortfalls[known], other.shortfalls[known], rtol=1e-13)
        assert not np.allclose(own.quantiles[known.stop :], other.quantiles[known.stop :])


def test_bars_before_the_first_training_block_take_no_part(bars, forecasts):
    older = sp500_bars(0, 1000)
    later = [
        Fold(*(range(b.start + 100, b.stop + 100) for b in (f.train, f.validation, f.test)))
        for f in FOLDS
    ]
    own = walk_forward_returns(older, later, LEVELS, config=CONFIG)
    alone = walk_forward_returns(older.iloc[100:], FOLDS, LEVELS, config=CONFIG)
    for a, b in zip(own, alone, strict=True):
        np.testing.assert_allclose(a.quantiles, b.quantiles, rtol=1e-9)


def test_a_spec_that_is_given_is_taken(bars):
    spec = ContextSpec(window=60, volume=False)
    plain, _ = walk_forward_returns(bars, FOLDS[:1], LEVELS, config=CONFIG, spec=spec)
    default, _ = walk_forward_returns(bars, FOLDS[:1], LEVELS, config=CONFIG)
    assert not np.allclose(plain.quantiles, default.quantiles, rtol=1e-3)


def test_a_funding_rate_takes_part_where_the_bars_have_one(bars):
    rng = np.random.default_rng(0)
    funded = bars.assign(funding_rate=rng.normal(0, 1e-4, len(bars)))
    own, _ = walk_forward_returns(funded, FOLDS[:1], LEVELS, config=CONFIG)
    plain, _ = walk_forward_returns(bars, FOLDS[:1], LEVELS, config=CONFIG)
    assert np.isfinite(own.quantiles).all()
    assert not np.allclose(own.quantiles, plain.quantiles, rtol=1e-3)


def test_horizons_change_nothing_and_progress_counts_the_members_of_one(bars):
    told = []
    config = replace(CONFIG, return_horizons=(1, 24))
    own, _ = walk_forward_returns(
        bars, FOLDS, LEVELS, config=config, progress=lambda *step: told.append(step)
    )
    assert told == [("flow", number, 6) for number in range(1, 7)]
    plain, _ = walk_forward_returns(bars, FOLDS, LEVELS, config=CONFIG)
    np.testing.assert_array_equal(own.quantiles, plain.quantiles)


def test_without_folds_or_bars_nothing_is_forecast(bars):
    with pytest.raises(ConfigError, match="expected at least 1 fold, found none"):
        walk_forward_returns(bars, [], LEVELS)
    early = [Fold(range(200), range(200, 250), range(250, 300))]
    with pytest.raises(
        TooFewBarsError, match="density of returns needs at least 321 bars, found 250"
    ):
        walk_forward_returns(bars, early, LEVELS)
    still = bars.assign(open=1.0, high=1.0, low=1.0, close=1.0)
    with pytest.raises(DataError, match="expected closes that move"):
        walk_forward_returns(still, FOLDS, LEVELS, config=CONFIG)
    with pytest.raises(ConfigError, match="expected levels"):
        walk_forward_returns(bars, FOLDS[:1], (0.05, 0.01), config=CONFIG)
