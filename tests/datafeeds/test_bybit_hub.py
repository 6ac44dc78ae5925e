import threading
import time

import pytest

from datafeeds import bybit_hub
from datafeeds.bybit_hub import LiveHub, LiveOrder
from datafeeds.bybit_line import LiveEnd, LiveRow
from glow_bt.errors import FeedError
from tests.datafeeds.bybit_faults import stall
from tests.datafeeds.live_exchange import LiveExchange, live_threads
from tests.datafeeds.random_bars import make_bars

CLOSED = 40
WAIT = 5.0


def order(exchange, **settings):
    defaults = {
        "symbol": "BTCUSDT", "interval": "1m", "history": 5, "first_ms": None, "last_ms": None,
        "streamed": False, "stream_url": exchange.sockets.url, "extras": (),
    }  # fmt: skip
    return LiveOrder(**(defaults | settings))


@pytest.fixture
def exchange():
    with LiveExchange(make_bars(400, "min"), CLOSED) as running:
        yield running


@pytest.fixture
def slow():
    with LiveExchange(make_bars(400, "min"), CLOSED, pace=1.0) as running:
        yield running


@pytest.fixture
def hub(exchange):
    running = LiveHub(exchange.client, exchange.clock)
    yield running
    running.close()
    assert not live_threads()


def next_rows(line, count):
    rows = []
    while len(rows) < count:
        item = line.items.get(timeout=WAIT)
        if isinstance(item, LiveRow):
            rows.append(item)
    return rows


def test_no_thread_starts_before_go(exchange, hub):
    line = hub.open(order(exchange))
    assert not live_threads()
    hub.go()
    hub.go()
    assert len(live_threads()) == 1
    opens = [row.bar.open_ms for row in next_rows(line, 10)]
    assert opens == list(range(opens[0], opens[0] + 600_000, 60_000))


def test_after_the_machine_slept_polled_bars_are_in_time_again(exchange, hub):
    line = hub.open(order(exchange))
    hub.go()
    next_rows(line, 6)
    exchange.time.sleep(5400.0)
    missed = next_rows(line, 90)
    lag_ms = exchange.time.now_ms() - missed[-1].bar.open_ms - 60_000
    assert lag_ms < 60 * 60_000
    for row in next_rows(line, 20):
        lag_ms = exchange.time.now_ms() - row.bar.open_ms - 60_000
    assert lag_ms < 30 * 60_000  # 0.6 s of ours; it slept for 90 minutes


def test_hours_without_a_message_make_it_ask_for_the_time(exchange, hub):
    hub.open(order(exchange, first_ms=exchange.time.now_ms() + 10**9))
    hub.go()
    before = exchange.server.count("time")
    time.sleep(0.5)  # 25 minutes
    assert exchange.server.count("time") - before in range(2, 8)


def test_the_end_comes_after_the_last_bar_and_only_once(exchange, hub):
    last_ms = exchange.bars.index[CLOSED + 3].value // 1_000_000
    line = hub.open(order(exchange, last_ms=last_ms))
    hub.go()
    while (item := line.items.get(timeout=WAIT)) != LiveEnd(None):
        last = item
    assert last.bar.open_ms == last_ms
    hub.close()
    assert line.items.empty()


def test_the_last_one_to_leave_closes_it(exchange, hub):
    first, second = hub.open(order(exchange)), hub.open(order(exchange))
    hub.go()
    hub.leave(first)
    assert not hub.closed
    assert live_threads()
    hub.leave(second)
    assert hub.closed
    assert not live_threads()


def test_an_answer_that_does_not_come_does_not_hold_the_end_up(slow, monkeypatch):
    monkeypatch.setattr(bybit_hub, "BybitClient", lambda: slow.client)
    hub = LiveHub(None, slow.clock)
    hub.open(order(slow))
    slow.server.script("time", [stall(0.9)])
    hub._clock_wrong = True
    hub._clock_asked = -10.0
    asked = slow.server.count("time")
    hub.go()
    while slow.server.count("time") == asked:
        time.sleep(0.005)
    began = time.monotonic()
    hub.close()
    assert time.monotonic() - began < 0.9
    for thread in [*live_threads()]:
        thread.join(WAIT)
    assert not live_threads()


def test_an_error_of_our_own_reaches_the_feed(exchange, hub, monkeypatch):
    line = hub.open(order(exchange))
    said = []
    monkeypatch.setattr(threading, "excepthook", lambda hook: said.append(hook.exc_type))
    monkeypatch.setattr(line.bars, "answered", lambda *_: 1 / 0)
    hub.go()
    while not isinstance(item := line.items.get(timeout=WAIT), LiveEnd):
        pass
    assert isinstance(item.error, FeedError)
    assert "an error of its own" in str(item.error)
    assert said == [ZeroDivisionError]
