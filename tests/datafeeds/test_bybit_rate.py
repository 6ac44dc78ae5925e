import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor

import numpy as np
import pytest

from datafeeds.bybit_rate import RateLimiter
from glow_bt.errors import ConfigError


class Hand:
    """A clock that is moved by hand."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_permits_to_many_threads_keep_their_distance():
    limiter = RateLimiter(100.0)

    def take(_):
        limiter.acquire()
        return time.monotonic()

    with ThreadPoolExecutor(8) as pool:
        moments = np.sort(list(pool.map(take, range(40))))
    # A thread may see its permit late, never early; lateness of the first makes a span shorter.
    late = 0.05
    assert moments[-1] - moments[0] >= 39 * 0.01 - late
    assert (moments[20:] - moments[:-20]).min() >= 20 * 0.01 - late


def test_idle_time_is_not_saved_up():
    limiter = RateLimiter(50.0)
    limiter.acquire()
    time.sleep(0.1)
    started = time.monotonic()
    for _ in range(3):
        limiter.acquire()
    assert time.monotonic() - started >= 2 * 0.02


def test_a_pause_stops_those_who_wait_already():
    limiter = RateLimiter(4.0)
    limiter.acquire()
    got = []
    waiting = threading.Thread(target=lambda: (limiter.acquire(), got.append(time.monotonic())))
    waiting.start()
    resume = time.monotonic() + limiter.slow_down(0.6)
    waiting.join()
    assert got[0] >= resume - 1e-3


def test_pauses_double_while_complaints_go_on_and_have_a_cap():
    hand = Hand()
    limiter = RateLimiter(10.0, clock=hand, draw=lambda: 1.0, longest_pause=10.0)
    pauses = []
    for _ in range(6):
        pauses.append(limiter.slow_down())
        hand.now += pauses[-1]
    assert pauses == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    limiter.recover()
    assert limiter.slow_down() == 1.0


def test_complaints_about_what_was_sent_before_a_pause_count_once():
    hand = Hand()
    limiter = RateLimiter(10.0, clock=hand, draw=lambda: 1.0)
    assert {limiter.slow_down() for _ in range(8)} == {1.0}
    # Nor does a good answer to such a request end the complaint.
    limiter.recover()
    hand.now += 1.0
    assert limiter.slow_down() == 2.0


@pytest.mark.parametrize(("said", "pause"), [(0.25, 0.25), (3600.0, 60.0), (-5.0, 0.0)])
def test_the_exchange_may_say_how_long(said, pause):
    assert RateLimiter(10.0).slow_down(said) == pause


def test_without_a_limit_nobody_waits():
    limiter = RateLimiter(float("inf"))
    assert limiter.slow_down() == 0.0
    started = time.monotonic()
    for _ in range(1000):
        limiter.acquire()
    assert time.monotonic() - started < 0.5


def test_waiting_can_be_given_up():
    limiter = RateLimiter(0.01)
    limiter.acquire()
    stop = threading.Event()
    timer = threading.Timer(0.05, stop.set)
    timer.start()
    started = time.monotonic()
    with pytest.raises(CancelledError):
        limiter.acquire(stop)
    timer.join()
    assert time.monotonic() - started < 5.0
    with pytest.raises(CancelledError):
        RateLimiter(float("inf")).acquire(stop)


@pytest.mark.parametrize("per_second", [0.0, -1.0, float("nan")])
def test_a_limit_is_positive(per_second):
    with pytest.raises(ConfigError, match="expected requests_per_second above 0"):
        RateLimiter(per_second)
