"""A loopback exchange whose bars close while one looks: REST, websocket, and a fast clock."""

import contextlib
import datetime as dt
import threading
import time
from types import SimpleNamespace
from unittest import mock

import backtrader as bt

from datafeeds.bybit_client import BybitClient
from datafeeds.bybit_clock import ExchangeClock
from datafeeds.bybit_feed import BybitData
from datafeeds.bybit_retry import RetryPolicy
from tests.datafeeds.bybit_server import BybitServer
from tests.datafeeds.bybit_sockets import BybitSockets

COLUMNS = ["open", "high", "low", "close", "volume"]
PACE = 3000.0  # a minute in 20 ms


class FastTime:
    """The exchange's time, `pace` times as fast as ours, and ours, which may be wrong.

    Args:
        start_ms: the exchange's time at the start.
        pace: how many of its seconds pass in one of ours.
    """

    def __init__(self, start_ms, pace):
        self.pace = pace
        self._start_ms = start_ms
        self._began = time.monotonic()
        self._slept_ms = 0
        self._wall_seconds = 0.0
        self._real_time = time.time

    def now_ms(self):
        passed = (time.monotonic() - self._began) * 1000.0 * self.pace
        return int(self._start_ms + passed + self._slept_ms)

    def sleep(self, seconds):
        """The machine sleeps: its monotonic clock stands still while the exchange goes on."""
        self._slept_ms += round(seconds * 1000)

    def set_wall(self, seconds):
        """Somebody sets the local wall clock."""
        self._wall_seconds += seconds

    @contextlib.contextmanager
    def wall_clock(self):
        """Let everything that reads the wall clock see the one that is set."""
        owner = self

        class Wall(dt.datetime):
            @classmethod
            def utcnow(cls):
                return dt.datetime.fromtimestamp(owner.wall(), dt.UTC).replace(tzinfo=None)

        patched = SimpleNamespace(datetime=Wall, timedelta=dt.timedelta, date=dt.date)
        with (
            mock.patch("time.time", self.wall),
            mock.patch("backtrader.cerebro.datetime", patched),
            mock.patch("backtrader.resamplerfilter.datetime", Wall),
        ):
            yield

    def wall(self):
        return self._real_time() + self._wall_seconds


class Keeper(bt.Strategy):
    """Keeps what it is shown and told, and when."""

    params = (("now_ms", None), ("when_live", None))

    def __init__(self):
        self.stamps, self.rows, self.seen_ms, self.told = [], [], [], []

    def notify_data(self, data, status, *args, **kwargs):
        if status == data.LIVE and "LIVE" not in self.told and self.p.when_live:
            self.p.when_live()
        self.told.append(data._getstatusname(status))

    def next(self):
        self.seen_ms.append(self.p.now_ms())
        self.stamps.append(self.data.datetime.datetime(0))
        self.rows.append([getattr(self.data, name)[0] for name in COLUMNS])


class LiveExchange:
    """An exchange that has closed the first bars, and closes one more every 20 ms.

    Args:
        bars: of BTCUSDT, linear.
        closed: how many of them have closed at the start.
        timeframe: of the bars.
        pace: how many of its seconds pass in one of ours.
        noise, seed: as for `BybitSockets`.
    """

    def __init__(self, bars, closed, timeframe="1m", *, pace=PACE, noise=None, seed=0):
        self.bars, self.timeframe, self.closed = bars, timeframe, closed
        step_ms = int((bars.index[1] - bars.index[0]).total_seconds() * 1000)
        start_ms = bars.index[closed].value // 1_000_000 + step_ms // 3
        self.time = FastTime(start_ms, pace)
        self.server = BybitServer(now=self.time.now_ms)
        self.sockets = BybitSockets(now=self.time.now_ms, pace=pace, noise=noise, seed=seed)
        retry = RetryPolicy(first_delay=0.001, max_delay=0.02, attempts=5)
        self.client = BybitClient(self.server.url, throttle=False, retry=retry, timeout=1.0)
        self.clock = ExchangeClock(pace=pace)

    def __enter__(self):
        self.server.__enter__()
        self.sockets.__enter__()
        self.add("BTCUSDT", self.bars)
        return self

    def __exit__(self, *exception):
        self.client.close()
        self.sockets.__exit__(*exception)
        self.server.__exit__(*exception)

    def add(self, symbol, bars, *, category="linear"):
        self.server.add_bars(symbol, self.timeframe, bars, category=category)
        self.sockets.add_bars(symbol, self.timeframe, bars, category=category)

    def feed(self, symbol="BTC/USDT:USDT", *, last=None, **settings):
        """A live feed that begins with the first bar and ends after the one of that number."""
        defaults = {
            "live": True,
            "interval": self.timeframe,
            "fromdate": naive(self.bars.index[0]),
            "client": self.client,
            "stream_url": self.sockets.url,
            "clock": self.clock,
            "qcheck": 0.05,
        }
        if last is not None:
            defaults["todate"] = naive(self.bars.index[last])
        return BybitData(dataname=symbol, **(defaults | settings))

    def run(self, *feeds, strategy=Keeper, **settings):
        cerebro = bt.Cerebro(stdstats=False)
        cerebro.addstrategy(strategy, now_ms=self.time.now_ms, **settings)
        for feed in feeds:
            cerebro.adddata(feed)
        [found] = cerebro.run()
        return found


def naive(stamp):
    return stamp.tz_localize(None).to_pydatetime()


def live_threads():
    """Threads that live feeds have started and that still run."""
    return [t for t in threading.enumerate() if t.name.startswith(("live bars", "stream"))]
