"""Stored bars with what else was known at their close."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from datafeeds.bybit_time import Stamp, timeframe_of
from datafeeds.ohlcv_spans import end_of
from datafeeds.series import SeriesKey
from glow_bt.errors import ConfigError
from glow_bt.joining import join_as_of
from glow_bt.ohlcv import OPTIONAL_COLUMNS

if TYPE_CHECKING:
    from datafeeds.ohlcv_store import OhlcvStore

__all__ = ["read_joined"]

_ARGUMENTS = {"funding_rate": "funding", "open_interest": "open_interest"}


def read_joined(
    store: OhlcvStore,
    exchange: str,
    symbol: str,
    timeframe: str,
    since: Stamp | None = None,
    until: Stamp | None = None,
    *,
    also: Sequence[str] = OPTIONAL_COLUMNS,
) -> pd.DataFrame:
    """Return stored bars with funding rate and open interest as they were known at the close.

    A value counts from its own stamp on (`glow_bt.joining.join_as_of`), and only as far as its
    history was fetched: where it is not known whether there was a newer value the bar has NaN,
    and bars after the end of such a history are left out. So a row never changes when more is
    fetched later, but for NaN that become known.

    Args:
        store: where the histories are.
        exchange: such as ``bybit``.
        symbol: in ccxt's notation.
        timeframe: of the bars, and of the open interest.
        since: first bar; default: all.
        until: bars that open before it; default: all.
        also: columns to add, of `glow_bt.ohlcv.OPTIONAL_COLUMNS`.

    Raises:
        ConfigError: if a column is none of those.
        DataError: if one of the histories is not stored, or damaged.
    """
    unknown = set(also) - set(OPTIONAL_COLUMNS)
    if unknown:
        raise ConfigError(
            f"expected columns among {', '.join(OPTIONAL_COLUMNS)}, found {min(unknown)!r}"
        )
    bars = store.read(exchange, symbol, timeframe, since, until)
    interval = pd.Timedelta(timeframe_of(timeframe).step_ms, unit="ms")
    closes = (pd.DatetimeIndex(bars.index) + interval).as_unit("ms").asi8
    covered = len(bars)
    for kind in also:
        key = SeriesKey(exchange, symbol, kind, "" if kind == "funding_rate" else timeframe)
        values = store.read(exchange, symbol, key.timeframe, kind=kind)[kind]
        bars = join_as_of(bars, **{_ARGUMENTS[kind]: values}, interval=interval)
        spans = store.settled(key)
        known = _known(values, spans, closes)
        bars[kind] = bars[kind].where(known)
        covered = min(covered, int(np.searchsorted(closes, end_of(spans[-1]), side="right")))
    return bars.iloc[:covered]


def _known(
    values: pd.Series[float], spans: Sequence[range], closes: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Whether the last value before each close, and that there is none after it, was fetched."""
    starts = np.array([span.start for span in spans], dtype=np.int64)
    ends = np.array([end_of(span) for span in spans], dtype=np.int64)
    place = np.searchsorted(starts, closes, side="left") - 1
    stamps = pd.DatetimeIndex(values.index).as_unit("ms").asi8
    # Before the first value there is none.
    last = np.r_[np.iinfo(np.int64).min, stamps][np.searchsorted(stamps, closes, side="left")]
    known: npt.NDArray[np.bool_] = (place >= 0) & (closes <= ends[place]) & (last >= starts[place])
    return known
