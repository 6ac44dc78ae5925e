"""Where blocks of the calendar begin in a history."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.tseries.frequencies import to_offset
from pandas.tseries.offsets import BaseOffset

from glow_bt.errors import ConfigError

__all__ = ["bars_since_border", "calendar_offset", "calendar_starts", "utc_index"]

Positions = npt.NDArray[np.int64]

# Multiples of a period are counted from here: 3MS begins in January, April, July and October.
_EPOCH = pd.Timestamp("1970-01-01", tz="UTC")


def calendar_offset(every: str | BaseOffset) -> BaseOffset:
    """Return a period of the calendar, from pandas' name of it.

    Raises:
        ConfigError: if it is none, or does not go forward in time.
    """
    try:
        offset = to_offset(every)
        forward = _EPOCH + offset > _EPOCH
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"expected a period of the calendar such as 90D, 3MS or QS, found {every!r}: {error}"
        ) from error
    if not forward:
        raise ConfigError(f"expected a period of the calendar above 0, found {every!r}")
    return offset


def utc_index(index: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """Return bar opens in UTC, in which stamps without a zone are already.

    Raises:
        ConfigError: if they are no stamps, or not in order of time.
    """
    if not isinstance(index, pd.DatetimeIndex):
        raise ConfigError(
            f"expected a DatetimeIndex of bar opens for blocks of the calendar, found "
            f"{type(index).__name__}; give the bars' index"
        )
    if index.hasnans or not index.is_monotonic_increasing or not index.is_unique:
        raise ConfigError("expected bar opens that increase strictly, found some that do not")
    return index.tz_localize("UTC") if index.tz is None else index.tz_convert("UTC")


def calendar_starts(index: pd.DatetimeIndex, offset: BaseOffset) -> Positions:
    """Return the positions of the first bars at or after each border of the calendar.

    Where bars are missing, a period without a bar has no block. The first bar of all begins
    none: what comes before it is unknown.

    Args:
        index: (N,) bar opens in UTC, increasing.
        offset: a period; its borders lie at UTC midnight, or where multiples of it since
            1970-01-01 fall.
    """
    if not len(index):
        return np.empty(0, dtype=np.int64)
    periods = _periods(index, offset)
    return (np.flatnonzero(np.diff(periods)) + 1).astype(np.int64)


def bars_since_border(index: pd.DatetimeIndex, offset: BaseOffset) -> int:
    """Return how many of the last bars lie at or after the last border.

    If that is before the first bar, the bars missing since then are estimated by the interval.
    """
    starts = calendar_starts(index, offset)
    if len(starts):
        return len(index) - int(starts[-1])
    if len(index) < 2:
        return len(index) + 1
    border = _border_at_or_before(index[0], offset)
    interval = pd.Timedelta(np.median(np.diff(index.as_unit("ns").asi8)), unit="ns")
    return len(index) + math.ceil((index[0] - border) / interval)


def _periods(index: pd.DatetimeIndex, offset: BaseOffset) -> Positions:
    """Return a number for each bar's period, which grows with time."""
    try:
        return np.asarray(index.floor(offset.freqstr).asi8)  # fixed periods, from 1970-01-01 on
    except ValueError:
        first = _border_at_or_before(index[0], offset)
        borders = pd.date_range(first, index[-1], freq=offset)
        return np.asarray(borders.searchsorted(index, side="right"), dtype=np.int64)


def _border_at_or_before(stamp: pd.Timestamp, offset: BaseOffset) -> pd.Timestamp:
    try:
        return stamp.floor(offset.freqstr)
    except ValueError:
        border = offset.rollforward(_EPOCH)
    while border > stamp:
        border -= offset
    return pd.date_range(border, stamp, freq=offset)[-1]
