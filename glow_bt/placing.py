"""Files and folders that appear under their names whole or not at all.

What is new is written beside its place under a temporary name and renamed at the end, so a
kill, a full disk or an error leaves what was there before.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["new_file", "new_folder", "obstacle"]


@contextmanager
def new_file(file: Path) -> Iterator[Path]:
    """Give a temporary path to write to; it then takes the file's name.

    Folders on the way to the file are made. If the writing fails, the temporary file goes.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(file)
    try:
        yield temporary
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give an empty temporary folder to fill; it then takes the folder's name.

    A folder that has the name is replaced (ask `obstacle` before) and deleted last. If the
    filling fails, the temporary folder goes; a filled one is never deleted.
    """
    temporary = _beside(folder)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _move_into_place(temporary, folder)


def obstacle(folder: Path, kind: str, marks: Sequence[str], *, overwrite: bool) -> str | None:
    """Say what keeps a folder from being written.

    Args:
        folder: an absolute path without links.
        kind: what is to be written, such as "model".
        marks: keys by which the manifest.json of such a folder is known, even a damaged one.
        overwrite: whether an empty folder, or one of the same kind, may be replaced; nothing
            else ever may.

    Returns:
        A line for an error: expected, found and what to do. None if nothing is in the way.
    """
    if os.path.lexists(folder):
        if not overwrite:
            return (
                f"expected a new {kind} folder, found {folder} there already; "
                "choose another or ask to overwrite it (--overwrite)"
            )
        if Path.cwd().is_relative_to(folder):
            return (
                f"expected a {kind} folder to overwrite, found the working folder in {folder}; "
                "choose another place, or call from elsewhere"
            )
        if found := _foreign(folder, marks):
            return (
                f"expected a {kind} folder to overwrite, found {found}; "
                "choose another place, or remove it yourself"
            )
    above = next(path for path in folder.parents if os.path.lexists(path))
    if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
        what = "a folder without permission to write" if above.is_dir() else "a file"
        return (
            f"expected a place for the {kind} folder {folder}, found {what}, {above}; "
            "choose another place"
        )
    return None


def _foreign(folder: Path, marks: Sequence[str]) -> str | None:
    """Say what stands in a place if it is neither an empty folder nor one with the marks."""
    if not folder.is_dir():
        return f"a file, {folder}"
    try:
        if not any(folder.iterdir()):
            return None
        manifest = (folder / "manifest.json").read_bytes()
    except OSError as error:
        return f"another folder, {folder} (manifest.json: {error.strerror})"
    missing = [mark for mark in marks if f'"{mark}"'.encode() not in manifest]
    if missing:
        return f"another folder, {folder} (manifest.json without {', '.join(missing)})"
    return None


def _move_into_place(written: Path, folder: Path) -> None:
    if not folder.exists():
        written.rename(folder)
        return
    replaced = written.with_suffix(".old")
    shutil.rmtree(replaced, ignore_errors=True)
    try:
        folder.rename(replaced)
        written.rename(folder)
    finally:
        if not folder.exists():
            replaced.rename(folder)
    shutil.rmtree(replaced, ignore_errors=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")
