"""Where a history begins and ends."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from datafeeds.bybit_draft import ANSWERS_THAT_AGREE

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import numpy.typing as npt

    from datafeeds.bybit_draft import Draft
    from datafeeds.bybit_klines import Klines
    from datafeeds.bybit_source import Source

__all__ = ["Beginning", "Edges"]

_NEVER = -1
_EVER = -(2**63)
# Funding is paid every eight hours at most; a history without any for so long has ended.
_FUNDING_ENDED_MS = 24 * 3_600_000


class Beginning(NamedTuple):
    """Where a history begins, as far as is known.

    Attributes:
        since_ms: from here on
        first_ms: there is no row before this one.
    """

    since_ms: int
    first_ms: int


class Edges:
    """The first and the last row of one history, found out when it matters.

    Shared by the threads that ask for its windows; one of them asks, the others wait.

    Attributes:
        beginning: where the history begins; None: not known.
        last_ms: no row is after it; None: not known, or the history goes on.
    """

    def __init__(self, source: Source, beginning: Beginning | None = None) -> None:
        self.beginning = beginning
        self.last_ms: int | None = None
        self._source = source
        self._seen: int | None = None
        self._underway: list[int] = []
        self._last_asked = False
        self._lock = threading.Lock()
        self._list_lock = threading.Lock()

    @contextmanager
    def asking(self, window: range) -> Iterator[None]:
        """Take note that a window is asked for: what is in it is not known yet."""
        with self._list_lock:
            self._underway.append(window.start)
        try:
            yield
        finally:
            with self._list_lock:
                self._underway.remove(window.start)

    @property
    def busy(self) -> bool:
        """Whether a thread is finding an edge, so that more windows may be asked in vain."""
        return self._lock.locked()

    def note(self, rows: Klines) -> None:
        """Take note of rows that the exchange has."""
        if len(rows):
            first = int(rows.stamps[0])
            self._saw(first)
            if self.beginning is not None and first < self.beginning.first_ms:
                # Answers that held too little had it begin too late.
                self.beginning = None
            if self.last_ms is not None:
                self.last_ms = max(int(rows.stamps[-1]), self.last_ms)

    def _saw(self, stamp: int) -> None:
        self._seen = stamp if self._seen is None else min(stamp, self._seen)

    def first_of(self, window: range) -> int | None:
        """Return where the history begins if that is known of a window and what follows it."""
        known = self.beginning
        return known.first_ms if known is not None and window.start >= known.since_ms else None

    def before(self, window: range) -> bool:
        """Whether a window is known to lie before the first row."""
        return window.stop <= (self.first_of(window) or 0)

    def after(self, window: range) -> bool:
        """Whether a window is known to lie after the last row."""
        return self.last_ms is not None and window.start > self.last_ms

    def presumed_before(self, window: range) -> bool:
        """Whether a window ends before the listing, as far as Bybit says when that was."""
        listed = self._source.series.market.listed_ms
        return listed is not None and window.stop <= listed and self.first_of(window) is None

    def find_around(self, draft: Draft) -> None:
        """Find the edges that may explain what a window lacks."""
        if draft.ends_missing(self.missing(draft))[0]:
            self.find_first(draft.window, draft.rows)
        if draft.is_unsure or draft.ends_missing(self.missing(draft))[1]:
            self._find_last()
        draft.accept_last(self.last_ms)

    def missing(self, draft: Draft) -> npt.NDArray[np.int64]:
        """Return what a draft lacks of the history."""
        return draft.missing(self.first_of(draft.window), self.last_ms)

    def find_first(self, window: range, rows: Klines) -> None:
        """Find out whether a row precedes those of a window.

        Args:
            window: one whose first stamp has none.
            rows: what it has.
        """
        with self._lock:
            if self._seen is not None and self._seen < window.start:
                return
            if (self.first_of(window) or window.start) > window.start:
                return
            if self._source.series.has_first_from:
                self._probe(window, rows)
                return
            candidate = self._likely_first(window, rows)
            if self._nothing_before(candidate):
                self.beginning = Beginning(_EVER, candidate)
                if candidate == window.stop:
                    self._search(candidate, len(window) * window.step)

    def _probe(self, window: range, rows: Klines) -> None:
        """Ask for the first row from the earliest window on that is under way."""
        with self._list_lock:
            start = min([window.start, *self._underway])
        found = self._source.first_from(start) or self._source.first_from(start)
        if found is None:
            return
        if found < (rows.stamps[0] if len(rows) else window.start):
            self._saw(found)
        elif self._nothing_before(found):
            self.beginning = Beginning(start, found)

    def _likely_first(self, window: range, rows: Klines) -> int:
        """A stamp that may be the first row's, given that the window's first one is not."""
        series = self._source.series
        listed = series.market.listed_ms
        if listed is not None and listed >= window.stop:
            return series.ceil(listed)
        return int(rows.stamps[0]) if len(rows) else window.stop

    def _search(self, low: int, width: int) -> None:
        """Halve the time until now in which the first row may be, down to about a window."""
        high = self._source.now()
        while high - low > width:
            middle = self._source.series.ceil((low + high) // 2)
            if self._nothing_before(middle):
                low = middle
                self.beginning = Beginning(_EVER, low)
            else:
                high = middle

    def _nothing_before(self, stamp: int) -> bool:
        """Whether two answers have no row before a stamp."""
        for _ in range(2):
            rows = self._source.latest_before(stamp)
            if len(rows):
                self.note(rows)
                return False
        return True

    def _find_last(self) -> None:
        with self._lock:
            if self._last_asked:
                return
            found = _NEVER
            for _ in range(ANSWERS_THAT_AGREE):
                newest, at_ms = self._source.newest()
                found = max(found, _NEVER if newest is None else newest)
                series = self._source.series
                going_on = (
                    series.floor(at_ms) if series.kind.regular else at_ms - _FUNDING_ENDED_MS
                )
                if found >= going_on:
                    break
            else:
                self.last_ms = found
            self._last_asked = True
