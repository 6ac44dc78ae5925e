"""Folders of results appear whole, or with an error that says why not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from glow_bt.errors import ResultsError
from glow_bt.placing import new_folder

__all__ = ["new_results"]


@contextmanager
def new_results(target: Path) -> Iterator[Path]:
    """Give a temporary folder to fill, which then takes the place of a folder of results.

    Raises:
        ResultsError: if it cannot be written.
    """
    try:
        with new_folder(target) as temporary:
            yield temporary
    except OSError as error:
        raise ResultsError(
            f"expected to write a results folder {target}, found that it cannot be: {error}; "
            "choose another place"
        ) from error
