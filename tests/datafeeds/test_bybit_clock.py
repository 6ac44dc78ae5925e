import pytest
from hypothesis import given
from hypothesis import strategies as st

from datafeeds.bybit_clock import ExchangeClock

NOON = 1_709_208_000_000


class Monotonic:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def local():
    return Monotonic()


@pytest.fixture
def clock(local):
    clock = ExchangeClock(local)
    clock.adjust(NOON, local.now)
    return clock


def test_it_goes_on_from_what_the_exchange_said(clock, local):
    local.now += 12.5
    assert clock.now_ms() == NOON + 12_500


def test_before_anything_was_heard_it_is_the_epoch(local):
    clock = ExchangeClock(local)
    assert clock.now_ms() == 0
    assert not clock.hear(NOON)
    assert clock.unheard() == float("inf")


def test_setting_the_wall_clock_does_nothing(clock, monkeypatch):
    for name in ("time", "time_ns"):
        monkeypatch.setattr(f"time.{name}", lambda: 0)
    assert clock.now_ms() == NOON


def test_a_message_that_came_faster_brings_it_forward(clock, local):
    local.now += 10.0
    assert clock.hear(NOON + 10_250)
    assert clock.now_ms() == NOON + 10_250


def test_a_message_that_came_slowly_does_not_set_it_back(clock, local):
    local.now += 1.0
    assert clock.hear(NOON + 400)
    assert clock.now_ms() == pytest.approx(NOON + 1000, abs=1)


def test_a_fast_local_clock_is_held_back(clock, local):
    for second in range(1, 3601):
        local.now += 1.0001  # 100 ppm fast
        clock.hear(NOON + second * 1000)
    assert clock.now_ms() == pytest.approx(NOON + 3_600_000, abs=2)


def test_after_a_suspend_it_is_late_and_one_stamp_far_ahead_is_not_believed(clock, local):
    asleep = 3_600_000
    assert not clock.hear(NOON + asleep)
    assert clock.now_ms() == NOON
    clock.adjust(NOON + asleep, local.now)
    assert clock.now_ms() == NOON + asleep


def test_an_answer_corrects_it_both_ways(clock, local):
    asked_at = local.now
    local.now += 0.2
    clock.adjust(NOON - 5000, asked_at)
    assert clock.now_ms() == NOON - 4800  # at most what was said when it was asked, and the way
    clock.adjust(NOON + 5000, asked_at)
    assert clock.now_ms() == NOON + 5000


def test_it_runs_at_the_pace_given(local):
    clock = ExchangeClock(local, pace=3000.0)
    clock.adjust(NOON, clock.seconds())
    local.now += 0.02
    assert clock.now_ms() == pytest.approx(NOON + 60_000, abs=1)
    assert clock.local(60.0) == pytest.approx(0.02)
    assert clock.local(-1.0) == 0.0
    assert clock.unheard() == pytest.approx(60.0)


@given(st.lists(st.tuples(st.floats(0.0, 100.0), st.floats(0.0, 5.0), st.booleans()), max_size=50))
def test_it_is_never_ahead_of_the_exchange(events):
    local = Monotonic()
    clock = ExchangeClock(local)
    start = local.now
    clock.adjust(NOON, local.now)
    for wait, way, asks in events:
        asked_at = clock.seconds()
        local.now += wait + way
        stamp = NOON + int((local.now - way - start) * 1000.0)
        if asks:
            clock.adjust(stamp, asked_at)
        else:
            clock.hear(stamp)
        assert clock.now_ms() <= NOON + (local.now - start) * 1000.0 + 1.0


@pytest.mark.parametrize(("pace", "waited"), [(1.0, 10.0), (3000.0, 750.0)])
def test_a_fast_pace_leaves_the_machine_a_quarter_of_a_second(pace, waited):
    assert ExchangeClock(pace=pace).patience(10.0) == waited
