"""`glow-bt fetch` against a loopback server, through the real client."""

from __future__ import annotations

import json
import signal
import threading
import time

import pandas as pd
import pytest

from glow_bt.cli import main
from glow_bt.ohlcv import read_bars
from tests.datafeeds.bybit_faults import FAULTS
from tests.datafeeds.bybit_server import BybitServer
from tests.datafeeds.random_bars import make_bars


@pytest.fixture(scope="module")
def server():
    with BybitServer(now="2024-03-01 00:30") as running:
        running.add_bars("BTCUSDT", "1h", make_bars(1500, "h"))
        yield running


def fetch(server, *args):
    """Call fetch for BTC hours and return the exit code."""
    symbol = [] if "--symbol" in args else ["--symbol", "BTC/USDT:USDT"]
    since = [] if "--since" in args else ["--since", "2024-01-01"]
    base = ["--timeframe", "1h", "--base-url", server.url]
    with pytest.raises(SystemExit) as end:
        main(["fetch", *symbol, *since, *base, *map(str, args)])
    return int(end.value.code or 0)


@pytest.mark.parametrize("name", ["bars.parquet", "bars.csv", "bars.csv.gz"])
def test_the_file_holds_the_closed_bars_of_the_span(server, tmp_path, name, capsys):
    file = tmp_path / "new" / name
    assert fetch(server, "--until", "2024-02-20", "--out", file) == 0
    bars = read_bars(file)
    assert bars.index[0] == pd.Timestamp("2024-01-01", tz="UTC")
    assert bars.index[-1] == pd.Timestamp("2024-02-19 23:00", tz="UTC")
    assert len(bars) == 50 * 24
    assert "1200 bars of BTC/USDT:USDT 1h" in capsys.readouterr().out


def test_the_forming_bar_is_left_out(server, tmp_path):
    assert fetch(server, "--out", tmp_path / "b.csv") == 0
    assert read_bars(tmp_path / "b.csv").index[-1] == pd.Timestamp("2024-02-29 23:00", tz="UTC")


def test_json_has_the_facts_and_nothing_else(server, tmp_path, capsys):
    assert fetch(server, "--out", tmp_path / "b.parquet", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["bars"] == 60 * 24
    assert facts["gaps"] == 0
    assert facts["until"] == "2024-02-29T23:00:00+00:00"


@pytest.mark.parametrize(
    ("args", "said", "code"),
    [
        (["--symbol", "BTX/USDT:USDT"], "BTC/USDT:USDT", 1),
        (["--since", "2024-02-01", "--until", "2024-01-01"], "before", 2),
        (["--since", "yesterdayish"], "yesterdayish", 2),
        (["--since", "2031-01-01"], "2031", 2),
    ],
)
def test_a_wrong_request_is_one_line_and_no_file(server, tmp_path, capsys, args, said, code):
    assert fetch(server, *args, "--out", tmp_path / "b.csv") == code
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert said in captured.err
    assert list(tmp_path.iterdir()) == []


def test_a_transient_fault_is_survived(server, tmp_path):
    server.script("kline", [FAULTS["http_503"], FAULTS["truncated"]])
    assert fetch(server, "--out", tmp_path / "b.csv") == 0
    assert len(read_bars(tmp_path / "b.csv")) == 60 * 24


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_when_asked_to_and_goes_on_when_called_again(server, tmp_path, capsys, number):
    before = signal.getsignal(number)
    asked = server.count("kline")
    server.script("kline", [None, *[FAULTS["http_503"]] * 1000])

    def end():
        while server.count("kline") < asked + 2:
            time.sleep(0.01)
        signal.pthread_kill(threading.main_thread().ident, number)

    user = threading.Thread(target=end)
    user.start()
    code = fetch(server, "--store", tmp_path / "store")
    user.join()
    server._scripts.clear()
    assert code == 1
    assert "Error: interrupted; the same call of fetch" in capsys.readouterr().err
    assert signal.getsignal(number) == before
    assert fetch(server, "--store", tmp_path / "store") == 0
    assert "1440 rows" in capsys.readouterr().out


def test_an_existing_file_is_kept_unless_told(server, tmp_path, capsys):
    (tmp_path / "b.csv").write_text("precious")
    assert fetch(server, "--out", tmp_path / "b.csv") == 1
    assert "already" in capsys.readouterr().err
    assert (tmp_path / "b.csv").read_text() == "precious"
    assert fetch(server, "--out", tmp_path / "b.csv", "--overwrite") == 0
    assert len(read_bars(tmp_path / "b.csv")) == 60 * 24
