import functools
import time
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from glow_bt.artifact.path_starts import regime_windows
from glow_bt.artifact.paths import next_returns
from glow_bt.errors import ArtifactError, ConfigError, DataError, TooFewBarsError
from glow_bt.features import ContextSpec, context_rows
from glow_bt.training.paths import fit_paths
from tests.models import small_artifact, small_config, sp500_bars
from tests.path_models import known_model

# What of a distribution has a value a row.
SHAPES = ("scale", "left", "right")


@functools.cache
def fitted():
    """A path model of 1,000 days until late 2002."""
    return fit_paths(sp500_bars(0, 1000), small_config(return_members=2), floors=(0.5,))


def test_returns_of_a_constant_scale_have_the_law_of_the_flow():
    # The window's variance is nothing beside the floor of 1, so every return is scaled alike.
    model = known_model(1e-4, floor=1.0)
    paths = model.simulate(200, 100, start=np.zeros(30), seed=1)
    law = model.returns.fused(1).distribution(np.zeros((1, 14)))
    repeated = replace(law, **{k: np.repeat(getattr(law, k), 20_000) for k in SHAPES})
    uniform = repeated.cdf(paths.returns.ravel())
    assert stats.kstest(uniform, "uniform").pvalue > 0.01
    assert stats.kstest(repeated.cdf(1.05 * paths.returns.ravel()), "uniform").pvalue < 0.05


def test_variance_returns_to_what_the_floor_says():
    # E r^2 = s^2 (1.0025 E r^2 + floor^2), nearly normal y.
    model = known_model(np.sqrt(0.7), index=1e6)
    for start in (0.0005, 0.05):
        begin = start * np.resize([1.0, -1.0], 30)
        returns = model.simulate(2000, 400, start=begin, seed=2).returns
        expected = 0.7 * 0.01**2 / (1 - 0.7 * 1.0025)
        assert np.mean(returns[:, 200:] ** 2) == pytest.approx(expected, rel=0.05)


def test_each_return_is_the_draw_given_the_context_of_the_closes_before_it():
    model = fitted()
    start = sp500_bars(0, 1000)
    paths = model.simulate(3, 50, start=start, seed=5)
    past = np.diff(np.log(start["close"].to_numpy()))[-model.window :]
    # What the path drew: its generator, in the same order (starts first, then one bar a draw).
    rng = np.random.default_rng(5)
    rng.integers(1, size=3)
    z = rng.standard_normal((50, 3))
    for k in range(3):
        returns = np.concatenate([past, paths.returns[k]])
        close = np.exp(np.concatenate([[0.0], np.cumsum(returns)]))
        bars = np.column_stack([close] * 4 + [np.ones_like(close)])
        rows = context_rows(bars, np.arange(len(bars)), 86_400.0, model.returns.spec)
        scaled = type(rows)(model.returns.scaler.transform(rows.values), rows.volatility)
        latents = model.returns.distribution(scaled.rows(slice(0, 50))).latent(paths.returns[k])
        np.testing.assert_allclose(latents, z[:, k], atol=1e-8)


def test_seeds_reproduce_and_longer_paths_begin_as_shorter_ones():
    start = sp500_bars(0, 500)
    first = fitted().simulate(4, 30, start=start, seed=3)
    again = fitted().simulate(4, 60, start=start, seed=3)
    other = fitted().simulate(4, 30, start=start, seed=4)
    np.testing.assert_array_equal(first.returns, again.returns[:, :30])
    assert not np.isin(first.returns, other.returns).any()
    assert len(np.unique(first.returns)) == first.returns.size


def test_only_the_last_window_of_a_start_counts():
    bars = sp500_bars(0, 500)
    returns = np.diff(np.log(bars["close"].to_numpy()))
    expected = fitted().simulate(2, 5, start=bars).returns
    for start in (returns, returns[-120:], returns[None, -200:], bars.iloc[-121:]):
        np.testing.assert_array_equal(fitted().simulate(2, 5, start=start).returns, expected)


def test_paths_from_a_wild_state_start_wilder_than_from_a_calm_one():
    history = sp500_bars(0, 1000)
    volatility = np.log(history["close"]).diff().rolling(20).std()
    wild, calm = int(volatility.argmax()), 130 + int(volatility.iloc[130:].argmin())
    spread = [
        fitted().simulate(500, 10, start=history.iloc[: bar + 1], seed=6).returns.std()
        for bar in (wild, calm)
    ]
    assert spread[0] > 1.5 * spread[1]


def test_a_regime_gives_its_own_starts_and_paths_of_its_volatility():
    history = sp500_bars(0, 1000)
    wild = (np.log(history["close"]).diff().rolling(20).std() > 0.014).to_numpy().astype(int)
    spread = {}
    for regime in (0, 1):
        windows = regime_windows(history, wild, regime, fitted().window)
        paths = fitted().simulate(300, 5, start=windows, seed=7)
        assert np.isfinite(paths.returns).all()
        spread[regime] = paths.returns.std()
    assert spread[1] > 1.3 * spread[0]


def test_starts_are_drawn_from_the_windows_given_and_from_all_of_them():
    # Each window has a volatility of its own, which the first return shows.
    sizes = np.array([0.1, 1.0, 10.0])
    windows = sizes[:, None] * np.resize([1.0, -1.0], 30)
    model = known_model(1.0, index=1e6, floor=1e-6)
    first = model.simulate(3000, 1, start=windows, seed=8).returns[:, 0]
    z = np.random.default_rng(8)
    z.integers(3, size=3000)
    drawn = np.abs(first) / np.abs(z.standard_normal(3000))
    counts = [np.isclose(drawn, size, rtol=0.01).sum() for size in sizes]
    assert sum(counts) == 3000
    assert min(counts) > 900


def test_an_explosive_flow_is_held_by_the_limit_and_says_so():
    # s^2 = 4: each bar's variance is four times the window's.
    start = 0.01 * np.ones(30)
    free = known_model(2.0, index=50.0).simulate(100, 400, start=start, seed=9)
    held = known_model(2.0, index=50.0, max_volatility=0.05).simulate(
        100, 400, start=start, seed=9
    )
    assert np.abs(free.returns).max() > 1e6
    assert (free.capped_bars, free.capped_paths) == (0.0, 0.0)
    assert held.returns.std() < 2 * 2.0 * 0.05
    assert np.abs(held.returns).max() < 2.0 * 0.05 * 8
    assert held.capped_paths == 1.0
    assert 0.5 < held.capped_bars < 1.0
    np.testing.assert_allclose(held.capped_bars, held.capped.mean())


def test_a_start_beyond_the_limit_is_cut_and_counted():
    model = known_model(0.5, index=50.0, max_volatility=0.02)
    paths = model.simulate(10, 1, start=np.resize([1.0, -1.0], 30), seed=10)
    assert paths.capped_paths == 1.0
    assert np.abs(paths.returns).max() < 0.02 * 0.5 * 6


def test_paths_of_a_halted_market_go_on():
    paths = fitted().simulate(20, 200, start=np.zeros(fitted().window), seed=11)
    assert np.isfinite(paths.returns).all()
    assert paths.returns.std() > 0.1 * fitted().returns.spec.least_volatility


def test_prices_follow_the_last_close():
    paths = fitted().simulate(2, 4, start=sp500_bars(0, 500))
    prices = paths.prices(50.0)
    np.testing.assert_allclose(np.log(prices[:, 0] / 50.0), paths.returns[:, 0])
    np.testing.assert_allclose(np.diff(np.log(prices)), paths.returns[:, 1:])


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"num_paths": 0}, ConfigError, "num_paths of at least 1, found 0"),
        ({"num_bars": 0}, ConfigError, "num_bars of at least 1, found 0"),
        ({"seed": -1}, ConfigError, "seed of 0 or more, found -1"),
        ({"start": np.zeros(29)}, TooFewBarsError, "needs at least 31 bars, found 30"),
        ({"start": []}, TooFewBarsError, "needs at least 31 bars, found 0"),
        ({"start": np.full(30, np.nan)}, DataError, "found NaN"),
        ({"start": np.zeros((0, 30))}, DataError, r"found \(0, 30\)"),
        ({"start": np.zeros((2, 2, 30))}, DataError, "found"),
    ],
)
def test_what_cannot_be_simulated_is_refused(changes, error, told):
    call = {"num_paths": 2, "num_bars": 2, "start": np.zeros(30)} | changes
    with pytest.raises(error, match=told):
        known_model(1.0).simulate(call.pop("num_paths"), call.pop("num_bars"), **call)


def test_a_short_frame_says_how_many_bars_it_needs():
    with pytest.raises(TooFewBarsError, match="needs at least 121 bars, found 100"):
        fitted().simulate(1, 1, start=sp500_bars(0, 100))


def test_a_limit_at_the_floor_or_a_context_with_volumes_is_refused():
    with pytest.raises(ArtifactError, match=r"max_volatility above the floor 0\.01"):
        known_model(1.0, max_volatility=0.01)
    with pytest.raises(ConfigError, match="returns_only"):
        replace(fitted(), returns=small_artifact().returns)


def test_the_next_return_has_the_law_that_the_model_gives():
    model = small_artifact().returns
    bars = sp500_bars(500, 700)
    draws = next_returns(model, bars, 4000, seed=12)
    law = model.distribution(model.contexts(*model.inputs(bars)).rows(slice(-1, None)))
    repeated = replace(law, **{k: np.repeat(getattr(law, k), 4000) for k in SHAPES})
    assert stats.kstest(repeated.cdf(draws), "uniform").pvalue > 0.01
    np.testing.assert_array_equal(draws[:9], next_returns(model, bars, 9, seed=12))


def test_next_returns_refuse_what_they_cannot_draw():
    model, bars = small_artifact().returns, sp500_bars(0, 300)
    with pytest.raises(ConfigError, match="num_draws of at least 1, found 0"):
        next_returns(model, bars, 0)
    with pytest.raises(ConfigError, match="expected a horizon among 1"):
        next_returns(model, bars, 5, horizon=7)
    with pytest.raises(TooFewBarsError, match="needs at least 121 bars, found 50"):
        next_returns(model, bars.iloc[:50], 5)
    assert ContextSpec().min_bars == 121


def test_a_thousand_paths_of_five_hundred_bars_take_seconds():
    model = fitted()
    started = time.process_time()
    model.simulate(1000, 500, start=sp500_bars(0, 500))
    assert time.process_time() - started < 10
