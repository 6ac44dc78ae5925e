"""The exchange's time, told without the local wall clock."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ExchangeClock"]

_DRIFT = 200e-6
_LARGEST_STEP_MS = 60_000
_PATIENCE = 0.25


class ExchangeClock:
    """Epoch milliseconds of the exchange, from a monotonic clock and what the exchange says.

    A stamp in a message was true when the message left, so the exchange's time is at least the
    stamp when it arrives. The largest such bound is kept, given up slowly because local clocks
    drift (200 ppm), and held within what a question about the time proves: an answer's stamp lies
    between asking and hearing. So the time told is late by the fastest message's way at most, and
    never early; setting the wall clock does nothing, and a suspend, through which a monotonic
    clock may stand still, makes it late until the next message.

    Args:
        monotonic: seconds since any fixed moment.
        pace: exchange seconds that pass in one local second; other than 1 in simulations only.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, pace: float = 1.0) -> None:
        self._monotonic = monotonic
        self._pace = pace
        self._offset_ms = math.nan
        self._heard_at = 0.0
        self._lock = threading.Lock()

    def seconds(self) -> float:
        """Return seconds since a fixed moment, at the exchange's pace."""
        return self._monotonic() * self._pace

    def local(self, seconds: float) -> float:
        """Return how many local seconds so many of the exchange's take; none if it is negative."""
        return max(seconds, 0.0) / self._pace

    def patience(self, seconds: float) -> float:
        """Return how many seconds to wait for an answer before it counts as lost.

        A quarter of a local second at least: at a fast pace a machine would else be too slow for
        itself.
        """
        return max(seconds, _PATIENCE * self._pace)

    def now_ms(self) -> int:
        """Return the exchange's time in epoch milliseconds; the epoch before any was heard."""
        offset = self._offset_ms
        return 0 if math.isnan(offset) else math.floor(self.seconds() * 1000.0 + offset)

    def unheard(self) -> float:
        """Return for how many seconds nothing that is believed was heard."""
        return math.inf if math.isnan(self._offset_ms) else self.seconds() - self._heard_at

    def hear(self, stamp_ms: int) -> bool:
        """Take note of the stamp of a message that arrived just now.

        Returns:
            Whether it is believed. One stamp far ahead may be damaged, or the machine slept:
            `adjust` tells.
        """
        with self._lock:
            now = self.seconds()
            bound = stamp_ms - now * 1000.0
            if math.isnan(self._offset_ms) or bound - self._offset_ms > _LARGEST_STEP_MS:
                return False
            drift_ms = _DRIFT * (now - self._heard_at) * 1000.0
            self._offset_ms = max(self._offset_ms - drift_ms, bound)
            self._heard_at = now
            return True

    def adjust(self, stamp_ms: int, asked_at: float) -> None:
        """Take note of an answer to a question about the time that arrived just now.

        Args:
            stamp_ms: the exchange's time as answered.
            asked_at: `seconds` before the question was sent.
        """
        with self._lock:
            now = self.seconds()
            low, high = stamp_ms - now * 1000.0, stamp_ms - asked_at * 1000.0
            known = not math.isnan(self._offset_ms)
            self._offset_ms = min(max(self._offset_ms, low), high) if known else low
            self._heard_at = now
