import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glow_bt.features.windows import nested_means, rolling_max, rolling_min, rolling_sum


@pytest.mark.parametrize("window", [1, 2, 3, 5, 7, 8, 20, 60, 63, 64, 65])
@pytest.mark.parametrize("count", [1, 2, 65, 200])
def test_every_window(window, count):
    values = np.random.default_rng(window).standard_normal((2, count))
    ends = range(window, count + 1)
    for rolling, exact in ((rolling_sum, math.fsum), (rolling_max, max), (rolling_min, min)):
        expected = [[exact(row[end - window : end]) for end in ends] for row in values]
        got = rolling(values, window)
        assert got.shape == (2, max(count - window + 1, 0))
        if ends:
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-14)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 70), st.integers(0, 100), st.integers(0, 2**32 - 1))
def test_a_window_knows_nothing_of_its_neighbours(window, before, seed):
    values = np.exp(np.random.default_rng(seed).uniform(-20, 20, window))
    alone = rolling_sum(values, window)[0]
    among = rolling_sum(np.concatenate([np.full(before, 1e300), values, [np.nan]]), window)[before]
    assert alone == among


def test_quiet_values_after_a_huge_one_are_summed_exactly():
    values = np.concatenate([[1e16], np.full(40, 0.1)])
    np.testing.assert_allclose(rolling_sum(values, 20)[1:], 2.0, rtol=1e-15)


def test_nested_means():
    values = np.arange(1.0, 61.0)
    sums = (values[55:].sum(), values[40:55].sum(), values[:40].sum())
    means = nested_means(sums, (5, 20, 60))
    assert means.short == values[55:].mean()
    assert means.before_short == values[40:55].mean()
    assert means.medium == values[40:].mean()
    assert means.before_medium == values[:40].mean()
    assert means.long == values.mean()
