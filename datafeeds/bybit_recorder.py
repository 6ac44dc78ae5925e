"""Records order book and trades of one market from Bybit's streams as bars of features."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from datafeeds.bybit_clock import ExchangeClock
from datafeeds.bybit_live_bars import LiveBars
from datafeeds.bybit_retry import RetryPolicy
from datafeeds.bybit_stream import BybitStream, StreamStatus
from glow_bt.errors import ConfigError, SymbolError

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from glow_bt.microstructure import MicrostructureSpec

__all__ = ["BOOK_DEPTHS", "LiveRecord", "MicrostructureRecorder"]

BOOK_DEPTHS = (1, 50, 200, 1000)
"""Levels a side that Bybit streams; fewer come more often."""

_SETTLED_AFTER = 60.0  # a book that held so long ends the back-off


class LiveRecord(NamedTuple):
    """What a recording gave.

    Attributes:
        num_bars: how many bars have closed.
        counts: what became of messages (`datafeeds.bybit_live_bars.LiveBars.counts`), and
            ``resubscribed``, how often the book was subscribed anew because it was lost.
        ended: why it ended before its time; empty if it did not.
        unreached: why book or trades could not be subscribed in all that time; empty if they were.
    """

    num_bars: int
    counts: dict[str, int]
    ended: str = ""
    unreached: str = ""


class MicrostructureRecorder:
    """Turns messages into bars as they close, and keeps none of them.

    Book and trades come over a connection each, so that a book which is lost can be subscribed
    anew, after a growing wait, without a trade being missed.

    Args:
        url: where the market is streamed (`datafeeds.bybit_topics.stream_address`).
        market_id: Bybit's name, such as ``BTCUSDT``.
        spec: the settings of the bars.
        depth: levels a side that are subscribed, of `BOOK_DEPTHS`.
        on_bars: called with bars as they close.
        on_message: called with every message, for those who keep them.
        on_time: called every second or more often with the seconds that have passed, and why book
            or trades are not subscribed just then (empty if they are).
        settle_ms: how long after its end a bar waits for late messages.
        clock: tells how seconds pass.
        retry: gives the waits before a lost book is subscribed anew.

    Raises:
        ConfigError: on another depth, or one that has fewer levels than the spec counts.
    """

    def __init__(
        self,
        url: str,
        market_id: str,
        spec: MicrostructureSpec,
        *,
        depth: int = 50,
        on_bars: Callable[[pd.DataFrame], object] | None = None,
        on_message: Callable[[dict[str, Any]], object] | None = None,
        on_time: Callable[[float, str], object] | None = None,
        settle_ms: int = 1000,
        clock: ExchangeClock | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        if depth not in BOOK_DEPTHS or depth < spec.levels:
            raise ConfigError(
                f"expected a depth among {', '.join(map(str, BOOK_DEPTHS))} of at least the "
                f"{spec.levels} levels that count, found {depth}"
            )
        self._url = url
        self._topics = {
            "book": f"orderbook.{depth}.{market_id}",
            "trades": f"publicTrade.{market_id}",
        }
        self._on_bars = on_bars
        self._on_message = on_message
        self._on_time = on_time
        self._clock = clock or ExchangeClock()
        self._retry = retry or RetryPolicy(first_delay=1.0, max_delay=30.0)
        self._live = LiveBars(spec, settle_ms)
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._streams: dict[str, BybitStream] = {}
        self._generation = dict.fromkeys(self._topics, 0)
        self._down = dict.fromkeys(self._topics, "no answer yet")
        self._unreached = set(self._topics)
        self._resubscribed = 0
        self._failures = 0
        self._subscribe_at: float | None = None
        self._subscribed_at = 0.0

    def run(self, seconds: float, stop: threading.Event | None = None) -> LiveRecord:
        """Record for a while, or until told to stop, or interrupted (Ctrl-C).

        Raises:
            SymbolError: if Bybit does not stream the market. If it ceases to after bars have
                closed, the recording ends there.
        """
        end = self._clock.seconds() + seconds
        num_bars, ended = 0, ""
        try:
            for name in self._topics:
                self._subscribe(name)
            while (left := end - self._clock.seconds()) > 0 and not (stop and stop.is_set()):
                if self._on_time is not None:
                    self._on_time(seconds - left, next(iter(self._down.values()), ""))
                self._take_event(min(left, 1.0))
                bars = self._live.closed()
                if bars is not None:
                    num_bars += len(bars)
                    if self._on_bars is not None:
                        self._on_bars(bars)
                self._mend_book()
        except KeyboardInterrupt:
            ended = "interrupted"
        except SymbolError as error:
            if not num_bars:
                raise
            ended = str(error)
        finally:
            for stream in self._streams.values():
                stream.stop()
        counts = {**self._live.counts, "resubscribed": self._resubscribed}
        unreached = [self._down[name] for name in self._topics if name in self._unreached]
        return LiveRecord(num_bars, counts, ended, next(iter(unreached), ""))

    def _subscribe(self, name: str) -> None:
        self._generation[name] += 1
        generation = self._generation[name]
        self._streams[name] = BybitStream(
            self._url,
            [self._topics[name]],
            lambda _, message: self._events.put(_Event(name, generation, message)),
            lambda status, reason: self._events.put(
                _Event(name, generation, None, status, reason)
            ),
            clock=self._clock,
        )
        self._subscribed_at = self._clock.seconds()
        self._streams[name].start()

    def _take_event(self, wait: float) -> None:
        try:
            event = self._events.get(timeout=self._clock.local(wait))
        except queue.Empty:
            return
        if event.generation != self._generation[event.name]:
            return  # of a connection that was given up
        if event.message is None:
            self._note_status(event)
            return
        if self._on_message is not None:
            self._on_message(event.message)
        if event.name == "book":
            self._live.book(event.message)
        else:
            self._live.trades(event.message)

    def _note_status(self, event: _Event) -> None:
        book = event.name == "book"
        if event.status is StreamStatus.REFUSED:
            raise SymbolError(f"{event.reason}; check the symbol")
        if event.status is StreamStatus.UP:
            self._down.pop(event.name, None)
            self._unreached.discard(event.name)
            (self._live.book_up if book else self._live.trades_up)()
        else:
            self._down[event.name] = event.reason
            (self._live.book_down if book else self._live.trades_down)()

    def _mend_book(self) -> None:
        """Subscribe a lost book anew: at once if it held for long, else after growing waits."""
        now = self._clock.seconds()
        if not self._live.needs_snapshot:
            self._subscribe_at = None
            return
        if self._subscribe_at is None:
            quiet = now - self._subscribed_at > _SETTLED_AFTER
            self._failures = 0 if quiet else self._failures + 1
            wait = self._retry.delay(self._failures) if self._failures else 0.0
            self._subscribe_at = now + wait
        if now >= self._subscribe_at:
            self._streams["book"].stop()
            self._live.book_down()
            self._subscribe("book")
            self._subscribe_at = None
            self._resubscribed += 1


class _Event(NamedTuple):
    """A message, or what became of a connection."""

    name: str
    generation: int
    message: dict[str, Any] | None
    status: StreamStatus | None = None
    reason: str = ""
