"""Whole histories from Bybit into a store: several at once, resumable at any page.

A page that arrived is durable before the next is waited for, so a kill loses no more than the
requests in flight; the next call asks for what is not there yet. Bars that the exchange lacked
in an earlier call are asked for once more in each.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from datafeeds.bybit_time import Stamp, as_utc, to_epoch_ms
from datafeeds.ohlcv_spans import minus
from glow_bt.errors import ConfigError, FeedError, TransientFeedError

if TYPE_CHECKING:
    from datafeeds.bybit_client import BybitClient
    from datafeeds.bybit_series import BybitSeries
    from datafeeds.ohlcv_store import OhlcvStore, SeriesWriter
    from datafeeds.series import SeriesKey

__all__ = ["FetchedSeries", "Progress", "ask_again", "fetch_histories"]

Progress = Callable[["SeriesKey", int, int], object]
"""Called with a series, the steps of its span that are settled, and all of them."""

_SERIES_AT_ONCE = 4
# Rounds in which a history is asked for whatever seems not to be there, or after its end.
_LOOKS = 4
# A funding rate is published some seconds after its stamp.
_FUNDING_DELAY_MS = 60_000
# The rate that counts at a span's start was stamped before it, a day at most.
_FUNDING_LEAD_MS = 86_400_000


@dataclass(frozen=True)
class FetchedSeries:
    """What a fetch left in the store.

    Attributes:
        key: the series.
        interval: distance of its stamps; of funding rates that of their grid.
        new: rows that were not stored before.
        rows: rows of the span that are stored now.
        first: stamp of the first of them, None if there is none.
        last: stamp of the last of them.
        lacking: stamps between the two that the exchange has no bar for.
        after: closed steps of the span after the last row that the exchange does not have yet;
            one is usual right after a close, more means that it shows no trading.
    """

    key: SeriesKey
    interval: pd.Timedelta
    new: int
    rows: int
    first: pd.Timestamp | None
    last: pd.Timestamp | None
    lacking: int
    after: int


def fetch_histories(
    client: BybitClient,
    store: OhlcvStore,
    series: Sequence[BybitSeries],
    since: Stamp,
    until: Stamp | None = None,
    *,
    progress: Progress | None = None,
) -> list[FetchedSeries]:
    """Fetch what a store lacks of ``since <= stamp < until``, closed bars only.

    An error of one series ends it and not the others; it is raised when they are done. Ctrl-C
    closes the client, so that nothing waits for an exchange that does not answer.

    Args:
        client: asks; its rate limit holds for all series together.
        store: where pages go as they arrive.
        series: what to fetch (`BybitClient.series`); one that is given twice is fetched once.
        since: start: ISO 8601, epoch milliseconds or a datetime; naive means UTC.
        until: end; default: the exchange's present.
        progress: called after each page, from several threads.

    Raises:
        ConfigError: if ``since`` is not before ``until`` or lies in the future.
        StoreLockedError: if another process writes one of the series.
        DataError: if what the exchange says contradicts what is stored.
        FeedError: when the exchange refuses or keeps failing, or has nothing in the span. Pages
            that came before are kept: call again to go on.
    """
    now_ms = client.now_ms()
    series = list({one.key: one for one in series}.values())
    spans = [_span(one, since, until, now_ms) for one in series]
    stop = threading.Event()

    def fetch(one: BybitSeries, span: range) -> FetchedSeries:
        with store.writer(one.key, one.step_ms, one.offset_ms) as writer:
            new = _fill(client, store, writer, one, span, _Count(one.key, span, progress), stop)
        if stop.is_set():
            raise CancelledError  # nothing can be said of a part of it
        return _fetched(store, one, span, new)

    with ThreadPoolExecutor(min(_SERIES_AT_ONCE, max(len(series), 1))) as pool:
        tasks = [pool.submit(fetch, *work) for work in zip(series, spans, strict=True)]
        try:
            wait(tasks)
        except BaseException:
            stop.set()
            client.close()
            pool.shutdown(cancel_futures=True)
            raise
    # The first error, if there is one.
    return [task.result() for task in tasks]


def ask_again(
    client: BybitClient,
    store: OhlcvStore,
    series: BybitSeries,
    spans: Iterable[range],
    *,
    progress: Progress | None = None,
) -> int:
    """Ask once more for spans of a stored series, and return how many rows are new.

    Args:
        client: asks.
        store: holds the series.
        series: what it is.
        spans: on its grid, such as those that `OhlcvStore.lacking` or ``drop_damaged`` names.
        progress: as for `fetch_histories`, called with the steps of each span by itself.

    Raises:
        FeedError, DataError: as `fetch_histories`.
    """
    now_ms = client.now_ms()
    stop, new = threading.Event(), 0
    with store.writer(series.key, series.step_ms, series.offset_ms) as writer:
        for asked in spans:
            closed = _closed(series, asked.start, asked.stop, now_ms)
            if closed:
                writer.forget([closed])
                count = _Count(series.key, closed, progress)
                new += _fill(client, store, writer, series, closed, count, stop)
    return new


class _Count:
    """Steps of a span that are settled, told to whoever watches."""

    def __init__(self, key: SeriesKey, span: range, progress: Progress | None) -> None:
        self._key, self._total, self._progress = key, len(span), progress
        self._done = 0

    def settle(self, steps: int) -> None:
        self._done = min(self._done + steps, self._total)
        if self._progress is not None:
            self._progress(self._key, self._done, self._total)


def _fill(
    client: BybitClient,
    store: OhlcvStore,
    writer: SeriesWriter,
    series: BybitSeries,
    span: range,
    count: _Count,
    stop: threading.Event,
) -> int:
    """Settle a span, and ask again for what earlier calls did not find in it."""
    is_regular = series.kind.regular
    if is_regular:
        writer.forget([*writer.lacking(span), *_after_last(store, series.key, span)])
    count.settle(len(span) - sum(map(len, writer.missing(span, series.limit))))
    new = 0
    for _ in range(_LOOKS):
        first = _first(store, series.key)
        # Answers that held too little may have had it begin too late.
        edge = _up_to_first(first, series, span) if is_regular else []
        windows = sorted([*writer.missing(span, series.limit), *edge], key=lambda w: w.start)
        found = _ask(client, writer, series, windows, count, stop)
        new += found
        writer.seal()
        begins = _first(store, series.key)
        if first is not None and begins != first:
            writer.forget(_before(begins, span))
        # After the last bar nothing is settled: what is not there may still come.
        after = _after_last(store, series.key, span) if is_regular else ()
        writer.forget(after)
        left = minus(writer.missing(span, series.limit), after)
        unsure = is_regular and begins != first and bool(_before(begins, span))
        behind = sum(map(len, after))
        # The newest bar may not be final yet; many that are not there are rather its end.
        ended = behind == 1 or (found and behind > 1)
        if stop.is_set() or not (left or unsure or ended):
            break
    if stop.is_set():
        return new
    if behind > 1 and span.stop >= series.due(client.now_ms()):
        raise TransientFeedError(
            f"expected {series.key.kind} of {series.key.symbol} up to the present, for Bybit "
            f"lists it, found none for the last {behind} stamps; fetch again later, or give an "
            "until"
        )
    if left:
        raise TransientFeedError(
            f"expected all {series.key.kind} of {series.key.symbol} before the last, found "
            f"none for {sum(map(len, left))} of its stamps in {_LOOKS} rounds; fetch again later"
        )
    return new


def _ask(
    client: BybitClient,
    writer: SeriesWriter,
    series: BybitSeries,
    windows: Iterable[range],
    count: _Count,
    stop: threading.Event,
) -> int:
    """Ask for windows and store each page as it arrives; return how many rows are new."""
    new = 0
    if stop.is_set():
        return new
    pages = client.pages(series, windows)
    try:
        for page in pages:
            new += writer.add(page)
            count.settle(len(page.window))
            if stop.is_set():
                break
    finally:
        pages.close()
    return new


def _first(store: OhlcvStore, key: SeriesKey) -> int | None:
    """The first stored stamp."""
    stored = store.span(*key[:2], key.timeframe, kind=key.kind)
    return None if stored is None else to_epoch_ms(stored[0])


def _before(first: int | None, span: range) -> list[range]:
    """The steps of a span before its history begins."""
    before = range(span.start, min(first or span.start, span.stop), span.step)
    return [before] if before else []


def _up_to_first(first: int | None, series: BybitSeries, span: range) -> list[range]:
    """The window that ends with the first stored row, if the span begins before it."""
    if first is None or not _before(first, span) or first >= span.stop:
        return []
    start = max(span.start, first - (series.limit - 1) * span.step)
    return [range(start, first + span.step, span.step)]


def _after_last(store: OhlcvStore, key: SeriesKey, span: range) -> list[range]:
    """The steps of a span after its last stored row."""
    stored = store.span(*key[:2], key.timeframe, kind=key.kind)
    if stored is None:
        return [span]
    after = range(max(to_epoch_ms(stored[1]) + span.step, span.start), span.stop, span.step)
    return [after] if after else []


def _span(series: BybitSeries, since: Stamp, until: Stamp | None, now_ms: int) -> range:
    start = as_utc(since, "since")
    stop = None if until is None else as_utc(until, "until")
    if stop is not None and stop <= start:
        raise ConfigError(f"expected since before until, found {start} and {stop}")
    start_ms = to_epoch_ms(start)
    if start_ms > now_ms:
        now = pd.Timestamp(now_ms, unit="ms", tz="UTC")
        raise ConfigError(
            f"expected since in the past, found {start} (it is {now} on the exchange)"
        )
    span = _closed(series, start_ms, None if stop is None else to_epoch_ms(stop), now_ms)
    if not span:
        raise FeedError(
            f"expected a span with a closed {series.key.timeframe} bar, found {start} to "
            f"{stop or 'now'}; ask for an earlier since or a later until"
        )
    return span


def _closed(series: BybitSeries, start_ms: int, stop_ms: int | None, now_ms: int) -> range:
    """The steps from start to stop whose values are final now."""
    if not series.kind.regular:
        # The rate of the hour that it is now may still come.
        start_ms, now_ms = start_ms - _FUNDING_LEAD_MS, now_ms - _FUNDING_DELAY_MS - series.step_ms
    return series.closed(start_ms, stop_ms, now_ms)


def _fetched(store: OhlcvStore, series: BybitSeries, span: range, new: int) -> FetchedSeries:
    rows, first, last = 0, None, None
    since, until = (pd.Timestamp(ms, unit="ms", tz="UTC") for ms in (span.start, span.stop))
    if store.settled(series.key):
        for part in store.iterate(series.key, since, until):
            rows += len(part)
            first = part.index[0] if first is None else first
            last = part.index[-1]
    if not rows and series.kind.regular:
        raise _nothing(series, since, until)
    lacking = sum(
        len(range(max(hole.start, span.start), min(hole.stop, span.stop), hole.step))
        for hole in store.lacking(series.key)
    )
    after = _after_last(store, series.key, span) if series.kind.regular else []
    interval = pd.Timedelta(series.step_ms, unit="ms")
    ended = sum(map(len, after))
    return FetchedSeries(series.key, interval, new, rows, first, last, lacking, ended)


def _nothing(series: BybitSeries, since: pd.Timestamp, until: pd.Timestamp) -> FeedError:
    listed = series.market.listed_ms
    if listed is not None and listed >= to_epoch_ms(until):
        hint = f"it was listed on {pd.Timestamp(listed, unit='ms'):%Y-%m-%d}: ask for later bars"
    else:
        hint = "ask for an earlier since or a later until"
    return FeedError(
        f"expected {series.key.kind} of {series.key.symbol} from {since} to {until}, found none; "
        f"{hint}"
    )
