"""Histories on disk that grow page by page and can be resumed at any point."""

from __future__ import annotations

import builtins
import os
import string
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

import numpy as np
import pandas as pd

from datafeeds.bybit_time import Stamp, as_utc, timeframe_of, to_epoch_ms
from datafeeds.ohlcv_damage import Damage, drop_damaged, find_damage
from datafeeds.ohlcv_index import INDEX_NAME, part_files
from datafeeds.ohlcv_journal import JOURNAL_NAME
from datafeeds.ohlcv_parts import PART_STEPS, Grid, SeriesFormat, empty_part, frame_of
from datafeeds.ohlcv_reader import SeriesReader, open_reader
from datafeeds.ohlcv_spans import minus
from datafeeds.ohlcv_writer import SeriesWriter
from datafeeds.series import FUNDING_STEP_MS, KINDS, Page, SeriesKey, kind_of
from glow_bt.errors import ConfigError, DataError
from glow_bt.ohlcv import validate_bars

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Damage", "OhlcvStore", "SeriesWriter", "StoredSize"]

_SAFE_MARKS = string.digits + "-_"
_NS_PER_MS = 1_000_000


class StoredSize(NamedTuple):
    """How much is stored of a history.

    Attributes:
        rows: bars, or values of another kind.
        bytes: on disk.
    """

    rows: int
    bytes: int


class OhlcvStore:
    """A folder of histories, each in a folder of its own.

    ``<root>/<exchange>/<symbol>/<kind>-<timeframe>/``, with names made safe for any file system
    (``BTC/USDT:USDT`` becomes ``BTC%2FUSDT%3AUSDT``), holds Parquet parts named after the first
    stamp of the fixed block of the grid that each covers, an index ``series.json``, a ``.lock``,
    and while a writer is at work a ``journal``. Everything is hashed, so that damage is noticed
    however small it is, and a function of settled spans and values alone: however they were
    fetched, the same history is the same bytes.

    Readers take no lock. They see what is in parts, as of the moment they begin; pages that are
    still in a writer's journal they do not see.

    Args:
        root: the folder; made when something is written.
        part_steps: steps of the grid that a part covers, of histories that are not there yet.
    """

    def __init__(self, root: str | os.PathLike[str], *, part_steps: int = PART_STEPS) -> None:
        self.root = Path(root)
        self._part_steps = part_steps

    def writer(self, key: SeriesKey, step_ms: int, offset_ms: int = 0) -> SeriesWriter:
        """Return a context manager that writes a history, alone.

        Args:
            key: which history; need not be there yet.
            step_ms: step of its grid, whole seconds.
            offset_ms: how far its stamps lie from the epoch's grid of that step.

        Raises:
            ConfigError: if the key or the grid cannot be, or the history has another grid.
            StoreLockedError: when entered, if another writer is at work.
            DamagedPartError: when entered, if the index is damaged.
        """
        return self._writer(key, self._grid(step_ms, offset_ms), kind_of(key.kind).columns)

    def write(self, exchange: str, symbol: str, timeframe: str, bars: pd.DataFrame) -> int:
        """Add bars before, between and after those that are there.

        What lies between the first and the last of them and is not among them counts as lacking.

        Args:
            exchange: such as ``bybit``.
            symbol: in ccxt's notation.
            timeframe: such as ``1h``.
            bars: in the contract of `glow_bt.ohlcv`. Those that are stored already must agree.

        Returns:
            How many bars were new.

        Raises:
            DataError: if the bars break the contract, are off the timeframe's grid, have other
                columns than those stored, or differ from them (the first such stamp is named);
                the store stays as it was.
            ConfigError: if the timeframe is unknown.
        """
        key = SeriesKey(exchange, symbol, "bars", timeframe)
        self._folder(key)
        new = validate_bars(bars)
        grid = self._grid(timeframe_of(timeframe).step_ms, timeframe_of(timeframe).offset_ms)
        if new.empty:
            return 0
        stamps_ns = pd.DatetimeIndex(new.index).as_unit("ns").asi8
        if (stamps_ns % _NS_PER_MS).any():
            raise DataError(
                f"expected bars every {timeframe}, found one that opens at "
                f"{new.index[int((stamps_ns % _NS_PER_MS != 0).argmax())]}; check the timeframe"
            )
        stamps = stamps_ns // _NS_PER_MS
        window = grid.around(int(stamps[0]), int(stamps[-1]) + 1)
        page = Page(window, stamps, new.to_numpy(dtype=np.float64))
        with self._writer(key, grid, tuple(new.columns)) as writer:
            return writer.add(page)

    def read(
        self,
        exchange: str,
        symbol: str,
        timeframe: str,
        since: Stamp | None = None,
        until: Stamp | None = None,
        *,
        kind: str = "bars",
    ) -> pd.DataFrame:
        """Return the values stamped ``since <= stamp < until``; default: all.

        Only the parts that overlap that span are read. Pages in a writer's journal are left out.

        Returns:
            Bars in the contract of `glow_bt.ohlcv`; of other kinds a frame with the index
            ``timestamp`` (UTC) and the kind's columns.

        Raises:
            DataError: if there is nothing of that name.
            DamagedPartError: if a part that is needed is damaged.
            ConfigError: if a moment cannot be read.
        """
        key = SeriesKey(exchange, symbol, kind, timeframe)
        reader = self._reader(key)
        frames = list(_frames(reader, since, until))
        form = reader.index.form
        return pd.concat(frames) if frames else frame_of(empty_part(form), form.columns)

    def iterate(
        self, key: SeriesKey, since: Stamp | None = None, until: Stamp | None = None
    ) -> Iterator[pd.DataFrame]:
        """Return what `read` returns in consecutive pieces, a part at a time in memory."""
        return _frames(self._reader(key), since, until)

    def span(
        self, exchange: str, symbol: str, timeframe: str, *, kind: str = "bars"
    ) -> tuple[pd.Timestamp, pd.Timestamp] | None:
        """Return the stamps of the first and the last value, None if nothing is stored.

        Raises:
            DamagedPartError: if the index is damaged.
        """
        key = SeriesKey(exchange, symbol, kind, timeframe)
        reader = open_reader(self._folder(key), key)
        stamps = None if reader is None else reader.index.stamps()
        if stamps is None:
            return None
        first, last = (pd.Timestamp(ms, unit="ms", tz="UTC").as_unit("us") for ms in stamps)
        return first, last

    def list(self) -> tuple[SeriesKey, ...]:
        """Return what is stored, sorted; also what only a journal or damaged files tell of."""
        return tuple(
            sorted(
                key
                for folder in self.root.glob("*/*/*")
                if (key := _key_of(folder)) is not None and _holds_something(folder)
            )
        )

    def size(self, key: SeriesKey) -> StoredSize:
        """Return how much is stored of a history.

        Raises:
            DamagedPartError: if the index is damaged.
        """
        folder = self._folder(key)
        reader = open_reader(folder, key)
        rows = 0 if reader is None else sum(part.rows for part in reader.index.parts.values())
        return StoredSize(rows, sum(path.stat().st_size for path in folder.glob("[!.]*")))

    def settled(self, key: SeriesKey) -> tuple[range, ...]:
        """Return the spans that were asked and answered, ascending; () if nothing is stored.

        Raises:
            DamagedPartError: if the index is damaged.
        """
        reader = open_reader(self._folder(key), key)
        return () if reader is None else reader.index.settled

    def lacking(self, key: SeriesKey) -> tuple[range, ...]:
        """Return the holes: settled, of a regular kind, between values, and without a value.

        Raises:
            DamagedPartError: if the index or a part is damaged.
        """
        reader = open_reader(self._folder(key), key)
        return () if reader is None else reader.lacking()

    def check(self, key: SeriesKey) -> builtins.list[Damage]:
        """Return every damaged file or broken rule of a history; [] if it is sound.

        Raises:
            DataError: if there is nothing of that name.
        """
        self._refuse_absent(key)
        return find_damage(self._folder(key), self._likely_form(key))

    def drop_damaged(self, key: SeriesKey) -> tuple[range, ...]:
        """Remove damaged parts, make the index anew and take in a journal that was left.

        Files that are no parts of a store are never touched.

        Returns:
            The spans to fetch again; of a part that is damaged together with the index, all of
            its block.

        Raises:
            DataError: if there is nothing of that name.
            StoreLockedError: if a writer is at work.
            StoreError: if the folder is of another history, or the disk cannot be written.
        """
        self._refuse_absent(key)
        folder = self._folder(key)
        lost = drop_damaged(folder, self._likely_form(key))
        reader = open_reader(folder, key)
        if reader is not None:
            with SeriesWriter(folder, reader.index.form):
                pass
        return minus(lost, self.settled(key))

    def _writer(self, key: SeriesKey, grid: Grid, columns: tuple[str, ...]) -> SeriesWriter:
        return SeriesWriter(self._folder(key), SeriesFormat(key, grid, columns))

    def _grid(self, step_ms: int, offset_ms: int) -> Grid:
        if step_ms <= 0 or step_ms % 1000 or offset_ms % 1000:
            raise ConfigError(
                f"expected a grid of whole seconds, found every {step_ms} ms from {offset_ms}; "
                "give the step and offset of a timeframe"
            )
        return Grid(step_ms, offset_ms % step_ms, self._part_steps)

    def _likely_form(self, key: SeriesKey) -> SeriesFormat:
        """Return the form of a history of which nothing can be read."""
        step_ms, offset_ms = FUNDING_STEP_MS, 0
        if key.timeframe:
            timeframe = timeframe_of(key.timeframe)
            step_ms, offset_ms = timeframe.step_ms, timeframe.offset_ms
        return SeriesFormat(key, self._grid(step_ms, offset_ms), kind_of(key.kind).columns)

    def _folder(self, key: SeriesKey) -> Path:
        has_timeframe = not kind_of(key.kind).regular or bool(key.timeframe)
        if not (key.exchange and key.symbol and has_timeframe):
            raise ConfigError(
                f"expected exchange, symbol and timeframe of {key.kind}, found {tuple(key)}"
            )
        # Letters of the other case are escaped as well: on file systems that do not tell case
        # apart a month (1M) would else overwrite a minute (1m).
        upper, lower = string.ascii_uppercase, string.ascii_lowercase
        timeframe = f"-{_escape(key.timeframe, lower)}" if key.timeframe else ""
        return (
            self.root
            / _escape(key.exchange, lower)
            / _escape(key.symbol, upper)
            / f"{key.kind}{timeframe}"
        )

    def _reader(self, key: SeriesKey) -> SeriesReader:
        reader = open_reader(self._folder(key), key)
        if reader is None:
            raise self._absent(key)
        return reader

    def _refuse_absent(self, key: SeriesKey) -> None:
        if not _holds_something(self._folder(key)):
            raise self._absent(key)

    def _absent(self, key: SeriesKey) -> DataError:
        wanted = " ".join(filter(None, (key.exchange, key.symbol, key.timeframe)))
        there = ", ".join(" ".join(filter(None, stored)) for stored in self.list()) or "nothing"
        return DataError(
            f"expected stored {key.kind} of {wanted}, found {there} in {self.root}; "
            "fetch them first"
        )


def _frames(
    reader: SeriesReader, since: Stamp | None, until: Stamp | None
) -> Iterator[pd.DataFrame]:
    """Yield what is within two moments, part by part; parts outside are not read."""
    form = reader.index.form
    first = None if since is None else as_utc(since, "since")
    end = None if until is None else as_utc(until, "until")
    end_ms = 0 if end is None else to_epoch_ms(end) + (end.as_unit("ms") != end)
    for number in sorted(reader.index.parts):
        block = form.grid.block(number)
        if first is not None and block.stop <= to_epoch_ms(first):
            continue
        if end is not None and block.start >= end_ms:
            break
        frame = frame_of(reader.part(number), form.columns)
        if first is not None:
            frame = frame[frame.index >= first]
        if end is not None:
            frame = frame[frame.index < end]
        if len(frame):
            yield frame


def _holds_something(folder: Path) -> bool:
    names = (folder / INDEX_NAME, folder / JOURNAL_NAME)
    return any(path.exists() for path in names) or bool(part_files(folder))


def _key_of(folder: Path) -> SeriesKey | None:
    """Return which history a folder is of by its name, None if by that it is of none."""
    kind, _, timeframe = folder.name.partition("-")
    if kind not in KINDS:
        return None
    return SeriesKey(*(unquote(name) for name in (*folder.parts[-3:-1], kind, timeframe)))


def _escape(name: str, letters: str) -> str:
    """Percent-encode all but digits, ``-``, ``_`` and some letters; `unquote` reverses it."""
    safe = letters + _SAFE_MARKS
    return "".join(
        char if char in safe else "".join(f"%{byte:02X}" for byte in char.encode())
        for char in name
    )
