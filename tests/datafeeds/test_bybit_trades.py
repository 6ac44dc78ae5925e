import gzip
import json

import numpy as np
import pytest

from datafeeds.bybit_trades import read_trades, recent_trades, trade_batch
from glow_bt.errors import DataError, MalformedAnswerError, TransientFeedError

START = 1_700_000_000_000
LINEAR = (
    "timestamp,symbol,side,size,price,tickDirection,trdMatchID,grossValue,homeNotional,"
    "foreignNotional\n"
    "1700000000.0012,BTCUSDT,Buy,0.5,100.5,PlusTick,a,1,0.5,50.25\n"
    "1700000000.0019,BTCUSDT,Sell,2,100,MinusTick,b,1,2,200\n"
    "1700000001.827,BTCUSDT,Buy,1,101,PlusTick,c,1,1,101\n"
)
SPOT = (
    "id,timestamp,price,volume,side,rpi\n"
    "1,1700000000001,100.5,0.5,buy,0\n"
    "2,1700000000001,100,2,sell,0\n"
    "3,1700000001827,101,1,buy,1\n"
)
CCXT = (
    "timestamp,id,side,price,amount,cost\n"
    "1700000000001,x1,buy,100.5,0.5,50.25\n"
    "1700000000001,x2,sell,100,2,200\n"
    "1700000001827,x3,buy,101,1,101\n"
)


def stream_row(number, at, side="Buy", price="100.5", size="0.5", **more):
    row = {"T": START + at, "s": "BTCUSDT", "S": side, "v": size, "p": price, "i": f"x{number}"}
    return row | {"BT": False} | more


def stream_message(*rows, topic="publicTrade.BTCUSDT"):
    return {"topic": topic, "type": "snapshot", "ts": START, "data": list(rows)}


def answer(*rows):
    return {"retCode": 0, "retMsg": "OK", "result": {"category": "linear", "list": list(rows)}}


STREAM = [
    stream_message(stream_row(1, 1), stream_row(2, 1, "Sell", "100", "2")),
    {"op": "pong"},
    stream_message(stream_row(3, 1827, "Buy", "101", "1")),
]


def write(tmp_path, text, name="trades.csv"):
    path = tmp_path / name
    if not isinstance(text, str):
        text = "".join(json.dumps(line) + "\n" for line in text)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (LINEAR, "t.csv"),
        (LINEAR, "t.csv.gz"),
        ("\ufeff" + LINEAR, "t.csv"),
        (SPOT, "t.csv"),
        (CCXT, "t.csv.gz"),
        (STREAM, "t.jsonl"),
        (STREAM, "t.jsonl.gz"),
    ],
)
def test_each_layout_gives_the_same_trades(tmp_path, text, name):
    record = read_trades(write(tmp_path, text, name))
    assert (record.trades.stamps - START).tolist() == [1, 1, 1827]
    assert record.trades.prices.tolist() == [100.5, 100, 101]
    assert record.trades.amounts.tolist() == [0.5, 2, 1]
    assert record.trades.sides.tolist() == [1, -1, 1]
    assert record[1:] == (0, 0)


def test_an_archive_with_the_newest_first_is_turned(tmp_path):
    head, *rows = LINEAR.splitlines()
    rows.insert(2, rows[1].replace(",b,", ",b2,").replace(",2,100,", ",7,100,"))
    path = write(tmp_path, "\n".join([head, *rows[::-1]]))
    assert read_trades(path).trades.amounts.tolist() == [0.5, 2, 7, 1]


def test_trades_of_one_millisecond_are_in_order_of_their_microseconds(tmp_path):
    head, first, second, third = LINEAR.splitlines()
    path = write(tmp_path, "\n".join([head, third, second, first]))
    mixed = write(tmp_path, "\n".join([head, second, third, first]), "u.csv")
    for each in (path, mixed):
        assert read_trades(each).trades.amounts.tolist() == [0.5, 2, 1]


def test_a_trade_that_comes_again_is_dropped(tmp_path):
    lines = LINEAR.splitlines()
    one = write(tmp_path, "\n".join([*lines, lines[2]]))
    assert read_trades(one).duplicates == 1
    two = write(tmp_path, "\n".join([lines[0], lines[3]]), "u.csv")
    record = read_trades([two, one])
    assert record.duplicates == 2
    assert record.trades.amounts.tolist() == [0.5, 2, 1]
    again = read_trades(write(tmp_path, [*STREAM, STREAM[0]], "t.jsonl"))
    assert (len(again.trades), again.duplicates) == (3, 2)


def test_ids_of_spot_archives_are_their_files_own(tmp_path):
    later = SPOT.replace("17000000", "17000001")
    paths = [write(tmp_path, text, name) for text, name in ((SPOT, "1.csv"), (later, "2.csv"))]
    record = read_trades(paths)
    assert (len(record.trades), record.duplicates) == (6, 0)


def test_an_id_for_two_trades_is_refused(tmp_path):
    path = write(tmp_path, LINEAR.replace(",b,", ",a,"))
    with pytest.raises(DataError, match=r"trades.csv, line 3: expected an id .*, found a again"):
        read_trades(path)


def test_block_trades_are_left_out_and_counted(tmp_path):
    lines = [*STREAM, stream_message(stream_row(4, 9, size="900", BT=True))]
    record = read_trades(write(tmp_path, lines, "t.jsonl"))
    assert (len(record.trades), record.blocks) == (3, 1)


def test_answers_have_the_newest_first():
    rows = [
        {
            "execId": f"x{i}",
            "symbol": "BTCUSDT",
            "price": str(100 + i),
            "size": "1",
            "side": "Sell",
            "time": str(START + i // 2),
            "isBlockTrade": i == 1,
        }
        for i in (3, 2, 1, 0)
    ]
    batch = recent_trades(answer(*rows))
    assert batch.ids == ["x0", "x2", "x3"]
    assert batch.trades.prices.tolist() == [100, 102, 103]
    assert batch.blocks == 1
    with pytest.raises(TransientFeedError):
        recent_trades({"retCode": 10006, "retMsg": "slow", "result": {}})


def test_recorded_answers_are_read_too(tmp_path):
    row = {"execId": "q", "price": "1", "size": "2", "side": "Buy", "time": str(START)}
    record = read_trades(write(tmp_path, [answer(row)], "t.json"))
    assert record.trades.amounts.tolist() == [2]


def test_no_trades_are_no_error():
    assert len(trade_batch(stream_message()).trades) == 0


@pytest.mark.parametrize(
    "row",
    [
        stream_row(1, 0, side="buy"),
        stream_row(1, 0, price="0"),
        stream_row(1, 0, price="x"),
        stream_row(1, 0, size="-1"),
        stream_row(1, 0, size="inf"),
        stream_row(1, 0) | {"T": 1_700_000_000},
        {"T": START},
        None,
        7,
    ],
)
def test_a_row_that_is_no_trade_is_named(tmp_path, row):
    with pytest.raises(MalformedAnswerError, match="expected trades with T in ms"):
        trade_batch(stream_message(row))
    path = write(tmp_path, [*STREAM, stream_message(row)], "t.jsonl")
    with pytest.raises(DataError, match=r"t.jsonl, line 4: expected trades with T in ms"):
        read_trades(path)


def test_a_message_without_rows_is_refused():
    with pytest.raises(MalformedAnswerError, match="trade message with a list as data"):
        trade_batch({"topic": "publicTrade.BTCUSDT", "data": {}})


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (",Sell,", ",Short,", "line 3: expected a side of Buy or Sell, found 'Short'"),
        (",Sell,", ",,", "line 3: expected a side of Buy or Sell, found ''"),
        (",100,M", ",abc,M", "line 3: expected a price as a number, found 'abc'"),
        (",100,M", ",nan,M", "line 3: expected a price as a number, found 'nan'"),
        (",100,M", ",inf,M", "line 3: expected a price as a number, found"),
        (",100,M", ",0,M", "line 3: expected a price above 0, found 0.0;"),
        (",2,100,M", ",-2,100,M", "line 3: expected an amount above 0, found -2.0;"),
        ("1700000000.0019", "2023-11-14", "line 3: expected a stamp as a number, found '2023"),
        ("1700000000.0019", "1700000000001", "line 3: expected timestamp in seconds since 1970"),
        ("BTCUSDT,Sell", "ETHUSDT,Sell", "one symbol in .*, found BTCUSDT, ETHUSDT; say which"),
        ("MinusTick,b", "MinusTick,b,1,2", "could not read .* line 3"),
        (
            "trdMatchID",
            "id",
            "expected trades with columns trdMatchID,timestamp,side,price,size or",
        ),
    ],
)
def test_a_file_that_holds_no_trades_is_refused(tmp_path, old, new, said):
    assert old in LINEAR
    with pytest.raises(DataError, match=said):
        read_trades(write(tmp_path, LINEAR.replace(old, new)))


def test_rows_of_another_length_than_the_header_are_refused(tmp_path):
    head, *rows = CCXT.splitlines()
    with pytest.raises(DataError, match="could not read"):
        read_trades(write(tmp_path, "\n".join([head, *(f"{row},9" for row in rows)])))


def test_a_line_that_is_cut_is_refused(tmp_path):
    with pytest.raises(DataError, match="line 4: expected"):
        read_trades(write(tmp_path, LINEAR[: LINEAR.rindex("Buy,1")]))


def test_damaged_and_missing_files_are_named(tmp_path):
    with pytest.raises(DataError, match="found no file"):
        read_trades(tmp_path / "none.csv")
    with pytest.raises(DataError, match="could not read"):
        read_trades(write(tmp_path, "", "empty.csv"))
    path = write(tmp_path, LINEAR * 900, "t.csv.gz")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="could not read"):
        read_trades(path)


def test_long_files_are_read_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("datafeeds.bybit_trade_csv._PIECE", 2)
    record = read_trades(write(tmp_path, LINEAR))
    assert record.trades.amounts.tolist() == [0.5, 2, 1]
    with pytest.raises(DataError, match="line 4: expected a price as a number, found 'x'"):
        read_trades(write(tmp_path, LINEAR.replace(",101,P", ",x,P")))


def test_one_symbol_is_picked(tmp_path):
    both = LINEAR + LINEAR.partition("\n")[2].replace("BTC", "ETH").replace(",0.5,1", ",8,1")
    path = write(tmp_path, both)
    with pytest.raises(DataError, match="expected trades of XRPUSDT in"):
        read_trades(path, "XRPUSDT")
    record = read_trades(path, "ETHUSDT")
    assert record.trades.amounts.tolist() == [8, 2, 1]


def test_a_symbol_that_is_not_in_a_recording_is_told_with_those_that_are(tmp_path):
    others = [stream_message() | {"topic": f"publicTrade.S{number}"} for number in range(7)]
    path = write(tmp_path, [*STREAM, *others], "t.jsonl")
    said = f"trades of NOPE in {path}, found BTCUSDT, S0, S1, S2, S3 and 3 more; give one"
    with pytest.raises(DataError, match=said):
        read_trades(path, "NOPE")
    assert len(read_trades(path, "BTCUSDT").trades) == 3


def test_lines_are_told_of_the_file_and_not_of_the_picked_symbol(tmp_path):
    both = LINEAR + "1700000000,ETHUSDT,Buy,x,1,T,z,1,1,1\n"
    with pytest.raises(DataError, match=r"line 5: expected an amount as a number, found 'x'"):
        read_trades(write(tmp_path, both), "ETHUSDT")
    assert len(read_trades(write(tmp_path, both.replace(",x,", ",1,")), "BTCUSDT").trades) == 3


def test_a_file_with_a_header_alone_has_no_trades(tmp_path):
    record = read_trades(write(tmp_path, CCXT.partition("\n")[0]))
    assert len(record.trades) == 0
    assert record.trades.stamps.dtype == np.int64
