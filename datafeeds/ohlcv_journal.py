"""Append-only journal of pages: each is on the disk when `Journal.append` returns.

A journal is a sequence of records: a mark of four letters, the payload's length and a CRC-32
over both and the payload (little-endian), then the payload. The first record names the history
(``head``); then come either pages (``page``) or spans to be forgotten (``drop``), never both, so
that a journal may be applied again without harm. What a kill or a power cut left torn at the end
is cut off when the journal is opened.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from datafeeds.ohlcv_disk import open_to_write, read_file, sync_folder, write_all
from datafeeds.ohlcv_parts import SeriesFormat
from datafeeds.series import Page
from glow_bt.errors import DamagedPartError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["JOURNAL_NAME", "Journal", "Records", "read_journal"]

JOURNAL_NAME = "journal"

_HEADER = struct.Struct("<4sII")
_PAGE = struct.Struct("<qqqII")
_SPAN = struct.Struct("<qqq")


class Records(NamedTuple):
    """What a journal holds.

    Attributes:
        form: of which history; None if its head is torn or missing.
        pages: the pages.
        drops: spans to be forgotten.
        good: length of the journal in bytes up to the last whole record.
        size: length of the file in bytes.
    """

    form: SeriesFormat | None
    pages: list[Page]
    drops: list[range]
    good: int
    size: int


class Journal:
    """The journal of one history, for the process that holds its lock.

    Args:
        path: the file; made at the first record.
        form: of which history.

    Raises:
        DamagedPartError: if the file is the journal of another history.
        OSError: from all methods, as the system gives it.
    """

    def __init__(self, path: Path, form: SeriesFormat) -> None:
        self.path = path
        self._form = form
        self._descriptor: int | None = None
        self._torn = False

    def recover(self) -> Records:
        """Return what an earlier writer left, and cut off what is torn."""
        records = read_journal(self.path)
        if records.form is None:
            self.remove()
            return records
        if records.form != self._form:
            raise DamagedPartError(
                self.path, f"it is of {' '.join(records.form.key)} or of another grid"
            )
        self._descriptor = open_to_write(self.path, os.O_APPEND)
        if records.size > records.good:
            os.ftruncate(self._descriptor, records.good)
            os.fsync(self._descriptor)
        return records

    def append(self, page: Page) -> None:
        """Add a page; it is durable when this returns, and was not added if this raises."""
        window = page.window
        self._write(
            b"page",
            _PAGE.pack(window.start, window.stop, window.step, *page.values.shape)
            + page.stamps.astype("<i8").tobytes()
            + np.ascontiguousarray(page.values, dtype="<f8").tobytes(),
        )

    def append_drops(self, spans: Iterable[range]) -> None:
        """Add spans to be forgotten."""
        packed = [_SPAN.pack(span.start, span.stop, span.step) for span in spans]
        self._write(b"drop", b"".join(packed))

    def remove(self) -> None:
        """Remove the journal: its pages are in parts."""
        self.close()
        if self.path.exists():
            self.path.unlink()
            sync_folder(self.path.parent)
        self._torn = False

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _write(self, mark: bytes, payload: bytes) -> None:
        if self._torn:
            raise StoreError(
                f"expected a whole journal {self.path}, found its end torn by an earlier error; "
                "open the history for writing again"
            )
        if self._descriptor is None:
            self._descriptor = open_to_write(self.path, os.O_APPEND)
        good = os.fstat(self._descriptor).st_size
        data = _record(mark, payload)
        if good == 0:
            head = json.dumps(self._form.to_json(), sort_keys=True).encode()
            data = _record(b"head", head) + data
        try:
            write_all(self._descriptor, data)
            os.fsync(self._descriptor)
            if good == 0:
                sync_folder(self.path.parent)
        except BaseException:
            self._cut_back(self._descriptor, good)
            raise

    def _cut_back(self, descriptor: int, good: int) -> None:
        """Take back what was written of a record; if that fails, accept no more."""
        try:
            os.ftruncate(descriptor, good)
        except OSError:
            self._torn = True


def read_journal(path: Path) -> Records:
    """Read the whole records of a journal; one that is missing or torn at its head has none."""
    try:
        data = read_file(path)
    except FileNotFoundError:
        data = b""
    form, pages, drops, good = None, list[Page](), list[range](), 0
    try:
        for mark, payload, end in _records(data):
            if mark == b"head":
                form = SeriesFormat.from_json(json.loads(payload))
            elif mark == b"drop":
                drops += [range(*span) for span in _SPAN.iter_unpack(payload)]
            else:
                pages.append(_page(payload))
            good = end
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise DamagedPartError(path, f"a record cannot be read: {error}") from error
    return Records(form, pages, drops, good, len(data))


def _records(data: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    start = 0
    while start + _HEADER.size <= len(data):
        mark, length, checksum = _HEADER.unpack_from(data, start)
        end = start + _HEADER.size + length
        payload = data[start + _HEADER.size : end]
        whole = len(payload) == length and checksum == _checksum(mark, payload)
        if not whole or (mark == b"head") != (start == 0):
            return
        yield mark, payload, end
        start = end


def _record(mark: bytes, payload: bytes) -> bytes:
    return _HEADER.pack(mark, len(payload), _checksum(mark, payload)) + payload


def _checksum(mark: bytes, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(len(payload).to_bytes(4, "little"), zlib.crc32(mark)))


def _page(payload: bytes) -> Page:
    start, stop, step, rows, columns = _PAGE.unpack_from(payload)
    split = _PAGE.size + 8 * rows
    stamps = np.frombuffer(payload[_PAGE.size : split], "<i8").astype(np.int64)
    values = np.frombuffer(payload[split:], "<f8").astype(np.float64)
    return Page(range(start, stop, step), stamps, values.reshape(rows, columns))
