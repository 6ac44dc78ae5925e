"""The recorder over real websockets on this machine."""

import threading
import time

import pandas as pd
import pytest

from datafeeds.bybit_clock import ExchangeClock
from datafeeds.bybit_live_bars import LiveBars
from datafeeds.bybit_recorder import MicrostructureRecorder
from datafeeds.bybit_retry import RetryPolicy
from glow_bt.errors import ConfigError, SymbolError
from glow_bt.microstructure import BookUpdate, MicrostructureSpec
from tests.datafeeds.bybit_market import (
    BOOK,
    START,
    SYMBOL,
    TRADES,
    book_message,
    market_messages,
    trade_message,
)
from tests.datafeeds.bybit_sockets import BybitSockets

SPEC = MicrostructureSpec(1000, levels=3, bucket_volume=9.0, buckets=5, window=5)
WAIT = 10.0


class Recording:
    """A recorder in a thread, and what it heard."""

    def __init__(self, server, **settings):
        self.heard, self.bars, self.record = [], [], None
        self.stop = threading.Event()
        self.recorder = MicrostructureRecorder(
            f"{server.url}/v5/public/linear",
            SYMBOL,
            SPEC,
            on_message=self.heard.append,
            on_bars=self.bars.append,
            retry=RetryPolicy(first_delay=0.02, max_delay=0.05),
            **settings,
        )
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        self.record = self.recorder.run(3600.0, self.stop)

    def await_that(self, condition):
        deadline = time.monotonic() + WAIT
        while not condition():
            assert time.monotonic() < deadline, "it did not come to pass"
            time.sleep(0.002)

    def finish(self):
        self.stop.set()
        self.thread.join(WAIT)
        return self.record


@pytest.fixture
def server():
    with BybitSockets() as sockets:
        sockets.greet(TRADES, lambda: [trade_message(at=START + 5)])
        yield sockets


@pytest.fixture
def record(server):
    recordings = []

    def start(**settings):
        recordings.append(Recording(server, **settings))
        return recordings[-1]

    yield start
    for recording in recordings:
        recording.finish()
    assert not [each for each in threading.enumerate() if each.name.startswith("stream")]


def topics(recording):
    return {message["topic"] for message in recording.heard}


def bars_of(messages):
    live, frames = LiveBars(SPEC), []
    live.book_up()
    live.trades_up()
    for message in messages:
        (live.book if message["topic"] == BOOK else live.trades)(message)
        frames.append(live.closed())
    return pd.concat([frame for frame in frames if frame is not None])


def test_bars_come_as_they_close_and_are_counted(server, record):
    snapshot, *messages = market_messages(0)
    server.greet(BOOK, lambda: [snapshot])
    recording = record()
    recording.await_that(lambda: topics(recording) == {BOOK, TRADES})
    for message in messages:
        server.publish(message["topic"], message)
    recording.await_that(lambda: len(recording.heard) == len(messages) + 2)
    num_bars, counts, *_ = recording.finish()
    bars = pd.concat(recording.bars)
    # The two connections have no common order: compare by what was heard.
    pd.testing.assert_frame_equal(bars, bars_of(recording.heard))
    assert num_bars == len(bars)
    assert bars["trades_complete"].all()
    assert bars["mid"].notna().all()
    assert counts["resubscribed"] == 0
    assert counts["trades"] == 400


def test_a_gap_is_mended_by_a_new_subscription(server, record):
    snapshot, *messages = market_messages(1)
    fresh = BookUpdate(True, START + 6000, 5000, [["99", "1"]], [["101", "3"]])
    greetings = iter([[snapshot], [book_message(fresh)]])
    server.greet(BOOK, lambda: next(greetings))
    recording = record()
    recording.await_that(lambda: topics(recording) == {BOOK, TRADES})
    early = [m for m in messages if m["ts"] < START + 5500]
    lost = next(m for m in early[100:] if m["topic"] == BOOK)
    for message in early:
        if message is not lost:
            server.publish(message["topic"], message)
    recording.await_that(lambda: book_message(fresh) in recording.heard)
    for message in messages[len(early) :]:
        if message["topic"] == TRADES:
            server.publish(TRADES, message)
    recording.await_that(lambda: sum(map(len, recording.bars)) == 16)
    _, counts, *_ = recording.finish()
    bars = pd.concat(recording.bars)
    assert counts["gap"] == counts["resyncs"] == counts["resubscribed"] == 1
    assert server.subscribed.count(("linear", BOOK)) == 2
    assert server.subscribed.count(("linear", TRADES)) == 1
    assert bars["trades_complete"].all()
    known = bars["mid"].notna()
    assert not known.all()
    # The gap lies before 5.5 s and the new book begins at 6 s.
    assert known.iloc[-10:].all()
    assert bars["mid"].iloc[-1] == 100


def test_a_broken_connection_is_mended_and_its_bars_marked(server, record):
    snapshot, *messages = market_messages(2)
    greetings = iter([[snapshot], [snapshot | {"cts": START + 9000, "ts": START + 9000}]])
    server.greet(BOOK, lambda: next(greetings))
    recording = record(clock=ExchangeClock(pace=100.0))
    recording.await_that(lambda: topics(recording) == {BOOK, TRADES})
    early = [m for m in messages if m["ts"] < START + 5500]
    for message in early:
        server.publish(message["topic"], message)
    recording.await_that(lambda: len(recording.heard) == len(early) + 2)
    server.greet(TRADES, lambda: [trade_message(at=START + 9000)])
    server.drop()
    recording.await_that(lambda: len(recording.heard) == len(early) + 4)
    for message in messages:
        if message["topic"] == TRADES and message["ts"] > START + 9000:
            server.publish(TRADES, message)
    recording.await_that(lambda: sum(map(len, recording.bars)) == 16)
    recording.finish()
    bars = pd.concat(recording.bars)
    # From a second before the last message to one after the first new one.
    assert bars["trades_complete"].tolist() == [True] * 2 + [False] * 7 + [True] * 7
    assert bars["mid"].notna().tolist() == [True] * 3 + [False] * 4 + [True] * 9


def test_a_market_that_is_not_streamed_is_refused(server):
    server.refused.add(BOOK)
    recorder = MicrostructureRecorder(f"{server.url}/v5/public/linear", SYMBOL, SPEC)
    with pytest.raises(SymbolError, match=r"handler not found.*check the symbol"):
        recorder.run(WAIT)


def test_it_ends_when_its_time_is_up(server):
    recorder = MicrostructureRecorder(f"{server.url}/v5/public/linear", SYMBOL, SPEC)
    began = time.monotonic()
    num_bars, _, ended, unreached = recorder.run(0.2)
    assert not ended
    assert not unreached
    assert 0.2 <= time.monotonic() - began < WAIT
    assert num_bars == 0


def test_streams_that_were_never_reached_are_told_with_the_reason():
    told = []
    settings = {"on_time": lambda *passed: told.append(passed)}
    recorder = MicrostructureRecorder(
        "ws://127.0.0.1:1/v5/public/linear", SYMBOL, SPEC, **settings
    )
    record = recorder.run(0.5)
    assert record.num_bars == 0
    assert "Connection refused" in record.unreached
    assert told[0] == (pytest.approx(0.0, abs=0.1), "no answer yet")
    assert "Connection refused" in told[-1][1]


def test_a_stream_that_answers_is_no_trouble(server):
    told = []
    settings = {"on_time": lambda *passed: told.append(passed)}
    recorder = MicrostructureRecorder(f"{server.url}/v5/public/linear", SYMBOL, SPEC, **settings)
    server.acknowledge = False
    assert recorder.run(0.3).unreached == "no answer yet"
    server.acknowledge = True
    recorder = MicrostructureRecorder(f"{server.url}/v5/public/linear", SYMBOL, SPEC, **settings)
    assert recorder.run(0.3).unreached == told[-1][1] == ""


def test_an_interrupt_keeps_what_has_closed(server):
    def interrupt(_):
        raise KeyboardInterrupt

    server.greet(BOOK, lambda: market_messages(3)[:1])
    settings = {"on_message": interrupt}
    recorder = MicrostructureRecorder(f"{server.url}/v5/public/linear", SYMBOL, SPEC, **settings)
    record = recorder.run(WAIT)
    assert (record.num_bars, record.ended) == (0, "interrupted")


def test_a_market_that_ceases_keeps_what_has_closed(server, record):
    snapshot, *messages = market_messages(4)
    server.greet(BOOK, lambda: [snapshot])
    recording = record(clock=ExchangeClock(pace=100.0))
    recording.await_that(lambda: topics(recording) == {BOOK, TRADES})
    for message in messages:
        server.publish(message["topic"], message)
    recording.await_that(lambda: recording.bars)
    server.refused.add(TRADES)
    server.drop()
    recording.thread.join(WAIT)
    assert "handler not found" in recording.record.ended
    assert recording.record.num_bars == sum(map(len, recording.bars))


@pytest.mark.parametrize(("depth", "levels"), [(25, 3), (1, 3)])
def test_a_depth_that_cannot_work_is_refused(depth, levels):
    spec = MicrostructureSpec(1000, levels=levels)
    with pytest.raises(ConfigError, match=f"depth among 1, 50, 200, 1000 .*, found {depth}"):
        MicrostructureRecorder("ws://127.0.0.1:1", SYMBOL, spec, depth=depth)
