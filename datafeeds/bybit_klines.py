"""Rows as Bybit's answers hold them, and what such an answer must satisfy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from datafeeds.bybit_answers import answer_result, answer_rows
from datafeeds.series import KINDS
from glow_bt.errors import MalformedAnswerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datafeeds.bybit_markets import Market

__all__ = [
    "NO_BARS", "Klines", "join_klines", "klines_to_bars", "klines_to_frame", "merge_klines",
    "parse_klines", "parse_rows",
]  # fmt: skip

# Where the stamp and the values stand in a row.
_FIELDS: dict[str, tuple[int | str, ...]] = {
    "mark": (0, 1, 2, 3, 4),
    "funding_rate": ("fundingRateTimestamp", "fundingRate"),
    "open_interest": ("timestamp", "openInterest"),
}
_ROWS = {
    "bars": "kline rows [start, open, high, low, close, volume, turnover]",
    "mark": "mark price rows [start, open, high, low, close]",
    "funding_rate": "rows of fundingRateTimestamp and fundingRate",
    "open_interest": "rows of timestamp and openInterest",
}


@dataclass(frozen=True)
class Klines:
    """Rows in ascending order, one a stamp: bars, or values of another kind.

    Attributes:
        stamps: bar opens in epoch milliseconds, int64 of shape (N,).
        values: open, high, low, close and volume in the base coin, float64 of shape (N, 5); of
            another kind its columns (`datafeeds.series.KINDS`).
    """

    stamps: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.stamps)

    def where(self, chosen: npt.NDArray[np.bool_]) -> Klines:
        """Return the rows that a mask of shape (N,) chooses."""
        return Klines(self.stamps[chosen], self.values[chosen])


NO_BARS = Klines(np.empty(0, dtype=np.int64), np.empty((0, len(KINDS["bars"].columns))))
"""No bars at all."""


def parse_klines(answer: object, market: Market, window: range) -> Klines:
    """Read an answer of ``/v5/market/kline``: `parse_rows` of kind ``bars``."""
    return parse_rows(answer, market, window, "bars")


def parse_rows(answer: object, market: Market, window: range, kind: str) -> Klines:
    """Read an answer that holds rows of a kind.

    Rows may come in any order and more than once; whatever else is wrong means that the answer
    was damaged on its way, for Bybit's own rows are sound.

    Args:
        answer: the answer as JSON: rows of text, such as [start, open, high, low, close,
            volume, turnover] for bars.
        market: the instrument that was asked for.
        window: the stamps that were asked for, at least one.
        kind: a name of `datafeeds.series.KINDS`.

    Raises:
        MalformedAnswerError: if a row is short, is no number, is NaN, lies outside the window
            or off its grid, contradicts another, or has what cannot be: high below low, a price
            of zero or less, a negative volume or open interest, a funding rate above 100 %.
        FeedError: if the answer is a refusal (`datafeeds.bybit_answers.check_answer`).
    """
    result = answer_result(answer)
    for name, asked in (("symbol", market.id), ("category", market.category)):
        if result.get(name, asked) != asked:
            raise MalformedAnswerError(
                f"expected klines with {name} {asked}, found {result[name]!r}; ask again"
            )
    rows = answer_rows(answer)
    fields = (*range(5), market.volume_field) if kind == "bars" else _FIELDS[kind]
    stamps, values = _parse_rows(rows, fields, kind)
    for row in rows:
        if isinstance(row, dict) and row.get("symbol", market.id) != market.id:
            raise MalformedAnswerError(
                f"expected rows of {market.id}, found {row['symbol']!r}; ask again"
            )
    _check_stamps(stamps, window)
    _check_values(stamps, values, kind)
    return _sorted_once(stamps, values)


def merge_klines(left: Klines, right: Klines) -> Klines:
    """Return the bars of two answers to the same question.

    Raises:
        MalformedAnswerError: if they contradict each other.
    """
    return _sorted_once(
        np.concatenate([left.stamps, right.stamps]), np.concatenate([left.values, right.values])
    )


def join_klines(pages: Sequence[Klines]) -> Klines:
    """Return consecutive pages, at least one, as one."""
    return Klines(
        np.concatenate([page.stamps for page in pages]),
        np.concatenate([page.values for page in pages]),
    )


def klines_to_bars(pages: Sequence[Klines]) -> pd.DataFrame:
    """Return consecutive pages as one bar frame (`glow_bt.ohlcv`)."""
    return klines_to_frame(join_klines(pages), "bars")


def klines_to_frame(rows: Klines, kind: str) -> pd.DataFrame:
    """Return rows of a kind as a frame with its columns, indexed by stamp."""
    # In microseconds, as pandas reads stamps from text.
    index = pd.DatetimeIndex(rows.stamps.view("M8[ms]"), tz="UTC", name="timestamp").as_unit("us")
    return pd.DataFrame(rows.values, index=index, columns=list(KINDS[kind].columns))


def _parse_rows(
    rows: list[Any], fields: tuple[int | str, ...], kind: str
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    stamps = np.empty(len(rows), dtype=np.int64)
    values = np.empty((len(rows), len(fields) - 1))
    for i, row in enumerate(rows):
        try:
            stamps[i] = int(row[fields[0]])
            values[i] = [float(row[field]) for field in fields[1:]]
        except (TypeError, ValueError, IndexError, KeyError, OverflowError) as error:
            raise MalformedAnswerError(
                f"expected {_ROWS[kind]} of numbers, found {str(row)[:120]}"
            ) from error
    return stamps, values


def _check_stamps(stamps: npt.NDArray[np.int64], window: range) -> None:
    first, last = window[0], window[-1]
    outside = (stamps < first) | (stamps > last)
    _refuse(stamps, outside, f"from {_iso(first)} to {_iso(last)}")
    off_grid = (stamps - first) % window.step != 0
    _refuse(stamps, off_grid, f"every {window.step // 1000} s from {_iso(first)} on")


def _check_values(
    stamps: npt.NDArray[np.int64], values: npt.NDArray[np.float64], kind: str
) -> None:
    _refuse(stamps, np.any(~np.isfinite(values), axis=1), "of finite numbers")
    if kind == "funding_rate":
        _refuse(stamps, np.abs(values[:, 0]) > 1.0, "of funding rates within 100 %")
    elif kind == "open_interest":
        _refuse(stamps, values[:, 0] < 0, "without negative open interest")
    else:
        open_, high, low, close = values.T[:4]
        negative = np.any(values[:, 4:] < 0, axis=1)
        _refuse(stamps, (low <= 0) | negative, "with positive prices and no negative volume")
        unsound = (np.maximum(open_, close) > high) | (np.minimum(open_, close) < low)
        _refuse(stamps, unsound, "with open and close between low and high")


def _sorted_once(stamps: npt.NDArray[np.int64], values: npt.NDArray[np.float64]) -> Klines:
    order = np.argsort(stamps, kind="stable")
    stamps, values = stamps[order], values[order]
    again = np.equal(stamps[1:], stamps[:-1])
    differs = np.any(values[1:] != values[:-1], axis=1)
    _refuse(stamps[1:], np.logical_and(again, differs), "once a stamp or the same each time")
    keep = np.ones(len(stamps), dtype=np.bool_)
    keep[1:] = ~again
    return Klines(stamps[keep], values[keep])


def _refuse(stamps: npt.NDArray[np.int64], bad: npt.NDArray[np.bool_], expected: str) -> None:
    if bad.any():
        raise MalformedAnswerError(
            f"expected klines {expected}, found {int(bad.sum())} others, "
            f"first at {_iso(int(stamps[bad.argmax()]))}"
        )


def _iso(stamp_ms: int) -> str:
    return str(np.datetime64(stamp_ms, "ms"))
