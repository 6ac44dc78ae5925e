"""Bars for Cerebro, from a frame or a file, or live from Bybit."""

from __future__ import annotations

import datetime as dt
import math
import os
import weakref
from functools import partial
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING, Any, ClassVar

import backtrader as bt

from datafeeds.bybit_line import LiveEnd, LiveRow
from datafeeds.bybit_live import Phase, PhaseChange
from datafeeds.bybit_time import timeframe_of
from datafeeds.bybit_topics import stream_address
from glow_bt.bt.feed import ArrayFeed
from glow_bt.bt.parameters import refuse_unknown
from glow_bt.bt.stamps import to_nanoseconds
from glow_bt.errors import ConfigError
from glow_bt.ohlcv import read_bars

if TYPE_CHECKING:
    from collections.abc import Callable

    from datafeeds.bybit_hub import LiveHub
    from datafeeds.bybit_line import LiveItem, LiveLine

__all__ = ["BybitData"]

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MINUTE_MS = 60_000
_DAY_MS = 86_400_000
_TIMEFRAMES = (
    (7 * _DAY_MS, bt.TimeFrame.Weeks),
    (_DAY_MS, bt.TimeFrame.Days),
    (_MINUTE_MS, bt.TimeFrame.Minutes),
)


class BybitData(ArrayFeed):
    """Bars of a frame or of a CSV or Parquet file as a Backtrader feed, or live bars of Bybit.

    Example::

        cerebro.adddata(BybitData(dataname="btcusdt-1h.parquet", fromdate=datetime(2024, 1, 1)))
        cerebro.adddata(BybitData(dataname="BTC/USDT:USDT", live=True, interval="1h"))

    Timeframe and compression are those of the bars unless given, so that analyzers count in the
    right unit. Stamps are bar opens in UTC, and Backtrader shows them as naive UTC; with
    ``tz="America/New_York"`` (any name that pytz knows) it shows that zone's time, and naive
    ``fromdate`` and ``todate`` are read in it. Both dates are included.

    Backtrader's resampler takes a stamp for the end of a bar. Hourly bars stamped at their open
    need ``boundoff=60``, m-minute bars ``boundoff=m``, to fall into the right bar, which is then
    delivered as soon as it is complete::

        cerebro.resampledata(data, timeframe=bt.TimeFrame.Minutes, compression=240, boundoff=60)

    Days, weeks and months resampled from intraday bars need no ``boundoff``; they are right and
    delivered one bar late.

    Lines beside the usual ones: ``funding_rate`` and ``open_interest``, NaN where the bars have
    none. Backtrader's own line ``openinterest`` holds 0 there.

    **Live** the last ``history`` closed bars come first (from ``fromdate`` on, if given), then
    each bar when it has closed by the exchange's clock: every one once, in order, with its final
    values. They come through a websocket, and by questions whenever that is down or brought less
    than it should; with ``websocket=False`` by questions alone. ``notify_data`` is told DELAYED
    when history or bars that were missed are delivered, LIVE when every closed bar is, CONNBROKEN
    with the reason when the connection is lost, and DISCONNECTED at the end: after the bar of
    ``todate``, or with the text of an error that nothing can mend, which `Cerebro.run` then
    raises unless the strategy called ``runstop``. Feeds in one Cerebro with the same
    ``client`` and ``clock`` share them and one connection a product line. Threads end with the
    run, also when that ends by an error or Ctrl-C.

    Args:
        dataname: the bars: a DataFrame in the contract of `glow_bt.ohlcv`, or a file of them;
            live a symbol (`BybitClient.fetch_ohlcv`).
        live: whether bars come from the exchange.
        interval: live: 1m, 3m, 5m, 15m, 30m, 1h, 2h, 4h, 6h, 12h, 1d or 1w.
        history: live: closed bars that come first, at least 1.
        client: live: a `BybitClient`; default: one for Bybit.
        websocket: live: whether to use a websocket.
        stream_url: live: scheme and host of the websocket; default: ``wss://stream.bybit.com``.
        funding: live: whether the line ``funding_rate`` holds the last rate stamped before each
            bar's close; else it is NaN.
        open_interest: live: the same of the line ``open_interest``.
        clock: live: an `ExchangeClock`; for simulations.
        qcheck: live: seconds that Cerebro waits for a bar at a time.

    Raises:
        ConfigError: if ``dataname`` is none of these, or a setting cannot work.
        DataError: if the bars break the contract or the file cannot be read.
    """

    lines: ClassVar[Any] = ("open_interest",)
    params: ClassVar[Any] = (
        ("live", False),
        ("interval", "1h"),
        ("history", 500),
        ("client", None),
        ("websocket", True),
        ("stream_url", None),
        ("funding", False),
        ("open_interest", False),
        ("clock", None),
        ("qcheck", 0.5),
    )

    def __init__(self, *args: object, **kwargs: object) -> None:
        self._hub: LiveHub | None = None
        if self.p.live:
            refuse_unknown(self, args, kwargs)
            super(ArrayFeed, self).__init__()
            self._check_settings()
        else:
            source = self.p.dataname
            if isinstance(source, str | os.PathLike):
                self.p.dataname = read_bars(source)
                self.p.name = self.p.name or Path(source).name.split(".")[0]
            super().__init__(*args, **kwargs)
            self._has_open_interest = "open_interest" in self.p.dataname.columns
        self._open_interest = self.l.open_interest
        self._openinterest = self.l.openinterest

    def islive(self) -> bool:
        """Whether Cerebro has to go bar by bar."""
        return bool(self.p.live)

    def haslivedata(self) -> bool:
        """Whether something can be had without waiting."""
        return self._hub is not None and not self._line.items.empty()

    def clone(self, **kwargs: object) -> Any:  # noqa: ANN401 - Backtrader's classes carry no types
        """Return a feed that follows this one, as Cerebro wants it for resampling."""
        clone = super().clone(**kwargs)
        if self.p.live:
            clone._check = _ignore
        return clone

    def stop(self) -> None:
        """End the connections and threads that no other feed needs; within a second."""
        if self._hub is not None:
            self._hub.leave(self._line)
            self._release.detach()
            self._hub = None
            self.put_notification(self.DISCONNECTED)
        super().stop()

    def _start(self) -> None:
        super()._start()
        if self.p.live:
            self._connect()

    def _check(self, forcedata: object = None) -> None:
        # Backtrader would close resampled bars by the local wall clock, before their last bar is
        # there. Live, each bar comes, so bars alone close them.
        if not self.p.live:
            super()._check(forcedata)

    def _load(self) -> bool | None:  # type: ignore[override] # None: nothing yet
        if self.p.live:
            return self._load_live()
        if not super()._load():
            return False
        value = self._openinterest[0] if self._has_open_interest else math.nan
        self._open_interest[0] = value
        return True

    def _check_settings(self) -> None:
        p = self.p
        if not isinstance(p.dataname, str) or not p.dataname.strip():
            name = type(p.dataname).__name__
            found = f"an empty symbol, {p.dataname!r}" if isinstance(p.dataname, str) else name
            raise ConfigError(
                f"expected dataname=<symbol> with live=True, found {found}; "
                "give a symbol such as BTC/USDT:USDT, or leave live out for bars that are there"
            )
        step_ms = timeframe_of(p.interval).step_ms
        for name, value, sound in (
            ("history", p.history, isinstance(p.history, int) and p.history >= 1),
            ("qcheck", p.qcheck, p.qcheck > 0),
        ):
            if not sound:
                least = "of at least 1" if name == "history" else "above 0"
                raise ConfigError(f"expected {name} {least}, found {value!r}")
        stream_address(p.stream_url, "linear")
        unit, timeframe = next(pair for pair in _TIMEFRAMES if step_ms % pair[0] == 0)
        p.timeframe = p.timeframe or timeframe
        p.compression = p.compression or step_ms // unit

    def _connect(self) -> None:
        """Fetch the history; the threads start when the first bar is taken."""
        from datafeeds.bybit_hub import LiveHub, LiveOrder

        hub = next(iter(self._shared_hubs()), None)
        if hub is None:
            hub = LiveHub(self.p.client, self.p.clock)
            _close_on_error(self._env, hub)
        order = LiveOrder(
            symbol=self.p.dataname,
            interval=self.p.interval,
            history=self.p.history,
            first_ms=_milliseconds(self.fromdate),
            last_ms=_milliseconds(self.todate),
            streamed=bool(self.p.websocket),
            stream_url=self.p.stream_url,
            extras=tuple(
                name
                for name, wanted in (
                    ("funding_rate", self.p.funding),
                    ("open_interest", self.p.open_interest),
                )
                if wanted
            ),
        )
        self._line: LiveLine = hub.open(order)
        self._hub = hub
        self._end: LiveEnd | None = None
        # For whoever drops Cerebro without stopping it.
        self._release = weakref.finalize(self, hub.close)

    def _shared_hubs(self) -> list[LiveHub]:
        return [
            data._hub
            for data in self._env.datas
            if isinstance(data, BybitData) and data._hub is not None
            if not data._hub.closed
            and data.p.client is self.p.client
            and data.p.clock is self.p.clock
        ]

    def _load_live(self) -> bool | None:
        hub = self._hub
        if hub is None:
            return False
        hub.go()
        return self._take()

    def _take(self) -> bool | None:
        """Take items up to the next bar; None if none came in time."""
        if self._end is not None:
            if self._end.error is not None:
                raise self._end.error
            return False
        # Cerebro measures its own time by the wall clock, which may have been set back.
        wait = min(self._qcheck, self.p.qcheck)
        while (item := self._next_item(wait)) is not None:
            if isinstance(item, PhaseChange):
                self._tell(item)
                wait = 0.0
            elif isinstance(item, LiveRow):
                self._show(item)
                return True
            else:
                return self._finish(item)
        return None

    def _next_item(self, wait: float) -> LiveItem | None:
        try:
            return self._line.items.get(timeout=wait) if wait > 0 else self._line.items.get(False)
        except Empty:
            return None

    def _tell(self, change: PhaseChange) -> None:
        status = {
            Phase.DELAYED: self.DELAYED,
            Phase.LIVE: self.LIVE,
            Phase.BROKEN: self.CONNBROKEN,
        }[change.phase]
        self.put_notification(status, *([change.reason] if change.reason else []))

    def _finish(self, end: LiveEnd) -> bool | None:
        """Tell the end; its error is raised at the next call, when the strategy has heard it."""
        self._end = end
        if end.error is None:
            self.put_notification(self.DISCONNECTED)
            return False
        self.put_notification(self.DISCONNECTED, str(end.error))
        return None

    def _show(self, row: LiveRow) -> None:
        stamp = _EPOCH + dt.timedelta(milliseconds=row.bar.open_ms)
        self.l.datetime[0] = bt.date2num(stamp)
        for name, value in zip(
            ("open", "high", "low", "close", "volume"), row.bar.values, strict=True
        ):
            getattr(self.l, name)[0] = value
        self.l.funding_rate[0] = row.funding_rate
        self._open_interest[0] = row.open_interest
        self._openinterest[0] = 0.0 if math.isnan(row.open_interest) else row.open_interest


def _close_on_error(cerebro: bt.Cerebro, hub: LiveHub) -> None:
    """Close a hub when this run of Cerebro ends by an error or Ctrl-C: it stops no feed then."""

    def guard(run: Callable[[object], None], name: str, strategies: object) -> None:
        try:
            run(strategies)
        except BaseException:
            hub.close()
            raise
        finally:
            vars(cerebro).pop(name, None)

    for name in ("_runnext", "_runnext_old"):
        setattr(cerebro, name, partial(guard, getattr(cerebro, name), name))


def _ignore(forcedata: object = None) -> None:
    """Nothing: bars alone close resampled bars."""


def _milliseconds(days: float) -> int | None:
    """Backtrader's days as epoch milliseconds; None if they are infinite."""
    return int(to_nanoseconds([days])[0]) // 1_000_000 if math.isfinite(days) else None
