import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datafeeds.bybit_known import LastKnown, open_interest_timeframe
from datafeeds.bybit_time import timeframe_of
from datafeeds.series import Page
from glow_bt.errors import FeedError, TransientFeedError

HOUR = 3_600_000
MINUTE = 60_000
GRID = SimpleNamespace(step_ms=HOUR, offset_ms=0, limit=10)
START = 400_000 * HOUR


class Values:
    """Stamped values, of which those up to `until` are published."""

    def __init__(self, stamps):
        self.values = {START + hours * HOUR: float(hours) for hours in stamps}
        self.until = math.inf
        self.asked = []
        self.error = None

    def ask(self, windows):
        for window in windows:
            self.asked.append(window)
            assert len(window) <= GRID.limit
            if self.error:
                raise self.error
            found = [s for s in sorted(self.values) if s in window and s <= self.until]
            rows = np.array([[self.values[s]] for s in found]).reshape(-1, 1)
            yield Page(window, np.array(found, dtype=np.int64), rows)


def test_a_value_counts_from_the_moment_after_its_stamp_on():
    known = LastKnown(GRID, Values([0, 8, 16]).ask)
    assert math.isnan(known.before(START))
    assert known.before(START + 1) == 0.0
    assert known.before(START + 8 * HOUR) == 0.0
    assert known.before(START + 8 * HOUR + 1) == 8.0
    assert known.before(START + 30 * HOUR) == 16.0


def test_what_was_known_before_the_first_moment_counts():
    known = LastKnown(GRID, Values([-20]).ask)
    known.prepare(START, START + HOUR)
    assert known.before(START) == -20.0


def test_it_asks_when_a_new_value_may_be_there_and_five_minutes_on():
    values = Values([0])
    known = LastKnown(GRID, values.ask)
    known.prepare(START + MINUTE, START + 30 * MINUTE)
    values.asked.clear()
    for minute in range(1, 181):
        assert known.before(START + minute * MINUTE) == 0.0
    assert len(values.asked) == 10  # at 1 to 5 minutes after each of two hours
    assert all(window.stop - window.start <= HOUR for window in values.asked)


def test_a_value_that_comes_late_counts_from_then_on():
    values = Values([0, 8])
    values.until = START
    known = LastKnown(GRID, values.ask)
    assert known.before(START + 8 * HOUR + MINUTE) == 0.0
    values.until = math.inf
    assert known.before(START + 8 * HOUR + 2 * MINUTE) == 8.0


def test_a_failure_that_passes_leaves_the_value_known_so_far():
    values = Values([0, 8])
    known = LastKnown(GRID, values.ask)
    assert known.before(START + HOUR) == 0.0
    values.error = TransientFeedError("no route")
    assert known.before(START + 9 * HOUR) == 0.0
    values.error = None
    assert known.before(START + 9 * HOUR + MINUTE) == 8.0


def test_a_refusal_is_an_error_and_so_is_any_failure_while_preparing():
    values = Values([0])
    known = LastKnown(GRID, values.ask)
    values.error = FeedError("no")
    with pytest.raises(FeedError):
        known.before(START)
    values.error = TransientFeedError("no route")
    with pytest.raises(TransientFeedError):
        known.prepare(START, START)


@given(st.sets(st.integers(-20, 60)), st.lists(st.integers(0, 60 * 60), min_size=1))
def test_it_is_the_last_value_stamped_before(stamps, minutes):
    values = Values(stamps)
    known = LastKnown(GRID, values.ask)
    moments = [START + minute * MINUTE for minute in sorted(minutes)]
    known.prepare(moments[0], moments[len(moments) // 2])
    for moment in moments:
        past = [stamp for stamp in values.values if moments[0] - 23 * HOUR <= stamp < moment]
        if past:
            assert known.before(moment) == values.values[max(past)]


@pytest.mark.parametrize(
    ("bars", "values"),
    [("1m", "5m"), ("5m", "5m"), ("30m", "30m"), ("2h", "1h"), ("12h", "4h"), ("1w", "1d")],
)
def test_open_interest_is_asked_for_as_finely_as_the_bars_need(bars, values):
    assert open_interest_timeframe(timeframe_of(bars)) == values
