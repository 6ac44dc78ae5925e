"""How often an exchange may be asked, whoever asks."""

from __future__ import annotations

import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError

from glow_bt.errors import ConfigError

__all__ = ["RateLimiter"]

_SLACK = 1.05
_FIRST_PAUSE = 1.0


class RateLimiter:
    """Hands out so many permits in any second to any number of threads.

    Those of a second may be had at once, as exchanges count them. When the exchange says that it
    was asked too often, nobody gets one for a while: until the moment that it names, else for a
    time that doubles from 1 s on while it goes on saying so; after that they come at even
    distances.

    The second is 5 % longer than a second: an exchange counts arrivals, and one that is late
    falls into the next.

    Args:
        per_second: permits a second; below 1 there is one in so many seconds; infinity: no
            waiting, not even when asked to slow down.
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
        at_once = max(int(per_second), 1) if per_second < math.inf else 1
        self._window = _SLACK * at_once / per_second
        self._longest = longest_pause if self._window else 0.0
        # When the last of them were given, oldest first.
        self._given = deque([-math.inf] * at_once, maxlen=at_once)
        self._clock, self._draw = clock, draw
        self._lock = threading.Lock()
        self._resume = -math.inf
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
                slot = max(self._given[0] + self._window, self._resume, now)
                self._given.append(slot)
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
            distance = self._window / len(self._given)
            for ago in range(len(self._given), 0, -1):
                self._given.append(self._resume - ago * distance)
            return pause

    def recover(self) -> None:
        """Take note of a good answer: the next complaint is a first one."""
        with self._lock:
            if self._clock() >= self._resume:
                self._complaints = 0
