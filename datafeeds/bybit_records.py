"""Recorded stream messages, one JSON object a line, in plain, .gz or .zip files."""

from __future__ import annotations

import gzip
import json
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from glow_bt.errors import DataError

__all__ = ["OneTopic", "line_error", "recorded_messages", "shown"]

_SHOWN_CHARACTERS = 100
_SHOWN_SYMBOLS = 5


def recorded_messages(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each line's number, counted from 1, and its object; empty lines are skipped.

    A .zip is one as Bybit publishes them: it holds one file.

    Raises:
        DataError: if the file is missing or damaged, or a line is no JSON object; with file, line
            and what was found.
    """
    number = 0
    try:
        with ExitStack() as stack:
            for number, line in enumerate(_opened(file, stack), start=1):
                if not line.isspace():
                    yield number, _read_object(file, number, line)
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(
            f"expected a file of JSON lines, could not read {file} after line {number}: {error}"
        ) from error


def line_error(file: Path, number: int, what: str) -> DataError:
    """Return an error about a line of a file: what was expected, and found."""
    return DataError(f"{file}, line {number}: expected {what}; correct or remove that line")


def shown(found: object) -> str:
    """Return what was found, on one line and short enough for a message."""
    text = found.decode("utf-8", "replace") if isinstance(found, bytes) else str(found)
    text = " ".join(text.split()) or "nothing"
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


class OneTopic:
    """Picks the messages of one topic out of a recording.

    Args:
        prefix: how the topics of that kind begin, such as ``orderbook.``.
        symbol: Bybit's name of the market; None takes the first that is seen, and refuses others.

    Attributes:
        others: symbols that were seen and not picked, in order.
    """

    def __init__(self, prefix: str, symbol: str | None) -> None:
        self._prefix = prefix
        self._symbol = symbol
        self._topic: str | None = None
        self.others: dict[str, None] = {}

    @property
    def found(self) -> str:
        """The symbols that were seen and not picked, for a message; "none" if there are none."""
        names = list(self.others)
        more = f" and {len(names) - _SHOWN_SYMBOLS} more" if len(names) > _SHOWN_SYMBOLS else ""
        return (", ".join(names[:_SHOWN_SYMBOLS]) or "none") + more

    def picks(self, message: dict[str, Any]) -> bool:
        """Say whether a message is wanted.

        Raises:
            ValueError: if it is a second topic of that kind, and no symbol tells which one.
        """
        topic = message.get("topic")
        if topic == self._topic and topic is not None:
            return True
        if not isinstance(topic, str) or not topic.startswith(self._prefix):
            return False
        symbol = topic.rpartition(".")[2]
        if self._symbol is not None and symbol != self._symbol:
            self.others[symbol] = None
            return False
        if self._topic is not None:
            raise ValueError(f"messages of {self._topic} alone, found {topic}")
        self._topic = topic
        return True


def _read_object(file: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        raise line_error(file, number, f"a JSON object, found {shown(line)}")
    return message


def _opened(file: Path, stack: ExitStack) -> Iterable[bytes]:
    if not file.is_file():
        raise DataError(f"expected a file of JSON lines, found no file {file}")
    if file.suffix == ".gz":
        return stack.enter_context(gzip.open(file, "rb"))
    if file.suffix == ".zip":
        archive = stack.enter_context(zipfile.ZipFile(file))
        names = archive.namelist()
        if len(names) != 1:
            raise DataError(f"expected one file in {file}, found {len(names)}; unpack it")
        return stack.enter_context(archive.open(names[0]))
    return stack.enter_context(file.open("rb"))
