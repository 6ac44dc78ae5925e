"""Finding damage in a stored history, and dropping what is damaged so that it can be fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from filelock import Timeout

from datafeeds.ohlcv_disk import TEMPORARY_SUFFIX, disk_errors, place, read_file, sync_folder
from datafeeds.ohlcv_index import (
    INDEX_NAME,
    PartFacts,
    SeriesIndex,
    hash_of,
    part_files,
    read_part,
    refuse_moved,
)
from datafeeds.ohlcv_journal import JOURNAL_NAME, read_journal
from datafeeds.ohlcv_pages import checked_page
from datafeeds.ohlcv_parts import Part, SeriesFormat, decode, encode
from datafeeds.ohlcv_reader import SeriesReader
from datafeeds.ohlcv_spans import minus, union
from datafeeds.ohlcv_writer import LOCK_NAME, series_lock, writer_lock
from datafeeds.series import Page
from glow_bt.errors import DamagedPartError, DataError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Damage", "drop_damaged", "find_damage"]


_TRIES = 5


class Damage(NamedTuple):
    """Something that is wrong in a stored history.

    Attributes:
        path: the file.
        what: what was expected, what was found, and what to do.
    """

    path: Path
    what: str


def find_damage(folder: Path, form: SeriesFormat) -> list[Damage]:
    """Look at every file of a history; [] if it is sound.

    Args:
        folder: where it lies.
        form: what it should be of; the grid counts only if nothing stored says which it is.
    """
    found: list[Damage] = []
    for _ in range(_TRIES):
        before = _index_bytes(folder)
        found = _look(folder, form)
        # What a writer did meanwhile can look like damage.
        if not found or _index_bytes(folder) == before:
            break
    return found


def _index_bytes(folder: Path) -> bytes | None:
    try:
        return read_file(folder / INDEX_NAME)
    except (FileNotFoundError, StoreError):
        return None


def _look(folder: Path, form: SeriesFormat) -> list[Damage]:
    found = []
    index = None
    try:
        index = SeriesIndex.load(folder)
        if index is not None:
            refuse_moved(index.form, form.key, folder)
    except DataError as error:
        found.append(Damage(folder / INDEX_NAME, str(error)))
    form = index.form if index is not None else _form_there(folder, form)
    named = set()
    if index is not None:
        for number in sorted(index.parts):
            path = folder / form.grid.file_name(number)
            named.add(path)
            found += [Damage(path, what) for what in _part_damage(folder, index, number)]
    # Without an index, or between a part and the index, a sound part need not be named.
    may_be_unnamed = index is None or (folder / JOURNAL_NAME).exists()
    for path in part_files(folder):
        if path not in named:
            found += [Damage(path, what) for what in _stray_part(path, form, may_be_unnamed)]
    return found + list(_journal_damage(folder, form)) + list(_foreign_files(folder))


def drop_damaged(folder: Path, form: SeriesFormat) -> tuple[range, ...]:
    """Remove damaged parts, and only them, and make the index anew from those that are sound.

    Args:
        folder: where the history lies.
        form: as for `find_damage`.

    Returns:
        What was settled by that and is no longer; of a part that is damaged together with the
        index, its whole block.

    Raises:
        StoreLockedError: if a writer is at work.
        StoreError: if the folder is of another history, or the disk cannot be written.
    """
    with disk_errors(folder), writer_lock(folder):
        index = _index_or_none(folder)
        if index is not None:
            refuse_moved(index.form, form.key, folder)
        form = index.form if index is not None else _form_there(folder, form)
        sound = SeriesIndex(form)
        damaged = []
        for path in part_files(folder):
            part = _mended(path, form, index)
            if part is None:
                damaged.append(path)
            else:
                number = form.grid.block_of(part.settled[0].start)
                sound.enter(number, part, read_file(path))
        if index is None:
            # What is lost is known from the names of files that are about to go: note it first.
            index = SeriesIndex(form, sound.settled, dict(sound.parts))
            for path in damaged:
                number_there = form.grid.number_in(path.name)
                if number_there is not None:
                    index.settled = union((*index.settled, form.grid.block(number_there)))
                    index.parts[number_there] = PartFacts(0, "", None, None)
            index.save(folder)
        for path in damaged:
            path.unlink()
        _drop_foreign_journal(folder, form)
        sync_folder(folder)
        if sound != index:
            sound.save(folder)
        return minus(index.settled, sound.settled)


def _index_or_none(folder: Path) -> SeriesIndex | None:
    try:
        return SeriesIndex.load(folder)
    except DamagedPartError:
        return None


def _form_there(folder: Path, form: SeriesFormat) -> SeriesFormat:
    """Return what the first sound part of the same history says that it is of."""
    for path in part_files(folder):
        try:
            found, _ = decode(read_file(path), path)
        except StoreError:
            continue
        if found.key == form.key:
            return found
    return form


def _mended(path: Path, form: SeriesFormat, index: SeriesIndex | None) -> Part | None:
    """Return a part, written anew if only bytes without a meaning are damaged; or None."""
    data = read_file(path)
    try:
        part = read_part(path, data, form)
    except DamagedPartError:
        return None
    again = encode(part, form)
    if again != data and (index is None or not _is_known(index, path, data)):
        place(path, again)
    return part


def _is_known(index: SeriesIndex, path: Path, data: bytes) -> bool:
    number = index.form.grid.number_in(path.name)
    facts = None if number is None else index.parts.get(number)
    return facts is not None and facts.sha256 == hash_of(data)


def _part_damage(folder: Path, index: SeriesIndex, number: int) -> Iterator[str]:
    reader = SeriesReader(folder, index)
    try:
        part = reader.part(number)
    except StoreError as error:
        yield str(error)
        return
    facts = index.parts[number]
    stamps = part.stamps[[0, -1]].tolist() if len(part.stamps) else [None, None]
    if part.settled != index.settled_in(number) or facts != (
        len(part.stamps), facts.sha256, *stamps
    ):  # fmt: skip
        yield (
            f"expected {INDEX_NAME} to agree with its parts, found "
            f"{index.form.grid.file_name(number)} to hold other spans or values; "
            "`glow-bt data repair` makes it anew"
        )
    yield from _rule_breaks(part, index.form, number)


def _rule_breaks(part: Part, form: SeriesFormat, number: int) -> Iterator[str]:
    try:
        checked_page(Page(form.grid.block(number), part.stamps, part.values), form)
    except DataError as error:
        yield str(error)


def _stray_part(path: Path, form: SeriesFormat, may_be_unnamed: bool) -> Iterator[str]:
    """Say what is wrong with a part that no index names."""
    try:
        read_part(path, read_file(path), form)
    except FileNotFoundError:
        return
    except StoreError as error:
        yield str(error)
    else:
        if not may_be_unnamed:
            yield (
                f"expected {INDEX_NAME} to name {path}, found it does not; "
                "`glow-bt data repair` makes it anew"
            )


def _journal_damage(folder: Path, form: SeriesFormat) -> Iterator[Damage]:
    path = folder / JOURNAL_NAME
    if not path.exists():
        return
    try:
        records = read_journal(path)
        if records.form not in (None, form):
            raise DamagedPartError(path, "it is of another history")
    except StoreError as error:
        yield Damage(path, str(error))
        return
    lock = series_lock(folder)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return
    lock.release()
    yield Damage(
        path,
        f"expected no journal in {folder} that nobody writes, found one with "
        f"{len(records.pages)} pages that a killed writer left; fetching or "
        "`glow-bt data repair` takes them in",
    )


def _drop_foreign_journal(folder: Path, form: SeriesFormat) -> None:
    path = folder / JOURNAL_NAME
    try:
        is_foreign = read_journal(path).form not in (None, form)
    except DamagedPartError:
        is_foreign = True
    if is_foreign:
        path.unlink()


def _foreign_files(folder: Path) -> Iterator[Damage]:
    ours = {INDEX_NAME, JOURNAL_NAME, LOCK_NAME, *(path.name for path in part_files(folder))}
    for path in sorted(folder.iterdir()):
        is_temporary = path.name.startswith(".") and path.name.endswith(TEMPORARY_SUFFIX)
        if path.name not in ours and not is_temporary:
            yield Damage(
                path, f"expected files of the store only in {folder}, found {path}; move it away"
            )
