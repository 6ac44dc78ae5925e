"""From updates of an order book, one after the other, to its states as arrays."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import numpy as np

from glow_bt.errors import DataError
from glow_bt.microstructure.book import BookUpdate, OrderBook, Outcome
from glow_bt.microstructure.events import BookStates

__all__ = ["BookReplay"]


class BookReplay:
    """Applies updates and notes the best levels after each.

    Every applied update gives a state, and so does the moment at which the book is lost, which
    is the stamp of the update that shows it: what came before was taken for true then.
    A stamp before the one before (clocks of two machines) is moved up to it, so that a state
    never changes what was true earlier.

    Args:
        levels: how many levels a side are noted.

    Attributes:
        counts: how many updates came to each outcome, by its value; ``resyncs`` counts snapshots
            that made a lost book known again, ``reordered`` stamps that were moved up.
        deepest: most levels that were noted on one side, at most `levels`.
    """

    def __init__(self, levels: int) -> None:
        self.counts: Counter[str] = Counter()
        self._book = OrderBook()
        self._levels = levels
        self._absent = [float("nan")] * (2 * levels)
        self.deepest = 0
        self._last_ms: int | None = None
        self._lost = False
        self._clear()

    def __len__(self) -> int:
        """How many states were noted since `take`."""
        return len(self._stamps)

    @property
    def valid(self) -> bool:
        """Whether the book is known."""
        return self._book.valid

    def push(self, update: BookUpdate) -> Outcome:
        """Apply an update.

        Raises:
            DataError: as `glow_bt.microstructure.book.OrderBook.apply`.
        """
        try:
            outcome = self._book.apply(update)
        except DataError:
            self._lost = True
            self._note(update.stamp_ms)
            raise
        self.counts[outcome.value] += 1
        if outcome is Outcome.APPLIED:
            if self._lost:
                self.counts["resyncs"] += 1
                self._lost = False
            self._note(update.stamp_ms)
        elif outcome in (Outcome.GAP, Outcome.CROSSED):
            self._lost = True
            self._note(update.stamp_ms)
        return outcome

    def lose(self, stamp_ms: int) -> None:
        """Note that updates were lost, as when a connection broke; nothing if none was known."""
        if self._book.valid:
            self._book.invalidate()
            self._lost = True
            self._note(stamp_ms)

    def take(self) -> BookStates:
        """Return the states noted since the last call."""
        shape = (len(self._stamps), self._levels, 2)
        states = BookStates(
            np.array(self._stamps, np.int64),
            np.array(self._valid, np.bool_),
            np.array(self._bids, np.float64).reshape(shape),
            np.array(self._asks, np.float64).reshape(shape),
        )
        self._clear()
        return states

    def _clear(self) -> None:
        self._stamps: list[int] = []
        self._valid: list[bool] = []
        self._bids: list[float] = []
        self._asks: list[float] = []

    def _note(self, stamp_ms: int) -> None:
        if self._last_ms is not None and stamp_ms < self._last_ms:
            self.counts["reordered"] += 1
            stamp_ms = self._last_ms
        self._last_ms = stamp_ms
        self._stamps.append(stamp_ms)
        self._valid.append(self._book.valid)
        for rows, best in ((self._bids, self._book.bids), (self._asks, self._book.asks)):
            row = list(chain.from_iterable(best(self._levels)))
            rows += row
            self.deepest = max(self.deepest, len(row) // 2)
            rows += self._absent[len(row) :]
