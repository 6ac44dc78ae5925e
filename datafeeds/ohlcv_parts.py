"""Parts of a stored history: Parquet files that each hold one fixed block of the grid.

A part is a pure function of what it holds: the same settled spans and values give the same bytes,
and a hash of all of it lies in its metadata.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from datafeeds.ohlcv_spans import cut, minus, union
from datafeeds.series import SeriesKey, ceil_ms, floor_ms
from glow_bt.errors import DamagedPartError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import numpy.typing as npt

    from datafeeds.series import Page

__all__ = [
    "PART_STEPS",
    "PART_SUFFIX",
    "SCHEMA_VERSION",
    "Grid",
    "Part",
    "SeriesFormat",
    "decode",
    "empty_part",
    "encode",
    "frame_of",
    "merged",
]

PART_STEPS = 50_000
"""Steps of the grid that one part covers."""
PART_SUFFIX = ".parquet"
SCHEMA_VERSION = 1
_METADATA_KEY = b"glow_bt"
_NAME_FORMAT = "%Y%m%dT%H%M%SZ"
_EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001 (only differences count)


class Grid(NamedTuple):
    """The stamps that a history may have.

    Attributes:
        step_ms: distance of neighbouring stamps.
        offset_ms: stamp of the grid's origin, from 0 on and less than a step.
        part_steps: steps that a part covers; the blocks are counted from the origin.
    """

    step_ms: int
    offset_ms: int
    part_steps: int

    def block_of(self, stamp_ms: int) -> int:
        """Return the number of the block that holds a stamp."""
        return (stamp_ms - self.offset_ms) // (self.step_ms * self.part_steps)

    def block(self, number: int) -> range:
        """Return the span of a block."""
        size = self.step_ms * self.part_steps
        start = self.offset_ms + number * size
        return range(start, start + size, self.step_ms)

    def around(self, start_ms: int, stop_ms: int) -> range:
        """Return the smallest span of the grid that holds all from start to stop."""
        start = floor_ms(start_ms, self.step_ms, self.offset_ms)
        stop = ceil_ms(stop_ms, self.step_ms, self.offset_ms)
        return range(start, max(start, stop), self.step_ms)

    def cut(self, spans: Iterable[range]) -> list[tuple[int, range]]:
        """Cut spans at the edges of blocks; each with its block's number."""
        pieces = cut(spans, self.part_steps, self.offset_ms)
        return [(self.block_of(piece.start), piece) for piece in pieces]

    def file_name(self, number: int) -> str:
        """Return the name of a block's part."""
        start = _EPOCH + dt.timedelta(milliseconds=self.block(number).start)
        return f"{start.strftime(_NAME_FORMAT).zfill(16)}{PART_SUFFIX}"

    def number_in(self, file_name: str) -> int | None:
        """Return the number of the block whose part has that name, None if none has."""
        try:
            start = dt.datetime.strptime(file_name, _NAME_FORMAT + PART_SUFFIX)  # noqa: DTZ007
        except ValueError:
            return None
        number = self.block_of((start - _EPOCH) // dt.timedelta(milliseconds=1))
        return number if self.file_name(number) == file_name else None


class SeriesFormat(NamedTuple):
    """What all parts of a history have in common."""

    key: SeriesKey
    grid: Grid
    columns: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Return it in plain types."""
        return {
            "schema_version": SCHEMA_VERSION,
            "key": list(self.key),
            "grid": list(self.grid),
            "columns": list(self.columns),
        }

    @classmethod
    def from_json(cls, facts: dict[str, object]) -> SeriesFormat:
        """Read what `to_json` gave.

        Raises:
            ValueError, KeyError, TypeError: if it is something else.
        """
        if facts["schema_version"] != SCHEMA_VERSION:
            raise ValueError(
                f"schema version {facts['schema_version']}, this version reads {SCHEMA_VERSION}"
            )
        key, grid, columns = facts["key"], facts["grid"], facts["columns"]
        if not (isinstance(key, list) and isinstance(grid, list) and isinstance(columns, list)):
            raise TypeError("key, grid and columns are no lists")
        return cls(SeriesKey(*key), Grid(*grid), tuple(columns))


class Part(NamedTuple):
    """What is known of one block.

    Attributes:
        settled: spans of the block that were asked and answered.
        stamps: epoch milliseconds within those, ascending, int64 of shape (N,).
        values: float64 of shape (N, C).
    """

    settled: tuple[range, ...]
    stamps: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]

    def lacking(self) -> list[range]:
        """Return the settled spans without a value, of a regular kind."""
        holes = []
        for span in self.settled:
            first, end = np.searchsorted(self.stamps, [span.start, span.stop])
            edges = np.r_[span.start - span.step, self.stamps[first:end], span.stop]
            wide = np.flatnonzero(np.diff(edges) > span.step)
            pairs = zip(edges[wide].tolist(), edges[wide + 1].tolist(), strict=True)
            holes += [range(left + span.step, right, span.step) for left, right in pairs]
        return holes

    def within(self, spans: Iterable[range]) -> Part:
        """Return what the part holds of some spans."""
        away = minus(self.settled, spans)
        kept = np.ones(len(self.stamps), dtype=bool)
        for span in away:
            first, end = np.searchsorted(self.stamps, [span.start, span.stop])
            kept[first:end] = False
        return Part(minus(self.settled, away), self.stamps[kept], self.values[kept])


def empty_part(form: SeriesFormat) -> Part:
    """Return a part of which nothing is known."""
    return Part((), np.empty(0, dtype=np.int64), np.empty((0, len(form.columns))))


def merged(part: Part, pages: Iterable[Page]) -> Part:
    """Return a part with pages of its block added; they must agree where they overlap."""
    pages = list(pages)
    stamps = np.concatenate([part.stamps, *(page.stamps for page in pages)])
    values = np.concatenate([part.values, *(page.values for page in pages)])
    stamps, rows = np.unique(stamps, return_index=True)
    settled = union((*part.settled, *(page.window for page in pages)))
    return Part(settled, stamps, values[rows])


def encode(part: Part, form: SeriesFormat) -> bytes:
    """Return a part as the bytes of a Parquet file."""
    facts = {
        **form.to_json(),
        "settled": [[span.start, span.stop] for span in part.settled],
    }
    facts["sha256"] = _hash(facts, part.stamps, part.values)
    stamps = pa.array((part.stamps * 1000).view("datetime64[us]"), pa.timestamp("us", "UTC"))
    columns = [pa.array(np.ascontiguousarray(column)) for column in part.values.T]
    table = pa.table([stamps, *columns], names=["timestamp", *form.columns])
    table = table.replace_schema_metadata({_METADATA_KEY: json.dumps(facts, sort_keys=True)})
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        use_dictionary=False,
        column_encoding={
            "timestamp": "DELTA_BINARY_PACKED",
            **dict.fromkeys(form.columns, "BYTE_STREAM_SPLIT"),
        },
    )
    return bytes(sink.getvalue())


def decode(data: bytes, path: Path) -> tuple[SeriesFormat, Part]:
    """Read the bytes of a part.

    Args:
        data: what the file held.
        path: its name, for messages.

    Raises:
        DamagedPartError: if it is no part, its content does not match its hash, or it bears the
            name of another block.
    """
    try:
        table = pq.read_table(pa.BufferReader(data), use_threads=False)
        facts = json.loads(table.schema.metadata[_METADATA_KEY])
        form = SeriesFormat.from_json(facts)
        stamps = table["timestamp"].to_numpy().view(np.int64) // 1000
        values = np.empty((len(stamps), len(form.columns)))
        for i, name in enumerate(form.columns):
            values[:, i] = table[name].to_numpy()
        intact = facts.pop("sha256") == _hash(facts, stamps, values)
        step = form.grid.step_ms
        settled = tuple(range(start, stop, step) for start, stop in facts["settled"])
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        what = str(error).splitlines()[0] if str(error) else repr(error)
        raise DamagedPartError(path, what) from error
    if not intact:
        raise DamagedPartError(path, "its content does not match its hash")
    blocks = {number for number, _ in form.grid.cut(settled)}
    if {form.grid.file_name(number) for number in blocks} != {path.name}:
        raise DamagedPartError(path, "it holds another block: it was moved or renamed")
    return form, Part(settled, stamps, values)


def frame_of(part: Part, columns: Iterable[str]) -> pd.DataFrame:
    """Return a part's values as a frame with a UTC index ``timestamp``, in microseconds."""
    index = pd.DatetimeIndex((part.stamps * 1000).view("datetime64[us]"), name="timestamp")
    return pd.DataFrame(part.values, index=index.tz_localize("UTC"), columns=list(columns))


def _hash(
    facts: dict[str, object], stamps: npt.NDArray[np.int64], values: npt.NDArray[np.float64]
) -> str:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    digest.update(stamps.astype("<i8").tobytes())
    digest.update(np.ascontiguousarray(values, dtype="<f8").tobytes())
    return digest.hexdigest()
