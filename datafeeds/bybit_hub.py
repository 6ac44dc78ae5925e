"""What the live feeds of one Cerebro share: a client, a clock, streams, and a thread that asks."""

from __future__ import annotations

import threading
from collections import defaultdict
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from datafeeds.bybit_client import BybitClient
from datafeeds.bybit_clock import ExchangeClock
from datafeeds.bybit_known import LastKnown, open_interest_timeframe
from datafeeds.bybit_line import LiveLine
from datafeeds.bybit_live import LiveSeries
from datafeeds.bybit_stream import BybitStream, StreamStatus
from datafeeds.bybit_time import Timeframe, timeframe_of, to_epoch_ms
from datafeeds.bybit_topics import LiveBar, confirmed_bars, message_ms, stream_address
from glow_bt.errors import FeedError, TransientFeedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from datafeeds.bybit_klines import Klines
    from datafeeds.bybit_series import BybitSeries

__all__ = ["LiveHub", "LiveOrder"]

_QUIET_AFTER = 150.0  # Bybit sends a kline message once a minute at least
_LOOK_EVERY = 60.0
_CLOCK_STALE_AFTER = 300.0
_CLOCK_ASKED_EVERY = 5.0
_JOIN_TIMEOUT = 0.4


@dataclass(frozen=True)
class LiveOrder:
    """What a feed wants.

    Attributes:
        symbol: in ccxt's notation or Bybit's.
        interval: ccxt's name of the timeframe.
        history: how many closed bars come first.
        first_ms: in place of that, the moment from which on bars are wanted; None: `history`.
        last_ms: the moment up to which bars are wanted; None: there is none.
        streamed: whether bars come through a websocket; else by questions alone.
        stream_url: where from (`stream_address`).
        extras: kinds of values wanted beside the bars: funding_rate, open_interest.
    """

    symbol: str
    interval: str
    history: int
    first_ms: int | None
    last_ms: int | None
    streamed: bool
    stream_url: str | None
    extras: tuple[str, ...]


class LiveHub:
    """Brings closed bars to several feeds through one client and one stream a product line.

    `open` fetches a feed's history in the caller's thread; `go` starts the threads: one for each
    stream, and one that asks for what streams did not bring. A feed takes its items from its
    line, and leaves it when it ends; the last one closes the hub.

    Args:
        client: asks; None: a client of its own for Bybit, closed with the hub. It is used by one
            thread at a time.
        clock: the exchange's time.
    """

    def __init__(
        self, client: BybitClient | None = None, clock: ExchangeClock | None = None
    ) -> None:
        self.clock = clock or ExchangeClock()
        self._client = client or BybitClient()
        self._owns_client = client is None
        self._lines: list[LiveLine] = []
        self._streams: list[BybitStream] = []
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._planned_ms = 0
        self._clock_asked = -_CLOCK_ASKED_EVERY
        self._clock_wrong = False
        self._thread = threading.Thread(target=self._work, name="live bars", daemon=True)

    @property
    def closed(self) -> bool:
        """Whether it brings nothing more."""
        return self._stop.is_set()

    def open(self, order: LiveOrder) -> LiveLine:
        """Fetch a feed's history and prepare its bars.

        Raises:
            ConfigError: if Bybit lacks the timeframe or has no such values beside the bars.
            SymbolError: if it does not know the symbol.
            FeedError: if it cannot be reached or refuses.
        """
        timeframe = timeframe_of(order.interval)
        series = self._client.series(order.symbol, "bars", order.interval)
        self._ask_time()
        forming = timeframe.floor(self.clock.now_ms())
        start = forming - order.history * timeframe.step_ms
        start = start if order.first_ms is None else timeframe.ceil(order.first_ms)
        history = self._ask_bars(series, start) if start < forming else []
        first = history[0].open_ms if history else start
        line = LiveLine(series, timeframe, LiveSeries(timeframe, first, order.last_ms))
        for name in order.extras:
            line.extras[name] = self._known(order.symbol, name, timeframe)
            until = history[-1].open_ms if history else first
            line.extras[name].prepare(first + timeframe.step_ms, until + timeframe.step_ms)
        if order.streamed:
            line.address = stream_address(order.stream_url, series.market.category)
        line.bars.answered(history, self.clock.now_ms())
        line.collect()
        line.finish()
        self._lines.append(line)
        return line

    def go(self) -> None:
        """Start the threads, once."""
        if self._thread.ident is not None or self._stop.is_set():
            return
        topics = defaultdict(list)
        for line in self._lines:
            if line.address is not None:
                topics[line.address].append(line.topic)
        for address, names in topics.items():
            self._streams.append(
                BybitStream(
                    address,
                    names,
                    partial(self._heard, address),
                    partial(self._learned, address),
                    clock=self.clock,
                    quiet_after=_QUIET_AFTER,
                )
            )
        self._thread.start()
        for stream in self._streams:
            stream.start()

    def leave(self, line: LiveLine) -> None:
        """Take a line away; after the last one the hub is closed."""
        with self._changed:
            line.ended = True
            over = all(other.ended for other in self._lines)
        if over:
            self.close()

    def close(self) -> None:
        """End the threads, within a second.

        A thread that waits for an answer or a connection for longer is not waited for: it ends
        when its wait does, and does nothing more.
        """
        if self._stop.is_set():
            return
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        # Closing a client waits for the answers under way, which may take longer than a second.
        closing = threading.Thread(target=self._client.close, name="live bars' end", daemon=True)
        if self._owns_client:
            closing.start()
        for stream in self._streams:
            stream.stop()
        for thread in (self._thread, closing):
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join(_JOIN_TIMEOUT)

    def _known(self, symbol: str, name: str, timeframe: Timeframe) -> LastKnown:
        series = self._client.series(symbol, name, open_interest_timeframe(timeframe))
        return LastKnown(series, partial(self._client.pages, series))

    def _heard(self, address: str, topic: str, message: dict[str, Any]) -> None:
        """Take a stream's message; in its thread."""
        with self._changed:
            stamp = message_ms(message)
            if stamp is None:
                return
            if not self.clock.hear(stamp):
                # Damaged, or the machine slept: what it holds is asked for if it is missing.
                self._clock_wrong = True
                self._changed.notify_all()
                return
            now = self.clock.now_ms()
            for line in self._lines:
                if line.address == address and line.topic == topic:
                    found = confirmed_bars(message, line.series.market, line.timeframe)
                    line.bars.confirmed(found, now)
                    line.collect()
            self._wake()

    def _learned(self, address: str, status: StreamStatus, reason: str) -> None:
        """Take note of what became of a stream; in its thread."""
        with self._changed:
            for line in self._lines:
                if line.address != address:
                    continue
                if status is StreamStatus.UP:
                    line.bars.stream_up(self.clock.now_ms())
                elif status is StreamStatus.DOWN:
                    line.bars.stream_down(reason)
                else:
                    line.end(FeedError(f"{reason}; check the symbol, the interval and stream_url"))
                line.collect()
            self._wake()

    def _wake(self) -> None:
        """Let the thread look, if there is something for it earlier than it thinks."""
        earliest = min((due for line in self._lines if (due := _due(line)) is not None), default=0)
        if earliest < self._planned_ms:
            self._changed.notify_all()

    def _work(self) -> None:
        try:
            while not self._stop.is_set():
                ready = self._wait_for_work()
                if self._clock_is_doubtful():
                    self._try(self._ask_time)
                for line in ready:
                    self._serve(line)
        finally:
            if not self._stop.is_set():
                for line in self._lines:
                    line.end(
                        FeedError("the feed's thread ended by an error of its own; see above")
                    )

    def _wait_for_work(self) -> list[LiveLine]:
        with self._changed:
            now = self.clock.now_ms()
            dues = [(due, line) for line in self._lines if (due := _due(line)) is not None]
            ready = [line for moment, line in dues if moment <= now]
            if not ready and not self._clock_is_doubtful():
                look_after = _CLOCK_ASKED_EVERY if self._clock_wrong else _LOOK_EVERY
                moments = [moment for moment, _ in dues]
                self._planned_ms = min([*moments, now + round(look_after * 1000.0)])
                self._changed.wait(self.clock.local((self._planned_ms - now) / 1000.0))
                self._planned_ms = 0
            return ready

    def _clock_is_doubtful(self) -> bool:
        doubtful = self._clock_wrong or self.clock.unheard() > _CLOCK_STALE_AFTER
        return doubtful and self.clock.seconds() - self._clock_asked > _CLOCK_ASKED_EVERY

    def _serve(self, line: LiveLine) -> None:
        """Look up what bars wait for, and ask for bars that are due; in the hub's thread."""
        error = self._try(line.finish) if line.extras else None
        due = line.bars.due_ms()
        if error is None and due is not None and due <= self.clock.now_ms():
            error = self._try(partial(self._ask, line))
        if error is not None and not isinstance(error, TransientFeedError):
            line.end(error)

    def _ask(self, line: LiveLine) -> None:
        try:
            found = self._ask_bars(line.series, line.bars.next_ms)
        except TransientFeedError as error:
            with self._changed:
                line.bars.failed(self.clock.now_ms(), str(error))
                line.collect()
            return
        with self._changed:
            line.bars.answered(found, self.clock.now_ms())
            line.collect()
            if line.bars.vain:
                self._clock_wrong = True
        if line.extras:
            line.finish()

    def _try(self, action: Callable[[], object]) -> FeedError | None:
        """Do something that may fail; a failure after the end is none."""
        try:
            action()
        except FeedError as error:
            return None if self._stop.is_set() else error
        except CancelledError:
            pass  # the client was closed
        return None

    def _ask_bars(self, series: BybitSeries, since_ms: int) -> list[LiveBar]:
        klines: Klines = self._client.closed_klines(series, since_ms)
        found = [
            LiveBar(int(stamp), tuple(values))
            for stamp, values in zip(klines.stamps, klines.values.tolist(), strict=True)
        ]
        # A bar that the client calls closed proves that its close has passed.
        if found and not self.clock.hear(found[-1].open_ms + series.step_ms):
            self._clock_wrong = True
        return found

    def _ask_time(self) -> None:
        asked_at = self._clock_asked = self.clock.seconds()
        self.clock.adjust(to_epoch_ms(self._client.server_time()), asked_at)
        self._clock_wrong = False


def _due(line: LiveLine) -> int | None:
    """When the hub's thread has something to do for a line."""
    if line.ended:
        return None
    return 0 if line.unfinished else line.bars.due_ms()
