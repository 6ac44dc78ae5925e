"""Test blocks that begin where periods of the calendar do."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from glow_bt.errors import ConfigError, TooFewBarsError
from glow_bt.folds import walk_forward_folds
from tests.folds.divisions import in_order, refusal

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def months(stamp, count):
    return (12 * (stamp.year - 1970) + stamp.month - 1) // count


def days(stamp, count):
    return (stamp - EPOCH).days // count


# For each period of pandas its number since 1970, by the calendar of the standard library.
NUMBER = {
    "MS": lambda stamp: months(stamp, 1),
    "3MS": lambda stamp: months(stamp, 3),
    "QS": lambda stamp: months(stamp, 3),
    "6MS": lambda stamp: months(stamp, 6),
    "5MS": lambda stamp: months(stamp, 5),
    "YS": lambda stamp: stamp.year,
    "QS-FEB": lambda stamp: (12 * stamp.year + stamp.month - 2) // 3,
    "W-MON": lambda stamp: (stamp - EPOCH + dt.timedelta(days=3)).days // 7,
    "90D": lambda stamp: days(stamp, 90),
    "36h": lambda stamp: (stamp - EPOCH) // dt.timedelta(hours=36),
    pd.DateOffset(months=2): lambda stamp: months(stamp, 2),
}


@st.composite
def histories(draw):
    """Bar opens of an hour to a day, some of them missing, from 1960 on."""
    step = draw(st.sampled_from(["1h", "4h", "1D", "7h"]))
    first = pd.Timestamp("1960-01-01", tz="UTC") + pd.Timedelta(
        hours=draw(st.integers(0, 580_000))
    )
    whole = pd.date_range(first, periods=draw(st.integers(300, 2500)), freq=step)
    kept = np.ones(len(whole), dtype=bool)
    for start in draw(st.lists(st.integers(0, len(whole) - 1), max_size=4)):
        kept[start : start + draw(st.integers(1, 300))] = False
    return whole[kept]


def settings_of(draw, **more):
    return {
        "purge": draw(st.integers(0, 40)),
        "test_fraction": draw(st.floats(0.1, 0.9)),
        "test_every": draw(st.sampled_from(list(NUMBER))),
        "expanding": draw(st.booleans()),
        "min_train": 20,
        "min_validation": 5,
    } | more


@settings(max_examples=60)
@given(st.data(), histories())
def test_blocks_begin_with_the_first_bar_of_a_period_and_tile_what_follows(data, index):
    chosen = settings_of(data.draw, index=index)
    assume(refusal(walk_forward_folds, len(index), chosen) is None)
    folds = walk_forward_folds(len(index), **chosen)
    number = [NUMBER[chosen["test_every"]](stamp.to_pydatetime()) for stamp in index]
    first = round(len(index) * (1 - chosen["test_fraction"]))
    starts = [t for t in range(max(first, 1), len(index)) if number[t] != number[t - 1]]
    assert [fold.test.start for fold in folds] == starts
    assert [bar for fold in folds for bar in fold.test] == list(range(starts[0], len(index)))
    for fold in folds:
        assert len({number[bar] for bar in fold.test}) == 1
        in_order(fold, len(index), chosen["purge"])
        assert fold.test.start - fold.validation.stop == chosen["purge"]
    if chosen["expanding"]:
        assert {fold.train.start for fold in folds} == {0}
    else:
        assert len({(len(fold.train), len(fold.validation)) for fold in folds}) == 1


@settings(max_examples=60)
@given(st.data(), st.integers(0, 400_000), st.integers(2, 600), st.sampled_from(["1h", "1D"]))
def test_as_many_bars_as_asked_for_suffice_whenever_they_end_at_the_same_bar(
    data, hours, n_bars, step
):
    last = pd.Timestamp("1975-03-01", tz="UTC") + pd.Timedelta(hours=hours)
    index = pd.date_range(end=last, periods=n_bars, freq=step)
    chosen = settings_of(data.draw)
    error = refusal(walk_forward_folds, n_bars, chosen | {"index": index})
    assume(error is not None)
    assert error.needed > n_bars
    for needed in (error.needed, error.needed + data.draw(st.integers(1, 300))):
        longer = pd.date_range(end=last, periods=needed, freq=step)
        assert walk_forward_folds(needed, **chosen, index=longer)


def test_quarters_by_hand():
    index = pd.date_range("2023-01-15", "2023-12-31", freq="D", tz="UTC")
    chosen = {"purge": 10, "test_fraction": 0.8, "min_train": 40, "min_validation": 5}
    folds = walk_forward_folds(len(index), **chosen, test_every="3MS", index=index)
    begins = [index[fold.test.start] for fold in folds]
    assert [f"{stamp:%Y-%m-%d}" for stamp in begins] == ["2023-04-01", "2023-07-01", "2023-10-01"]
    assert [len(fold.test) for fold in folds] == [91, 92, 92]  # leap years and months as they are


def test_february_of_a_leap_year_has_a_day_more():
    lengths = {}
    for year in (2023, 2024):
        index = pd.date_range(f"{year - 1}-06-01", f"{year}-04-01", freq="h", tz="UTC")
        chosen = {"purge": 5, "test_fraction": 0.3, "test_every": "MS", "index": index}
        tests = [fold.test for fold in walk_forward_folds(len(index), **chosen)]
        lengths[year] = [len(test) for test in tests if index[test.start].month == 2]
    assert lengths == {2023: [28 * 24], 2024: [29 * 24]}


def test_borders_are_those_of_utc_whatever_the_zone_and_without_summer_time():
    utc = pd.date_range("2024-01-01", "2024-06-30 23:00", freq="h", tz="UTC")
    chosen = {"purge": 5, "test_fraction": 0.7, "test_every": "MS"}
    expected = walk_forward_folds(len(utc), **chosen, index=utc)
    assert [len(fold.test) for fold in expected] == [31 * 24, 30 * 24, 31 * 24, 30 * 24]
    for index in (utc.tz_convert("America/New_York"), utc.tz_localize(None), utc.as_unit("s")):
        assert walk_forward_folds(len(utc), **chosen, index=index) == expected


def test_a_period_without_bars_has_no_block():
    whole = pd.date_range("2024-01-01", "2024-12-31", freq="4h", tz="UTC")
    index = whole[(whole.month != 8) & ~((whole.month == 9) & (whole.day < 4))]
    folds = walk_forward_folds(
        len(index), purge=5, test_fraction=0.6, test_every="MS", index=index
    )
    begins = [index[fold.test.start] for fold in folds]
    assert [(b.month, b.day) for b in begins] == [
        (6, 1), (7, 1), (9, 4), (10, 1), (11, 1), (12, 1)
    ]  # fmt: skip


def test_a_history_inside_one_period_is_told_how_far_back_it_must_go():
    index = pd.date_range("2024-02-10", periods=400, freq="h", tz="UTC")
    with pytest.raises(TooFewBarsError, match="testing 6MS at a time with purge 5") as error:
        walk_forward_folds(400, purge=5, test_every="6MS", test_fraction=0.5, index=index)
    # 2024-01-01 to 2024-02-10 is 40 days; all that comes after the border is tested.
    assert error.value.needed == 2 * (400 + 40 * 24)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (pd.RangeIndex(500), "DatetimeIndex of bar opens .* found RangeIndex"),
        (pd.date_range("2024", periods=499), "index of 500 bars, found 499"),
        (pd.date_range("2024", periods=500)[::-1], "increase strictly"),
        (pd.DatetimeIndex(["2024-01-01"] * 500), "increase strictly"),
        (pd.DatetimeIndex([pd.NaT] * 500), "increase strictly"),
    ],
)
def test_an_index_that_is_none_of_the_bars_is_refused(index, message):
    with pytest.raises(ConfigError, match=message):
        walk_forward_folds(500, purge=0, test_every="MS", index=index)


@pytest.mark.parametrize("count", [0, 1])
def test_hardly_any_bars_are_too_few(count):
    index = pd.date_range("2024-02-10", periods=count, tz="UTC")
    with pytest.raises(TooFewBarsError, match=f"found {count}"):
        walk_forward_folds(count, purge=0, test_every="MS", index=index)
