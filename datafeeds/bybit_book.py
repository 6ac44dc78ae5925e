"""Bybit's order book: messages of ``orderbook.{depth}.{symbol}``, recorded or live.

A message has two times. ``cts`` is the matching engine's, by which trades are stamped too
(their ``T``), ``ts`` that of the machine that sent it, some milliseconds later. Bars go by
``cts`` where it is given, so that book and trades fit together.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeGuard

from datafeeds.bybit_records import OneTopic, line_error, recorded_messages, shown
from glow_bt.errors import DataError, MalformedAnswerError
from glow_bt.microstructure import BookReplay, BookStates, BookUpdate

__all__ = ["BookRecord", "book_update", "is_stamp_ms"]

_PIECE = 8192
# Whole milliseconds of the years 2001 to 2286: neither seconds nor microseconds.
_STAMPS_MS = range(10**12, 10**13)


def is_stamp_ms(found: object) -> TypeGuard[int]:
    """Whether something is a moment in epoch milliseconds."""
    return type(found) is int and found in _STAMPS_MS


def book_update(message: dict[str, object]) -> BookUpdate:
    """Read a message of an order-book topic.

    Its levels are read when they are applied (`glow_bt.microstructure.OrderBook`).

    Raises:
        MalformedAnswerError: if it is none.
    """
    data = message.get("data")
    kind = message.get("type")
    stamp = message.get("cts", message.get("ts"))
    if isinstance(data, dict) and kind in ("snapshot", "delta") and is_stamp_ms(stamp):
        update_id, bids, asks = data.get("u"), data.get("b"), data.get("a")
        if type(update_id) is int and isinstance(bids, list) and isinstance(asks, list):
            return BookUpdate(kind == "snapshot", stamp, update_id, bids, asks)
    raise MalformedAnswerError(
        "expected an order-book message with type snapshot or delta, ts or cts in ms, and data "
        f"with u, b and a, found {shown(message)}"
    )


class BookRecord:
    """The order book of recorded files, state by state.

    Lines of other topics, acknowledgements and pongs are passed over. What becomes of gaps,
    stale messages and crossed books is told in `glow_bt.microstructure.BookReplay`, whose counts
    are here too.

    Args:
        files: JSON lines (plain, .gz, or .zip as Bybit publishes them), in order of time.
        levels: how many levels a side are noted.
        symbol: whose book, as Bybit names it; None if the files hold one only.

    Attributes:
        counts: how many messages came to each outcome; complete when all was read.
        deepest: how many of the levels the book ever had on a side; likewise.
    """

    def __init__(
        self,
        files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        levels: int,
        symbol: str | None = None,
    ) -> None:
        one = isinstance(files, str | os.PathLike)
        self.files = tuple(Path(file) for file in ((files,) if one else files))  # type: ignore[union-attr, arg-type]
        self._levels = levels
        self._symbol = symbol
        self.counts: Counter[str] = Counter()
        self.deepest = 0

    def __iter__(self) -> Iterator[BookStates]:
        """Yield the states in pieces of some thousands.

        Raises:
            DataError: on a line that is no message; with file, line and what was found.
        """
        replay = BookReplay(self._levels)
        self.counts = replay.counts
        topic = OneTopic("orderbook.", self._symbol)
        for file in self.files:
            for number, message in recorded_messages(file):
                try:
                    if topic.picks(message):
                        replay.push(book_update(message))
                except (ValueError, MalformedAnswerError) as error:
                    text = str(error).removeprefix("expected ")
                    raise line_error(file, number, text) from error
                if len(replay) >= _PIECE:
                    yield replay.take()
        self.deepest = replay.deepest
        if len(replay):
            yield replay.take()
        elif not replay.counts:
            whose = "" if self._symbol is None else f" of {self._symbol}"
            raise DataError(
                f"expected messages of an order book{whose}, found {topic.found} in "
                f"{', '.join(map(str, self.files))}; check the files"
            )
