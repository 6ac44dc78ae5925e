import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glow_bt.errors import ConfigError
from glow_bt.features import ContextSpec, context_rows
from glow_bt.features.return_context import ReturnContext, returns_only


def as_bars(returns):
    """Flat bars whose closes make these log returns."""
    close = 100 * np.exp(np.concatenate([[0.0], np.cumsum(returns)]))
    return np.column_stack([close, close, close, close, np.ones_like(close)])


def windows_of(returns, window):
    return np.lib.stride_tricks.sliding_window_view(returns, window).T


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.floats(1e-5, 0.3),
    window=st.sampled_from([1, 7, 120]),
    floor=st.sampled_from([1e-6, 0.01]),
)
def test_it_is_what_bars_of_the_same_closes_give(seed, size, window, floor):
    returns = size * np.random.default_rng(seed).standard_t(4, size=200)
    spec = returns_only(ContextSpec(window=window, least_volatility=floor))
    bars = as_bars(returns)
    theirs = context_rows(bars, np.arange(len(bars)), 86_400.0, spec)
    ours = ReturnContext(spec)(windows_of(returns, window))
    assert ours.values.shape[1] == len(spec.names)
    # Closes are rounded before their ratios are taken: 1e-9 of a volatility, not of a return.
    np.testing.assert_allclose(ours.values, theirs.values, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(ours.volatility, theirs.volatility, rtol=1e-9)


def test_a_market_that_stands_still_has_a_finite_context():
    spec = returns_only(ContextSpec())
    rows = ReturnContext(spec)(np.zeros((spec.window, 3)))
    assert np.isfinite(rows.values).all()
    np.testing.assert_allclose(rows.volatility, spec.least_volatility)


def test_half_lives_other_than_the_default_take_part():
    spec = returns_only(ContextSpec(window=30, half_lives=(3.0,), return_half_lives=(2.0, 9.0)))
    returns = 0.01 * np.random.default_rng(0).standard_normal(80)
    bars = as_bars(returns)
    theirs = context_rows(bars, np.arange(len(bars)), 3600.0, spec)
    ours = ReturnContext(spec)(windows_of(returns, 30))
    np.testing.assert_allclose(ours.values, theirs.values, atol=1e-9)


def test_what_needs_more_than_closes_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"range_1, .*volume_last.*; leave out ranges"):
        ReturnContext(ContextSpec())
    with pytest.raises(ConfigError, match="weekend"):
        ReturnContext(ContextSpec(range_half_lives=(), volume=False, calendar=True))
    assert returns_only(ContextSpec(window=9, calendar=True)).window == 9
