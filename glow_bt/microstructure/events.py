"""What happened in a market, as arrays: trades, and states of the order book."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from glow_bt.errors import DataError

__all__ = ["BookStates", "Trades"]

Floats = npt.NDArray[np.float64]
Stamps = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Trades:
    """N trades in order of time, those of one millisecond in the order they came.

    Attributes:
        stamps: when they were matched, epoch milliseconds, int64 of shape (N,).
        prices: in the quote coin, float64 of shape (N,), positive.
        amounts: in the base coin, or in contracts where the exchange counts so; float64 of
            shape (N,), positive.
        sides: of the taker, int8 of shape (N,): +1 bought, -1 sold.

    Raises:
        DataError: on other shapes, types, values or another order.
    """

    stamps: Stamps
    prices: Floats
    amounts: Floats
    sides: npt.NDArray[np.int8]

    def __post_init__(self) -> None:
        shape = (len(self.stamps),)
        _check_array("stamps", self.stamps, np.int64, shape)
        _check_array("sides", self.sides, np.int8, shape)
        for name in ("prices", "amounts"):
            values = getattr(self, name)
            _check_array(name, values, np.float64, shape)
            _refuse_rows(~((values > 0) & np.isfinite(values)), values, f"positive {name}")
        _refuse_rows(np.abs(self.sides) != 1, self.sides, "sides of +1 and -1")
        _check_order("trades", self.stamps)

    def __len__(self) -> int:
        """How many trades there are."""
        return len(self.stamps)

    def __getitem__(self, rows: slice) -> Trades:
        """Return some of the trades."""
        return Trades(self.stamps[rows], self.prices[rows], self.amounts[rows], self.sides[rows])

    @classmethod
    def none(cls) -> Self:
        """Return no trades."""
        none = np.empty(0)
        return cls(np.empty(0, np.int64), none, none, np.empty(0, np.int8))

    @classmethod
    def joined(cls, parts: Sequence[Trades]) -> Trades:
        """Return trades of consecutive parts as one."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            *(
                np.concatenate([getattr(part, name) for part in (cls.none(), *parts)])
                for name in ("stamps", "prices", "amounts", "sides")
            )
        )


@dataclass(frozen=True, eq=False)
class BookStates:
    """N states of an order book's best K levels, each holding until the next.

    A level that the book lacks is NaN; so is every level while the book is not valid.

    Attributes:
        stamps: from when on a state holds, epoch milliseconds, int64 of shape (N,), ascending.
        valid: whether the book was known, bool of shape (N,).
        bids: prices (``[:, :, 0]``) and sizes (``[:, :, 1]``) of the best bids, best first,
            float64 of shape (N, K, 2).
        asks: of the best asks, likewise.

    Raises:
        DataError: on other shapes or types, or another order.
    """

    stamps: Stamps
    valid: npt.NDArray[np.bool_]
    bids: Floats
    asks: Floats

    def __post_init__(self) -> None:
        count = len(self.stamps)
        _check_array("stamps", self.stamps, np.int64, (count,))
        _check_array("valid", self.valid, np.bool_, (count,))
        levels = self.bids.shape[1] if self.bids.ndim == 3 else 0
        if not levels:
            raise DataError(
                f"expected bids of shape (N, K, 2) with K levels, found {self.bids.shape}"
            )
        _check_array("bids", self.bids, np.float64, (count, levels, 2))
        _check_array("asks", self.asks, np.float64, (count, levels, 2))
        _check_order("states of a book", self.stamps)

    def __len__(self) -> int:
        """How many states there are."""
        return len(self.stamps)

    @property
    def levels(self) -> int:
        """How many levels a side are kept."""
        return int(self.bids.shape[1])

    def __getitem__(self, rows: slice) -> BookStates:
        """Return some of the states."""
        return BookStates(self.stamps[rows], self.valid[rows], self.bids[rows], self.asks[rows])

    @classmethod
    def unknown(cls, stamp_ms: int, levels: int) -> Self:
        """Return the one state of a book of which nothing is known."""
        nothing = np.full((1, levels, 2), np.nan)
        return cls(np.array([stamp_ms], np.int64), np.zeros(1, np.bool_), nothing, nothing)

    @classmethod
    def joined(cls, parts: Sequence[BookStates]) -> BookStates:
        """Return states of consecutive parts, at least one, as one.

        Raises:
            DataError: if they keep different numbers of levels.
        """
        if len(parts) == 1:
            return parts[0]
        levels = {part.levels for part in parts}
        if len(levels) > 1:
            raise DataError(f"expected states with one number of levels, found {sorted(levels)}")
        return cls(
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("stamps", "valid", "bids", "asks")
            )
        )


def _check_array(name: str, values: object, dtype: type, shape: tuple[int, ...]) -> None:
    if not isinstance(values, np.ndarray) or values.dtype != dtype or values.shape != shape:
        found = (
            f"{values.dtype} of shape {values.shape}"
            if isinstance(values, np.ndarray)
            else type(values).__name__
        )
        raise DataError(
            f"expected {name} as {np.dtype(dtype).name} of shape {shape}, found {found}"
        )


def _check_order(what: str, stamps: Stamps) -> None:
    backwards = np.flatnonzero(np.diff(stamps) < 0)
    if len(backwards):
        row = int(backwards[0]) + 1
        raise DataError(
            f"expected {what} in order of time, found {stamps[row]} ms after "
            f"{stamps[row - 1]} ms in row {row}; sort them by time"
        )


def _refuse_rows(bad: npt.NDArray[np.bool_], values: npt.NDArray[np.generic], what: str) -> None:
    if bad.any():
        row = int(bad.argmax())
        raise DataError(f"expected {what}, found {values[row]} in row {row}; remove such trades")
