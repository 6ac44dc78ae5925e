"""How often an exchange may be asked, whoever asks."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError

from glow_bt.errors import ConfigError

__all__ = ["RateLimiter"]

_SLACK = 1.01
_FIRST_PAUSE = 1.0


class RateLimiter:
    """Hands out permits at even distances to any number of threads.

    When the exchange says that it was asked too often, nobody gets one for a while: until the
    moment that it names, else for a time that doubles from 1 s on while it goes on saying so.

    Permits are 1 % further apart than the limit asks for: an exchange counts arrivals, and one
    that is late makes the distance to the next shorter.

    Args:
        per_second: permits a second; infinity: no waiting, not even when asked to slow down.
        longest_pause: in seconds.
        clock: seconds since any fixed moment.
        draw: a number from [0, 1), for the pauses' jitter.

    Raises:
        ConfigError: if ``per_second`` is not positive.
    """

    def __init__(
        self,
        per_second: float,
        *,
        longest_pause: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        if not per_second > 0:
            raise ConfigError(f"expected requests_per_second above 0, found {per_second}")
        self._distance = _SLACK / per_second
        self._longest = longest_pause if self._distance else 0.0
        self._clock, self._draw = clock, draw
        self._lock = threading.Lock()
        self._next = self._resume = -float("inf")
        self._complaints = 0

    def acquire(self, stop: threading.Event | None = None) -> None:
        """Wait for a permit.

        Args:
            stop: ends the waiting when it is set.

        Raises:
            CancelledError: if ``stop`` is set.
        """
        waiter = stop or threading.Event()
        while True:
            with self._lock:
                now = self._clock()
                slot = max(self._next, self._resume, now)
                self._next = slot + self._distance
            if waiter.wait(slot - now) if slot > now else waiter.is_set():
                raise CancelledError
            with self._lock:
                # A pause that began meanwhile takes the permit back.
                if self._resume <= slot:
                    return

    def slow_down(self, seconds: float | None = None) -> float:
        """Pause everybody, as the exchange asked to; return for how many seconds.

        Args:
            seconds: how long, if the exchange said so.
        """
        with self._lock:
            now = self._clock()
            # Answers to what was sent before a pause are the same complaint once more.
            if now >= self._resume:
                self._complaints += 1
            if seconds is None:
                seconds = _FIRST_PAUSE * 2.0 ** min(self._complaints - 1, 16)
                seconds *= (1.0 + self._draw()) / 2.0
            pause = min(max(seconds, 0.0), self._longest)
            self._resume = max(self._resume, now + pause)
            return pause

    def recover(self) -> None:
        """Take note of a good answer: the next complaint is a first one."""
        with self._lock:
            if self._clock() >= self._resume:
                self._complaints = 0
