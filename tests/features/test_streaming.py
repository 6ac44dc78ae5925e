import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glow_bt.errors import FeatureError
from glow_bt.features import (
    DEFAULT_SPEC,
    FeatureSpec,
    FeatureStream,
    feature_array,
    volatility_array,
)


def stream_all(bars, spec=None):
    """Run a stream over bars (N, 5): states (N, 16), NaN for None, and volatilities (N,)."""
    stream = FeatureStream(spec)
    states = np.full((len(bars), 16), np.nan)
    volatility = np.empty(len(bars))
    for row, bar in enumerate(bars.tolist()):
        state = stream.update(bar)
        if state is not None:
            states[row] = state
        volatility[row] = stream.volatility
    return states, volatility


def assert_equal_to_batch(bars, spec=DEFAULT_SPEC):
    states, volatility = stream_all(bars, spec)
    np.testing.assert_allclose(states, feature_array(bars, spec), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(volatility, volatility_array(bars[:, 3], spec), rtol=1e-9)


def test_equal_to_batch_on_whole_markets(market):
    assert_equal_to_batch(market.to_numpy())


@pytest.mark.parametrize("spec", [FeatureSpec(3, 10, 20), FeatureSpec(7, 29, 101)])
def test_equal_to_batch_with_other_windows(market, spec):
    assert_equal_to_batch(market.to_numpy()[:1500], spec)


@pytest.mark.parametrize("start", [1, 61, 977, 4000])
def test_equal_to_the_whole_history_from_any_start(market, start):
    bars = market.to_numpy()
    states, volatility = stream_all(bars[start : start + 300])
    whole = slice(start + 61, start + 300)
    np.testing.assert_allclose(states[61:], feature_array(bars)[whole], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(volatility[61:], volatility_array(bars[:, 3])[whole], rtol=1e-9)


# Kind of bars and how many of them in a row.
KINDS = {
    "usual": lambda rng: (0.01 * rng.standard_normal(), 0.01 * rng.random(2), rng.lognormal()),
    "still": lambda rng: (0.0, np.zeros(2), 0.0),
    "traded but still": lambda rng: (0.0, np.zeros(2), rng.lognormal()),
    "crash": lambda rng: (-3.0 * rng.random(), rng.random(2), 1e9 * rng.random()),
    "rally": lambda rng: (3.0 * rng.random(), rng.random(2), 1e9 * rng.random()),
    "a hair's breadth": lambda rng: (1e-9 * rng.standard_normal(), np.zeros(2), 1e-6),
    "wicks only": lambda rng: (0.0, 0.3 * rng.random(2), rng.lognormal()),
}
runs = st.lists(st.tuples(st.sampled_from(sorted(KINDS)), st.integers(1, 90)), max_size=8)


def rough_bars(kinds, seed):
    rng = np.random.default_rng(seed)
    close, rows = 100.0, []
    for kind, length in [("usual", 62), *kinds]:
        for _ in range(length):
            step, wicks, volume = KINDS[kind](rng)
            if not 1e-30 < close < 1e30:
                step = -np.sign(np.log(close)) * abs(step)
            open_, close = close, close * np.exp(step)
            high = max(open_, close) * np.exp(wicks[0])
            low = min(open_, close) * np.exp(-wicks[1])
            rows.append([open_, high, low, close, volume])
    return np.array(rows)


@settings(max_examples=60, deadline=None)
@given(runs, st.integers(0, 2**32 - 1))
def test_equal_to_batch_and_finite_on_rough_markets(kinds, seed):
    bars = rough_bars(kinds, seed)
    assert np.isfinite(feature_array(bars)[61:]).all()
    assert_equal_to_batch(bars)


def test_nothing_is_left_of_a_crash_when_flat_bars_follow():
    bars = rough_bars([("crash", 3), ("still", 150), ("usual", 1), ("still", 100)], seed=5)
    states, volatility = stream_all(bars)
    assert (states[-1] == 0.0).all()
    assert volatility[-1] == DEFAULT_SPEC.sigma_floor


@pytest.mark.parametrize(
    "broken",
    [
        [1.0, np.nan, 1.0, 1.0, 1.0],
        [1.0, 1.0, -1.0, 1.0, 1.0],
        [1.0, 1.0, 1.0, 1.0, np.nan],
        [1.0, 2.0],
        {"open": 1.0},
    ],
)
@pytest.mark.parametrize("after", [0, 30, 61, 80])
def test_a_broken_bar_leaves_the_stream_as_it_was(markets, broken, after):
    bars = markets["gapless"].to_numpy()[:120].tolist()
    smooth, disturbed = FeatureStream(), FeatureStream()
    for row, bar in enumerate(bars):
        if row == after:
            before = disturbed.volatility
            with pytest.raises(FeatureError):
                disturbed.update(broken)
            np.testing.assert_equal(disturbed.volatility, before)
        expected, got = smooth.update(bar), disturbed.update(bar)
        assert (expected is None) == (got is None) == (row < 61)
        if expected is not None:
            np.testing.assert_array_equal(got, expected)


def test_bars_by_name(markets):
    frame = markets["sp500"].iloc[:70]
    by_order, by_name, by_row = FeatureStream(), FeatureStream(), FeatureStream()
    for (_, row), values in zip(frame.iterrows(), frame.to_numpy(), strict=True):
        first = by_order.update(values)
        second = by_name.update(row[::-1].to_dict() | {"funding_rate": 0.0})
        third = by_row.update(row[::-1])
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, third)
    assert first.dtype == np.float64


def test_streams_share_nothing(markets):
    bars = markets["nasdaq"].to_numpy()[:200]
    alone, _ = stream_all(bars)
    stream, other = FeatureStream(), FeatureStream()
    for row, bar in enumerate(bars):
        state = stream.update(bar)
        other.update(bar * 2.0 if row % 2 else bar)
    np.testing.assert_array_equal(state, alone[-1])
