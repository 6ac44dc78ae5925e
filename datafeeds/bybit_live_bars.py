"""Bars of microstructure features out of stream messages, each when it has closed.

Pure: told what arrived, it says which bars are closed. No clock of its own, no thread, no
connection: time is what messages say (``ts``).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from datafeeds.bybit_book import book_update, is_stamp_ms
from datafeeds.bybit_trades import trade_batch
from glow_bt.errors import DataError, MalformedAnswerError
from glow_bt.microstructure import (
    BookReplay,
    BookStates,
    MicrostructureSpec,
    MicrostructureStream,
    Trades,
)

__all__ = ["LiveBars"]

# A message whose time is further ahead is believed when a second one agrees.
_LARGEST_STEP_MS = 60_000
_REMEMBERED_IDS = 200_000


class LiveBars:
    """Bars of one market from messages of ``orderbook.*`` and ``publicTrade.*``.

    The first bar is the first that opens surely after both topics were subscribed. A bar is
    closed when messages are some time past its end, for those of two topics do not come in one
    order; a trade that comes later still is dropped and counted.

    When the book is lost (a gap in its sequence, a crossed book, a message that is none, a broken
    connection) its features are NaN as in `glow_bt.microstructure`, and `needs_snapshot` says to
    subscribe it anew. Trades lost with their connection do not come back: ``trades_complete`` is
    false for the bars concerned and their trade features are NaN. VPIN and Kyle's lambda of later
    bars go on over the trades that came. A connection that dies in silence is noticed late
    (`datafeeds.bybit_stream`, 30 s): bars that closed meanwhile are as if nothing had happened.

    Args:
        spec: the settings.
        settle_ms: how long after its end a bar waits for late messages.

    Attributes:
        counts: of the book (`BookReplay.counts`), and ``trades``, ``duplicates``,
            ``block_trades``, ``late_trades``, ``late_states``, ``malformed`` messages.
    """

    def __init__(self, spec: MicrostructureSpec, settle_ms: int = 1000) -> None:
        self.spec = spec
        self._settle_ms = settle_ms
        self._replay = BookReplay(spec.levels)
        self.counts: Counter[str] = self._replay.counts
        self._stream: MicrostructureStream | None = None
        self._since_ms: int | None = None
        self._clock_ms = 0
        # The clock at the last message of each topic: what is lost is lost from then on.
        self._heard_ms = {"book": 0, "trades": 0}
        self._claimed_ms: int | None = None
        self._up: set[str] = set()
        self._trades: list[Trades] = []
        self._ids: dict[str, None] = {}
        self._incomplete: set[int] = set()
        self._doubt_from_ms: int | None = None
        self._lost = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the features of a bar."""
        return ("trades_complete", *self.spec.trade_columns, *self.spec.book_columns)

    @property
    def needs_snapshot(self) -> bool:
        """Whether the book is lost until it is subscribed anew."""
        return self._lost

    def book_up(self) -> None:
        """Take note that the book is subscribed: a snapshot will come."""
        self._up.add("book")
        self._lost = False

    def book_down(self) -> None:
        """Take note that the book's connection broke; whoever tells sees to a new one."""
        self._replay.lose(self._heard_ms["book"])
        self._lost = False

    def trades_up(self) -> None:
        """Take note that trades are subscribed."""
        self._up.add("trades")

    def trades_down(self) -> None:
        """Take note that trades are lost until the next message after `trades_up`."""
        self._up.discard("trades")
        self._doubt()

    def book(self, message: dict[str, Any]) -> None:
        """Take a message of the book."""
        self._hear("book", message)
        try:
            update = book_update(message)
            self._check_time(update.stamp_ms)
            self._replay.push(update)
        except (MalformedAnswerError, DataError):
            self.counts["malformed"] += 1
            self._replay.lose(self._clock_ms)
        # A delta that comes before the snapshot is none of the exchange's habits either.
        self._lost = not self._replay.valid

    def trades(self, message: dict[str, Any]) -> None:
        """Take a message with trades."""
        self._hear("trades", message)
        try:
            batch = trade_batch(message)
            if len(batch.trades):
                self._check_time(int(batch.trades.stamps[-1]))
        except MalformedAnswerError:
            self.counts["malformed"] += 1
            self._doubt()
            return
        self.counts["block_trades"] += batch.blocks
        self._keep(batch.ids, batch.trades)

    def closed(self) -> pd.DataFrame | None:
        """Return the bars that have closed since the last call; None if there are none."""
        until_ms = self._clock_ms - self._settle_ms
        until_ms -= until_ms % self.spec.step_ms
        if self._since_ms is None or until_ms <= self._since_ms:
            return None
        if self._stream is None:
            self._stream = self._begin(self._since_ms)
        if until_ms <= self._stream.open_ms:
            return None
        self._hand_over(self._stream)
        return self._marked(self._stream.close(until_ms))

    def _begin(self, since_ms: int) -> MicrostructureStream:
        states = self._replay.take()
        row = int(np.searchsorted(states.stamps, since_ms))
        standing = states[row - 1 : row] if row else None
        stream = MicrostructureStream(self.spec, since_ms, standing=standing)
        stream.add_book(states[row:])
        return stream

    def _hand_over(self, stream: MicrostructureStream) -> None:
        states = self._replay.take()
        # What is of a bar that is closed holds from its end on.
        self.counts["late_states"] += int((states.stamps < stream.open_ms).sum())
        stamps = np.maximum(states.stamps, stream.open_ms)
        stream.add_book(BookStates(stamps, states.valid, states.bids, states.asks))
        trades = _sorted(self._trades)
        self._trades = []
        late = int(np.searchsorted(trades.stamps, stream.open_ms))
        self.counts["late_trades"] += late
        stream.add_trades(trades[late:])

    def _marked(self, bars: pd.DataFrame) -> pd.DataFrame:
        opens = pd.DatetimeIndex(bars.index).as_unit("ms").asi8
        if self._doubt_from_ms is not None:
            self._incomplete.update(
                opens[opens + self.spec.step_ms > self._doubt_from_ms].tolist()
            )
        complete = np.array([open_ms not in self._incomplete for open_ms in opens.tolist()])
        self._incomplete.difference_update(opens.tolist())
        names = list(self.spec.trade_columns)
        values = bars[names].to_numpy(np.float64, copy=True)
        values[~complete] = np.nan
        bars[names] = values
        bars.insert(0, "trades_complete", complete)
        return bars

    def _keep(self, ids: list[str], trades: Trades) -> None:
        new = np.array([name not in self._ids for name in ids], np.bool_)
        self.counts["duplicates"] += int((~new).sum())
        self.counts["trades"] += int(new.sum())
        self._ids |= dict.fromkeys(ids)
        while len(self._ids) > _REMEMBERED_IDS:
            del self._ids[next(iter(self._ids))]
        since_ms = self._clock_ms if self._since_ms is None else self._since_ms
        new &= trades.stamps >= since_ms
        self._trades.append(
            Trades(trades.stamps[new], trades.prices[new], trades.amounts[new], trades.sides[new])
        )

    def _hear(self, topic: str, message: dict[str, Any]) -> None:
        """Move the clock by a message, and see what began with it."""
        stamp = message.get("ts")
        if not is_stamp_ms(stamp):
            return
        if not self._clock_ms or self._agrees(stamp):
            self._clock_ms = max(self._clock_ms, stamp)
        self._heard_ms[topic] = self._clock_ms
        step = self.spec.step_ms
        # Messages of two topics come in some disorder: this one may have been sent earlier.
        sure_ms = self._clock_ms + self._settle_ms
        if self._since_ms is None and self._up == {"book", "trades"}:
            self._since_ms = sure_ms + -sure_ms % step
        if "trades" in self._up and self._doubt_from_ms is not None:
            opened = self._since_ms if self._stream is None else self._stream.open_ms
            first = max(self._doubt_from_ms, opened or 0)
            self._incomplete.update(range(first - first % step, sure_ms + 1, step))
            self._doubt_from_ms = None

    def _agrees(self, stamp: int) -> bool:
        if stamp - self._clock_ms <= _LARGEST_STEP_MS:
            self._claimed_ms = None
            return True
        claimed, self._claimed_ms = self._claimed_ms, stamp
        return claimed is not None and abs(stamp - claimed) <= _LARGEST_STEP_MS

    def _check_time(self, stamp_ms: int) -> None:
        if stamp_ms > self._clock_ms + _LARGEST_STEP_MS:
            raise MalformedAnswerError(
                f"expected a message of about {self._clock_ms} ms, found {stamp_ms} ms"
            )

    def _doubt(self) -> None:
        """Note that trades may be missing from a little before the last ones on."""
        if self._doubt_from_ms is None and self._since_ms is not None:
            self._doubt_from_ms = self._heard_ms["trades"] - self._settle_ms


def _sorted(parts: list[Trades]) -> Trades:
    """Return trades that came in some order in order of time."""
    parts = [Trades.none(), *parts]
    stamps = np.concatenate([part.stamps for part in parts])
    order = np.argsort(stamps, kind="stable")
    return Trades(
        stamps[order],
        np.concatenate([part.prices for part in parts])[order],
        np.concatenate([part.amounts for part in parts])[order],
        np.concatenate([part.sides for part in parts])[order],
    )
