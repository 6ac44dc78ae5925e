"""Histories of any kind, complete, out of an exchange's single answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import numpy as np
import pandas as pd

from datafeeds.bybit_edges import Beginning, Edges
from datafeeds.bybit_klines import Klines, join_klines, klines_to_frame
from datafeeds.bybit_markets import Market, categories_of, find_market, unknown_symbol
from datafeeds.bybit_pager import Pager
from datafeeds.bybit_pages import closed_meanwhile, fetch_pages
from datafeeds.bybit_retry import Errand, RetryPolicy
from datafeeds.bybit_series import BybitSeries, Question, grid_of, series_of
from datafeeds.bybit_source import SeenClock, Source
from datafeeds.bybit_time import Stamp, as_utc, timeframe_of, to_epoch_ms, windows
from datafeeds.series import Page, SeriesKey
from glow_bt.errors import ConfigError, FeedError, MaintenanceError
from glow_bt.ohlcv import validate_bars

__all__ = ["Connection", "HistoryClient"]

T = TypeVar("T")


class Connection(Protocol):
    """Sends single questions; each may raise a `FeedError`.

    Setting ``stop`` ends the wait for a permit with a `CancelledError`.
    """

    def ask(self, question: Question, stop: threading.Event | None = None) -> object:
        """Return the answer to a question about a history, as JSON."""

    def ask_time(self, stop: threading.Event | None = None) -> int:
        """Return the exchange's clock in epoch milliseconds."""

    def ask_markets(
        self, category: str, stop: threading.Event | None = None
    ) -> list[Mapping[str, Any]]:
        """Return the instruments of a product line, as ccxt describes them."""

    def ask_status(self, stop: threading.Event | None = None) -> str | None:
        """Return what is said of a maintenance that goes on, None if none does."""

    def break_off(self) -> None:
        """End the requests that are under way: they fail at once."""

    def seen_ms(self) -> int | None:
        """Return the exchange's clock as a recent answer showed it, None if none did."""


class HistoryClient:
    """Looks instruments up and fetches their histories; shared by any number of threads.

    Args:
        connection: sends the questions.
        retry: when to send them again.
        in_flight: questions at once, at most.

    Raises:
        ConfigError: if ``in_flight`` is less than 1.
    """

    def __init__(self, connection: Connection, retry: RetryPolicy, in_flight: int) -> None:
        if in_flight < 1:
            raise ConfigError(f"expected in_flight of 1 or more, found {in_flight}")
        self._connection, self._retry, self._in_flight = connection, retry, in_flight
        self._markets: dict[str, list[Market]] = {}
        self._beginnings: dict[SeriesKey, Beginning] = {}
        self._errands: set[Errand] = set()
        self._threads: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._markets_lock = threading.Lock()

    def close(self) -> None:
        """End what is under way, and its threads."""
        with self._lock:
            threads, self._threads = self._threads, None
            for errand in self._errands:
                errand.stop.set()
        self._connection.break_off()
        if threads is not None:
            threads.shutdown(wait=True, cancel_futures=True)

    def fetch_ohlcv(
        self,
        symbol: str,
        timeframe: str,
        since: Stamp,
        until: Stamp | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> pd.DataFrame:
        """Fetch the closed bars that open at ``since <= stamp < until``.

        A span that begins before the instrument's first bar gives the bars from that one on.
        Bars that the exchange lacks are asked for again and then left out (`pages`);
        `glow_bt.ohlcv.find_gaps` lists them.

        Args:
            symbol: in ccxt's notation (``BTC/USDT:USDT`` linear, ``BTC/USD:BTC`` inverse,
                ``BTC/USDT`` spot) or Bybit's (``BTCUSDT``: linear before inverse before spot).
            timeframe: 1m, 3m, 5m, 15m, 30m, 1h, 2h, 4h, 6h, 12h, 1d or 1w.
            since: start: ISO 8601, epoch milliseconds or a datetime; naive means UTC.
            until: end; default: the exchange's present.
            progress: called after each page with the bars of the span that are dealt with and
                the bars that fit in it.

        Returns:
            Bars in the contract of `glow_bt.ohlcv`, at least one.

        Raises:
            ConfigError: if the timeframe is not supported, a moment cannot be read, ``since``
                is not before ``until`` or lies in the future.
            SymbolError: if the exchange does not list the symbol; nearest names are offered.
            TransientFeedError: if the exchange could not be reached or kept failing.
            FeedError: if it refuses, or has no closed bar in the span.
        """
        timeframe_of(timeframe)
        start, stop = _read_span(since, until)
        asked = self._pool().submit(self.server_time)
        series = self.series(symbol, "bars", timeframe)
        try:
            now = asked.result()
        except CancelledError as error:
            raise closed_meanwhile() from error
        return validate_bars(self._fetch(series, start, stop, now, progress))

    def fetch_series(
        self,
        series: BybitSeries,
        since: Stamp,
        until: Stamp | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> pd.DataFrame:
        """Fetch the closed rows of a series whose stamps lie in ``since <= stamp < until``.

        Args:
            series: what to fetch (`series`).
            since: as for `fetch_ohlcv`, like the rest.
            until: end.
            progress: called after each page.

        Returns:
            The kind's columns by stamp, at least one row.

        Raises:
            FeedError, ConfigError: as `fetch_ohlcv`.
        """
        start, stop = _read_span(since, until)
        return self._fetch(series, start, stop, self.server_time(), progress)

    def _fetch(
        self,
        series: BybitSeries,
        start: pd.Timestamp,
        stop: pd.Timestamp | None,
        now: pd.Timestamp,
        progress: Callable[[int, int], object] | None,
    ) -> pd.DataFrame:
        if start > now:
            raise ConfigError(
                f"expected since in the past, found {start} (it is {now} on the exchange)"
            )
        stop_ms = None if stop is None else to_epoch_ms(stop)
        opens = series.closed(to_epoch_ms(start), stop_ms, to_epoch_ms(now))
        rows = self._collect(series, opens, progress)
        if not len(rows):
            raise _no_rows(series, self._beginnings.get(series.key), start, stop)
        return klines_to_frame(rows, series.kind.name)

    def series(self, symbol: str, kind: str = "bars", timeframe: str = "1h") -> BybitSeries:
        """Look up what can be fetched of an instrument.

        Args:
            symbol: as for `fetch_ohlcv`.
            kind: bars, mark (mark prices), funding_rate or open_interest.
            timeframe: as for `fetch_ohlcv`; of open interest 5m, 15m, 30m, 1h, 4h or 1d;
                funding rates have none.

        Raises:
            ConfigError: if Bybit lacks the kind or the timeframe; those that it has are named.
            SymbolError: if the exchange does not list the symbol; nearest names are offered.
            FeedError: as `fetch_ohlcv`.
        """
        grid_of(kind, timeframe)
        return series_of(self.market(symbol), kind, timeframe)

    def pages(self, series: BybitSeries, windows: Iterable[range]) -> Generator[Page, None, None]:
        """Fetch windows of a series, several at once (`datafeeds.bybit_pages.fetch_pages`).

        Args:
            series: what to fetch (`series`).
            windows: spans of its grid of at most ``series.limit`` steps.

        Yields:
            Pages as they arrive, in any order: complete, or with holes that three answers
            agree about. A page ends before rows that are not final yet; what lies before the
            first row ever comes as a page without rows; what lies after the last does not come.

        Raises:
            FeedError: as `fetch_ohlcv`, when the pages that had arrived are out.
            ConfigError: if a window is too long or off the grid.
        """
        source = self._source(series)
        edges = Edges(source, self._beginnings.get(series.key))
        threads = self._pool()
        try:
            with self._underway(source.errand):
                yield from fetch_pages(Pager(source, edges), windows, threads, self._in_flight)
        finally:
            if edges.beginning is not None:
                self._beginnings[series.key] = edges.beginning

    def closed_klines(self, series: BybitSeries, since_ms: int) -> Klines:
        """Fetch the final rows that open at or after a moment, up to the present.

        Args:
            series: what to fetch (`series`).
            since_ms: start, in epoch milliseconds.

        Returns:
            The rows, none if there are none yet. A bar that has just closed may be missing as
            long as it cannot be told whether its values are final: ask again.

        Raises:
            FeedError: as `fetch_ohlcv`.
        """
        now_ms = to_epoch_ms(self.server_time())
        return self._collect(series, series.closed(since_ms, None, now_ms))

    def market(self, symbol: str) -> Market:
        """Look an instrument up, asking only for the product lines it may belong to.

        Raises:
            SymbolError: if the exchange does not list it.
            FeedError: as `fetch_ohlcv`.
        """
        seen: list[Market] = []
        for category in categories_of(symbol):
            markets = self._markets_of(category)
            found = find_market(symbol, markets)
            if found is not None:
                return found
            seen += markets
        raise unknown_symbol(symbol, seen)

    def server_time(self) -> pd.Timestamp:
        """Return the exchange's clock.

        Raises:
            FeedError: as `fetch_ohlcv`.
        """
        return pd.Timestamp(self._call(self._connection.ask_time), unit="ms", tz="UTC")

    def _pool(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(self._in_flight, "bybit")
            return self._threads

    def now_ms(self) -> int:
        """Return the exchange's clock in epoch milliseconds as a recent answer showed it.

        Asked for if there is none.

        Raises:
            FeedError: as `fetch_ohlcv`.
        """
        seen = self._connection.seen_ms()
        return self._call(self._connection.ask_time) if seen is None else seen

    def _call(self, ask: Callable[[threading.Event], T]) -> T:
        """Ask until there is an answer, or the client is closed."""
        errand = self._retry.errand()
        with self._underway(errand):
            try:
                return self._retry.call(lambda: ask(errand.stop), errand)
            except CancelledError as error:
                raise closed_meanwhile() from error

    @contextmanager
    def _underway(self, errand: Errand) -> Iterator[None]:
        """Let `close` end an errand, and say what goes on if a maintenance does."""
        failure: MaintenanceError | None = None
        try:
            with self._ended_by_close(errand):
                yield
        except MaintenanceError as error:
            failure = self._with_status(error)
        if failure is not None:
            raise failure

    @contextmanager
    def _ended_by_close(self, errand: Errand) -> Iterator[None]:
        with self._lock:
            self._errands.add(errand)
        try:
            yield
        finally:
            errand.stop.set()
            with self._lock:
                self._errands.discard(errand)

    def _with_status(self, error: MaintenanceError) -> MaintenanceError:
        """Add what the exchange says of its maintenance, if it says anything."""
        errand = self._retry.errand()
        try:
            with self._ended_by_close(errand):
                status = self._connection.ask_status(errand.stop)
        except (FeedError, CancelledError):
            return error
        return error if status is None else MaintenanceError(f"{error}; {status}")

    def _markets_of(self, category: str) -> list[Market]:
        with self._markets_lock:
            if category not in self._markets:
                # A list without any instrument is rather a damaged one: asked for once more.
                listed = self._ask_markets(category) or self._ask_markets(category)
                self._markets[category] = [
                    Market(found["symbol"], found["id"], category, found["created"])
                    for found in listed
                ]
            return self._markets[category]

    def _ask_markets(self, category: str) -> list[Mapping[str, Any]]:
        return self._call(lambda stop: self._connection.ask_markets(category, stop))

    def _source(self, series: BybitSeries) -> Source:
        connection, errand = self._connection, self._retry.errand()
        clock = SeenClock(self.now_ms())

        def ask(question: Question) -> object:
            return connection.ask(question, errand.stop)

        return Source(series, ask, self._retry, errand, clock, connection.break_off)

    def _collect(
        self,
        series: BybitSeries,
        opens: range,
        progress: Callable[[int, int], object] | None = None,
    ) -> Klines:
        """Rows of a span in ascending order."""
        pages: list[Page] = []
        done = 0
        for page in self.pages(series, windows(opens, series.limit)):
            pages.append(page)
            done += len(page.window)
            if progress is not None:
                progress(done, len(opens))
        # What lies after the exchange's last row does not come.
        if pages and progress is not None and done < len(opens):
            progress(len(opens), len(opens))
        pages.sort(key=lambda page: page.window.start)
        if not pages:
            empty = np.empty((0, len(series.kind.columns)))
            return Klines(np.empty(0, dtype=np.int64), empty)
        return join_klines([Klines(page.stamps, page.values) for page in pages])


def _read_span(since: Stamp, until: Stamp | None) -> tuple[pd.Timestamp, pd.Timestamp | None]:
    start = as_utc(since, "since")
    stop = None if until is None else as_utc(until, "until")
    if stop is not None and stop <= start:
        raise ConfigError(f"expected since before until, found {start} and {stop}")
    return start, stop


def _no_rows(
    series: BybitSeries,
    beginning: Beginning | None,
    start: pd.Timestamp,
    stop: pd.Timestamp | None,
) -> FeedError:
    until = "now" if stop is None else str(stop)
    listed_ms = series.market.listed_ms
    first_ms = None if beginning is None else beginning.first_ms
    begins = [
        f"{verb} {pd.Timestamp(moment, unit='ms'):%Y-%m-%d}: ask for later ones"
        for verb, moment in (("it was listed on", listed_ms), ("its first is of", first_ms))
        if moment is not None and stop is not None and moment >= to_epoch_ms(stop)
    ]
    hint = begins[0] if begins else "ask for an earlier since or a later until"
    kind = series.kind.name
    what = f"closed {series.key.timeframe} bars" if kind == "bars" else f"values of {kind}"
    return FeedError(
        f"expected {what} of {series.market.symbol} from {start} to {until}, found none; {hint}"
    )
