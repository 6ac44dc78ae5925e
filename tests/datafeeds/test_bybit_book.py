import json

import numpy as np
import pytest

from datafeeds.bybit_book import BookRecord, book_update
from glow_bt.errors import DataError, MalformedAnswerError
from glow_bt.microstructure import BookStates

START = 1_700_000_000_000


def message(update_id, bids=(), asks=(), *, kind="delta", at=0, topic="orderbook.50.BTCUSDT"):
    return {
        "topic": topic,
        "type": kind,
        "ts": START + at + 5,
        "data": {
            "s": topic.rpartition(".")[2],
            "b": [list(level) for level in bids],
            "a": [list(level) for level in asks],
            "u": update_id,
            "seq": 10 * update_id,
        },
        "cts": START + at,
    }


def snapshot(update_id, at=0, **settings):
    levels = [("99.50", "2"), ("99.00", "4")], [("100.50", "3")]
    return message(update_id, *levels, kind="snapshot", at=at, **settings)


def record(tmp_path, *messages, name="book.jsonl", **settings):
    path = tmp_path / name
    path.write_text("".join(json.dumps(line) + "\n" for line in messages))
    return BookRecord(path, **({"levels": 2} | settings))


def read(book):
    return BookStates.joined(list(book))


def test_a_recording_gives_the_book_after_each_message(tmp_path):
    book = record(
        tmp_path,
        {"success": True, "op": "subscribe"},
        snapshot(7),
        message(8, [("99.5", "0")], at=100),
        {"topic": "publicTrade.BTCUSDT", "data": []},
        message(8, [("99.5", "9")], at=150),
        message(9, [], [("100.4", "1")], at=200),
    )
    states = read(book)
    assert (states.stamps - START).tolist() == [0, 100, 200]
    np.testing.assert_array_equal(states.bids[:, 0], [[99.5, 2], [99, 4], [99, 4]])
    np.testing.assert_array_equal(states.asks[2], [[100.4, 1], [100.5, 3]])
    assert dict(book.counts) == {"applied": 3, "stale": 1}


def test_a_gap_is_counted_and_a_snapshot_ends_it(tmp_path):
    book = record(tmp_path, message(6), snapshot(7), message(9), message(10), snapshot(11, at=9))
    assert read(book).valid.tolist() == [True, False, True]
    assert dict(book.counts) == {"awaiting": 2, "applied": 2, "gap": 1, "resyncs": 1}


def test_the_senders_time_is_taken_where_the_engines_lacks():
    old = message(7)
    assert book_update(old).stamp_ms == START
    del old["cts"]
    assert book_update(old).stamp_ms == START + 5


def test_files_follow_one_another(tmp_path):
    first, second = (tmp_path / name for name in ("1.jsonl", "2.jsonl"))
    first.write_text(json.dumps(snapshot(7)))
    second.write_text(json.dumps(message(8, [("99.4", "1")], at=9)))
    states = read(BookRecord([first, second], 1))
    assert (states.stamps - START).tolist() == [0, 9]


def test_long_recordings_come_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("datafeeds.bybit_book._PIECE", 4)
    lines = [snapshot(7), *(message(7 + i, at=i) for i in range(1, 10))]
    book = record(tmp_path, *lines)
    assert [len(piece) for piece in book] == [4, 4, 2]
    assert [len(piece) for piece in book] == [4, 4, 2]
    assert book.deepest == 2
    assert book.counts["applied"] == 10


def test_one_symbol_is_picked(tmp_path):
    eth = snapshot(3, topic="orderbook.50.ETHUSDT")
    with pytest.raises(
        DataError, match=r"line 2: expected messages of orderbook.50.BTCUSDT alone"
    ):
        read(record(tmp_path, snapshot(7), eth))
    assert len(read(record(tmp_path, snapshot(7), eth, symbol="ETHUSDT"))) == 1
    with pytest.raises(DataError, match=r"book of XRPUSDT, found BTCUSDT in .*; check"):
        read(record(tmp_path, snapshot(7), symbol="XRPUSDT"))


def broken(**changes):
    line = snapshot(8)
    line["data"] |= changes.pop("data", {})
    return line | changes


@pytest.mark.parametrize(
    "line",
    [
        broken(type="other"),
        broken(cts=17e11),
        broken(cts=1_700_000_000),
        broken(data={"u": "8"}),
        broken(data={"b": None}),
        broken(data={"a": {}}),
        {"topic": "orderbook.50.BTCUSDT", "type": "delta", "data": []},
    ],
)
def test_a_line_that_is_no_message_is_named(tmp_path, line):
    with pytest.raises(MalformedAnswerError, match="expected an order-book message"):
        book_update(line)
    book = record(tmp_path, snapshot(7), line)
    with pytest.raises(
        DataError, match=r"book.jsonl, line 2: expected an order-book message.*corr"
    ):
        list(book)


def test_a_level_that_is_none_is_named(tmp_path):
    book = record(tmp_path, snapshot(7), message(8, [("99,5", "1")]))
    with pytest.raises(DataError, match=r"line 2: expected levels .* found \['99,5', '1'\]"):
        list(book)
