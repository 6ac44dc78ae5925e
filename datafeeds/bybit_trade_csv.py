"""Trades in CSV files, in the layouts that Bybit publishes and that ccxt's users write."""

from __future__ import annotations

import warnings
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.io.parsers import TextFileReader

from datafeeds.bybit_records import line_error
from glow_bt.errors import DataError

__all__ = ["read_trade_csv"]

_PIECE = 500_000
_UNREADABLE = (ValueError, OSError, EOFError, zlib.error, pd.errors.ParserWarning)
# Microseconds of the years 2001 to 2286: a column in another unit falls outside.
_EARLIEST_US, _LATEST_US = 10**15, 10**16


class _Layout(NamedTuple):
    """Names of columns, the unit of stamps, and whether ids are unique beyond a file."""

    id: str
    time: str
    side: str
    price: str
    amount: str
    to_us: int
    ids_are_unique: bool


_LAYOUTS = (
    _Layout("trdMatchID", "timestamp", "side", "price", "size", 1_000_000, True),
    _Layout("id", "timestamp", "side", "price", "amount", 1000, True),
    _Layout("id", "timestamp", "side", "price", "volume", 1000, False),
)


def read_trade_csv(file: Path, symbol: str | None) -> tuple[pd.DataFrame, bool]:
    """Read a file of trades.

    Args:
        file: plain, or compressed as its ending says.
        symbol: whose trades; None if the file holds one market's only. Files without a column
            ``symbol`` do.

    Returns:
        Columns id, time_us (epoch microseconds), side (+1, -1), price, amount and line (in the
        file), newest last, and whether ids differ from those in other files.

    Raises:
        DataError: as `datafeeds.bybit_trades.read_trades`.
    """
    layout = _layout_of(file)
    markets = _Markets(file, symbol)
    frames, line = [], 2
    try:
        with warnings.catch_warnings(), _reader(file, layout) as reader:
            # Rows of more fields than the header has would be cut.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            for table in reader:
                lines = np.arange(line, line + len(table), dtype=np.int64)
                line += len(table)
                wanted = markets.wanted(table)
                frames.append(_read_rows(file, table[wanted], lines[wanted], layout))
    except DataError:
        raise
    except _UNREADABLE as error:
        raise _unreadable(file, error) from error
    markets.check()
    frame = pd.concat(frames, ignore_index=True)
    times = frame["time_us"].to_numpy()
    # Some archives have the newest trade first; then those of one moment are reversed too.
    newest_first = len(frame) and times[0] > times[-1] and (np.diff(times) <= 0).all()
    return (frame[::-1] if newest_first else frame), layout.ids_are_unique


def _layout_of(file: Path) -> _Layout:
    if not file.is_file():
        raise DataError(f"expected a file of trades, found no file {file}")
    try:
        header = set(pd.read_csv(file, nrows=0, encoding="utf-8-sig").columns)
    except _UNREADABLE as error:
        raise _unreadable(file, error) from error
    for layout in _LAYOUTS:
        if header.issuperset(layout[:5]):
            return layout
    known = " or ".join(",".join(each[:5]) for each in _LAYOUTS)
    found = ",".join(sorted(header))[:120]
    raise DataError(f"expected trades with columns {known}, found {found} in {file}")


def _reader(file: Path, layout: _Layout) -> TextFileReader:
    return pd.read_csv(
        file,
        index_col=False,
        dtype={layout.id: str},
        keep_default_na=False,
        skip_blank_lines=False,
        low_memory=False,
        encoding="utf-8-sig",
        chunksize=_PIECE,
    )


def _unreadable(file: Path, error: BaseException) -> DataError:
    return DataError(
        f"expected a CSV file of trades, could not read {file}: {str(error).splitlines()[0]}"
    )


def _read_rows(
    file: Path, table: pd.DataFrame, lines: npt.NDArray[np.int64], layout: _Layout
) -> pd.DataFrame:
    column = _Column(file, table, lines)
    time_us = np.round(column.numbers(layout.time, "a stamp") * layout.to_us)
    outside = (time_us < _EARLIEST_US) | (time_us >= _LATEST_US)
    unit = "seconds" if layout.to_us == 1_000_000 else "milliseconds"
    column.refuse(layout.time, outside, f"{layout.time} in {unit} since 1970")
    side = table[layout.side].astype(str).str.lower().map({"buy": 1, "sell": -1})
    column.refuse(layout.side, side.isna().to_numpy(), "a side of Buy or Sell")
    price = column.numbers(layout.price, "a price")
    column.refuse(layout.price, price <= 0, "a price above 0")
    amount = column.numbers(layout.amount, "an amount")
    column.refuse(layout.amount, amount <= 0, "an amount above 0")
    return pd.DataFrame(
        {
            "id": table[layout.id].to_numpy(),
            "time_us": time_us.astype(np.int64),
            "side": side.to_numpy(np.int8),
            "price": price,
            "amount": amount,
            "line": lines,
        }
    )


class _Column(NamedTuple):
    """Columns of some rows of a file, and which lines these are."""

    file: Path
    table: pd.DataFrame
    lines: npt.NDArray[np.int64]

    def numbers(self, name: str, what: str) -> npt.NDArray[np.float64]:
        values = pd.to_numeric(self.table[name], errors="coerce").to_numpy(np.float64)
        self.refuse(name, ~np.isfinite(values), f"{what} as a number")
        return values

    def refuse(self, name: str, bad: npt.NDArray[np.bool_], what: str) -> None:
        if bad.any():
            row = int(bad.argmax())
            found = self.table[name].iloc[row]
            found = found.item() if isinstance(found, np.generic) else found
            raise line_error(self.file, int(self.lines[row]), f"{what}, found {found!r}")


class _Markets:
    """Which markets a file has trades of, and which one is asked for."""

    def __init__(self, file: Path, symbol: str | None) -> None:
        self._file = file
        self._symbol = symbol
        self._found: dict[str, None] = {}
        self._tell = False

    def wanted(self, table: pd.DataFrame) -> npt.NDArray[np.bool_]:
        if "symbol" not in table:
            return np.ones(len(table), np.bool_)
        self._tell = True
        self._found |= dict.fromkeys(map(str, table["symbol"].unique()))
        if self._symbol is None and len(self._found) > 1:
            raise DataError(
                f"expected trades of one symbol in {self._file}, found {self._names()}; "
                "say which one"
            )
        if self._symbol is None:
            return np.ones(len(table), np.bool_)
        return (table["symbol"] == self._symbol).to_numpy(np.bool_)

    def check(self) -> None:
        if self._symbol is not None and self._tell and self._symbol not in self._found:
            raise DataError(
                f"expected trades of {self._symbol} in {self._file}, found {self._names()}"
            )

    def _names(self) -> str:
        return ", ".join(list(self._found)[:5])
