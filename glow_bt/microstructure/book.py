"""The order book of one symbol, kept up to date by snapshots and deltas in sequence.

A snapshot replaces the book. A delta sets levels (size 0 removes one) and must carry the update
id that follows the last one. When one is missing, when a delta comes before any snapshot, or
when the best bid reaches the best ask, the book is no longer known: it holds nothing and says
so until the next snapshot.

Levels are keyed by price as a whole number of 1e-12, so that 27450.5 and 27450.50 are one level
and none is missed by rounding.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import NamedTuple

from glow_bt.errors import DataError

__all__ = ["BookUpdate", "OrderBook", "Outcome"]

_DECIMALS = 12
_SCALE = 10**_DECIMALS
# Prices come again and again; texts of this many are remembered before it starts anew.
_REMEMBERED_PRICES = 100_000


class BookUpdate(NamedTuple):
    """A change of an order book as its exchange sends it.

    Attributes:
        snapshot: whether these levels are the whole book.
        stamp_ms: when it holds from, epoch milliseconds.
        update_id: its place in the sequence; 1 means that the sequence starts anew.
        bids: pairs of price and size, as text.
        asks: likewise.
    """

    snapshot: bool
    stamp_ms: int
    update_id: int
    bids: Sequence[Sequence[str]]
    asks: Sequence[Sequence[str]]


class Outcome(Enum):
    """What became of an update.

    Members:
        APPLIED: the book is as the update says.
        STALE: older than the book; dropped.
        AWAITING: a delta while no snapshot has come; dropped.
        GAP: updates before it are missing; the book is unknown until the next snapshot.
        CROSSED: it would put the best bid at or above the best ask; likewise.
    """

    APPLIED = "applied"
    STALE = "stale"
    AWAITING = "awaiting"
    GAP = "gap"
    CROSSED = "crossed"


class OrderBook:
    """An order book of which every level is known, or nothing."""

    def __init__(self) -> None:
        self._bids = _Side(sign=-1)
        self._asks = _Side(sign=1)
        self._update_id: int | None = None

    @property
    def valid(self) -> bool:
        """Whether the book is known."""
        return self._update_id is not None

    @property
    def update_id(self) -> int | None:
        """Place in the sequence of the last update applied; None while the book is unknown."""
        return self._update_id

    def apply(self, update: BookUpdate) -> Outcome:
        """Bring the book up to date.

        Raises:
            DataError: if a level is no pair of a positive price and a size of zero or more. The
                book is unknown from then on.
        """
        if update.snapshot or update.update_id == 1:
            self.invalidate()
        elif self._update_id is None:
            return Outcome.AWAITING
        elif update.update_id <= self._update_id:
            return Outcome.STALE
        elif update.update_id != self._update_id + 1:
            self.invalidate()
            return Outcome.GAP
        try:
            self._bids.set(update.bids)
            self._asks.set(update.asks)
        except DataError:
            self.invalidate()
            raise
        self._update_id = update.update_id
        bid, ask = self._bids.keys, self._asks.keys
        if bid and ask and -bid[0] >= ask[0]:
            self.invalidate()
            return Outcome.CROSSED
        return Outcome.APPLIED

    def invalidate(self) -> None:
        """Forget the book until the next snapshot, as after messages were lost."""
        self._bids.clear()
        self._asks.clear()
        self._update_id = None

    def bids(self, levels: int) -> list[tuple[float, float]]:
        """Return price and size of the best bids, best first."""
        return self._bids.best(levels)

    def asks(self, levels: int) -> list[tuple[float, float]]:
        """Return price and size of the best asks, best first."""
        return self._asks.best(levels)


class _Side:
    """Levels of one side: keys in order, best first, and what stands there."""

    __slots__ = ("_levels", "_prices", "_sign", "keys")

    def __init__(self, sign: int) -> None:
        self._sign = sign
        self.keys: list[int] = []
        self._levels: dict[int, tuple[float, float]] = {}
        self._prices: dict[str, tuple[int, float]] = {}

    def clear(self) -> None:
        self.keys.clear()
        self._levels.clear()

    def best(self, levels: int) -> list[tuple[float, float]]:
        held = self._levels
        return [held[key] for key in self.keys[:levels]]

    def set(self, changes: Iterable[Sequence[str]]) -> None:
        keys, held, prices = self.keys, self._levels, self._prices
        for change in changes:
            try:
                text, size_text = change
                key, price = prices.get(text) or self._read_price(text)
                size = float(size_text)
                if not 0 <= size < float("inf"):
                    raise ValueError("size out of range")
            except (ValueError, TypeError, AttributeError) as error:
                raise DataError(
                    "expected levels [price, size] as text, prices above 0 with at most "
                    f"{_DECIMALS} decimals and sizes from 0 on, found {str(change)[:80]}"
                ) from error
            if size:
                if key not in held:
                    insort(keys, key)
                held[key] = (price, size)
            elif held.pop(key, None) is not None:
                del keys[bisect_left(keys, key)]

    def _read_price(self, text: str) -> tuple[int, float]:
        whole, _, fraction = text.partition(".")
        digits = whole + fraction.ljust(_DECIMALS, "0")
        if not (digits.isascii() and digits.isdecimal()) or len(fraction) > _DECIMALS:
            raise ValueError("no plain decimal number")
        scaled = int(digits)
        if not scaled:
            raise ValueError("no price above 0")
        if len(self._prices) >= _REMEMBERED_PRICES:
            self._prices.clear()
        read = (self._sign * scaled, scaled / _SCALE)
        self._prices[text] = read
        return read
