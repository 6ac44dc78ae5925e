import dataclasses
import threading
import time
from concurrent.futures import CancelledError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datafeeds.bybit_retry import RetryPolicy, UnclearRefusalError
from glow_bt.errors import ConfigError, FeedError, RateLimitError, TransientFeedError


def failing(times, error=TransientFeedError):
    """A question that is answered after so many failures."""
    left = iter(range(times))

    def ask():
        if next(left, None) is not None:
            raise error("it rains")
        return "answer"

    return ask


@pytest.mark.parametrize("failures", range(7))
def test_asks_until_there_is_an_answer(retry, clock, failures):
    assert retry.call(failing(failures)) == "answer"
    assert len(clock.waits) == failures


def test_gives_up_after_its_attempts_and_says_what_it_did(retry, clock):
    with pytest.raises(TransientFeedError, match=r"^it rains \(asked 7 times in \d+ s\)$"):
        retry.call(failing(7))
    assert len(clock.waits) == 6


def test_gives_up_before_it_exceeds_its_budget(retry, clock):
    patient = dataclasses.replace(retry, attempts=1000, budget=60.0)
    with pytest.raises(TransientFeedError, match="asked"):
        patient.call(failing(1000))
    assert 30.0 <= clock.now <= 60.0


def test_time_spent_on_asking_counts_against_the_budget(retry, clock):
    def slow():
        clock.now += 50.0
        raise TransientFeedError("no answer")

    with pytest.raises(TransientFeedError, match="asked 3 times in 15"):
        retry.call(slow)


def test_other_errors_pass_at_once(retry, clock):
    with pytest.raises(FeedError, match=r"^it rains$"):
        retry.call(failing(1, FeedError))
    assert clock.waits == []


def test_a_call_of_many_questions_has_a_budget_too(retry, clock):
    patient = dataclasses.replace(retry, attempts=1000, budget=1e9, total=100.0)
    errand = patient.errand()
    patient.call(failing(5), errand)
    with pytest.raises(TransientFeedError, match=r"asked \d+ times .* all 100 s of the call are"):
        patient.call(failing(1000), errand)
    assert 50.0 <= clock.now <= 100.0


def test_the_class_of_the_last_failure_is_kept(retry):
    with pytest.raises(RateLimitError, match=r"it rains .asked 7 times"):
        retry.call(failing(7, RateLimitError))


def test_a_refusal_that_may_be_for_good_is_told_after_three(retry, clock):
    with pytest.raises(UnclearRefusalError, match=r"it rains .asked 3 times"):
        retry.call(failing(7, UnclearRefusalError))
    assert clock.now < 2.0
    kinds = iter([UnclearRefusalError, UnclearRefusalError, TransientFeedError] * 2)

    def ask():
        kind = next(kinds, None)
        if kind is not None:
            raise kind("it rains")
        return "answer"

    assert retry.call(ask) == "answer"


def test_an_errand_nobody_waits_for_ends(retry):
    errand = retry.errand()
    errand.stop.set()
    with pytest.raises(CancelledError):
        retry.call(failing(0), errand)


def test_a_wait_ends_when_nobody_waits_for_the_errand():
    policy = RetryPolicy(first_delay=30.0, draw=lambda: 1.0)
    errand = policy.errand()
    timer = threading.Timer(0.05, errand.stop.set)
    timer.start()
    started = time.monotonic()
    with pytest.raises(CancelledError):
        policy.call(failing(3), errand)
    timer.join()
    assert time.monotonic() - started < 5.0


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_waits_grow_twofold_to_a_cap_and_are_jittered_by_half(failures, draw):
    policy = RetryPolicy(first_delay=0.5, max_delay=30.0, draw=lambda: draw)
    longest = 0.5 * 2 ** (failures - 1) if failures < 7 else 30.0
    assert longest / 2 <= policy.delay(failures) <= longest
    assert policy.delay(failures) == pytest.approx(longest * (0.5 + draw / 2), rel=1e-12)


@pytest.mark.parametrize(
    "settings",
    [
        {"attempts": 0},
        {"first_delay": -1.0},
        {"first_delay": 31.0},
        {"budget": -1.0},
        {"total": -1.0},
    ],
)
def test_settings_that_cannot_work_are_refused(settings):
    with pytest.raises(ConfigError, match="expected attempts >= 1"):
        RetryPolicy(**settings)
