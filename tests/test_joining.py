import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glow_bt.errors import ConfigError, DataError
from glow_bt.joining import join_as_of, stamped_values
from glow_bt.ohlcv import validate_bars
from tests.bt.market import random_bars
from tests.models import utc

HOUR = pd.Timedelta(hours=1)
START = utc("2024-01-01")


def at(hours, values):
    index = pd.DatetimeIndex([START + hour * HOUR for hour in hours], tz="UTC")
    return pd.Series(values, index=index, dtype=float)


def test_a_value_counts_from_its_own_stamp_on_and_a_bar_is_used_at_its_close():
    """The bar opened at 1 is used at 2: it knows the value of 1.5, not that of 2."""
    bars = random_bars(5)
    joined = join_as_of(bars, at([1.5, 2, 4.999], [0.1, 0.2, 0.3]), at([0, 3], [7.0, 8.0]))
    np.testing.assert_array_equal(joined["funding_rate"], [np.nan, 0.1, 0.2, 0.2, 0.3])
    np.testing.assert_array_equal(joined["open_interest"], [7.0, 7.0, 7.0, 8.0, 8.0])
    pd.testing.assert_frame_equal(validate_bars(joined), joined)
    pd.testing.assert_frame_equal(joined[bars.columns], bars, check_freq=False)


def test_daily_bars_get_the_last_rate_of_their_day():
    bars = random_bars(3, freq="D")
    rates = at(range(0, 72, 8), np.arange(9) / 1000)
    assert join_as_of(bars, rates)["funding_rate"].tolist() == [0.002, 0.005, 0.008]


def test_what_is_not_given_is_not_joined():
    bars = random_bars(4)
    assert list(join_as_of(bars).columns) == list(bars.columns)
    assert list(join_as_of(bars, open_interest=at([0], [1.0])).columns)[-1] == "open_interest"
    assert join_as_of(bars, at([], []))["funding_rate"].isna().all()


STAMPS = st.lists(st.integers(0, 4 * 40), unique=True, max_size=25).map(sorted)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_later_values_and_bars_never_change_an_earlier_row(data):
    """Quarter hours hold values, hours hold bars, some of them missing."""
    hours = data.draw(
        st.lists(st.integers(0, 40), unique=True, min_size=1, max_size=30).map(sorted)
    )
    bars = random_bars(41).iloc[hours]
    series = []
    for low, high in ((-0.01, 0.01), (0.0, 1e9)):
        stamps = data.draw(STAMPS)
        drawn = st.lists(st.floats(low, high), min_size=len(stamps), max_size=len(stamps))
        series.append(at([quarter / 4 for quarter in stamps], data.draw(drawn)))
    whole = join_as_of(bars, *series, interval=HOUR)
    row = data.draw(st.integers(0, len(bars) - 1))
    known_at = bars.index[row] + HOUR
    change = data.draw(st.sampled_from(["cut bars", "cut values", "other values", "all"]))
    kept = bars.iloc[: row + 1] if change in {"cut bars", "all"} else bars
    later = [s[s.index < known_at] if change in {"cut values", "all"} else s for s in series]
    if change == "other values":
        later = [s.where(s.index < known_at, s * -0.5 + 1.0) for s in series]
    found = join_as_of(kept, *later, interval=HOUR)
    pd.testing.assert_frame_equal(found.iloc[: row + 1], whole.iloc[: row + 1], check_freq=False)


@settings(max_examples=60, deadline=None)
@given(STAMPS, st.integers(2, 41))
def test_every_row_is_what_a_look_at_the_list_says(stamps, count):
    values = at([quarter / 4 for quarter in stamps], np.arange(len(stamps)) / 1000)
    joined = join_as_of(random_bars(count), values)
    for stamp, found in joined["funding_rate"].items():
        before = [value for known, value in values.items() if known < stamp + HOUR]
        assert found == before[-1] if before else np.isnan(found)


def test_naive_stamps_are_utc_and_other_zones_are_converted():
    values = at([0, 8], [0.1, 0.2])
    for other in (values.tz_localize(None), values.tz_convert("Asia/Kolkata")):
        pd.testing.assert_series_equal(
            stamped_values(other, "funding_rate"), stamped_values(values, "funding_rate")
        )
    frame = values.to_frame("funding_rate").assign(mark=1.0)
    assert stamped_values(frame, "funding_rate").tolist() == [0.1, 0.2]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.1, 0.2], "as a Series, or a frame with that column, found list"),
        (at([0], [1.0]).to_frame("rate"), r"with that column, found \['rate'\]"),
    ],
)
def test_what_is_no_series_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        join_as_of(random_bars(3), values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pd.Series([0.1, 0.2]), "by stamp, found an index of int64"),
        (at([0, 0], [0.1, 0.2]), "2 stamps of which 1 differ; sort them"),
        (at([8, 0], [0.1, 0.2]), "once and in order"),
        (at([0, 8], [0.1, np.nan]), "finite at every stamp, found nan at 2024-01-01 08:00"),
        (at([0, 8], [np.inf, 0.1]), "found inf at 2024-01-01 00:00"),
        (at([0], [0.1]).astype(object).replace(0.1, "x"), "found x at"),
        (pd.Series([0.1], index=pd.DatetimeIndex([pd.NaT])), "without empty stamps"),
    ],
)
def test_values_that_cannot_be_are_refused(values, message):
    with pytest.raises(DataError, match=message):
        join_as_of(random_bars(3), values)


def test_a_column_is_not_overwritten():
    bars = random_bars(3).assign(funding_rate=0.1)
    with pytest.raises(DataError, match=r"bars without funding_rate.*drop it to join anew"):
        join_as_of(bars, at([0], [0.2]))


def test_an_interval_has_a_length():
    with pytest.raises(ConfigError, match="an interval above 0"):
        join_as_of(random_bars(3), at([0], [0.2]), interval=pd.Timedelta(0))
