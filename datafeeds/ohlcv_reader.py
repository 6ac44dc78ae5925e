"""Reading a stored history without a lock, while it may be written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datafeeds.ohlcv_disk import read_file
from datafeeds.ohlcv_index import INDEX_NAME, SeriesIndex, hash_of, read_part, refuse_moved
from datafeeds.ohlcv_journal import JOURNAL_NAME
from datafeeds.ohlcv_parts import Part
from datafeeds.ohlcv_spans import minus, union
from datafeeds.series import SeriesKey, kind_of
from glow_bt.errors import DamagedPartError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SeriesReader", "open_reader"]

_TRIES = 20


class SeriesReader:
    """A history as its index said when this was made; what is written later is left out.

    Args:
        folder: where it lies.
        index: its index.
    """

    def __init__(self, folder: Path, index: SeriesIndex) -> None:
        self.index = index
        self._folder = folder

    def part(self, number: int) -> Part:
        """Return one of the index's parts.

        A writer renames parts before the index, so a part may be newer than the index; it is
        then cut to what the index knows.

        Raises:
            DamagedPartError: if it is damaged or missing.
        """
        path = self._folder / self.index.form.grid.file_name(number)
        settled = self.index.settled_in(number)
        what = "it is missing"
        for _ in range(_TRIES):
            try:
                data = read_file(path)
            except FileNotFoundError:
                continue
            sha256 = hash_of(data)
            if sha256 == self.index.parts[number].sha256:
                return read_part(path, data, self.index.form)
            what = f"it is not as {INDEX_NAME} says"
            unsealed = (self._folder / JOURNAL_NAME).exists()
            index = SeriesIndex.load(self._folder) or self.index
            latest = index.parts.get(number)
            if unsealed or (latest is not None and latest.sha256 == sha256):
                part = read_part(path, data, self.index.form)
                if not minus(settled, part.settled):
                    return part.within(settled)
        raise DamagedPartError(path, what)

    def lacking(self) -> tuple[range, ...]:
        """Return the holes: settled, of a regular kind, between values, and without a value."""
        bounds = self.index.stamps()
        if bounds is None or not kind_of(self.index.form.key.kind).regular:
            return ()
        holes = union(
            hole for number in sorted(self.index.parts) for hole in self.part(number).lacking()
        )
        return tuple(hole for hole in holes if bounds[0] < hole.start < bounds[1])


def open_reader(folder: Path, key: SeriesKey) -> SeriesReader | None:
    """Take up a history; None if nothing of it is sealed.

    Raises:
        DamagedPartError: if its index is damaged.
        StoreError: if it is of another history.
    """
    index = SeriesIndex.load(folder)
    if index is not None:
        refuse_moved(index.form, key, folder)
    return None if index is None else SeriesReader(folder, index)
