"""Backtrader's time: float days since year 1, in UTC, good to 10 microseconds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

__all__ = ["from_index", "to_index", "to_nanoseconds"]

_EPOCH_DAY = 719_163  # 1970-01-01
_DAY_US = 86_400_000_000
_DAY_MS = 86_400_000
_MS_NS = 1_000_000


def from_index(stamps: pd.DatetimeIndex) -> npt.NDArray[np.float64]:
    """Return UTC stamps (N,) as Backtrader's days, equal to ``bt.date2num`` of each."""
    # Whole days apart from the rest: one sum, one rounding, as in date2num.
    days, microseconds = np.divmod(stamps.as_unit("us").asi8, _DAY_US)
    return np.asarray((days + _EPOCH_DAY) + microseconds / _DAY_US, dtype=np.float64)


def to_nanoseconds(days: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return Backtrader's days (N,) as epoch nanoseconds; stamps of whole milliseconds are exact.

    Rounding to the millisecond takes away the error of the day number.
    """
    milliseconds = np.rint((np.asarray(days, dtype=np.float64) - _EPOCH_DAY) * _DAY_MS)
    return np.asarray(milliseconds, dtype=np.int64) * _MS_NS


def to_index(days: npt.ArrayLike) -> pd.DatetimeIndex:
    """Return Backtrader's days (N,) as the index of a bar frame: UTC, named ``timestamp``."""
    return pd.DatetimeIndex(to_nanoseconds(days), tz="UTC", name="timestamp").as_unit("us")
