import backtrader as bt
import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from glow_bt.bt.stamps import from_index, to_index, to_nanoseconds

milliseconds = st.lists(st.integers(0, 4_000_000_000_000), min_size=1, max_size=20, unique=True)


@given(milliseconds)
def test_whole_milliseconds_survive_the_round_trip(values):
    index = pd.DatetimeIndex(np.array(values) * 1_000_000, tz="UTC")
    days = from_index(index)
    assert to_nanoseconds(days).tolist() == index.asi8.tolist()
    assert (to_index(days) == index).all()


@given(milliseconds)
def test_days_are_those_of_backtrader(values):
    index = pd.DatetimeIndex(np.array(values) * 1_000_000, tz="UTC")
    expected = [bt.date2num(stamp.to_pydatetime()) for stamp in index]
    # Backtrader rounds hours, minutes and seconds one by one: the last bit may differ.
    np.testing.assert_allclose(from_index(index), expected, rtol=0, atol=2e-10)


def test_whole_minutes_are_backtrader_s_to_the_bit():
    index = pd.date_range("1999-01-01", "2031-01-01", freq="1001min", tz="UTC")
    expected = [bt.date2num(stamp.to_pydatetime()) for stamp in index]
    assert from_index(index).tolist() == expected


def test_the_index_is_that_of_a_bar_frame():
    index = to_index([])
    assert index.name == "timestamp"
    assert str(index.tz) == "UTC"
    assert len(index) == 0
