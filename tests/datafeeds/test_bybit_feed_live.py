import datetime as dt
import gc
import signal
import threading
import time

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from datafeeds.bybit_client import BybitClient
from datafeeds.bybit_feed import BybitData
from datafeeds.bybit_retry import RetryPolicy
from glow_bt.bt import GlowIndicator
from glow_bt.errors import ConfigError, FeedError, SymbolError, TransientFeedError
from glow_bt.joining import join_as_of
from tests.bt.market import WindowScorer
from tests.datafeeds.bybit_faults import http_status
from tests.datafeeds.live_exchange import COLUMNS, Keeper, LiveExchange, live_threads, naive
from tests.datafeeds.random_bars import make_bars

CLOSED = 40
BTC = "BTC/USDT:USDT"
ETH = "ETH/USDT:USDT"


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    assert not live_threads()


@pytest.fixture
def bars():
    return make_bars(400, "min")


@pytest.fixture
def exchange(bars):
    with LiveExchange(bars, CLOSED) as running:
        yield running


@pytest.fixture
def slow(bars):
    """An exchange at the pace of ours: nothing closes while one looks."""
    with LiveExchange(bars, CLOSED, pace=1.0) as running:
        yield running


def assert_shows(strategy, bars):
    assert strategy.stamps == list(bars.index.tz_localize(None).to_pydatetime())
    np.testing.assert_array_equal(np.array(strategy.rows), bars[COLUMNS].to_numpy())


def run_in_background(cerebro):
    """Run and return the thread with what it raised."""
    raised = []

    def work():
        try:
            cerebro.run()
        except BaseException as error:  # noqa: BLE001
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, raised


def wait_until(happened, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("websocket", [True, False])
def test_history_comes_first_then_each_bar_as_it_closes(exchange, bars, websocket):
    strategy = exchange.run(exchange.feed(last=70, websocket=websocket))
    assert_shows(strategy, bars.iloc[:71])
    assert strategy.told[:2] == ["DELAYED", "LIVE"]
    assert strategy.told[-1] == "DISCONNECTED"
    closes = bars.index.as_unit("ms").asi8[:71] + 60_000
    assert (np.array(strategy.seen_ms) >= closes).all()
    assert exchange.sockets.opened >= 1 if websocket else exchange.sockets.opened == 0


@pytest.mark.parametrize("history", [1, 7, 1000])
def test_history_is_the_last_closed_bars(slow, bars, history):
    feed = slow.feed(fromdate=None, history=history, last=CLOSED - 1)
    first = max(CLOSED - history, 0)
    assert_shows(slow.run(feed), bars.iloc[first:CLOSED])


def test_bars_before_fromdate_are_not_shown_even_if_that_is_to_come(exchange, bars):
    feed = exchange.feed(fromdate=naive(bars.index[CLOSED + 20]), last=CLOSED + 25)
    assert_shows(exchange.run(feed), bars.iloc[CLOSED + 20 : CLOSED + 26])


def test_dates_are_read_and_shown_in_the_zone(slow, bars):
    local = bars.index.tz_convert("Asia/Kolkata")
    feed = slow.feed(fromdate=naive(local[20]), todate=naive(local[30]), tz="Asia/Kolkata")
    assert slow.run(feed).stamps == [naive(stamp) for stamp in local[20:31]]


def test_cerebro_knows_that_it_is_live(slow):
    feed = slow.feed()
    assert feed.islive()
    assert not feed.haslivedata()
    assert feed._name == BTC
    assert not BybitData(dataname=make_bars(5)).islive()


@pytest.mark.parametrize(
    ("interval", "timeframe", "compression"),
    [
        ("1m", bt.TimeFrame.Minutes, 1),
        ("4h", bt.TimeFrame.Minutes, 240),
        ("1d", bt.TimeFrame.Days, 1),
        ("1w", bt.TimeFrame.Weeks, 1),
    ],
)
def test_timeframe_is_that_of_the_interval(interval, timeframe, compression):
    feed = BybitData(dataname=BTC, live=True, interval=interval)
    assert (feed._timeframe, feed._compression) == (timeframe, compression)


@pytest.mark.parametrize("alone", [True, False])
def test_resampling_with_boundoff_is_exact_and_in_time(exchange, bars, alone):
    class Resampled(bt.Strategy):
        params = (("now_ms", None),)

        def __init__(self):
            self.rows, self.lengths, self.seen_ms = [], [], []

        def next(self):
            data = self.datas[-1]
            if len(data) > len(self.rows):
                self.rows.append([getattr(data, name)[0] for name in COLUMNS])
                self.lengths.append(len(self.data))
                self.seen_ms.append(self.p.now_ms())

    cerebro = bt.Cerebro(stdstats=False)
    cerebro.addstrategy(Resampled, now_ms=exchange.time.now_ms)
    feed = exchange.feed(last=64)
    if not alone:
        cerebro.adddata(feed)
    settings = {"timeframe": bt.TimeFrame.Minutes, "compression": 5, "boundoff": 1}
    cerebro.resampledata(feed, **settings)
    [strategy] = cerebro.run()
    how = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    expected = bars.iloc[:65].resample("5min").agg(how)
    np.testing.assert_allclose(np.array(strategy.rows), expected.to_numpy(), rtol=1e-12)
    if not alone:
        assert strategy.lengths == list(range(5, 66, 5))
    closes = expected.index.as_unit("ms").asi8 + 300_000
    assert (np.array(strategy.seen_ms) >= closes).all()


def test_the_indicator_scores_live_bars_as_it_scores_stored_ones(exchange, bars):
    class Scores(bt.Strategy):
        params = (("now_ms", None),)

        def __init__(self):
            self.indicator = GlowIndicator(self.data, model=WindowScorer())
            self.scores = []

        def next(self):
            self.scores.append([line[0] for line in self.indicator.lines])

    live = exchange.run(exchange.feed(last=80), strategy=Scores)
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.addstrategy(Scores)
    cerebro.adddata(BybitData(dataname=bars.iloc[:81]))
    [stored] = cerebro.run()
    assert len(live.scores) == 75
    np.testing.assert_allclose(live.scores, stored.scores, rtol=0, atol=1e-12)


def test_feeds_share_one_connection_a_product_line_and_one_client(exchange):
    others = {name: make_bars(400, "min", seed=seed) for seed, name in enumerate("AB", 1)}
    exchange.add("ETHUSDT", others["A"])
    exchange.add("BTCUSDT", others["B"], category="spot")

    class Three(bt.Strategy):
        params = (("now_ms", None),)

        def __init__(self):
            self.seen = [{} for _ in self.datas]
            self.threads = 0

        def next(self):
            self.threads = max(self.threads, len(live_threads()))
            for data, seen in zip(self.datas, self.seen, strict=True):
                seen[data.datetime.datetime(0)] = data.close[0]

    feeds = [exchange.feed(symbol, last=70) for symbol in (BTC, ETH, "BTC/USDT")]
    strategy = exchange.run(*feeds, strategy=Three)
    for seen, bars in zip(strategy.seen, (exchange.bars, *others.values()), strict=True):
        expected = bars["close"].iloc[:71].tz_localize(None)
        found = pd.Series(seen)
        assert list(found) == list(expected)
        assert list(found.index) == list(expected.index)
    assert strategy.threads == 3  # two product lines and the one that asks
    assert {category for category, _ in exchange.sockets.subscribed} == {"linear", "spot"}


@pytest.mark.parametrize("websocket", [True, False])
def test_funding_and_open_interest_are_those_known_at_the_close(bars, websocket):
    hourly = make_bars(120, "h")
    stamps = pd.date_range(hourly.index[0] - pd.Timedelta("8h"), periods=20, freq="8h")
    rates = pd.Series(np.arange(20) * 1e-5 + 1e-5, stamps, name="funding_rate")
    half_hours = pd.date_range(hourly.index[0] - pd.Timedelta("1h"), periods=240, freq="1h")
    interest = pd.Series(np.arange(240) + 0.5, half_hours, name="open_interest")

    class Extras(bt.Strategy):
        params = (("now_ms", None),)

        def __init__(self):
            self.rows = []

        def next(self):
            data = self.data
            self.rows.append([data.funding_rate[0], data.open_interest[0], data.openinterest[0]])

    with LiveExchange(hourly, 60, "1h", pace=180_000.0) as exchange:
        exchange.server.add_funding("BTCUSDT", rates)
        exchange.server.add_open_interest("BTCUSDT", "1h", interest)
        feed = exchange.feed(last=90, funding=True, open_interest=True, websocket=websocket)
        strategy = exchange.run(feed, strategy=Extras)
    joined = join_as_of(hourly.iloc[:91], rates, interest)[["funding_rate", "open_interest"]]
    found = np.array(strategy.rows)
    np.testing.assert_array_equal(found[:, :2], joined.to_numpy())
    np.testing.assert_array_equal(found[:, 2], found[:, 1])


def test_without_them_the_lines_are_nan(slow):
    class Extras(bt.Strategy):
        params = (("now_ms", None),)

        def next(self):
            assert np.isnan([self.data.funding_rate[0], self.data.open_interest[0]]).all()
            assert self.data.openinterest[0] == 0.0

    slow.run(slow.feed(last=CLOSED - 1), strategy=Extras)


def test_a_drop_is_told_with_its_reason_and_mended(exchange, bars):
    told = []

    class Told(Keeper):
        def notify_data(self, data, status, *args, **kwargs):
            super().notify_data(data, status)
            told.append((data._getstatusname(status), *args))

        def next(self):
            super().next()
            if len(self.stamps) == 60:
                exchange.sockets.go_down(300)

    assert_shows(exchange.run(exchange.feed(last=90), strategy=Told), bars.iloc[:91])
    names = [name for name, *_ in told]
    assert names[:2] == ["DELAYED", "LIVE"]
    broken = names.index("CONNBROKEN")
    assert names[broken + 1 : broken + 3] == ["DELAYED", "LIVE"]
    assert len(told[broken]) == 2
    assert told[broken][1]


def test_without_a_websocket_server_bars_come_by_questions(exchange, bars):
    feed = exchange.feed(last=70, stream_url="ws://127.0.0.1:9")
    strategy = exchange.run(feed)
    assert_shows(strategy, bars.iloc[:71])
    assert strategy.told.count("CONNBROKEN") == 1
    assert strategy.told[-2:] == ["LIVE", "DISCONNECTED"]


def test_a_refused_subscription_is_an_error_at_once(slow):
    slow.sockets.refused.add("kline.1.BTCUSDT")
    told = []

    class Told(Keeper):
        def notify_data(self, data, status, *args, **kwargs):
            told.append((data._getstatusname(status), *args))

    began = time.monotonic()
    with pytest.raises(FeedError, match=r"refused to stream kline\.1\.BTCUSDT.*check the symbol"):
        slow.run(slow.feed(), strategy=Told)
    assert time.monotonic() - began < 2.0
    assert told[-1][0] == "DISCONNECTED"
    assert "refused to stream" in told[-1][1]
    assert slow.sockets.opened == 1


def test_a_strategy_that_stops_on_an_error_ends_in_order(slow):
    slow.sockets.refused.add("kline.1.BTCUSDT")

    class Stops(Keeper):
        def notify_data(self, data, status, *args, **kwargs):
            if status == data.DISCONNECTED:
                self.env.runstop()

        def stop(self):
            self.stopped = True

    strategy = slow.run(slow.feed(), strategy=Stops)
    assert strategy.stopped
    assert len(strategy.stamps) == CLOSED


def test_a_refusal_of_questions_ends_it_too(exchange):
    blocked = http_status(403, b"configured to block access from your country")

    class Blocks(Keeper):
        def next(self):
            super().next()
            if len(self.stamps) == 50:
                exchange.server.script("time", [blocked] * 100)
                exchange.server.script("kline", [blocked] * 100)

    with pytest.raises(FeedError, match="country or region"):
        exchange.run(exchange.feed(websocket=False), strategy=Blocks)


def test_no_connection_at_the_start_is_an_error_after_the_retry_budget():
    retry = RetryPolicy(first_delay=0.01, max_delay=0.01, attempts=3)
    with BybitClient("http://127.0.0.1:9", retry=retry) as client:
        cerebro = bt.Cerebro()
        cerebro.adddata(BybitData(dataname=BTC, live=True, client=client))
        cerebro.addstrategy(Keeper)
        with pytest.raises(TransientFeedError, match="asked 3 times"):
            cerebro.run()


def test_an_unknown_symbol_is_named_with_its_neighbours(slow):
    with pytest.raises(SymbolError, match="did you mean BTC/USDT:USDT"):
        slow.run(slow.feed("BTC/USDX:USDT"))


def test_spot_has_no_funding(slow, bars):
    slow.add("BTCUSDT", bars, category="spot")
    with pytest.raises(ConfigError, match="funding"):
        slow.run(slow.feed("BTC/USDT", funding=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"interval": "7m"}, r"expected a timeframe among 1m, 3m, 5m.*found '7m'"),
        ({"history": 0}, "expected history of at least 1, found 0"),
        ({"history": 1.5}, "expected history of at least 1"),
        ({"dataname": make_bars(5)}, "expected dataname=<symbol> with live=True, found DataFrame"),
        ({"dataname": ""}, r"live=True, found an empty symbol, ''; give a symbol such as"),
        ({"stream_url": "http://x"}, "expected stream_url as ws://host"),
        ({"qcheck": 0}, "expected qcheck above 0"),
        ({"intervall": "1h"}, "did you mean 'interval'"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        BybitData(**({"dataname": BTC, "live": True} | settings))


def test_runstop_ends_it_within_a_second(slow):
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.addstrategy(Keeper, now_ms=slow.time.now_ms)
    cerebro.adddata(slow.feed(qcheck=0.5))
    thread, raised = run_in_background(cerebro)
    wait_until(lambda: slow.sockets.subscribed)
    began = time.monotonic()
    cerebro.runstop()
    thread.join(5.0)
    assert time.monotonic() - began < 1.0
    assert not raised
    assert not live_threads()


@pytest.mark.parametrize("websocket", [True, False])
def test_ctrl_c_ends_it_within_a_second(slow, websocket):
    def interrupt():
        wait_until(live_threads)
        time.sleep(0.1)
        pressed.append(time.monotonic())
        signal.raise_signal(signal.SIGINT)

    pressed = []
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        slow.run(slow.feed(websocket=websocket))
    assert time.monotonic() - pressed[0] < 1.0
    assert not live_threads()
    thread.join()


def test_a_strategy_that_cannot_be_made_leaves_no_thread(slow):
    class Broken(Keeper):
        def __init__(self):
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        slow.run(slow.feed(), strategy=Broken)
    assert not live_threads()


def test_an_error_of_the_strategy_ends_the_threads(slow):
    class Broken(Keeper):
        def next(self):
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        slow.run(slow.feed(), strategy=Broken)
    assert not live_threads()


class BrokenAtTheEnd(Keeper):
    def next(self):
        self.env.runstop()

    def stop(self):
        raise RuntimeError("broken")


def test_stop_ends_the_threads_where_cerebro_did_not(slow):
    feed = slow.feed()
    with pytest.raises(RuntimeError, match="broken"):
        slow.run(feed, strategy=BrokenAtTheEnd)
    assert live_threads()
    feed.stop()
    assert not live_threads()


def test_who_drops_cerebro_drops_the_threads(slow):
    with pytest.raises(RuntimeError, match="broken"):
        slow.run(slow.feed(), strategy=BrokenAtTheEnd)
    gc.collect()
    assert not live_threads()


def test_it_can_be_run_again(slow, bars):
    feed = slow.feed(last=CLOSED - 1)
    for _ in range(2):
        assert_shows(slow.run(feed), bars.iloc[:CLOSED])


def test_waiting_takes_no_processor_time(slow):
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.addstrategy(Keeper, now_ms=slow.time.now_ms)
    cerebro.adddata(slow.feed(qcheck=0.5))
    thread, _ = run_in_background(cerebro)
    wait_until(lambda: slow.sockets.subscribed)
    time.sleep(0.2)
    began = time.process_time()
    time.sleep(1.0)
    used = time.process_time() - began
    cerebro.runstop()
    thread.join(5.0)
    assert used < 0.15


def test_a_wall_clock_set_back_does_not_make_it_wait(slow):
    with slow.time.wall_clock():
        cerebro = bt.Cerebro(stdstats=False)
        cerebro.addstrategy(Keeper, now_ms=slow.time.now_ms)
        cerebro.adddata(slow.feed(qcheck=0.05))
        thread, _ = run_in_background(cerebro)
        wait_until(lambda: slow.sockets.subscribed)
        stopping = threading.Event()

        def turn_back():
            while not stopping.is_set():
                slow.time.set_wall(-1000.0)

        turning = threading.Thread(target=turn_back)
        turning.start()
        time.sleep(0.2)
        began = time.monotonic()
        cerebro.runstop()
        thread.join(5.0)
        assert time.monotonic() - began < 1.0
        stopping.set()
        turning.join()


def test_one_bar_of_history_on_a_market_that_is_one_bar_old(bars):
    with LiveExchange(bars, 1) as exchange:
        feed = exchange.feed(fromdate=None, history=500, last=20)
        assert_shows(exchange.run(feed), bars.iloc[:21])


def test_stamps_are_naive_utc(slow):
    strategy = slow.run(slow.feed(last=CLOSED - 1))
    assert strategy.stamps[0] == dt.datetime(2024, 1, 1)  # noqa: DTZ001
