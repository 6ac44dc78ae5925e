import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datafeeds.bybit_live import LiveSeries, Phase, PhaseChange
from datafeeds.bybit_retry import RetryPolicy
from datafeeds.bybit_time import timeframe_of
from datafeeds.bybit_topics import LiveBar

MINUTE = timeframe_of("1m")
STEP = 60_000
NOON = 1_709_208_000_000
DELAYED, LIVE, BROKEN = Phase.DELAYED, Phase.LIVE, Phase.BROKEN


def bar(number):
    return LiveBar(NOON + number * STEP, (float(number),) * 5)


def bars(*numbers):
    return [bar(number) for number in numbers]


def at(number, ms=0):
    """When the bar of that number closes, or some milliseconds later."""
    return NOON + (number + 1) * STEP + ms


def series(**settings):
    return LiveSeries(MINUTE, NOON, retry=RetryPolicy(draw=lambda: 1.0), **settings)


def taken(live):
    """Numbers of bars and phases, in order."""
    return [
        item.phase if isinstance(item, PhaseChange) else (item.open_ms - NOON) // STEP
        for item in live.take()
    ]


@pytest.fixture
def live():
    """Caught up with bars 0 to 2, the stream up."""
    live = series()
    live.answered(bars(0, 1, 2), at(2, 100))
    live.stream_up(at(2, 200))
    assert taken(live) == [DELAYED, 0, 1, 2, LIVE]
    return live


def test_history_comes_first_and_is_told_as_delayed():
    live = series()
    live.answered(bars(*range(5)), at(4, 10))
    assert taken(live) == [DELAYED, 0, 1, 2, 3, 4, LIVE]
    assert taken(live) == []


def test_history_that_is_behind_is_not_live_yet():
    live = series()
    live.answered(bars(0, 1), at(3))
    assert taken(live) == [DELAYED, 0, 1]
    live.answered(bars(2, 3), at(3, 10))
    assert taken(live) == [2, 3, LIVE]


def test_confirmed_bars_are_delivered_once(live):
    live.confirmed(bars(3), at(3))
    live.confirmed(bars(3, 2, 0), at(3, 5))
    live.confirmed(bars(4), at(4))
    assert taken(live) == [3, 4]


def test_a_bar_before_its_close_is_not_delivered(live):
    live.confirmed(bars(3), at(3, -1))
    assert taken(live) == []
    assert live.due_ms() == at(3, 3000)


def test_a_bar_that_comes_before_its_predecessor_waits_for_it(live):
    live.confirmed(bars(4), at(4))
    assert taken(live) == [DELAYED]
    assert live.due_ms() == 0  # now
    live.answered(bars(3, 4), at(4, 50))
    assert taken(live) == [3, 4, LIVE]


def test_a_late_message_fills_the_gap_too(live):
    live.confirmed(bars(4), at(4))
    live.confirmed(bars(3), at(4, 20))
    assert taken(live) == [DELAYED, 3, 4, LIVE]


def test_a_drop_is_told_and_bars_that_closed_meanwhile_are_asked_for_at_once(live):
    live.stream_down("reset")
    assert live.take() == [PhaseChange(BROKEN, "reset")]
    assert live.due_ms() == at(3, 500)
    live.stream_up(at(5, 10_000))
    assert taken(live) == [DELAYED]
    assert live.due_ms() < at(5, 10_000)
    live.answered(bars(3, 4, 5), at(5, 10_100))
    assert taken(live) == [3, 4, 5, LIVE]


def test_a_drop_between_two_closes_needs_no_question(live):
    live.stream_down()
    live.stream_up(at(2, 30_000))
    assert taken(live) == [BROKEN, DELAYED, LIVE]
    assert live.due_ms() == at(3, 3000)


def test_a_stream_that_was_down_is_not_waited_for_with_bars_it_cannot_have(live):
    live.stream_down()
    live.stream_up(at(3, 100))
    assert live.due_ms() == at(3, 500)


def test_while_the_stream_is_down_bars_come_by_questions(live):
    live.stream_down()
    for number in (3, 4, 5):
        assert live.due_ms() == at(number, 500)
        live.answered(bars(number), at(number, 600))
    assert taken(live) == [BROKEN, DELAYED, 3, LIVE, 4, 5]


def test_connections_that_fail_while_questions_bring_bars_are_not_told(live):
    live.stream_down()
    live.answered(bars(3), at(3, 600))
    live.stream_down()
    assert taken(live) == [BROKEN, DELAYED, 3, LIVE]


def test_a_stream_that_cannot_be_had_at_all_is_told_once():
    live = series()
    live.answered(bars(0), at(0))
    live.stream_down("refused")
    live.stream_down("refused")
    assert taken(live) == [DELAYED, 0, LIVE, BROKEN]


def test_after_a_suspend_what_was_missed_is_told_as_delayed(live):
    slow_clock = at(3, 500)
    live.stream_down()
    live.answered(bars(3), slow_clock)
    live.answered(bars(4, 5, 6), slow_clock)
    assert taken(live) == [BROKEN, DELAYED, 3, LIVE, DELAYED, 4, 5, 6, LIVE]


def test_questions_in_vain_are_repeated_after_growing_waits(live):
    live.stream_down()
    now, waits = at(3, 500), []
    for _ in range(9):
        live.answered([], now)
        waits.append(live.due_ms() - now)
        now = live.due_ms()
    assert waits == [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]
    live.answered(bars(3, 4), now)
    assert live.due_ms() == at(5, 500)
    assert live.vain == 0


def test_a_question_that_failed_tells_a_broken_connection_unless_the_stream_is_up(live):
    live.failed(at(3, 3000), "no route")
    assert taken(live) == []
    live.stream_down()
    live.stream_up(at(3, 3100))
    live.stream_down()
    live.failed(at(3, 3200), "no route")
    assert taken(live) == [BROKEN, DELAYED, BROKEN]
    polled = series()
    polled.failed(at(0), "no route")
    assert polled.take()[-1] == PhaseChange(BROKEN, "no route")


def test_a_bar_that_the_exchange_lacks_is_left_out_after_five_answers(live):
    live.confirmed(bars(5), at(5))
    for _ in range(4):
        live.answered(bars(4, 5), at(5, 100))
        assert taken(live) in ([DELAYED], [])
    live.answered(bars(4, 5), at(5, 9000))
    assert taken(live) == [4, 5, LIVE]


def test_an_answer_that_lags_behind_the_stream_makes_no_hole(live):
    live.confirmed(bars(4), at(4))
    for wait in range(20):
        live.answered([], at(4, 100 * wait))
    live.answered(bars(3), at(4, 3000))
    assert taken(live) == [DELAYED, 3, 4, LIVE]


def test_the_last_bar_ends_it():
    live = series(last_ms=NOON + 2 * STEP + 1)
    live.answered(bars(0, 1), at(1))
    assert not live.done
    live.confirmed(bars(2, 3), at(3))
    assert live.done
    assert live.due_ms() is None
    assert taken(live) == [DELAYED, 0, 1, LIVE, DELAYED, 2]


def test_it_starts_at_the_next_open():
    live = LiveSeries(MINUTE, NOON + 1)
    assert live.next_ms == NOON + STEP


# What may happen, with numbers from [0, 1) that choose among the bars there are.
chance = st.floats(0.0, 1.0, exclude_max=True)
events = st.lists(
    st.tuples(
        st.sampled_from(
            ["wait", "long_wait", "confirm", "old", "ahead", "forming", "answer", "short_answer",
             "empty", "fail", "down", "up"]
        ),
        chance,
    ),
    max_size=150,
)  # fmt: skip


class Exchange:
    """Makes one bar a minute and tells a machine of them in odd ways."""

    def __init__(self):
        self.live = series()
        self.now = at(3)
        self.got = []
        self.phases = []

    @property
    def closed(self):
        return (self.now - NOON) // STEP

    def happen(self, kind, u):
        live, now, closed = self.live, self.now, self.closed
        following = (live.next_ms - NOON) // STEP
        some = following + int(u * (closed - following))
        {
            "wait": lambda: setattr(self, "now", now + round(20_000 * u)),
            "long_wait": lambda: setattr(self, "now", now + round(300_000 * u)),
            "confirm": lambda: live.confirmed(bars(closed - 1), now),
            "old": lambda: live.confirmed(bars(int(u * closed)), now),
            "ahead": lambda: live.confirmed(bars(*range(int(u * closed), closed)), now),
            "forming": lambda: live.confirmed([LiveBar(bar(closed).open_ms, (-1.0,) * 5)], now),
            "answer": lambda: live.answered(bars(*range(following, closed)), now),
            "short_answer": lambda: live.answered(bars(*range(following, some)), now),
            "empty": lambda: live.answered([], now),
            "fail": lambda: live.failed(now),
            "down": live.stream_down,
            "up": lambda: live.stream_up(now),
        }[kind]()
        self.look()

    def look(self):
        for item in self.live.take():
            if isinstance(item, PhaseChange):
                self.phases.append(item.phase)
            else:
                assert item.open_ms + STEP <= self.now
                assert item == bar(len(self.got))
                self.got.append(item)


@settings(max_examples=300, deadline=None)
@given(events)
def test_any_course_of_events_gives_each_closed_bar_once_and_in_order(course):
    exchange = Exchange()
    for kind, u in course:
        exchange.happen(kind, u)
    # Asked when it says so, it has all that closed and says so.
    while (due := exchange.live.due_ms()) <= exchange.now:
        exchange.happen("answer", 0.0)
        assert exchange.live.due_ms() > due or due == 0
    exchange.happen("answer", 0.0)
    assert len(exchange.got) == exchange.closed
    assert exchange.live.phase is LIVE
    assert exchange.phases[-1] is LIVE
    # Phases are told when they change, and only then.
    assert all(a is not b for a, b in zip(exchange.phases, exchange.phases[1:], strict=False))


@settings(max_examples=100, deadline=None)
@given(events)
def test_it_never_asks_much_more_often_than_it_has_to(course):
    exchange = Exchange()
    for kind, u in course:
        exchange.happen(kind, u)
    live, asked = exchange.live, 0
    end = exchange.now + 60 * STEP
    while exchange.now < end:
        exchange.now = max(exchange.now, live.due_ms())
        live.answered([], exchange.now)
        asked += 1
    assert asked <= 60 * STEP / 30_000 + 10
