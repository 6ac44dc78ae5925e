import json
import queue
import socket
import threading
import time

import pytest

from datafeeds.bybit_clock import ExchangeClock
from datafeeds.bybit_retry import RetryPolicy
from datafeeds.bybit_stream import BybitStream, StreamStatus
from glow_bt.errors import ConfigError
from tests.datafeeds.bybit_sockets import BybitSockets
from tests.datafeeds.random_bars import make_bars

TOPIC = "publicTrade.BTCUSDT"
BOOK = "orderbook.50.BTCUSDT"
PACE = 100.0  # seconds of the exchange in one of ours: pings every 0.2 s, silence after 0.3 s
WAIT = 5.0


def trade(number):
    data = [{"T": number, "s": "BTCUSDT", "S": "Buy", "v": "1", "p": "2", "i": str(number)}]
    return {"topic": TOPIC, "type": "snapshot", "ts": 1709891679005 + number, "data": data}


class Listener:
    """A stream and all that it said."""

    def __init__(self, url, topics=(TOPIC,), **settings):
        self.messages = queue.Queue()
        self.statuses = queue.Queue()
        settings = {"retry": RetryPolicy(first_delay=0.5, max_delay=2.0)} | settings
        self.stream = BybitStream(
            f"{url}/v5/public/linear",
            topics,
            lambda topic, message: self.messages.put((topic, message)),
            lambda status, reason: self.statuses.put((status, reason)),
            clock=ExchangeClock(pace=PACE),
            **settings,
        )

    def expect(self, status):
        found, reason = self.statuses.get(timeout=WAIT)
        assert found is status, reason
        return reason


@pytest.fixture
def sockets():
    with BybitSockets() as server:
        yield server


@pytest.fixture
def listen(sockets):
    listeners = []

    def start(*args, url=None, **settings):
        listeners.append(Listener(url or sockets.url, *args, **settings))
        listeners[-1].stream.start()
        return listeners[-1]

    yield start
    for listener in listeners:
        listener.stream.stop()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("stream")]


def test_messages_come_parsed_with_their_topic_and_in_order(sockets, listen):
    listener = listen([TOPIC, BOOK])
    listener.expect(StreamStatus.UP)
    for number in range(100):
        sockets.publish(TOPIC, trade(number))
    assert [listener.messages.get(timeout=WAIT) for _ in range(100)] == [
        (TOPIC, trade(number)) for number in range(100)
    ]


def test_topics_are_subscribed_once_each_on_one_connection(sockets, listen):
    listen([TOPIC, BOOK, TOPIC]).expect(StreamStatus.UP)
    assert sockets.subscribed == [("linear", TOPIC), ("linear", BOOK)]
    assert sockets.opened == 1


def test_a_new_subscriber_gets_its_snapshot(sockets, listen):
    snapshot = {"topic": BOOK, "type": "snapshot", "ts": 1, "data": {"u": 1}}
    sockets.greet(BOOK, lambda: [snapshot])
    listener = listen([BOOK])
    assert listener.messages.get(timeout=WAIT) == (BOOK, snapshot)
    sockets.drop()
    assert listener.messages.get(timeout=WAIT) == (BOOK, snapshot)


@pytest.mark.parametrize("reset", [True, False])
def test_a_lost_connection_is_told_and_made_anew(sockets, listen, reset):
    listener = listen()
    listener.expect(StreamStatus.UP)
    sockets.drop(reset=reset)
    listener.expect(StreamStatus.DOWN)
    listener.expect(StreamStatus.UP)
    sockets.publish(TOPIC, trade(1))
    assert listener.messages.get(timeout=WAIT) == (TOPIC, trade(1))


def test_a_server_that_is_down_is_asked_again_until_it_is_back(sockets, listen):
    sockets.go_down(0.2)
    listener = listen()
    assert "503" in listener.expect(StreamStatus.DOWN)
    while (found := listener.statuses.get(timeout=WAIT))[0] is StreamStatus.DOWN:
        assert "503" in found[1]
    assert found[0] is StreamStatus.UP


def test_waits_between_connections_grow_and_are_capped(sockets):
    waits = []

    class Patience(RetryPolicy):
        def delay(self, failures):
            waits.append(super().delay(failures))
            return waits[-1]

    sockets.go_down(3600)
    listener = Listener(sockets.url, retry=Patience(first_delay=1, max_delay=4, draw=lambda: 1.0))
    listener.stream.start()
    for _ in range(5):
        listener.expect(StreamStatus.DOWN)
    listener.stream.stop()
    assert waits[:4] == [1.0, 2.0, 4.0, 4.0]


def test_pings_keep_a_quiet_connection_alive(sockets, listen):
    listener = listen()
    listener.expect(StreamStatus.UP)
    time.sleep(1.2)  # four times as long as silence is borne
    assert listener.statuses.empty()
    assert 4 <= sockets.pings <= 7
    assert sockets.opened == 1


def test_a_silent_connection_counts_as_lost(sockets, listen):
    listener = listen()
    listener.expect(StreamStatus.UP)
    sockets.fall_silent(0.6)
    assert "nothing was heard for 30 s" in listener.expect(StreamStatus.DOWN)


def test_a_connection_without_pongs_lives_as_long_as_it_tells_something(sockets, listen):
    sockets.mute_pings = True
    listener = listen()
    listener.expect(StreamStatus.UP)
    for number in range(10):
        sockets.publish(TOPIC, trade(number))
        time.sleep(0.06)
    assert listener.statuses.empty()
    listener.expect(StreamStatus.DOWN)


def test_a_quiet_topic_counts_as_a_lost_connection_where_it_should_tick(sockets, listen):
    listener = listen([TOPIC, BOOK], quiet_after=60.0)
    listener.expect(StreamStatus.UP)
    deadline = time.monotonic() + WAIT
    while listener.statuses.empty() and time.monotonic() < deadline:
        sockets.publish(TOPIC, trade(1))
        time.sleep(0.02)
    assert f"no message of {BOOK} for 60 s" in listener.expect(StreamStatus.DOWN)


def test_a_subscription_without_an_answer_counts_as_a_lost_connection(sockets, listen):
    sockets.acknowledge = False
    listener = listen()
    assert f"no answer to the subscription of {TOPIC}" in listener.expect(StreamStatus.DOWN)
    sockets.acknowledge = True
    while listener.statuses.get(timeout=WAIT)[0] is not StreamStatus.UP:
        pass


def test_a_refused_subscription_ends_the_stream_at_once(sockets, listen):
    listener = listen([TOPIC, "kline.1.NOPE"])
    reason = listener.expect(StreamStatus.REFUSED)
    assert "refused to stream kline.1.NOPE: error:handler not found" in reason
    listener.stream._thread.join(WAIT)
    assert not listener.stream._thread.is_alive()
    assert sockets.opened == 1


@pytest.mark.parametrize("text", ["", "Request too frequent", "server error, try again"])
def test_a_subscription_that_fails_for_now_is_tried_again(sockets, listen, text):
    sockets.refused.add(TOPIC)
    sockets.refusal = text
    listener = listen()
    assert (text or "no reason given") in listener.expect(StreamStatus.DOWN)
    sockets.refused.clear()
    while (status := listener.statuses.get(timeout=WAIT)[0]) is StreamStatus.DOWN:
        pass
    assert status is StreamStatus.UP


@pytest.mark.parametrize("frame", ["{", "", "[]", "null", "<html>", b"\xff\x00", "[" * 99_999])
def test_what_is_no_object_costs_the_connection(sockets, listen, frame):
    listener = listen()
    listener.expect(StreamStatus.UP)
    sockets.publish(TOPIC, frame)
    assert "expected a JSON object" in listener.expect(StreamStatus.DOWN)
    listener.expect(StreamStatus.UP)


def test_messages_of_other_topics_are_left_out(sockets, listen):
    listener = listen()
    listener.expect(StreamStatus.UP)
    for odd in ({}, {"topic": 7}, {"topic": "x"}, {"op": "auth"}, {"topic": None, "data": 1}):
        sockets.publish(TOPIC, odd)
    sockets.publish(TOPIC, trade(1))
    assert listener.messages.get(timeout=WAIT) == (TOPIC, trade(1))
    assert listener.statuses.empty()


@pytest.mark.parametrize("url", ["ws://127.0.0.1:9", "ws://nowhere.invalid"])
def test_a_host_that_does_not_answer_is_told_and_does_not_hinder_the_end(listen, url):
    listener = listen(url=url)
    listener.expect(StreamStatus.DOWN)
    began = time.monotonic()
    listener.stream.stop()
    assert time.monotonic() - began < 1.0


def test_stop_ends_the_thread_within_a_second_and_nothing_is_said_after(sockets, listen):
    listener = listen()
    listener.expect(StreamStatus.UP)
    began = time.monotonic()
    listener.stream.stop()
    assert time.monotonic() - began < 1.0
    assert not listener.stream._thread.is_alive()
    assert listener.statuses.empty()
    listener.stream.stop()  # twice does no harm


def test_stop_ends_a_handshake_that_hangs():
    with socket.create_server(("127.0.0.1", 0)) as mute:
        listener = Listener(f"ws://127.0.0.1:{mute.getsockname()[1]}")
        listener.stream.start()
        time.sleep(0.1)
        began = time.monotonic()
        listener.stream.stop()
        assert time.monotonic() - began < 1.0
    listener.stream._thread.join(WAIT)
    assert not listener.stream._thread.is_alive()
    assert listener.statuses.empty()


def test_a_stream_without_topics_is_refused():
    with pytest.raises(ConfigError, match="at least one topic"):
        BybitStream("ws://127.0.0.1", [], print, print)


def test_an_idle_stream_takes_no_processor_time(listen):
    listen().expect(StreamStatus.UP)
    began = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - began < 0.1


def test_the_server_speaks_as_bybit_was_recorded():
    bars = make_bars(3, "min")
    now = [bars.index[1].value // 1_000_000 + 100]
    with BybitSockets(now=lambda: now[0]) as server:
        server.add_bars("BTCUSDT", "1m", bars)
        listener = Listener(server.url, ["kline.1.BTCUSDT"])
        listener.stream.start()
        listener.expect(StreamStatus.UP)
        now[0] += 60_000 + 500
        found = [listener.messages.get(timeout=WAIT)[1] for _ in range(3)]
        listener.stream.stop()
    assert [message["data"][0]["confirm"] for message in found] == [False, False, True]
    recorded = {
        "topic", "data", "ts", "type", "start", "end", "interval", "open", "close", "high", "low",
        "volume", "turnover", "confirm", "timestamp",
    }  # fmt: skip
    for message in found:
        assert {*message, *message["data"][0]} == recorded
    last = found[-1]["data"][0]
    assert last["start"] == bars.index[1].value // 1_000_000
    assert last["end"] == last["start"] + 59_999
    assert float(last["close"]) == bars["close"].iloc[1]
    assert json.dumps(last["open"]).startswith('"')
