import math

import numpy as np
import pandas as pd
import pytest

from glow_bt.errors import FeatureError
from glow_bt.features.bars import Bar, as_bar, as_columns

GOOD = {"open": 10.0, "high": 12.0, "low": 9.0, "close": 11.0, "volume": 3.0}


@pytest.mark.parametrize(
    "bar",
    [
        GOOD,
        GOOD | {"funding_rate": 0.1},
        {name: GOOD[name] for name in reversed(GOOD)},
        pd.Series(GOOD)[::-1],
        tuple(GOOD.values()),
        list(GOOD.values()),
        np.array(list(GOOD.values())),
        Bar(**GOOD),
    ],
)
def test_as_bar_takes(bar):
    read = as_bar(bar)
    assert read == Bar(10.0, 12.0, 9.0, 11.0, 3.0)
    assert all(type(value) is float for value in read)


BROKEN = [
    {"open": math.nan},
    {"high": math.inf},
    {"close": -11.0},
    {"open": 0.0, "low": 0.0},
    {"volume": -1.0},
    {"volume": math.nan},
    {"volume": math.inf},
    {"high": 8.0},
    {"close": 12.5},
    {"open": 8.5},
    {"low": 1e-300},
    {"volume": 1e200},
]


@pytest.mark.parametrize("change", BROKEN, ids=str)
def test_a_broken_bar_is_refused_alone_and_among_others(change):
    bar = GOOD | change
    with pytest.raises(FeatureError, match=r"expected prices above 0.*found the bar with open="):
        as_bar(bar)
    rows = np.array([list(GOOD.values())] * 3 + [list(bar.values())])
    with pytest.raises(FeatureError, match=r"found bar 3 with open=.*correct or remove it"):
        as_columns(rows)


@pytest.mark.parametrize("bar", [(1.0, 2.0), {"open": 1.0}, dict.fromkeys(GOOD, "x"), 5.0, None])
def test_what_is_no_bar_is_refused(bar):
    with pytest.raises(FeatureError, match="numbers open, high, low, close, volume"):
        as_bar(bar)


def test_as_columns():
    rows = np.array([list(GOOD.values())] * 3)
    columns = as_columns(rows)
    assert columns.shape == (5, 3)
    assert columns.flags.c_contiguous
    np.testing.assert_array_equal(columns.T, rows)
    assert as_columns(np.empty((0, 5))).shape == (5, 0)


@pytest.mark.parametrize("shape", [(5,), (3, 4), (3, 7), (2, 3, 5)])
def test_as_columns_refuses_other_shapes(shape):
    with pytest.raises(FeatureError, match=r"shape \(N, 5\) in the order open, high, low"):
        as_columns(np.ones(shape))
