import json

import numpy as np
import pandas as pd
import pytest

from datafeeds.bybit_book import BookRecord
from datafeeds.bybit_live_bars import LiveBars
from datafeeds.bybit_trades import read_trades
from glow_bt.microstructure import BookUpdate, MicrostructureSpec, microstructure_bars
from tests.datafeeds.bybit_market import (
    START,
    book_message,
    market_messages,
    trade_message,
)

SPEC = MicrostructureSpec(1000, levels=3, bucket_volume=9.0, buckets=5, window=5)


def started(spec=SPEC, **settings):
    live = LiveBars(spec, **settings)
    live.book_up()
    live.trades_up()
    return live


def take(live, *messages):
    """Hand messages over and collect the bars that close."""
    frames = []
    for message in messages:
        (live.book if message["topic"].startswith("orderbook") else live.trades)(message)
        bars = live.closed()
        frames += [] if bars is None else [bars]
    return pd.concat(frames) if frames else None


def recorded(tmp_path, messages, spec=SPEC, **reach):
    path = tmp_path / "raw.jsonl"
    path.write_text("".join(json.dumps(message) + "\n" for message in messages))
    trades = read_trades(path).trades
    return microstructure_bars(spec, trades, BookRecord(path, spec.levels), **reach)


@pytest.mark.parametrize("seed", [0, 1])
def test_live_bars_are_those_of_the_recorded_messages(tmp_path, seed):
    messages = market_messages(seed)
    bars = take(started(), *messages)
    # The first bar that opened 1 s after the first message; the last that messages are 1 s past.
    assert bars.index[0] == pd.Timestamp(START + 2000, unit="ms", tz="UTC")
    assert len(bars) == 16
    assert bars.pop("trades_complete").all()
    offline = recorded(tmp_path, messages, since_ms=START + 2000)
    pd.testing.assert_frame_equal(bars, offline.loc[bars.index], check_dtype=False)


def test_a_bar_waits_for_late_messages():
    messages = market_messages(2)
    late = trade_message(("late", "Buy", 100, 50), at=START + 5990, delay=900)
    bars = take(started(), *sorted([*messages, late], key=lambda message: message["ts"]))
    without = take(started(), *messages)
    assert bars["buy_volume"].iloc[3] == without["buy_volume"].iloc[3] + 50


def test_what_comes_later_still_is_dropped_and_counted():
    live = started()
    messages = market_messages(2)
    late = trade_message(("late", "Buy", 100, 50), at=START + 5990, delay=1500)
    bars = take(live, *sorted([*messages, late], key=lambda message: message["ts"]))
    pd.testing.assert_frame_equal(bars, take(started(), *messages))
    assert live.counts["late_trades"] == 1


def test_a_late_state_of_the_book_holds_from_the_next_open():
    live = started(settle_ms=0)
    snapshot = BookUpdate(True, START, 7, [["99", "1"]], [["101", "1"]])
    change = BookUpdate(False, START + 1990, 8, [["99.5", "1"]], [])
    end = BookUpdate(False, START + 4100, 9, [], [])
    bars = take(
        live,
        book_message(snapshot),
        trade_message(at=START + 2000),
        book_message(change, delay=50),
        book_message(end),
    )
    assert bars["mid"].tolist() == [100, 100, 100.25, 100.25]
    assert live.counts["late_states"] == 1


def test_a_trade_that_comes_again_counts_once():
    messages = [each for message in market_messages(3) for each in (message, message)]
    live = started()
    bars = take(live, *messages)
    pd.testing.assert_frame_equal(
        bars.drop(columns="book_updates"),
        take(started(), *market_messages(3)).drop(columns="book_updates"),
    )
    assert live.counts["duplicates"] == live.counts["trades"] == 400
    assert live.counts["stale"] == 399


def test_a_gap_asks_for_a_snapshot_and_tells_its_bars_apart():
    messages = market_messages(4)
    live = started()
    lost = next(m for m in messages if m["topic"].startswith("o") and m["ts"] > START + 5500)
    before = [m for m in messages if m["ts"] < lost["ts"]]
    after = [m for m in messages if m["ts"] > lost["ts"]]
    first = take(live, *before)
    assert not live.needs_snapshot
    rest = take(live, *after)
    assert live.needs_snapshot
    assert live.counts["gap"] == 1
    bars = pd.concat([first, rest])
    assert bars["mid"].notna().tolist() == [True] * 3 + [False] * (len(bars) - 3)
    assert bars["book_valid_share"].iloc[-1] == 0
    assert bars["trades_complete"].all()
    live.book_down()
    live.book_up()
    assert not live.needs_snapshot
    again = BookUpdate(True, START + 20_500, 900, [["99", "1"]], [["101", "1"]])
    bars = take(live, book_message(again), trade_message(at=START + 25_000))
    assert bars["mid"].iloc[-1] == 100
    assert live.counts["resyncs"] == 1


@pytest.mark.parametrize(
    "change", [{"data": None}, {"type": "x"}, {"cts": 1_900_000_000_000}, {"cts": "soon"}]
)
def test_a_message_that_is_none_loses_the_book(change):
    live = started()
    messages = market_messages(5)
    take(live, messages[0], messages[1] | {"topic": "orderbook.50.BTCUSDT"} | change)
    assert live.needs_snapshot
    assert live.counts["malformed"] == 1


def test_trades_lost_with_their_connection_mark_the_bars():
    messages = market_messages(6)
    live = started()
    cut, back = START + 6300, START + 8400
    frames = [take(live, *(m for m in messages if m["ts"] < cut))]
    live.trades_down()
    book_only = (m for m in messages if cut <= m["ts"] < back and m["topic"].startswith("o"))
    frames.append(take(live, *book_only))
    live.trades_up()
    frames.append(take(live, *(m for m in messages if m["ts"] >= back)))
    bars = pd.concat(frames)
    # From a second before the connection broke to one after it was back.
    complete = [True] * 3 + [False] * 5 + [True] * 8
    assert bars["trades_complete"].tolist() == complete
    assert bars["trade_count"].notna().tolist() == complete
    assert bars["mid"].notna().all()


def test_nothing_is_lost_before_the_first_bar():
    messages = market_messages(6)
    live = LiveBars(SPEC)
    live.trades_down()
    live.book_down()
    live.book_up()
    early = take(live, messages[0])
    live.trades_down()
    live.trades_up()
    assert early is None
    pd.testing.assert_frame_equal(take(live, *messages[1:]), take(started(), *messages))


def test_damaged_trades_mark_their_bar():
    live = started()
    messages = market_messages(7)
    broken = trade_message(at=START + 6500) | {"data": [{"T": 1}]}
    bars = take(live, *sorted([*messages, broken], key=lambda message: message["ts"]))
    assert bars["trades_complete"].tolist() == [True] * 3 + [False] * 3 + [True] * 10
    assert live.counts["malformed"] == 1


def test_one_stamp_far_ahead_closes_nothing():
    messages = market_messages(8)
    live = started()
    far = trade_message(at=START + 10**8)
    bars = take(live, *messages[:300], far, *messages[300:])
    pd.testing.assert_frame_equal(bars, take(started(), *messages))
    # A second one that agrees is believed: everything paused.
    assert len(take(live, far, far)) > 90_000


def test_no_bar_begins_before_both_are_subscribed():
    live = LiveBars(SPEC)
    live.book_up()
    messages = market_messages(9)
    half = [m for m in messages if m["ts"] < START + 9500]
    assert take(live, *half) is None
    live.trades_up()
    bars = take(live, *messages[len(half) :])
    assert bars.index[0] == pd.Timestamp(START + 11_000, unit="ms", tz="UTC")
    assert np.isfinite(bars["mid"]).all()


def test_only_so_many_ids_are_remembered(monkeypatch):
    monkeypatch.setattr("datafeeds.bybit_live_bars._REMEMBERED_IDS", 2)
    live = started()
    for name in ("a", "b", "c", "a"):
        live.trades(trade_message((name, "Buy", 1, 1), at=START))
    assert live.counts["trades"] == 4
    live.trades(trade_message(("c", "Buy", 1, 1), at=START))
    assert live.counts["duplicates"] == 1
