import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glow_bt.features.accumulators import Lag, RollingMax, RollingSum

values_of_any_size = st.lists(
    st.one_of(st.just(0.0), st.floats(-1e8, 1e8), st.floats(-1e-8, 1e-8)), max_size=200
)


@settings(max_examples=100, deadline=None)
@given(values_of_any_size, st.integers(1, 30))
def test_rolling_sum(values, window):
    rolling = RollingSum(window)
    for end, value in enumerate(values, 1):
        leaving = rolling.push(value)
        assert leaving == (values[end - window - 1] if end > window else 0.0)
        inside = values[max(end - window, 0) : end]
        # Carried to twice the digits: 32 of them, of the largest value ever seen.
        assert rolling.total == pytest.approx(math.fsum(inside), rel=1e-14, abs=1e-21)


def test_zero_is_zero_after_anything():
    rolling = RollingSum(7)
    for value in np.random.default_rng(0).lognormal(sigma=20.0, size=1000):
        rolling.push(value)
    for _ in range(7):
        rolling.push(0.0)
    assert rolling.total == 0.0


def test_nothing_drifts():
    rng = np.random.default_rng(1)
    values = rng.standard_normal(100_000) ** 2 * np.where(rng.random(100_000) < 0.01, 1e4, 1e-8)
    rolling = RollingSum(20)
    for value in values.tolist():
        rolling.push(value)
    for _ in range(20):
        rolling.push(1e-12)
    assert rolling.total == pytest.approx(20e-12, rel=1e-12)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-3, 3).map(float), max_size=100), st.integers(1, 12))
def test_rolling_max(values, window):
    rolling = RollingMax(window)
    for end, value in enumerate(values, 1):
        assert rolling.push(value) == max(values[max(end - window, 0) : end])


def test_lag():
    lag = Lag(3)
    assert [lag.push(value) for value in (1.0, 2.0, 3.0, 4.0, 5.0)] == [0.0, 0.0, 0.0, 1.0, 2.0]
