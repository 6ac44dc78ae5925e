"""Bars as Bybit's kline answers hold them, and what such an answer must satisfy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from datafeeds.bybit_answers import answer_result, answer_rows
from glow_bt.errors import TransientFeedError
from glow_bt.ohlcv import BAR_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datafeeds.bybit_markets import Market

__all__ = ["Klines", "klines_to_bars", "merge_klines", "parse_klines"]


@dataclass(frozen=True)
class Klines:
    """Bars in ascending order, one a stamp.

    Attributes:
        stamps: bar opens in epoch milliseconds, int64 of shape (N,).
        values: open, high, low, close and volume in the base coin, float64 of shape (N, 5).
    """

    stamps: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]

    def __len__(self) -> int:
        """How many bars there are."""
        return len(self.stamps)


def parse_klines(answer: object, market: Market, window: range) -> Klines:
    """Read an answer of ``/v5/market/kline``.

    Rows may come in any order and more than once; whatever else is wrong means that the answer
    was damaged on its way, for Bybit's own bars are sound.

    Args:
        answer: the answer as JSON: rows of text [start, open, high, low, close, volume, turnover].
        market: the instrument that was asked for.
        window: the bar opens that were asked for, at least one.

    Raises:
        TransientFeedError: if a row is short, is no number, is NaN, lies outside the window or
            off its grid, has high below low, a price of zero or less, or contradicts another.
        FeedError: if the answer is a refusal (`datafeeds.bybit_answers.check_answer`).
    """
    result = answer_result(answer)
    for name, asked in (("symbol", market.id), ("category", market.category)):
        if result.get(name, asked) != asked:
            raise TransientFeedError(
                f"expected klines with {name} {asked}, found {result[name]!r}; ask again"
            )
    rows = answer_rows(answer)
    stamps, values = _parse_rows(rows, market.volume_field)
    _check_stamps(stamps, window)
    _check_values(stamps, values)
    return _sorted_once(stamps, values)


def merge_klines(left: Klines, right: Klines) -> Klines:
    """Return the bars of two answers to the same question.

    Raises:
        TransientFeedError: if they contradict each other.
    """
    return _sorted_once(
        np.concatenate([left.stamps, right.stamps]), np.concatenate([left.values, right.values])
    )


def klines_to_bars(pages: Sequence[Klines]) -> pd.DataFrame:
    """Return consecutive pages as one bar frame (`glow_bt.ohlcv`)."""
    stamps = np.concatenate([page.stamps for page in pages])
    # In microseconds, as pandas reads stamps from text.
    index = pd.DatetimeIndex(stamps.view("M8[ms]"), tz="UTC", name="timestamp").as_unit("us")
    values = np.concatenate([page.values for page in pages])
    return pd.DataFrame(values, index=index, columns=list(BAR_COLUMNS))


def _parse_rows(
    rows: list[Any], volume_field: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    stamps = np.empty(len(rows), dtype=np.int64)
    values = np.empty((len(rows), len(BAR_COLUMNS)))
    for i, row in enumerate(rows):
        try:
            stamps[i] = int(row[0])
            values[i] = [float(row[field]) for field in (1, 2, 3, 4, volume_field)]
        except (TypeError, ValueError, IndexError, KeyError, OverflowError) as error:
            raise TransientFeedError(
                f"expected kline rows [start, open, high, low, close, volume, turnover] of "
                f"numbers, found {str(row)[:120]}"
            ) from error
    return stamps, values


def _check_stamps(stamps: npt.NDArray[np.int64], window: range) -> None:
    first, last = window[0], window[-1]
    outside = (stamps < first) | (stamps > last)
    _refuse(stamps, outside, f"from {_iso(first)} to {_iso(last)}")
    off_grid = (stamps - first) % window.step != 0
    _refuse(stamps, off_grid, f"every {window.step // 1000} s from {_iso(first)} on")


def _check_values(stamps: npt.NDArray[np.int64], values: npt.NDArray[np.float64]) -> None:
    _refuse(stamps, np.any(~np.isfinite(values), axis=1), "of finite numbers")
    open_, high, low, close, volume = values.T
    _refuse(stamps, (low <= 0) | (volume < 0), "with positive prices and no negative volume")
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
        raise TransientFeedError(
            f"expected klines {expected}, found {int(bad.sum())} others, "
            f"first at {_iso(int(stamps[bad.argmax()]))}"
        )


def _iso(stamp_ms: int) -> str:
    return str(np.datetime64(stamp_ms, "ms"))
