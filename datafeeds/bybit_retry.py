"""When to ask again, and for how long."""

from __future__ import annotations

import math
import random
import threading
import time
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from glow_bt.errors import ConfigError, RateLimitError, TransientFeedError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Errand", "RetryPolicy", "UnclearRefusalError"]

T = TypeVar("T")

_UNCLEAR_ATTEMPTS = 3


class UnclearRefusalError(RateLimitError):
    """A refusal that may be for good: not worth as many attempts as another failure."""


@dataclass(frozen=True)
class Errand:
    """What the questions of one call share.

    Attributes:
        deadline: when to give up, by the policy's clock.
        stop: set when nobody waits for the answers any more.
    """

    deadline: float = math.inf
    stop: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class RetryPolicy:
    """Capped exponential back-off with jitter and a time budget.

    The wait after failure k = 1, 2, ... is drawn evenly from [w / 2, w] with
    w = min(first_delay * 2^(k - 1), max_delay), so that many clients do not come back at once.

    Attributes:
        attempts: how often a question is asked at most.
        first_delay: longest wait after the first failure, in seconds.
        max_delay: longest wait after any failure, in seconds.
        budget: seconds that one question may take, waits included.
        total: seconds that all questions of one call may take.
        sleep: waits for a number of seconds.
        clock: seconds since any fixed moment.
        draw: a number from [0, 1).
    """

    attempts: int = 7
    first_delay: float = 0.5
    max_delay: float = 30.0
    budget: float = 120.0
    total: float = 3600.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    draw: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        sound = self.attempts >= 1 and 0 <= self.first_delay <= self.max_delay
        if not sound or self.budget < 0 or self.total < 0:
            raise ConfigError(
                "expected attempts >= 1, 0 <= first_delay <= max_delay, budget >= 0 and "
                f"total >= 0, found attempts={self.attempts}, first_delay={self.first_delay}, "
                f"max_delay={self.max_delay}, budget={self.budget}, total={self.total}"
            )

    def delay(self, failures: int) -> float:
        """Return the wait in seconds after so many failures in a row."""
        # The exponent is capped because 2.0 ** 1024 overflows.
        longest = min(self.first_delay * 2.0 ** min(failures - 1, 64), self.max_delay)
        return longest * (1.0 + self.draw()) / 2.0

    def errand(self) -> Errand:
        """Return a new call's errand: its time begins now."""
        return Errand(self.clock() + self.total)

    def wait(self, seconds: float, errand: Errand | None = None) -> None:
        """Wait, but no longer than somebody waits for the errand.

        Raises:
            CancelledError: if nobody does.
        """
        if errand is None or self.sleep is not time.sleep:
            self.sleep(seconds)
        else:
            errand.stop.wait(seconds)
        if errand is not None and errand.stop.is_set():
            raise CancelledError

    def call(self, ask: Callable[[], T], errand: Errand | None = None) -> T:
        """Ask until there is an answer.

        Args:
            ask: the question; `TransientFeedError` means that it is worth asking again.
            errand: the call that it belongs to, if that has more questions than this.

        Raises:
            TransientFeedError: the last failure, of its class and with what was tried, when
                attempts or a budget are used up, or three unclear refusals came in a row. Any
                other error passes through at once.
            CancelledError: if nobody waits for the errand any more.
        """
        started = self.clock()
        failures = unclear = 0
        while True:
            if errand is not None and errand.stop.is_set():
                raise CancelledError
            try:
                return ask()
            except TransientFeedError as error:
                failures += 1
                unclear = unclear + 1 if isinstance(error, UnclearRefusalError) else 0
                is_enough = failures >= self.attempts or unclear >= _UNCLEAR_ATTEMPTS
                delay = self.delay(failures)
                now = self.clock()
                elapsed, late = now - started, errand is not None and now + delay > errand.deadline
                if is_enough or elapsed + delay > self.budget or late:
                    total = f"; all {self.total:.0f} s of the call are used up" if late else ""
                    raise type(error)(
                        f"{error} (asked {failures} times in {elapsed:.0f} s{total})"
                    ) from error
            self.wait(delay, errand)
