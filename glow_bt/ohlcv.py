"""The one contract for bars.

A bar frame has a `DatetimeIndex` named ``timestamp`` in UTC, strictly increasing, where a
stamp is the bar's **open**, and float columns open, high, low, close, volume, with optional
funding_rate and open_interest. It holds closed bars only: what a bar says is known at its
close, one interval after its stamp.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from glow_bt.errors import DataError, TooFewBarsError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

__all__ = [
    "BAR_COLUMNS",
    "OPTIONAL_COLUMNS",
    "Gap",
    "bar_interval",
    "bars_sha256",
    "fill_gaps",
    "find_gaps",
    "periods_per_year",
    "read_bars",
    "validate_bars",
    "write_bars",
]

BAR_COLUMNS = ("open", "high", "low", "close", "volume")
OPTIONAL_COLUMNS = ("funding_rate", "open_interest")
_PRICE_COLUMNS = BAR_COLUMNS[:4]
# Sessions of daily bars are never further apart than this without a closure worth reporting
# (a weekend joined to a holiday on either side).
_LONGEST_SESSION_BREAK = pd.Timedelta(days=5)


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
        now: the present; bars that open after it are refused. Default: the clock.

    Returns:
        A new frame: UTC index ``timestamp``, float64 columns in contract order.

    Raises:
        DataError: on unknown or missing columns, stamps that are duplicate, unordered or in
            the future, values that are NaN, infinite or negative, or high below low.
    """
    frame = _with_utc_index(bars)
    _check_columns(frame.columns)
    columns = [c for c in (*BAR_COLUMNS, *OPTIONAL_COLUMNS) if c in frame.columns]
    frame = _as_floats(frame[columns])
    _check_stamps(frame.index, pd.Timestamp.now("UTC") if now is None else now)
    _check_values(frame)
    return frame


def bar_interval(bars: pd.DataFrame) -> pd.Timedelta:
    """Return the most frequent distance between neighbouring stamps."""
    if len(bars) < 2:
        raise TooFewBarsError(2, len(bars), "finding the bar interval")
    steps = np.diff(_stamps_ns(bars))
    values, counts = np.unique(steps, return_counts=True)
    return pd.Timedelta(int(values[counts.argmax()]), unit="ns")


def periods_per_year(bars: pd.DataFrame) -> float:
    """Return bars a year: 252 for daily bars of a market with sessions, else by the calendar.

    A market that trades round the clock has 365 daily or 8,760 hourly bars a year.
    """
    interval = bar_interval(bars)
    if _has_sessions(bars, interval):
        return 252.0
    return float(pd.Timedelta(days=365) / interval)


def find_gaps(bars: pd.DataFrame) -> list[Gap]:
    """List the holes in a bar frame.

    Daily bars without a weekend bar are taken for a market with sessions, where only a break
    of more than five days counts as a hole.
    """
    if len(bars) < 2:
        return []
    interval = bar_interval(bars)
    steps = np.diff(_stamps_ns(bars))
    step_ns = interval.as_unit("ns")._value
    limit = step_ns
    if _has_sessions(bars, interval):
        limit = _LONGEST_SESSION_BREAK.as_unit("ns")._value
    index = bars.index
    return [
        Gap(index[i], index[i + 1], max(round(steps[i] / step_ns) - 1, 1))
        for i in np.flatnonzero(steps > limit)
    ]


def fill_gaps(bars: pd.DataFrame) -> pd.DataFrame:
    """Return the bars with every hole filled by flat bars of zero volume.

    A filled bar has open = high = low = close = the close before the hole, which is all that
    was known then. Bars off the grid of the frame's interval are refused.
    """
    interval = bar_interval(bars)
    if _has_sessions(bars, interval):
        raise DataError(
            "expected a market that trades round the clock, found daily bars without weekends; "
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
    except (ValueError, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"expected a CSV or Parquet file of bars, could not read {file}: "
            f"{str(error).splitlines()[0]}"
        ) from error
    try:
        return validate_bars(frame, now=now)
    except DataError as error:
        raise DataError(f"{file}: {error}") from error


def write_bars(bars: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write bars as CSV or Parquet by the file's ending; the file appears whole or not at all."""
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        if file.suffix == ".parquet":
            bars.to_parquet(temporary)
        else:
            compression = "gzip" if file.suffix == ".gz" else None
            bars.to_csv(temporary, compression=compression)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _stamps_ns(bars: pd.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    index = pd.DatetimeIndex(bars.index)
    return index.as_unit("ns").asi8


def _has_sessions(bars: pd.DataFrame, interval: pd.Timedelta) -> bool:
    index = pd.DatetimeIndex(bars.index)
    return interval == pd.Timedelta(days=1) and bool((index.dayofweek < 5).all())


def _with_utc_index(bars: pd.DataFrame) -> pd.DataFrame:
    frame = bars
    if "timestamp" in frame.columns:
        frame = frame.set_index("timestamp")
    elif not isinstance(frame.index, pd.DatetimeIndex):
        raise DataError(
            "expected a DatetimeIndex or a column 'timestamp', found columns "
            f"{_names(frame.columns)}; name the column of bar opens 'timestamp'"
        )
    index = _to_utc(frame.index)
    return frame.set_axis(index.rename("timestamp"), axis=0)


def _to_utc(index: pd.Index) -> pd.DatetimeIndex:
    if isinstance(index, pd.DatetimeIndex):
        stamps = index
    elif pd.api.types.is_integer_dtype(index):
        # 1e11 seconds is the year 5138; 1e11 milliseconds is 1973.
        unit = "ms" if len(index) and int(index.max()) > 100_000_000_000 else "s"
        stamps = pd.DatetimeIndex(pd.to_datetime(index, unit=unit, utc=True))
    else:
        try:
            stamps = pd.DatetimeIndex(pd.to_datetime(index, utc=True, format="ISO8601"))
        except (ValueError, TypeError) as error:
            raise DataError(
                "expected stamps in ISO 8601 or as an integer epoch, found "
                f"{index[0]!r}...; {str(error).splitlines()[0]}"
            ) from error
    utc = stamps.tz_localize("UTC") if stamps.tz is None else stamps.tz_convert("UTC")
    return utc.as_unit("ms") if utc.unit == "s" else utc


def _check_columns(columns: Iterable[Hashable]) -> None:
    found = set(columns)
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


def _check_stamps(index: pd.Index, now: pd.Timestamp) -> None:
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
    if len(index) and index[-1] > now:
        raise DataError(
            f"expected closed bars, found {int((index > now).sum())} stamps in the future, "
            f"last {index[-1]} (it is {now:%Y-%m-%d %H:%M} UTC); check the clock and the time zone"
        )


def _check_values(frame: pd.DataFrame) -> None:
    prices = frame[list(_PRICE_COLUMNS)]
    _refuse_rows(frame, ~np.isfinite(frame[list(BAR_COLUMNS)]).all(axis=1), "finite values")
    _refuse_rows(frame, (prices <= 0).any(axis=1), "positive prices")
    _refuse_rows(frame, frame["volume"] < 0, "volume of zero or more")
    _refuse_rows(frame, frame["high"] < frame["low"], "high at or above low")
    body = frame[["open", "close"]]
    inside = (body.max(axis=1) <= frame["high"]) & (body.min(axis=1) >= frame["low"])
    _refuse_rows(frame, ~inside, "open and close between low and high")
    optional = [c for c in OPTIONAL_COLUMNS if c in frame]
    _refuse_rows(frame, np.isinf(frame[optional]).any(axis=1), "finite values")


def _refuse_rows(frame: pd.DataFrame, bad: pd.Series[bool], expected: str) -> None:
    if bad.any():
        row = int(bad.to_numpy().argmax())
        values = ", ".join(f"{name}={value:g}" for name, value in frame.iloc[row].items())
        raise DataError(
            f"expected {expected}, found {int(bad.sum())} bars without, "
            f"first at {frame.index[row]}: {values}; correct or remove such bars"
        )


def _names(columns: Iterable[Hashable]) -> str:
    return ", ".join(map(str, columns))
