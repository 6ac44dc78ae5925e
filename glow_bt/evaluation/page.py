"""What every HTML page of a run has in common: it is whole, and it asks the network nothing."""

from __future__ import annotations

import os
from pathlib import Path

from glow_bt.errors import ResultsError
from glow_bt.placing import new_file

__all__ = ["CONTENT_POLICY", "write_page"]

# The browser itself then refuses any script and any request that a page might make.
CONTENT_POLICY = (
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
)


def write_page(html: str, path: str | os.PathLike[str]) -> None:
    """Write a page so that it appears whole or not at all.

    Raises:
        ResultsError: if the file cannot be written.
    """
    file = Path(path)
    try:
        with new_file(file) as temporary:
            temporary.write_text(html, encoding="utf-8")
    except OSError as error:
        raise ResultsError(
            f"expected to write the page {file}, found {error.strerror or error}; "
            "choose a folder that can be written to"
        ) from error
