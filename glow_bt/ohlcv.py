"""The one contract for bars.

A bar frame has a `DatetimeIndex` named ``timestamp`` in UTC, strictly increasing, where a
stamp is the bar's **open**, and float columns open, high, low, close, volume, with optional
funding_rate and open_interest. It holds closed bars only: what a bar says is known at its
close, one interval after its stamp.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from glow_bt.errors import ConfigError, DataError, TooFewBarsError
from glow_bt.placing import new_file

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from numpy.typing import NDArray

__all__ = [
    "BAR_COLUMNS",
    "BAR_FILES",
    "OPTIONAL_COLUMNS",
    "Gap",
    "bar_interval",
    "bars_sha256",
    "check_bars_file",
    "fill_gaps",
    "find_gaps",
    "periods_per_year",
    "read_bars",
    "utc_stamp",
    "validate_bars",
    "write_bars",
]

BAR_FILES = (".csv", ".csv.gz", ".parquet")
BAR_COLUMNS = ("open", "high", "low", "close", "volume")
OPTIONAL_COLUMNS = ("funding_rate", "open_interest")
_PRICE_COLUMNS = BAR_COLUMNS[:4]
# Sessions of daily bars are never further apart than this without a closure worth reporting
# (a weekend joined to a holiday on either side).
_LONGEST_SESSION_BREAK = pd.Timedelta(days=5)
_SESSIONS_PER_YEAR = 252.0
# Integer epochs above these are taken for milliseconds, microseconds and nanoseconds: 1e11
# seconds is the year 5138, 1e11 milliseconds is 1973, and so on.
_EPOCH_UNITS: tuple[tuple[int, Literal["ns", "us", "ms", "s"]], ...] = (
    (10**17, "ns"),
    (10**14, "us"),
    (10**11, "ms"),
    (-1, "s"),
)


@dataclass(frozen=True)
class Gap:
    """Bars that are missing between two present ones.

    Attributes:
        after: stamp of the last bar before the hole.
        before: stamp of the first bar after it.
        missing: how many bars of the frame's interval fit into the hole.
    """

    after: pd.Timestamp
    before: pd.Timestamp
    missing: int


def validate_bars(bars: pd.DataFrame, *, now: pd.Timestamp | None = None) -> pd.DataFrame:
    """Check a bar frame and bring it into canonical form.

    Args:
        bars: bars with a DatetimeIndex, or with a ``timestamp`` column. Naive stamps are
            read as UTC.
        now: the present, as UTC if naive; bars that open after it are refused. Default: the
            clock.

    Returns:
        A new frame: UTC index ``timestamp``, float64 columns in contract order.

    Raises:
        DataError: on unknown or missing columns, stamps that are duplicate, unordered, in the
            future or outside 1678 to 2261, values that are NaN, infinite or negative, or high
            below low.
    """
    frame = _with_utc_index(bars)
    _check_columns(frame.columns)
    columns = [c for c in (*BAR_COLUMNS, *OPTIONAL_COLUMNS) if c in frame.columns]
    frame = _as_floats(frame[columns])
    _check_stamps(
        pd.DatetimeIndex(frame.index), pd.Timestamp.now("UTC") if now is None else utc_stamp(now)
    )
    _check_values(frame)
    return frame


def utc_stamp(date: str | pd.Timestamp) -> pd.Timestamp:
    """Return a stamp, or a date in ISO 8601, in UTC, which one without a zone is in already."""
    stamp = pd.Timestamp(date)
    return stamp.tz_localize("UTC") if stamp.tz is None else stamp.tz_convert("UTC")


def bar_interval(bars: pd.DataFrame) -> pd.Timedelta:
    """Return the most frequent distance between neighbouring stamps."""
    if len(bars) < 2:
        raise TooFewBarsError(2, len(bars), "finding the bar interval")
    steps = np.diff(_stamps_ns(bars))
    values, counts = np.unique(steps, return_counts=True)
    return pd.Timedelta(int(values[counts.argmax()]), unit="ns")


def periods_per_year(bars: pd.DataFrame) -> float:
    """Return bars a year: 252 sessions of a market that has them, else by the calendar.

    A market that trades round the clock has 365 daily or 8,760 hourly bars a year. One with
    sessions is known by its weekends without bars, so at least a week of bars must show them;
    its intraday bars count as many to a session as there are on average.
    """
    interval = bar_interval(bars)
    if _has_sessions(bars, interval):
        return _SESSIONS_PER_YEAR * _bars_per_session(bars)
    return float(pd.Timedelta(days=365) / interval)


def find_gaps(bars: pd.DataFrame) -> list[Gap]:
    """List the holes in a bar frame.

    In a market with sessions (no weekend bars in at least a week) only a break of more than
    five days counts as a hole, and its missing bars are those of the weekdays in it.
    """
    if len(bars) < 2:
        return []
    interval = bar_interval(bars)
    sessions = _has_sessions(bars, interval)
    limit = _LONGEST_SESSION_BREAK if sessions else interval
    steps = np.diff(_stamps_ns(bars))
    gaps = []
    for i in np.flatnonzero(steps > limit.value).tolist():
        after, before = bars.index[i], bars.index[i + 1]
        if sessions:
            weekdays = np.busday_count(after.date(), before.date()) - 1
            missing = round(weekdays * _bars_per_session(bars))
        else:
            missing = round(steps[i] / interval.value) - 1
        gaps.append(Gap(after, before, max(missing, 1)))
    return gaps


def fill_gaps(bars: pd.DataFrame) -> pd.DataFrame:
    """Return the bars with every hole filled by flat bars of zero volume.

    A filled bar has open = high = low = close = the close before the hole, which is all that
    was known then; funding rate and open interest keep their last values.

    Raises:
        DataError: if the market has sessions, or a bar is off the grid of the frame's interval.
    """
    if len(bars) < 2:
        return bars.copy()
    interval = bar_interval(bars)
    if _has_sessions(bars, interval):
        raise DataError(
            "expected a market that trades round the clock, found bars without weekends; "
            "holes of such a market are not filled"
        )
    grid = pd.date_range(bars.index[0], bars.index[-1], freq=interval, name="timestamp")
    off_grid = bars.index.difference(grid)
    if len(off_grid):
        raise DataError(
            f"expected stamps every {interval}, found {off_grid[0]} off that grid; "
            "remove such bars before filling"
        )
    filled = bars.reindex(grid)
    close = filled["close"].ffill()
    for column in _PRICE_COLUMNS:
        filled[column] = filled[column].fillna(close)
    filled["volume"] = filled["volume"].fillna(0.0)
    for column in OPTIONAL_COLUMNS:
        if column in filled:
            filled[column] = filled[column].ffill()
    return filled


def bars_sha256(bars: pd.DataFrame) -> str:
    """Return a hash of stamps, column names and values; equal frames have equal hashes."""
    digest = hashlib.sha256(",".join(map(str, bars.columns)).encode())
    digest.update(_stamps_ns(bars).astype("<i8").tobytes())
    digest.update(np.ascontiguousarray(bars.to_numpy(dtype="<f8")).tobytes())
    return digest.hexdigest()


def read_bars(path: str | os.PathLike[str], *, now: pd.Timestamp | None = None) -> pd.DataFrame:
    """Read and validate bars from a CSV (also .csv.gz) or Parquet file.

    The stamp stands in a column (or Parquet index) ``timestamp``: ISO 8601, or an integer
    epoch in seconds or milliseconds.

    Raises:
        DataError: if the file is missing, unreadable or breaks the bar contract.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f"expected a CSV or Parquet file of bars, found no file {file}")
    try:
        frame = pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file)
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"expected a CSV or Parquet file of bars, could not read {file}: "
            f"{str(error).splitlines()[0]}"
        ) from error
    try:
        return validate_bars(frame, now=now)
    except DataError as error:
        raise DataError(f"{file}: {error}") from error


def check_bars_file(path: str | os.PathLike[str]) -> Path:
    """Return the path of a file that bars are to be written to.

    Raises:
        ConfigError: if it ends in neither .csv, .csv.gz nor .parquet.
    """
    file = Path(path)
    if not file.name.endswith(BAR_FILES) or file.name in BAR_FILES:
        raise ConfigError(
            f"expected a file {', '.join(BAR_FILES[:-1])} or {BAR_FILES[-1]}, found {file.name!r}"
        )
    return file


def write_bars(bars: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write bars as Parquet (.parquet) or CSV (.csv, .csv.gz).

    The file appears whole or not at all; folders on the way to it are made.

    Raises:
        ConfigError: if it has another ending.
    """
    file = check_bars_file(path)
    with new_file(file) as temporary:
        if file.suffix == ".parquet":
            bars.to_parquet(temporary)
        else:
            bars.to_csv(temporary, compression="gzip" if file.suffix == ".gz" else None)


def _stamps_ns(bars: pd.DataFrame) -> NDArray[np.int64]:
    return pd.DatetimeIndex(bars.index).as_unit("ns").asi8


def _has_sessions(bars: pd.DataFrame, interval: pd.Timedelta) -> bool:
    index = pd.DatetimeIndex(bars.index)
    saw_weekend = index[-1] - index[0] >= pd.Timedelta(days=7)
    return interval <= pd.Timedelta(days=1) and saw_weekend and bool((index.day_of_week < 5).all())


def _bars_per_session(bars: pd.DataFrame) -> float:
    return len(bars) / pd.DatetimeIndex(bars.index).normalize().nunique()


def _with_utc_index(bars: pd.DataFrame) -> pd.DataFrame:
    frame = bars
    if "timestamp" in frame.columns:
        frame = frame.set_index("timestamp")
    elif not isinstance(frame.index, pd.DatetimeIndex) and frame.index.name != "timestamp":
        raise DataError(
            "expected a DatetimeIndex or a column 'timestamp', found columns "
            f"{_names(frame.columns)}; name the column of bar opens 'timestamp'"
        )
    try:
        stamps = _as_stamps(frame.index)
    except (ValueError, TypeError) as error:
        raise DataError(
            "expected stamps in ISO 8601 or as a whole-numbered epoch, found "
            f"{frame.index[0]}...; {str(error).splitlines()[0]}"
        ) from error
    utc = stamps.tz_localize("UTC") if stamps.tz is None else stamps.tz_convert("UTC")
    utc = utc.as_unit("ms") if utc.unit == "s" else utc
    return frame.set_axis(utc.rename("timestamp"), axis=0)


def _as_stamps(index: pd.Index) -> pd.DatetimeIndex:
    if isinstance(index, pd.DatetimeIndex):
        return index
    if pd.api.types.is_float_dtype(index):
        raise ValueError("an epoch has a fraction or is empty")
    if not pd.api.types.is_integer_dtype(index):
        return pd.DatetimeIndex(pd.to_datetime(index, utc=True, format="ISO8601"))
    if index.hasnans:
        raise ValueError("a stamp is empty")
    epochs = index.to_numpy(dtype=np.int64)
    newest = int(epochs.max(initial=0))
    unit = next(unit for limit, unit in _EPOCH_UNITS if newest > limit)
    return pd.DatetimeIndex(pd.to_datetime(epochs, unit=unit, utc=True))


def _check_columns(columns: pd.Index) -> None:
    found = set(columns)
    if len(found) < len(columns):
        raise DataError(
            f"expected each column once, found {_names(columns[columns.duplicated()])} again; "
            "drop or rename one of them"
        )
    missing = [c for c in BAR_COLUMNS if c not in found]
    if missing:
        raise DataError(
            f"expected columns {_names(BAR_COLUMNS)}, found no {_names(missing)} "
            f"among {_names(columns)}"
        )
    unknown = found - {*BAR_COLUMNS, *OPTIONAL_COLUMNS}
    if unknown:
        raise DataError(
            f"expected columns {_names(BAR_COLUMNS)} and optionally {_names(OPTIONAL_COLUMNS)}, "
            f"found unknown column {_names(sorted(map(str, unknown)))}; drop or rename it"
        )


def _as_floats(frame: pd.DataFrame) -> pd.DataFrame:
    try:
        return frame.astype("float64")
    except (ValueError, TypeError) as error:
        raise DataError(f"expected numbers in every column, found text: {error}") from error


def _check_stamps(index: pd.DatetimeIndex, now: pd.Timestamp) -> None:
    if index.hasnans:
        raise DataError("expected a stamp in every row, found an empty one; remove such rows")
    duplicate = index[index.duplicated()]
    if len(duplicate):
        raise DataError(
            f"expected one bar a stamp, found {len(duplicate)} duplicate stamps, "
            f"first {duplicate[0]}; keep one bar of each"
        )
    if not index.is_monotonic_increasing:
        row = int(np.flatnonzero(np.diff(index.asi8) < 0)[0]) + 1
        raise DataError(
            f"expected stamps in ascending order, found {index[row]} after {index[row - 1]}; "
            "sort the bars by timestamp"
        )
    try:
        index.as_unit("ns")
    except pd.errors.OutOfBoundsDatetime as error:
        raise DataError(
            f"expected stamps of the years 1678 to 2261, found {index[0]} to {index[-1]}; "
            "correct or remove such bars"
        ) from error
    if len(index) and index[-1] > now:
        raise DataError(
            f"expected closed bars, found {int((index > now).sum())} stamps in the future, "
            f"last {index[-1]} (it is {now:%Y-%m-%d %H:%M} UTC); check the clock and the time zone"
        )


def _check_values(frame: pd.DataFrame) -> None:
    values = frame[list(BAR_COLUMNS)].to_numpy(dtype=np.float64)
    open_, high, low, close, volume = values.T
    _refuse_rows(frame, np.any(~np.isfinite(values), axis=1), "finite values")
    _refuse_rows(frame, np.any(values[:, :4] <= 0.0, axis=1), "positive prices")
    _refuse_rows(frame, volume < 0.0, "volume of zero or more")
    _refuse_rows(frame, high < low, "high at or above low")
    outside = (np.maximum(open_, close) > high) | (np.minimum(open_, close) < low)
    _refuse_rows(frame, outside, "open and close between low and high")
    for name in OPTIONAL_COLUMNS:
        if name in frame:
            infinite = np.abs(frame[name].to_numpy()) == np.inf
            _refuse_rows(frame, infinite, f"{name} finite or empty")


def _refuse_rows(frame: pd.DataFrame, bad: NDArray[np.bool_], expected: str) -> None:
    if bad.any():
        row = int(bad.argmax())
        values = ", ".join(f"{name}={value:g}" for name, value in frame.iloc[row].items())
        raise DataError(
            f"expected {expected}, found {int(bad.sum())} bars without, "
            f"first at {frame.index[row]}: {values}; correct or remove such bars"
        )


def _names(columns: Iterable[Hashable]) -> str:
    return ", ".join(map(str, columns))
