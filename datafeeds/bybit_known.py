"""The last value known at a moment: funding rates and open interest beside live bars."""

from __future__ import annotations

import contextlib
import math
from collections import deque
from typing import TYPE_CHECKING, Protocol

from datafeeds.bybit_time import TIMEFRAMES, Timeframe, windows
from datafeeds.series import floor_ms
from glow_bt.errors import TransientFeedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from datafeeds.series import Page

__all__ = ["Grid", "LastKnown", "open_interest_timeframe"]

_LATE_AFTER_MS = 300_000
_LEAD_MS = 86_400_000
_OPEN_INTEREST_TIMEFRAMES = ("5m", "15m", "30m", "1h", "4h", "1d")


class Grid(Protocol):
    """Where values may be stamped, and how many steps one question may span."""

    @property
    def step_ms(self) -> int:
        """Distance of stamps in milliseconds."""

    @property
    def offset_ms(self) -> int:
        """How far they lie from the epoch's grid of that step."""

    @property
    def limit(self) -> int:
        """Largest number of steps in one question."""


class LastKnown:
    """Tells the last value stamped before a moment, for moments in ascending order.

    It asks when a new value may be there. One that is late is asked for at each moment, for five
    minutes; until it is there the one before counts, for no more was known.

    Args:
        grid: of the values.
        ask: returns the pages of some windows of the grid.
    """

    def __init__(self, grid: Grid, ask: Callable[[Iterable[range]], Iterable[Page]]) -> None:
        self._grid = grid
        self._ask = ask
        self._known: deque[tuple[int, float]] = deque()
        self._settled: int | None = None  # stamps before this one are not asked for any more

    def prepare(self, first_ms: int, last_ms: int) -> None:
        """Ask for all values that count between two moments.

        Raises:
            FeedError: if they cannot be had.
        """
        self._settled = self._floor(first_ms - _LEAD_MS)
        self._settle(last_ms)

    def before(self, moment_ms: int) -> float:
        """Return the last value stamped before a moment; NaN if none is known.

        Raises:
            FeedError: if the exchange refuses. Failures that may pass are left to the next call.
        """
        if self._settled is None:
            self._settled = self._floor(moment_ms - _LEAD_MS)
        # After a failure the value known so far counts, and the next bar asks again.
        with contextlib.suppress(TransientFeedError):
            self._settle(moment_ms)
        while len(self._known) > 1 and self._known[1][0] < moment_ms:
            self._known.popleft()
        known = self._known and self._known[0][0] < moment_ms
        return self._known[0][1] if known else math.nan

    def _floor(self, moment_ms: int) -> int:
        return floor_ms(moment_ms, self._grid.step_ms, self._grid.offset_ms)

    def _settle(self, moment_ms: int) -> None:
        step, start = self._grid.step_ms, self._settled
        end = self._floor(moment_ms - 1) + step
        if start is None or start >= end:
            return
        found = sorted(
            (int(stamp), float(value))
            for page in self._ask(windows(range(start, end, step), self._grid.limit))
            for stamp, value in zip(page.stamps, page.values[:, 0], strict=True)
        )
        last = self._known[-1][0] if self._known else -1
        self._known.extend(pair for pair in found if pair[0] > last)
        awaited = self._floor(moment_ms - _LATE_AFTER_MS) + step
        given = found[-1][0] + step if found else start
        self._settled = max(start, given, min(awaited, end))


def open_interest_timeframe(timeframe: Timeframe) -> str:
    """Return the longest distance of open-interest values that is not longer than a bar."""
    fitting = [n for n in _OPEN_INTEREST_TIMEFRAMES if TIMEFRAMES[n].step_ms <= timeframe.step_ms]
    return fitting[-1] if fitting else _OPEN_INTEREST_TIMEFRAMES[0]
