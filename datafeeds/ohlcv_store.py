"""Bars on disk: one Parquet file for each exchange, symbol and timeframe."""

from __future__ import annotations

import json
import os
import string
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from datafeeds.bybit_time import Stamp, as_utc
from glow_bt.errors import ConfigError, DataError
from glow_bt.ohlcv import bars_sha256, validate_bars

__all__ = ["OhlcvStore", "StoredBars"]

_SUFFIX = ".parquet"
_METADATA_KEY = b"glow_bt"
_SAFE_MARKS = string.digits + "-_"


class StoredBars(NamedTuple):
    """What one file of a store holds."""

    exchange: str
    symbol: str
    timeframe: str


class OhlcvStore:
    """A folder of bars that only ever grows.

    ``<root>/<exchange>/<symbol>/<timeframe>.parquet``, with names made safe for any file system
    (``BTC/USDT:USDT`` becomes ``BTC%2FUSDT%3AUSDT``). A file holds a hash of its bars, so that
    damage is noticed however small it is. It is written under another name and renamed: it
    appears whole or not at all.

    Args:
        root: the folder; made when something is written.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)

    def write(self, exchange: str, symbol: str, timeframe: str, bars: pd.DataFrame) -> int:
        """Add bars before, between and after those that are there.

        Args:
            exchange: such as ``bybit``.
            symbol: in ccxt's notation.
            timeframe: such as ``1h``.
            bars: in the contract of `glow_bt.ohlcv`. Those that are stored already must agree.

        Returns:
            How many bars were new.

        Raises:
            DataError: if the bars break the contract, have other columns than those stored, or
                differ from them (the first such stamp is named); the store stays as it was.
        """
        key = StoredBars(exchange, symbol, timeframe)
        path = self._path(key)
        new = validate_bars(bars)
        if path.exists():
            old = _read(path, key)
            merged = _merge(old, new, key)
        else:
            old, merged = new.iloc[:0], new
        if len(merged) > len(old):
            _write(path, key, merged)
        return len(merged) - len(old)

    def read(
        self,
        exchange: str,
        symbol: str,
        timeframe: str,
        since: Stamp | None = None,
        until: Stamp | None = None,
    ) -> pd.DataFrame:
        """Return the bars that open at ``since <= stamp < until``; default: all.

        Raises:
            DataError: if there are none of that name, or their file is damaged.
            ConfigError: if a moment cannot be read.
        """
        key = StoredBars(exchange, symbol, timeframe)
        bars = _read(self._existing(key), key)
        if since is not None:
            bars = bars[bars.index >= as_utc(since, "since")]
        if until is not None:
            bars = bars[bars.index < as_utc(until, "until")]
        return bars

    def span(
        self, exchange: str, symbol: str, timeframe: str
    ) -> tuple[pd.Timestamp, pd.Timestamp] | None:
        """Return the opens of the first and the last bar, None if nothing is stored.

        Raises:
            DataError: if the file is damaged.
        """
        key = StoredBars(exchange, symbol, timeframe)
        path = self._path(key)
        if not path.exists():
            return None
        index = _read(path, key).index
        return index[0], index[-1]

    def list(self) -> tuple[StoredBars, ...]:
        """Return what is stored, sorted."""
        return tuple(
            sorted(
                StoredBars(unquote(path.parts[-3]), unquote(path.parts[-2]), unquote(path.stem))
                for path in self.root.glob(f"*/*/*{_SUFFIX}")
            )
        )

    def _path(self, key: StoredBars) -> Path:
        if not all(key):
            raise ConfigError(f"expected exchange, symbol and timeframe, found {tuple(key)}")
        # Letters of the other case are escaped as well: on file systems that do not tell case
        # apart a month (1M) would else overwrite a minute (1m).
        upper, lower = string.ascii_uppercase, string.ascii_lowercase
        return (
            self.root
            / _escape(key.exchange, lower)
            / _escape(key.symbol, upper)
            / f"{_escape(key.timeframe, lower)}{_SUFFIX}"
        )

    def _existing(self, key: StoredBars) -> Path:
        path = self._path(key)
        if not path.exists():
            there = ", ".join(" ".join(stored) for stored in self.list()) or "nothing"
            raise DataError(
                f"expected stored bars of {' '.join(key)}, found {there} in {self.root}; "
                "fetch them first"
            )
        return path


def _escape(name: str, letters: str) -> str:
    """Percent-encode all but digits, ``-``, ``_`` and some letters; `unquote` reverses it."""
    safe = letters + _SAFE_MARKS
    return "".join(
        char if char in safe else "".join(f"%{byte:02X}" for byte in char.encode())
        for char in name
    )


def _merge(old: pd.DataFrame, new: pd.DataFrame, key: StoredBars) -> pd.DataFrame:
    if list(old.columns) != list(new.columns):
        raise DataError(
            f"expected columns {', '.join(old.columns)} as stored for {' '.join(key)}, "
            f"found {', '.join(new.columns)}; write the same columns or start another store"
        )
    shared = old.index.intersection(new.index)
    left, right = old.loc[shared], new.loc[shared]
    differs = ((left != right) & ~(left.isna() & right.isna())).any(axis=1).to_numpy()
    if differs.any():
        stamp = shared[int(differs.argmax())]
        raise DataError(
            f"expected bars that agree with those stored for {' '.join(key)}, found "
            f"{int(differs.sum())} that differ, first at {stamp}: stored {_shown(left, stamp)}; "
            f"given {_shown(right, stamp)}; remove whichever is wrong"
        )
    return pd.concat([old, new.drop(index=shared)]).sort_index()


def _shown(bars: pd.DataFrame, stamp: pd.Timestamp) -> str:
    return ", ".join(f"{name}={value:g}" for name, value in bars.loc[stamp].items())


def _write(path: Path, key: StoredBars, bars: pd.DataFrame) -> None:
    table = pa.Table.from_pandas(bars)
    facts = json.dumps({**key._asdict(), "sha256": bars_sha256(bars)})
    table = table.replace_schema_metadata({**table.schema.metadata, _METADATA_KEY: facts})
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            pq.write_table(table, file)
            file.flush()
            # The name must not reach the disk before the bytes, or a power cut leaves a hole.
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path, key: StoredBars) -> pd.DataFrame:
    try:
        table = pq.read_table(path)
        facts = json.loads(table.schema.metadata[_METADATA_KEY])
        bars = validate_bars(table.to_pandas())
        found = StoredBars(*(facts[name] for name in StoredBars._fields))
        intact = facts["sha256"] == bars_sha256(bars)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, str(error).splitlines()[0] if str(error) else repr(error)) from error
    if not intact:
        raise _damaged(path, "its bars do not match their hash")
    if found != key:
        raise DataError(
            f"expected bars of {' '.join(key)} in {path}, found those of {' '.join(found)}; "
            "the file was moved or renamed: put it back"
        )
    return bars


def _damaged(path: Path, what: str) -> DataError:
    return DataError(
        f"expected an intact file of bars, found {path} damaged ({what}); "
        "delete it and fetch its bars again"
    )
