"""Funding rates and open interest beside bars, without looking ahead.

A bar opened at t is used at its close, t + interval. A value counts from its own stamp on, so
the bar gets the last value stamped before its close; one stamped at the close belongs to the
next bar.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from glow_bt.errors import ConfigError, DataError
from glow_bt.ohlcv import bar_interval, validate_bars

__all__ = ["join_as_of", "stamped_values"]


def join_as_of(
    bars: pd.DataFrame,
    funding: pd.DataFrame | pd.Series[float] | None = None,
    open_interest: pd.DataFrame | pd.Series[float] | None = None,
    *,
    interval: pd.Timedelta | None = None,
) -> pd.DataFrame:
    """Return bars with the columns funding_rate and open_interest, as far as they are given.

    Args:
        bars: a bar frame (`glow_bt.ohlcv`).
        funding: rates by stamp, at any intervals: a Series, or a frame with a column of that
            name (`stamped_values`).
        open_interest: the same of open interest.
        interval: length of a bar. Default: the most frequent distance between the bars.

    Returns:
        A new frame in the contract of `glow_bt.ohlcv`; NaN before the first value.

    Raises:
        ConfigError: if the values are neither Series nor frame, or the interval is not positive.
        DataError: if values or bars break their contract, or the bars have such a column.
    """
    frame = validate_bars(bars)
    length = bar_interval(frame) if interval is None else interval
    if not length > pd.Timedelta(0):
        raise ConfigError(f"expected an interval above 0, found {length}; give such as 1h")
    closes = (pd.DatetimeIndex(frame.index) + length).as_unit("ns").asi8
    for name, values in (("funding_rate", funding), ("open_interest", open_interest)):
        if values is None:
            continue
        if name in frame:
            raise DataError(
                f"expected bars without {name}, found them with that column; drop it to join anew"
            )
        series = stamped_values(values, name)
        known = np.r_[np.nan, series.to_numpy()]
        stamps = pd.DatetimeIndex(series.index).asi8
        frame[name] = known[np.searchsorted(stamps, closes, side="left")]
    return frame


def stamped_values(values: pd.DataFrame | pd.Series[float], name: str) -> pd.Series[float]:
    """Check values by stamp and bring them into one form.

    Args:
        values: a Series, or a frame with a column ``name``; stamps in UTC (naive ones are read
            so), ascending.
        name: what they are.

    Returns:
        A float64 Series with an index in UTC nanoseconds.

    Raises:
        ConfigError: if they are neither Series nor such a frame.
        DataError: on stamps that are none, missing, doubled or unordered, or values that are not
            finite.
    """
    if isinstance(values, pd.DataFrame) and name in values.columns:
        values = values[name]
    if not isinstance(values, pd.Series):
        what = list(values.columns) if isinstance(values, pd.DataFrame) else type(values).__name__
        raise ConfigError(
            f"expected {name} as a Series, or a frame with that column, found {what}; "
            "the index holds the stamps"
        )
    index = values.index
    if not isinstance(index, pd.DatetimeIndex) or index.hasnans:
        raise DataError(
            f"expected {name} by stamp, found an index of {index.dtype}; give a DatetimeIndex in "
            "UTC without empty stamps"
        )
    index = index.tz_localize("UTC") if index.tz is None else index.tz_convert("UTC")
    if not index.is_monotonic_increasing or index.has_duplicates:
        raise DataError(
            f"expected each stamp of {name} once and in order, found {len(index)} stamps of which "
            f"{index.nunique()} differ; sort them and remove doubles"
        )
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype="float64")
    finite = np.isfinite(numbers)
    if not finite.all():
        row = int(finite.argmin())
        raise DataError(
            f"expected {name} finite at every stamp, found {values.iloc[row]} at {index[row]}; "
            "leave such stamps out"
        )
    return pd.Series(numbers, index=index.as_unit("ns"), name=name)
