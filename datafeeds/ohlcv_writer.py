"""Writing a stored history, so that a kill at any instant loses at most the page in flight."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from filelock import FileLock, Timeout

from datafeeds.ohlcv_disk import (
    TEMPORARY_SUFFIX,
    disk_errors,
    make_folder,
    place,
    read_file,
    sync_folder,
)
from datafeeds.ohlcv_index import (
    INDEX_NAME,
    SeriesIndex,
    hash_of,
    read_part,
    rebuilt_index,
    refuse_moved,
)
from datafeeds.ohlcv_journal import JOURNAL_NAME, Journal
from datafeeds.ohlcv_pages import Clash, checked_page, clash_of, pieces_of, shown
from datafeeds.ohlcv_parts import Part, SeriesFormat, empty_part, encode, merged
from datafeeds.ohlcv_spans import cut, end_of, minus, overlap, union
from datafeeds.series import Page, kind_of
from glow_bt.errors import (
    ConfigError,
    DamagedPartError,
    DataError,
    StoreError,
    StoreLockedError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from types import TracebackType

__all__ = ["LOCK_NAME", "SeriesWriter", "series_lock", "writer_lock"]

LOCK_NAME = ".lock"


class SeriesWriter:
    """The one writer of a history, from ``with`` to its end; `OhlcvStore.writer` makes it.

    Pages go to a journal and, when that is worth a part or the writer is left, from there into
    parts ("sealed"). Opening it finishes what a killed writer left. Not for several threads.

    Args:
        folder: where the history lies.
        form: what it is of. Of a history that is stored already, parts keep their size.

    Raises:
        StoreLockedError: when entered, if another writer is at work.
        StoreError: if the disk is full or cannot be written, from any method; what was stored
            before, and every page that `add` returned for, is kept.
        DamagedPartError: if a file that is needed is damaged.
    """

    def __init__(self, folder: Path, form: SeriesFormat) -> None:
        self._folder = folder
        self._form = form
        self._lock = series_lock(folder)
        self._index = SeriesIndex(form)
        self._journal = Journal(folder / JOURNAL_NAME, form)
        self._pending: dict[int, list[Page]] = {}
        self._pending_settled: tuple[range, ...] = ()
        self._pending_steps = 0
        self._drops: tuple[range, ...] = ()
        self._sound: set[int] = set()
        self._latest: tuple[int, Part] | None = None
        self._recovering = False

    def __enter__(self) -> Self:
        with disk_errors(self._folder):
            make_folder(self._folder)
            _acquire(self._lock, self._folder)
            try:
                self._recover()
            except BaseException:
                self._close()
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.seal()
        except StoreError:
            # The journal holds the pages; the error on its way out says more than this one.
            if error is None:
                raise
        finally:
            self._close()

    def missing(self, span: range, limit: int) -> list[range]:
        """Return the windows of a span that no page has settled yet.

        Args:
            span: within which.
            limit: most steps of a window.

        Returns:
            Windows, ascending, cut at multiples of ``limit`` steps of the grid, so that they do
            not depend on what was fetched in which order.
        """
        whole = self._form.grid.around(span.start, end_of(span))
        return cut(minus([whole], self._settled()), limit, self._form.grid.offset_ms)

    def add(self, page: Page) -> int:
        """Store a page; it is durable when this returns.

        Args:
            page: in any order with others; again and again is harmless. Values may come later
                for stamps that were settled without.

        Returns:
            How many of its values were new.

        Raises:
            DataError: if it contradicts what is stored, or cannot be true in itself; then nothing
                of it is stored.
        """
        self._refuse_closed()
        page = checked_page(page, self._form)
        with disk_errors(self._folder):
            if self._drops or self._pending_steps >= self._form.grid.part_steps:
                self.seal()
            count = 0
            fresh = []
            clashes = []
            for number, piece in pieces_of(page, self._form):
                is_new, clash = clash_of(piece, self._known(number, piece.window))
                clashes += [clash] if clash else []
                count += int(is_new.sum())
                if is_new.any() or minus([piece.window], self._settled()):
                    fresh.append((number, piece))
            if clashes:
                raise self._contradiction(clashes)
            for number, piece in fresh:
                self._journal.append(piece)
                self._pend(number, piece)
                if self._pending_steps >= self._form.grid.part_steps:
                    self.seal()
        return count

    def lacking(self, span: range) -> list[range]:
        """Return the holes of a span: settled, between values, and without a value.

        None in kinds whose stamps are irregular.
        """
        bounds = self._bounds()
        if bounds is None or not kind_of(self._form.key.kind).regular:
            return []
        inner = self._form.grid.around(bounds[0], bounds[1])
        holes: list[range] = []
        for number, piece in self._form.grid.cut(overlap(self._settled(), [span])):
            part = merged(self._part(number), self._pending.get(number, []))
            holes += overlap(part.lacking(), overlap([piece], [inner]))
        return list(union(holes))

    def forget(self, spans: Iterable[range]) -> None:
        """Unsettle spans and drop their values, so that they are fetched anew."""
        self._refuse_closed()
        with disk_errors(self._folder):
            self.seal()
            spans = [self._form.grid.around(span.start, end_of(span)) for span in spans]
            drops = overlap(self._index.settled, spans)
            if drops:
                self._journal.append_drops(drops)
                self._drops = drops
                self.seal()

    def seal(self) -> None:
        """Move what the journal holds into parts, where readers see it."""
        self._refuse_closed()
        with disk_errors(self._folder):
            if self._drops:
                self._seal_drops()
            for number in sorted(self._pending):
                self._put(number, merged(self._part(number), self._pending[number]))
            if self._pending:
                self._index.save(self._folder)
            self._journal.remove()
            self._pending.clear()
            self._pending_settled, self._pending_steps = (), 0

    def _recover(self) -> None:
        """Take up a history as it lies there, and finish what its last writer left."""
        for path in self._folder.glob(f".*{TEMPORARY_SUFFIX}"):
            path.unlink()
        journal = self._folder / JOURNAL_NAME
        index = SeriesIndex.load(self._folder)
        if index is None:  # new, or killed at its first seal
            index = rebuilt_index(self._folder, self._form)
        self._form = _agreed(index.form, self._form, self._folder)
        self._index = index
        self._journal = Journal(journal, self._form)
        records = self._journal.recover()
        self._recovering = True
        for page in records.pages:
            for number, piece in pieces_of(page, self._form):
                self._pend(number, piece)
        self._drops = tuple(records.drops)
        self.seal()
        self._recovering = False

    def _seal_drops(self) -> None:
        # The index goes first, so that readers never miss a value that it calls settled.
        numbers = sorted({number for number, _ in self._form.grid.cut(self._drops)})
        before, self._recovering, self._latest = self._recovering, True, None
        try:
            for number in numbers:
                part = self._part(number)
                part = part.within(minus(part.settled, self._drops))
                self._index.enter(number, part, encode(part, self._form))
            self._index.save(self._folder)
            for number in numbers:
                part = self._part(number)
                self._put(number, part.within(minus(part.settled, self._drops)))
            self._drops = ()
        finally:
            self._recovering = before

    def _put(self, number: int, part: Part) -> None:
        path = self._folder / self._form.grid.file_name(number)
        data = encode(part, self._form)
        if part.settled:
            place(path, data)
        elif path.exists():
            path.unlink()
            sync_folder(self._folder)
        self._index.enter(number, part, data)
        self._latest = number, part

    def _part(self, number: int) -> Part:
        """Return the sealed part of a block; the latest is kept in memory."""
        if self._latest is not None and self._latest[0] == number:
            return self._latest[1]
        path = self._folder / self._form.grid.file_name(number)
        facts = self._index.parts.get(number)
        try:
            data = read_file(path)
        except FileNotFoundError:
            if facts is not None:
                raise DamagedPartError(path, "it is missing") from None
            return empty_part(self._form)
        if not self._recovering and (facts is None or facts.sha256 != hash_of(data)):
            raise DamagedPartError(path, f"it is not as {INDEX_NAME} says")
        part = read_part(path, data, self._form)
        self._latest = number, part
        self._sound.add(number)
        return part

    def _known(self, number: int, window: range) -> list[Part | Page]:
        """Return what is stored or journalled of a window; a block's part is checked once."""
        known: list[Part | Page] = []
        if number not in self._sound or overlap(self._index.settled, [window]):
            known.append(self._part(number))
            self._sound.add(number)
        if overlap(self._pending_settled, [window]):
            known += [
                page
                for page in self._pending.get(number, [])
                if page.window.start < end_of(window) and window.start < end_of(page.window)
            ]
        return known

    def _pend(self, number: int, page: Page) -> None:
        self._pending.setdefault(number, []).append(page)
        self._pending_settled = union((*self._pending_settled, page.window))
        self._pending_steps += len(page.window)

    def _settled(self) -> tuple[range, ...]:
        return union((*self._index.settled, *self._pending_settled))

    def _bounds(self) -> tuple[int, int] | None:
        stamps = list(self._index.stamps() or ())
        for pages in self._pending.values():
            stamps += [int(page.stamps[i]) for page in pages if len(page.stamps) for i in (0, -1)]
        return (min(stamps), max(stamps)) if stamps else None

    def _contradiction(self, clashes: list[Clash]) -> DataError:
        first = clashes[0]
        stored, given = (
            ", ".join(
                f"{name}={value:g}" for name, value in zip(self._form.columns, row, strict=True)
            )
            for row in (first.stored, first.given)
        )
        count = sum(clash.stamps for clash in clashes)
        return DataError(
            f"expected values that agree with those stored for {_name(self._form)}, found "
            f"{count} that differ, first at {shown(first.first)}: "
            f"stored {stored}; given {given}; remove whichever is wrong"
        )

    def _refuse_closed(self) -> None:
        if not self._lock.is_locked:
            raise StoreError(
                f"expected an open writer of {self._folder}, found it closed; use it within `with`"
            )

    def _close(self) -> None:
        self._journal.close()
        self._lock.release()


def series_lock(folder: Path) -> FileLock:
    """Return the lock of a history, which the system frees when its holder ends or is killed."""
    return FileLock(folder / LOCK_NAME, thread_local=False)


@contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a history.

    Raises:
        StoreLockedError: if another holds it.
    """
    lock = series_lock(folder)
    _acquire(lock, folder)
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, folder: Path) -> None:
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise StoreLockedError(
            f"expected no other writer of {folder}, found one at work; wait for it to end or "
            "stop it, and call again"
        ) from error


def _agreed(stored: SeriesFormat, asked: SeriesFormat, folder: Path) -> SeriesFormat:
    """Return the stored form if it is the one that was asked for."""
    refuse_moved(stored, asked.key, folder)
    if stored.grid[:2] != asked.grid[:2]:
        raise ConfigError(
            f"expected the grid stored for {_name(stored)} (every {stored.grid.step_ms} ms from "
            f"{stored.grid.offset_ms}), found {asked.grid.step_ms} ms from "
            f"{asked.grid.offset_ms}; use that or another store"
        )
    if stored.columns != asked.columns:
        raise DataError(
            f"expected columns {', '.join(stored.columns)} as stored for {_name(stored)}, "
            f"found {', '.join(asked.columns)}; write the same columns or start another store"
        )
    return stored


def _name(form: SeriesFormat) -> str:
    return " ".join(filter(None, form.key))
