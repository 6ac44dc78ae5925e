"""Bars that are on the disk as they come, and one file of them when all are there.

::

    FOLDER/
      form.json   what the bars are of; a later call has to want the same
      lock        held while a process records here
      1.arrows    bars of the first call, 2.arrows of the second, ...

The files are Arrow streams: of one that a kill cut off all can be read but the end.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from glow_bt.errors import ResultsError
from glow_bt.placing import new_file

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BarSpool"]

_FLUSH_SECONDS = 10.0
_FLUSH_BARS = 4096
# Of a row group, and what is held at once in making the file.
_BARS_AT_ONCE = 65_536


class BarSpool:
    """Keeps bars in a folder until the file that they are for is made.

    What a call that was killed left there comes before the bars of the next.

    Args:
        folder: where; it goes when the file is there, or if no bar ever came.
        form: what the bars are of, as JSON values.

    Raises:
        ResultsError: on entering, if another process records there, or the folder holds bars of
            another form.
    """

    def __init__(self, folder: Path, form: Mapping[str, Any]) -> None:
        self._folder, self._form = folder, json.loads(json.dumps(form))
        self._lock = FileLock(folder / "lock")
        self._file: IO[bytes] | None = None
        self._stream: pa.RecordBatchStreamWriter | None = None
        self._schema: pa.Schema | None = None
        self._waiting: list[pa.Table] = []
        self._flushed_at = 0.0
        self.earlier = 0
        self.num_bars = 0

    def __enter__(self) -> Self:
        """Hold the folder, and count what an earlier call left (`earlier`)."""
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ResultsError(
                f"expected to be the only process that records into {self._folder}, found another "
                "one at work; stop it, or choose another file"
            ) from None
        try:
            self._check_form()
        except BaseException:
            self._lock.release()
            raise
        self.earlier = self.num_bars = sum(batch.num_rows for batch in self._batches())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Put the last bars on the disk; a folder without any goes."""
        self._close()
        if not self.num_bars:
            shutil.rmtree(self._folder)
        self._lock.release()

    def add(self, bars: pd.DataFrame) -> None:
        """Take bars; they are on the disk with the first ones that come 10 seconds later."""
        table = pa.Table.from_pandas(bars, schema=self._schema, preserve_index=True)
        self._schema = table.schema
        self._waiting.append(table)
        self.num_bars += len(bars)
        waiting = sum(table.num_rows for table in self._waiting)
        if time.monotonic() - self._flushed_at >= _FLUSH_SECONDS or waiting >= _FLUSH_BARS:
            self._flush()

    def finish(self, out: Path) -> dict[str, Any]:
        """Make the file (.parquet, .csv or .csv.gz) of all bars, and return what is in it.

        It appears whole or not at all.
        """
        self._close()
        facts: dict[str, Any] = {"bars": 0}
        with new_file(out) as temporary, _table_writer(temporary, out) as write:
            for table in self._tables():
                bars = table.to_pandas()
                write(table, bars)
                facts["bars"] += len(bars)
                facts.setdefault("from", bars.index[0].isoformat())
                facts |= {"until": bars.index[-1].isoformat(), "columns": list(bars.columns)}
        self.num_bars = 0  # the folder has done its work
        return facts

    def _check_form(self) -> None:
        file = self._folder / "form.json"
        if not file.exists():
            with new_file(file) as temporary:
                temporary.write_text(json.dumps(self._form), encoding="utf-8")
            return
        found = json.loads(file.read_text(encoding="utf-8"))
        if found != self._form:
            other = [
                name for name in {**found, **self._form} if found.get(name) != self._form.get(name)
            ]
            raise ResultsError(
                f"expected no bars of another recording in {self._folder}, found some of a call "
                f"that was cut short with another {', '.join(other)}; give what it was given to "
                "go on, choose another file, or remove the folder"
            )

    def _flush(self) -> None:
        if not self._waiting:
            return
        if self._file is None:
            taken = [int(file.stem) for file in self._folder.glob("*.arrows")]
            self._file = (self._folder / f"{max(taken, default=0) + 1}.arrows").open("xb")
            self._stream = pa.ipc.new_stream(self._file, self._schema)
        if self._stream is not None:
            self._stream.write_table(pa.concat_tables(self._waiting).combine_chunks())
        self._waiting = []
        self._file.flush()
        os.fsync(self._file.fileno())
        self._flushed_at = time.monotonic()

    def _close(self) -> None:
        self._flush()
        if self._stream is not None and self._file is not None:
            self._stream.close()
            self._file.close()
            self._stream = self._file = None

    def _batches(self) -> Iterator[pa.RecordBatch]:
        for file in sorted(self._folder.glob("*.arrows"), key=lambda file: int(file.stem)):
            with file.open("rb") as source:
                yield from _readable(source)

    def _tables(self) -> Iterator[pa.Table]:
        """Give all bars in order, so many at once."""
        held: list[pa.RecordBatch] = []
        metadata = None
        for batch in self._batches():
            metadata = metadata or batch.schema.metadata
            held.append(batch.replace_schema_metadata(metadata))
            if sum(own.num_rows for own in held) >= _BARS_AT_ONCE:
                yield pa.Table.from_batches(held)
                held = []
        if held:
            yield pa.Table.from_batches(held)


def _readable(source: IO[bytes]) -> Iterator[pa.RecordBatch]:
    """Give the batches of a stream, up to where a kill cut it off."""
    try:
        yield from pa.ipc.open_stream(source)
    except (pa.ArrowInvalid, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise  # not Arrow's, but the disk's


@contextmanager
def _table_writer(
    temporary: Path, out: Path
) -> Iterator[Callable[[pa.Table, pd.DataFrame], object]]:
    """Give what appends bars to a file of the kind that its name says."""
    if out.suffix == ".parquet":
        writers: list[pq.ParquetWriter] = []

        def write(table: pa.Table, bars: pd.DataFrame) -> None:
            if not writers:
                writers.append(pq.ParquetWriter(temporary, table.schema))
            writers[0].write_table(table)

        try:
            yield write
        finally:
            for writer in writers:
                writer.close()
        return
    opened = gzip.open if out.suffix == ".gz" else open
    headers = iter([True])
    with opened(temporary, "wt", encoding="utf-8", newline="") as file:
        yield lambda table, bars: bars.to_csv(file, header=next(headers, False))
