import datetime as dt

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datafeeds.bybit_time import (
    TIMEFRAMES,
    as_utc,
    timeframe_of,
    to_epoch_ms,
    windows,
)
from glow_bt.errors import ConfigError

STAMPS = st.integers(-(10**12), 4 * 10**12)
ANY_TIMEFRAME = st.sampled_from(list(TIMEFRAMES.values()))


@given(ANY_TIMEFRAME, STAMPS)
def test_floor_and_ceil_are_the_grid_points_on_either_side(timeframe, stamp):
    floor, ceil = timeframe.floor(stamp), timeframe.ceil(stamp)
    assert floor <= stamp <= ceil
    assert ceil - floor in (0, timeframe.step_ms)
    assert (ceil == floor) == (floor == stamp)
    assert timeframe.floor(ceil) == ceil


@pytest.mark.parametrize("name", TIMEFRAMES)
def test_grid_is_that_of_pandas(name):
    frequency = {"1d": "D", "1w": "W-MON"}.get(name, name.replace("m", "min"))
    grid = pd.date_range("2023-12-31", "2024-02-01", freq=frequency, tz="UTC").as_unit("ms").asi8
    timeframe = timeframe_of(name)
    assert [timeframe.floor(stamp) for stamp in grid.tolist()] == grid.tolist()
    assert set(np.diff(grid).tolist()) == {timeframe.step_ms}


@pytest.mark.parametrize("name", ["7m", "1M", "1H", "", "60"])
def test_unsupported_timeframe_lists_the_supported(name):
    with pytest.raises(ConfigError, match=r"expected a timeframe among 1m, 3m, .* 1d, 1w, found"):
        timeframe_of(name)


@pytest.mark.parametrize(
    "stamp",
    [
        "2024-01-31T12:00",
        "2024-01-31 13:00+01:00",
        1706702400000,
        np.int64(1706702400000),
        dt.datetime(2024, 1, 31, 12),  # noqa: DTZ001
        dt.datetime(2024, 1, 31, 12, tzinfo=dt.UTC),
        pd.Timestamp("2024-01-31T07:00", tz="America/New_York"),
        np.datetime64("2024-01-31T12:00"),
    ],
)
def test_moments_are_read_as_utc(stamp):
    assert as_utc(stamp, "since") == pd.Timestamp("2024-01-31T12:00", tz="UTC")


@pytest.mark.parametrize("stamp", ["yesterdayish", "", None, pd.NaT, [1], 10**30, 1.7e12, True])
def test_what_is_no_moment_is_refused_by_name(stamp):
    with pytest.raises(ConfigError, match="expected until as a date such as"):
        as_utc(stamp, "until")


@pytest.mark.parametrize(
    "text", ["0001-01-01", "1969-12-31T23:59:59.999", "2024-01-31", "9999-12-31"]
)
def test_epoch_milliseconds_of_any_year(text):
    moment = as_utc(text, "since")
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    utc = dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)
    expected = (utc - epoch) / dt.timedelta(milliseconds=1)
    assert to_epoch_ms(moment) == expected


@given(STAMPS, st.integers(0, 5000), st.integers(1, 10**6), st.integers(1, 1500))
def test_windows_are_a_partition_in_order(first, count, step, limit):
    opens = range(first, first + count * step, step)
    parts = list(windows(opens, limit))
    assert [stamp for part in parts for stamp in part] == list(opens)
    assert all(len(part) == limit for part in parts[:-1])
    assert all(1 <= len(part) <= limit for part in parts)
