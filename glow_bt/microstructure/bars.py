"""Bars of microstructure features, for a whole record at once or as events arrive.

A bar is stamped with its open in UTC and holds the events with ``open <= t < close``; what it
says is known at its close. Nothing is carried from one bar into the next but what its feature's
definition says (a book stands until its next message; VPIN and Kyle's lambda look back).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from glow_bt.errors import ConfigError, DataError
from glow_bt.microstructure.book_features import BookFeatures
from glow_bt.microstructure.events import BookStates, Trades
from glow_bt.microstructure.spec import MicrostructureSpec
from glow_bt.microstructure.trade_features import TradeFeatures

__all__ = ["MicrostructureStream", "microstructure_bars"]

# More bars at once come of a stamp that is wrong.
_MOST_BARS = 20_000_000

Columns = dict[str, npt.NDArray[np.generic]]
Events = TypeVar("Events", Trades, BookStates)


class MicrostructureStream:
    """Bars as events arrive.

    Events are handed over in order of time, in pieces of any size; the bars are the same
    however they are cut.

    Args:
        spec: the settings.
        since_ms: open of the first bar, epoch milliseconds.
        trades: whether trades will come, and so whether bars have their features.
        book: whether states of a book will come.
        standing: the one state of the book that holds at that open. Default: it is not known.

    Raises:
        ConfigError: if neither will, if the spec needs what will not, or if no bar opens then.
    """

    def __init__(
        self,
        spec: MicrostructureSpec,
        since_ms: int,
        *,
        trades: bool = True,
        book: bool = True,
        standing: BookStates | None = None,
    ) -> None:
        if not (trades or book):
            raise ConfigError("expected trades, a book or both, found neither")
        if trades and not book and spec.vwap_reference == "mid":
            raise ConfigError(
                "expected a book to compare VWAP with its mid, found trades alone; "
                "compare it with the close"
            )
        if since_ms % spec.step_ms:
            raise ConfigError(
                f"expected since_ms to be a multiple of {spec.step_ms} ms, found {since_ms}"
            )
        self.spec = spec
        self._open_ms = since_ms
        self._trades = TradeFeatures(spec, since_ms) if trades else None
        self._book = BookFeatures(spec, since_ms, standing) if book else None
        self._waiting_trades: list[Trades] = []
        self._waiting_states: list[BookStates] = []

    @property
    def open_ms(self) -> int:
        """Open of the bar that is forming."""
        return self._open_ms

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the features."""
        names = self.spec.book_columns if self._book else ()
        return (self.spec.trade_columns if self._trades else ()) + names

    def add_trades(self, trades: Trades) -> None:
        """Take trades that follow those taken before.

        Raises:
            DataError: if one is of a bar that is closed, or no trades were to come.
        """
        if self._trades is None:
            raise DataError("expected no trades, for the stream was made without them")
        if len(trades):
            self._check_new("trades", trades.stamps, self._waiting_trades)
            self._waiting_trades.append(trades)

    def add_book(self, states: BookStates) -> None:
        """Take states of a book that follow those taken before.

        Raises:
            DataError: if one is of a bar that is closed, has fewer levels than the spec counts,
                or no book was to come.
        """
        if self._book is None:
            raise DataError("expected no book, for the stream was made without one")
        if states.levels < self.spec.levels:
            raise DataError(
                f"expected states of at least {self.spec.levels} levels, found {states.levels}; "
                "replay the book with more, or count fewer"
            )
        if len(states):
            self._check_new("states of a book", states.stamps, self._waiting_states)
            self._waiting_states.append(states)

    def close(self, until_ms: int) -> pd.DataFrame:
        """Return the bars that close at or before a moment, which all events so far have passed.

        Events of later bars stay for later calls.

        Raises:
            DataError: if there would be millions of bars.

        Returns:
            UTC index ``timestamp``, the columns of `columns`; no rows if no bar has closed.
        """
        step = self.spec.step_ms
        if (until_ms - self._open_ms) // step > _MOST_BARS:
            raise DataError(
                f"expected at most {_MOST_BARS:,} bars at once, found stamps from "
                f"{self._open_ms} to {until_ms} ms with bars of {step} ms; check the stamps, or "
                "take longer bars"
            )
        edges = np.arange(self._open_ms, until_ms + 1, step)
        if len(edges) < 2:
            return self._frame(edges[:0], {})
        values: Columns = {}
        if self._book is not None:
            states = _until(self._waiting_states, int(edges[-1]))
            if states is None:
                states = BookStates.unknown(self._open_ms, self.spec.levels)[:0]
            values |= self._book.update(states, edges)
        if self._trades is not None:
            mid = None
            if self.spec.vwap_reference == "mid":
                mid = np.asarray(values["mid"], np.float64)
            trades = _until(self._waiting_trades, int(edges[-1])) or Trades.none()
            values |= self._trades.update(trades, edges, mid)
        self._open_ms = int(edges[-1])
        return self._frame(edges[:-1], values)

    def _check_new(
        self, what: str, stamps: npt.NDArray[np.int64], waiting: Sequence[Trades | BookStates]
    ) -> None:
        last = int(waiting[-1].stamps[-1]) if waiting else self._open_ms
        if stamps[0] < last:
            raise DataError(
                f"expected {what} from {last} ms on, found {stamps[0]} ms; "
                "hand them over in order of time, before their bar is closed"
            )

    def _frame(self, opens: npt.NDArray[np.int64], values: Columns) -> pd.DataFrame:
        index = pd.DatetimeIndex(opens.view("M8[ms]"), tz="UTC", name="timestamp").as_unit("us")
        data = {name: values.get(name, np.empty(0)) for name in self.columns}
        return pd.DataFrame(data, index=index)


def microstructure_bars(
    spec: MicrostructureSpec,
    trades: Trades | None = None,
    book: Iterable[BookStates] | BookStates | None = None,
    *,
    since_ms: int | None = None,
    until_ms: int | None = None,
) -> pd.DataFrame:
    """Return the bars of a record.

    By default they reach from the bar of the first event to the last one that is closed by an
    event at or after its end; with trades and a book, as far as both reach. The first bar holds
    only what came after the record began. Who knows how far the record reaches may say so.

    Args:
        spec: the settings.
        trades: trades in order of time.
        book: states of the book, whole or in consecutive pieces, which are taken one by one so
            that memory does not grow with the record.
        since_ms: first open, epoch milliseconds; events before it are left out, but the book
            that they left stands.
        until_ms: the record reaches to this moment at least.

    Raises:
        ConfigError: as `MicrostructureStream`, or if the span has nothing of the record.
        DataError: if there is no event, no bar is closed, or a piece is out of order.
    """
    if since_ms is not None and until_ms is not None and since_ms >= until_ms:
        raise ConfigError(
            f"expected since before until, found {_moment(since_ms)} and {_moment(until_ms)}"
        )
    record = _Record(trades, book)
    start_ms = record.begin()
    if until_ms is not None and until_ms <= start_ms:
        raise ConfigError(
            f"expected until after the record begins, {_moment(start_ms)}, "
            f"found {_moment(until_ms)}"
        )
    asked = since_ms is not None
    since_ms = start_ms if since_ms is None else since_ms
    since_ms -= since_ms % spec.step_ms
    standing, pieces = _from(since_ms, record.pieces)
    if asked:
        record.refuse_late(since_ms, claimed=until_ms is not None)
    stream = MicrostructureStream(
        spec, since_ms, trades=trades is not None, book=book is not None, standing=standing
    )
    feed = _TradeFeed(stream, trades)
    reach_ms = until_ms
    if until_ms is None and trades is not None:
        reach_ms = int(trades.stamps[-1])
    frames = []
    for piece in pieces:
        stream.add_book(piece)
        last_ms = int(piece.stamps[-1])
        frames.append(feed.close(last_ms if reach_ms is None else min(last_ms, reach_ms)))
    if reach_ms is not None and (until_ms is not None or book is None):
        frames.append(feed.close(reach_ms))
    frames = [frame for frame in frames if len(frame)]
    if not frames:
        raise DataError(
            f"expected a record that covers at least one bar of {spec.step_ms} ms, found none "
            "that an event at or after its end closes; take shorter bars or a longer record"
        )
    return pd.concat(frames)


class _Record:
    """What was recorded, and from when to when."""

    def __init__(
        self, trades: Trades | None, book: Iterable[BookStates] | BookStates | None
    ) -> None:
        self._trades = trades
        self._has_book = book is not None
        self._start_ms = 0
        self._ends_ms: dict[str, int] = {}
        self.pieces: Iterator[BookStates] = self._noted(
            [book] if isinstance(book, BookStates) else book or ()
        )

    def begin(self) -> int:
        """Return the moment from which on there are events of every kind."""
        first = next(self.pieces, None)
        starts = {
            name: int(events.stamps[0])
            for name, events in (("trades", self._trades), ("states of a book", first))
            if events is not None and len(events)
        }
        given = [("trades", self._trades is not None), ("states of a book", self._has_book)]
        lacking = [name for name, is_given in given if is_given and name not in starts]
        if lacking or not starts:
            raise DataError(
                "expected events in every record that is given, found no "
                f"{' and no '.join(lacking or ['record'])}; check the files"
            )
        if first is not None:
            self.pieces = chain([first], self.pieces)
        if self._trades is not None:
            self._ends_ms["trades"] = int(self._trades.stamps[-1])
        self._start_ms = max(starts.values())
        return self._start_ms

    def refuse_late(self, since_ms: int, *, claimed: bool) -> None:
        """Refuse a start after the record's end, once what comes before that start has been read.

        It ends with the first of trades and book that does, unless it is claimed to reach further.
        """
        end_ms = (max if claimed else min)(self._ends_ms.values())
        if since_ms > end_ms:
            raise ConfigError(
                f"expected since within the record, which covers {_moment(self._start_ms)} to "
                f"{_moment(end_ms)}, found {_moment(since_ms)}"
            )

    def _noted(self, pieces: Iterable[BookStates]) -> Iterator[BookStates]:
        for piece in pieces:
            if len(piece):
                self._ends_ms["book"] = int(piece.stamps[-1])
                yield piece


class _TradeFeed:
    """Hands a stream the trades of the bars that it is to close."""

    def __init__(self, stream: MicrostructureStream, trades: Trades | None) -> None:
        self._stream = stream
        self._trades = trades
        self._done = self._row(stream.open_ms)

    def close(self, until_ms: int) -> pd.DataFrame:
        until_ms -= until_ms % self._stream.spec.step_ms
        end = self._row(until_ms)
        if self._trades is not None and end > self._done:
            self._stream.add_trades(self._trades[self._done : end])
            self._done = end
        return self._stream.close(until_ms)

    def _row(self, stamp_ms: int) -> int:
        return 0 if self._trades is None else int(np.searchsorted(self._trades.stamps, stamp_ms))


def _moment(stamp_ms: int) -> str:
    """Return a stamp as people read it, of any year."""
    text = str(np.datetime64(stamp_ms, "ms")).replace("T", " ")
    return f"{text.removesuffix('.000')} UTC"


def _from(
    since_ms: int, pieces: Iterator[BookStates]
) -> tuple[BookStates | None, Iterator[BookStates]]:
    """Return the state that stands at a moment, and the pieces from then on."""
    standing: BookStates | None = None
    for piece in pieces:
        row = int(np.searchsorted(piece.stamps, since_ms))
        standing = piece[row - 1 : row] if row else standing
        if row < len(piece):
            return standing, chain([piece[row:]], (piece for piece in pieces if len(piece)))
    return standing, iter(())


def _until(waiting: list[Events], stamp_ms: int) -> Events | None:
    """Take the events before a moment out of those that wait; None if there are none."""
    early: list[Events] = []
    late: list[Events] = []
    for events in waiting:
        row = int(np.searchsorted(events.stamps, stamp_ms))
        early += [events[:row]] if row else []
        late += [events[row:]] if row < len(events) else []
    waiting[:] = late
    return type(early[0]).joined(early) if early else None
