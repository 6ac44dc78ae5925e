"""Bytes that are on the disk when a call returns, and one clear error when they cannot be.

Unlike `glow_bt.placing`, which guards against kills, this also guards against power cuts: names
must reach the disk after the bytes they stand for.
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from glow_bt.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = [
    "TEMPORARY_SUFFIX",
    "disk_errors",
    "make_folder",
    "open_to_write",
    "place",
    "read_file",
    "sync_folder",
    "write_all",
]

TEMPORARY_SUFFIX = ".tmp"
"""End of the name of a file that is not whole yet; its name starts with a dot."""

_BINARY: int = getattr(os, "O_BINARY", 0)  # Windows would else change line ends
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn what the system says of a disk into a `StoreError` that says what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or repr(error)
        if error.errno in _NO_ROOM:
            raise StoreError(
                f"expected room on the disk of {folder}, found {reason}; "
                "free some and call again: what was stored before is kept"
            ) from error
        raise StoreError(
            f"expected to write in {folder}, found {reason}"
            f"{f' at {error.filename}' if error.filename else ''}; "
            "see to the folder and its permissions and call again"
        ) from error


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, durably."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in made:
        sync_folder(path.parent)


def read_file(path: Path) -> bytes:
    """Read a file.

    Raises:
        FileNotFoundError: if it is not there.
        StoreError: if it cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(
            f"expected to read {path}, found {error.strerror or repr(error)}; "
            "see to the file and its permissions and call again"
        ) from error


def open_to_write(path: Path, flags: int) -> int:
    """Open a file with ``os.O_APPEND`` or ``os.O_TRUNC``, made if it is not there."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | _BINARY | flags, 0o666)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of the bytes, in as many calls as the system wants."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def place(path: Path, data: bytes) -> None:
    """Put a file under its name, whole or not at all, whatever happens meanwhile.

    One writer at a time, which the lock of a series sees to.
    """
    temporary = path.with_name(f".{path.name}{TEMPORARY_SUFFIX}")
    try:
        descriptor = open_to_write(temporary, os.O_TRUNC)
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, on systems that can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
