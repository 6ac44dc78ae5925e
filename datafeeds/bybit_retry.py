"""When to ask again, and for how long."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from glow_bt.errors import ConfigError, TransientFeedError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RetryPolicy"]

T = TypeVar("T")


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
        sleep: waits for a number of seconds.
        clock: seconds since any fixed moment.
        draw: a number from [0, 1).
    """

    attempts: int = 7
    first_delay: float = 0.5
    max_delay: float = 30.0
    budget: float = 120.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    draw: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        if self.attempts < 1 or not 0 <= self.first_delay <= self.max_delay or self.budget < 0:
            raise ConfigError(
                "expected attempts >= 1, 0 <= first_delay <= max_delay and budget >= 0, found "
                f"attempts={self.attempts}, first_delay={self.first_delay}, "
                f"max_delay={self.max_delay}, budget={self.budget}"
            )

    def delay(self, failures: int) -> float:
        """Return the wait in seconds after so many failures in a row."""
        # The exponent is capped because 2.0 ** 1024 overflows.
        longest = min(self.first_delay * 2.0 ** min(failures - 1, 64), self.max_delay)
        return longest * (1.0 + self.draw()) / 2.0

    def call(self, ask: Callable[[], T]) -> T:
        """Ask until there is an answer.

        Args:
            ask: the question; `TransientFeedError` means that it is worth asking again.

        Raises:
            TransientFeedError: the last failure, with what was tried, when attempts or budget
                are used up. Any other error passes through at once.
        """
        started = self.clock()
        failures = 0
        while True:
            try:
                return ask()
            except TransientFeedError as error:
                failures += 1
                delay = self.delay(failures)
                elapsed = self.clock() - started
                if failures >= self.attempts or elapsed + delay > self.budget:
                    raise TransientFeedError(
                        f"{error} (asked {failures} times in {elapsed:.0f} s)"
                    ) from error
            self.sleep(delay)
