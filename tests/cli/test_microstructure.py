"""`glow-bt microstructure` on files, and against loopback servers through the real clients."""

import gzip
import json
import threading
from dataclasses import asdict

import pandas as pd
import pytest

from glow_bt.cli import main
from glow_bt.cli.bar_spool import BarSpool
from glow_bt.microstructure import MicrostructureSpec
from tests.datafeeds.bybit_market import BOOK, START, TRADES, market_messages, trade_message
from tests.datafeeds.bybit_server import BybitServer
from tests.datafeeds.bybit_sockets import BybitSockets
from tests.datafeeds.random_bars import make_bars


def call(*args):
    with pytest.raises(SystemExit) as end:
        main(["microstructure", *map(str, args)])
    return int(end.value.code or 0)


def write(path, messages):
    lines = "".join(json.dumps(message) + "\n" for message in messages).encode()
    path.write_bytes(gzip.compress(lines) if path.suffix == ".gz" else lines)
    return path


@pytest.fixture
def raw(tmp_path):
    return write(tmp_path / "raw.jsonl.gz", market_messages(0))


def test_trades_and_book_become_bars(raw, tmp_path, capsys):
    out = tmp_path / "bars.parquet"
    settings = ["--levels", 2, "--interval", "500ms", "--window", 10, "--bucket-volume", 9]
    settings += ["--buckets", 3]
    args = ["--trades", raw, "--book", raw, "--timeframe", "1s", "--out", out, "--json"]
    assert call(*args, *settings) == 0
    facts = json.loads(capsys.readouterr().out)
    bars = pd.read_parquet(out)
    assert facts["bars"] == len(bars) == 19
    assert facts["columns"] == list(bars.columns)
    assert facts["from"] == bars.index[0].isoformat()
    assert facts["trades"] == {"read": 400, "duplicates": 0, "block_trades": 0}
    assert facts["book"] == {"applied": 400}
    assert bars[["vpin", "kyle_lambda", "ofi_2", "spread_bps"]].iloc[10:].notna().all().all()


def test_either_input_is_enough(raw, tmp_path, capsys):
    for kind, column in (("trades", "vwap"), ("book", "mid")):
        out = tmp_path / f"{kind}.csv"
        assert call(f"--{kind}", raw, "--timeframe", "5s", "--out", out) == 0
        assert column in pd.read_csv(out)
    said = capsys.readouterr().out
    assert "3 bars of 5s" in said
    assert "trades: 400 read, 0 duplicates, 0 block_trades" in said
    assert "book: 400 applied" in said


def test_a_span_may_be_given(raw, tmp_path):
    out = tmp_path / "bars.csv"
    moments = [pd.Timestamp(START + ms, unit="ms").isoformat() for ms in (5000, 30_000)]
    args = ["--trades", raw, "--timeframe", "1s", "--out", out, "--window", 3]
    assert call(*args, "--since", moments[0], "--until", moments[1]) == 0
    assert len(pd.read_csv(out)) == 25


def test_an_existing_file_is_kept_unless_told(raw, tmp_path, capsys):
    out = tmp_path / "bars.csv"
    out.write_text("precious")
    args = ["--trades", raw, "--timeframe", "1s", "--out", out]
    assert call(*args) == 1
    assert "already" in capsys.readouterr().err
    assert out.read_text() == "precious"
    assert call(*args, "--overwrite") == 0


@pytest.mark.parametrize(
    ("args", "said", "code"),
    [
        ([], "--trades or --book (or both), or --live SYMBOL, found none of them", 2),
        (["--live", "B", "--trades", "x"], "found --trades and --live; give files or", 2),
        (["--live", "B", "--book", "x", "--trades", "y"], "--trades and --book and --live;", 2),
        (["--trades", "{raw}", "--out", "b.txt"], "file .csv, .csv.gz or .parquet, found 'b.t", 2),
        (["--trades", "{raw}", "--out", "{raw}/b.csv"], "found a file, {raw}; choose another", 1),
        (["--live", "B", "--raw", "{raw}/r.jsonl"], "found a file, {raw}; choose another", 1),
        (["--live", "B", "--raw", "r.csv"], ".jsonl or .jsonl.gz, found 'r.csv'", 2),
        (["--live", "B", "--raw", "r.json.gz"], ".jsonl or .jsonl.gz, found 'r.json.gz'", 2),
        (["--trades", "{raw}", "--since", "2030-01-01"], "to 2023-11-14 22:13:39", 2),
        (["--trades", "{raw}", "--until", "2020-01-01"], "begins, 2023-11-14 22:13:20", 2),
        (["--trades", "{raw}", "--timeframe", "1"], "a length of bars such as", 2),
        (["--trades", "{raw}", "--interval", "7"], "an interval such as", 2),
        (["--trades", "{raw}", "--interval", "700ms"], "to divide bars of 1000 ms", 2),
        (["--trades", "{raw}", "--vwap-reference", "mid"], "expected a book", 2),
        (["--trades", "{raw}", "--since", "dawn"], "dawn", 2),
        (["--trades", "{raw}", "--timeframe", "1h"], "at least one bar", 1),
        (["--trades", "{raw}", "--symbol", "ETHUSDT"], "raw.jsonl.gz, found BTCUSDT; give", 1),
        (["--book", "{raw}", "--symbol", "ETHUSDT"], "of ETHUSDT, found BTCUSDT in", 1),
        (["--trades", "none.csv"], "found no file none.csv", 1),
        (["--live", "BTCUSDT", "--for", "long"], "a duration such as", 2),
    ],
)
def test_a_wrong_call_is_one_line_and_no_file(raw, tmp_path, capsys, args, said, code):
    args = [str(arg).format(raw=raw) for arg in args]
    assert call("--timeframe", "1s", "--out", tmp_path / "bars.csv", *args) == code
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert said.format(raw=raw) in captured.err
    assert list(tmp_path.iterdir()) == [raw]


def test_a_place_without_permission_is_refused_before_anything_is_recorded(
    raw, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("os.access", lambda path, mode: False)  # as root may write anywhere
    urls = ["--base-url", "http://127.0.0.1:1", "--timeframe", "1s"]
    assert call("--live", "BTC/USDT:USDT", *urls, "--out", tmp_path / "new" / "b.csv") == 1
    said = f"found a folder without permission to write, {tmp_path}; choose another place"
    assert said in capsys.readouterr().err


def test_levels_beyond_the_book_are_noted(tmp_path, capsys):
    levels = [[str(price), "1"] for price in range(1, 51)]
    message = {"topic": BOOK, "type": "snapshot", "ts": START, "cts": START}
    message["data"] = {"u": 1, "b": levels, "a": [[str(100 + n), "1"] for n in range(50)]}
    path = write(tmp_path / "book.jsonl", [message])
    args = ["--book", path, "--timeframe", "1s", "--overwrite", "--out", tmp_path / "b.csv"]
    args += ["--until", pd.Timestamp(START + 3000, unit="ms").isoformat()]
    assert call(*args, "--levels", 50) == 0
    assert capsys.readouterr().err == ""
    assert call(*args, "--levels", 500, "--json") == 0
    told = capsys.readouterr()
    assert "note: the book holds 50 levels a side only; what concerns the others" in told.err
    assert json.loads(told.out)["bars"] == 3


def test_files_without_trades_are_named(tmp_path, capsys):
    path = write(tmp_path / "raw.jsonl", [{"op": "pong"}])
    assert call("--trades", path, "--timeframe", "1s", "--out", tmp_path / "b.csv") == 1
    assert f"expected trades in {path}, found none; check the files" in capsys.readouterr().err


def test_a_damaged_line_is_named(tmp_path, capsys):
    path = tmp_path / "book.jsonl"
    path.write_text("{}\n{\n")
    assert call("--book", path, "--timeframe", "1s", "--out", tmp_path / "b.csv") == 1
    assert f"{path}, line 2: expected a JSON object, found {{;" in capsys.readouterr().err


@pytest.fixture
def servers():
    with BybitServer(now="2024-03-01 00:30") as rest, BybitSockets() as sockets:
        rest.add_bars("BTCUSDT", "1h", make_bars(5))
        yield rest, sockets


def live(servers, *args):
    rest, sockets = servers
    urls = ["--base-url", rest.url, "--stream-url", sockets.url]
    return call("--live", "BTC/USDT:USDT", *urls, "--timeframe", "1s", *args)


def test_live_bars_are_those_of_the_messages_that_were_kept(servers, tmp_path, capsys):
    _, sockets = servers
    first, *messages = market_messages(1)
    both = threading.Barrier(2)

    def publish():
        both.wait(10)
        for message in messages:
            sockets.publish(message["topic"], message)

    def greet(*greeting):
        subscribed.append(greeting)
        if len(subscribed) == 2:
            both.wait(10)
        return list(greeting)

    subscribed = []
    sockets.greet(BOOK, lambda: greet(first))
    sockets.greet(TRADES, lambda: greet(trade_message(at=START + 5)))
    publisher = threading.Thread(target=publish)
    publisher.start()
    out, kept = tmp_path / "live.parquet", tmp_path / "raw.jsonl.gz"
    settings = ["--bucket-volume", 9, "--window", 5, "--levels", 2]
    assert live(servers, "--for", "3s", "--out", out, "--raw", kept, "--json", *settings) == 0
    publisher.join(10)
    facts = json.loads(capsys.readouterr().out)
    assert facts["symbol"] == "BTC/USDT:USDT"
    assert facts["book"]["trades"] == 400
    bars = pd.read_parquet(out)
    assert bars["trades_complete"].all()
    again = tmp_path / "again.parquet"
    since = ["--since", bars.index[0].isoformat(), "--timeframe", "1s", "--out", again]
    assert call("--trades", kept, "--book", kept, *since, *settings) == 0
    offline = pd.read_parquet(again)
    assert len(bars) >= 5  # the first are of before both streams were up
    if not facts["book"].get("late_trades") and not facts["book"].get("late_states"):
        pd.testing.assert_frame_equal(
            bars.drop(columns="trades_complete"), offline.loc[bars.index], check_dtype=False
        )


def test_a_recording_without_a_closed_bar_is_an_error(servers, tmp_path, capsys):
    assert live(servers, "--for", "200ms", "--out", tmp_path / "live.csv") == 1
    assert "record for longer or take shorter bars" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_streams_that_are_down_all_the_time_are_told_with_the_reason(servers, tmp_path, capsys):
    nowhere = ["--stream-url", "ws://127.0.0.1:1", "--for", "500ms"]
    assert live(servers, *nowhere, "--out", tmp_path / "live.csv") == 1
    told = capsys.readouterr().err
    assert "expected streams of BTC/USDT:USDT within 500ms, found no connection: " in told
    assert "Connection refused" in told
    assert told.count("\n") == 1


def test_a_market_that_does_not_exist_is_named(servers, tmp_path, capsys):
    assert live(servers, "--live", "BTX/USDT:USDT", "--out", tmp_path / "live.csv") == 1
    assert "BTC/USDT:USDT" in capsys.readouterr().err


def test_bars_of_a_recording_that_was_killed_are_not_lost(servers, tmp_path, capsys):
    """The same call puts them first; one of another market is refused."""
    out = tmp_path / "live.csv"
    form = {"symbol": "BTC/USDT:USDT", "depth": 50, **asdict(MicrostructureSpec(1000))}
    index = pd.date_range("2024-01-01", periods=3, freq="s", tz="UTC", name="timestamp")
    with BarSpool(tmp_path / ".live.csv.recording", form) as spool:
        spool.add(pd.DataFrame({"mid": [1.0, 2.0, 3.0]}, index=index))
    assert live(servers, "--for", "200ms", "--out", out, "--levels", 4) == 1
    assert "cut short with another levels; give what it was given" in capsys.readouterr().err
    assert live(servers, "--for", "200ms", "--out", out) == 0
    told = capsys.readouterr()
    assert "note: 3 bars of a call that was cut short come first" in told.err
    assert "3 bars of 1s, 2024-01-01T00:00:00+00:00 to 2024-01-01T00:00:02" in told.out
    assert pd.read_csv(out)["mid"].tolist() == [1.0, 2.0, 3.0]
    assert list(tmp_path.iterdir()) == [out]
