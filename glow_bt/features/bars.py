"""The boundary of the package: bars as plain numbers, checked before any arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from glow_bt.errors import FeatureError
from glow_bt.features.windows import FloatArray
from glow_bt.ohlcv import BAR_COLUMNS

__all__ = ["Bar", "BarLike", "as_bar", "as_columns"]

# Beyond these no price or volume is real, and squares of returns or sums of volumes overflow.
_LEAST_PRICE = 1e-100
_LARGEST = 1e100

BarLike = Mapping[str, float] | pd.Series | Sequence[float] | FloatArray


class Bar(NamedTuple):
    """One bar: prices above 0 with low <= open, close <= high, and a volume of 0 or more."""

    open: float
    high: float
    low: float
    close: float
    volume: float


def as_bar(values: BarLike) -> Bar:
    """Read one bar, by name from a mapping (or pandas Series), else in contract order.

    Raises:
        FeatureError: if a value is missing, is no number, or breaks the bar contract.
    """
    try:
        if isinstance(values, Mapping | pd.Series):
            bar = Bar(*(float(values[name]) for name in BAR_COLUMNS))
        else:
            bar = Bar(*map(float, values))
    except (KeyError, TypeError, ValueError) as error:
        raise FeatureError(
            f"expected a bar of the numbers {', '.join(BAR_COLUMNS)}, found {values!r}"
        ) from error
    if not _is_sound(bar):
        raise _unsound(bar, "the bar")
    return bar


def as_columns(bars: FloatArray) -> FloatArray:
    """Turn bars (N, 5) in contract order into contiguous columns (5, N).

    Raises:
        FeatureError: if the shape is another, or a bar breaks the contract.
    """
    rows = np.asarray(bars, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != len(BAR_COLUMNS):
        raise FeatureError(
            f"expected bars of shape (N, {len(BAR_COLUMNS)}) in the order "
            f"{', '.join(BAR_COLUMNS)}, found shape {rows.shape}"
        )
    columns = np.ascontiguousarray(rows.T)
    open_, high, low, close, volume = columns
    sound = (low >= _LEAST_PRICE) & (high <= _LARGEST) & (volume >= 0.0) & (volume <= _LARGEST)
    sound &= (low <= open_) & (open_ <= high) & (low <= close) & (close <= high)
    if not sound.all():
        row = int(sound.argmin())
        raise _unsound(Bar(*rows[row].tolist()), f"bar {row}")
    return columns


def _is_sound(bar: Bar) -> bool:
    return (
        _LEAST_PRICE <= bar.low <= bar.open <= bar.high <= _LARGEST
        and bar.low <= bar.close <= bar.high
        and 0.0 <= bar.volume <= _LARGEST
    )


def _unsound(bar: Bar, place: str) -> FeatureError:
    found = ", ".join(f"{name}={value:g}" for name, value in bar._asdict().items())
    return FeatureError(
        f"expected prices above 0 with low <= open, close <= high and a volume of 0 or more, all "
        f"at most {_LARGEST:g}, found {place} with {found}; correct or remove it"
    )
