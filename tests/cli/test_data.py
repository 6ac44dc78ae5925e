"""`glow-bt data` and fetching into a store, against a loopback server."""

import json

import pandas as pd
import pytest

from glow_bt.cli import main
from glow_bt.ohlcv import read_bars
from tests.datafeeds.bybit_server import BybitServer
from tests.datafeeds.random_bars import make_bars

NAMES = ["BTCUSDT", "ETHUSDT"]
SEVERAL = ["fetch", "--timeframe", "1h", "--since", "2024-01-01", "--symbols"]


@pytest.fixture(scope="module")
def server():
    with BybitServer(now="2024-03-01 00:30") as running:
        hours = pd.date_range("2023-12-25", "2024-03-01", freq="8h", tz="UTC")
        for seed, name in enumerate(NAMES):
            running.add_bars(name, "1h", make_bars(1500, "h", seed=seed))
            running.add_funding(name, pd.Series(1e-4, index=hours))
        yield running


@pytest.fixture
def call(server, tmp_path, capsys, monkeypatch):
    """Call the command line within a folder and return exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*args, base=True):
        where = ["--base-url", server.url] if base else []
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([*map(str, args), *where])
        return int(end.value.code or 0), *capsys.readouterr()

    return run


@pytest.fixture
def filled(call):
    code, _, _ = call(
        "fetch", "--symbols", "BTCUSDT,ETHUSDT", "--timeframe", "1h", "--since", "2024-01-01",
        "--also", "funding",
    )  # fmt: skip
    assert code == 0
    return call


def test_ls_tells_what_is_stored(filled):
    code, out, _ = filled("data", "ls", "--json", base=False)
    listed = {(one["symbol"], one["kind"]): one for one in json.loads(out)["series"]}
    assert code == 0
    assert set(listed) == {
        (f"{coin}/USDT:USDT", kind) for coin in ("BTC", "ETH") for kind in ("bars", "funding_rate")
    }
    assert listed["BTC/USDT:USDT", "bars"]["rows"] == 1440
    assert listed["BTC/USDT:USDT", "bars"]["until"] == "2024-02-29T23:00:00+00:00"
    assert "1,440" in filled("data", "ls", base=False)[1]


def test_export_joins_what_was_known_at_each_close(filled, tmp_path):
    code, out, _ = filled(
        "data", "export", "--symbol", "BTCUSDT", "--timeframe", "1h", "--join", "funding",
        "--out", "btc.parquet", base=False,
    )  # fmt: skip
    bars = read_bars(tmp_path / "btc.parquet")
    assert code == 0
    assert "1440 bars of BTC/USDT:USDT 1h" in out
    assert (bars["funding_rate"] == 1e-4).all()


@pytest.mark.parametrize(
    "more",
    [
        ["--since", "2025-01-01"],
        ["--since", "2024-01-20", "--until", "2024-01-19"],
        ["--since", "2024-02-20", "--join", "open-interest"],
    ],
)
def test_a_span_without_stored_bars_is_one_line_and_no_file(server, filled, tmp_path, more):
    if "--join" in more:
        hours = pd.date_range("2023-12-25", "2024-03-01", freq="h", tz="UTC")
        server.add_open_interest("BTCUSDT", "1h", pd.Series(1000.0, index=hours))
        early = ["--since", "2024-01-01", "--until", "2024-01-10", "--also", "open-interest"]
        assert filled("fetch", "--symbol", "BTCUSDT", "--timeframe", "1h", *early)[0] == 0
    wanted = ["data", "export", "--timeframe", "1h", "--symbol", "BTCUSDT", "--out", "btc.csv"]
    code, _, said = filled(*wanted, *more, base=False)
    assert code == 1
    assert "found none; `glow-bt data ls` tells from when to when" in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "btc.csv").exists()


def test_a_name_means_the_perpetual_before_the_spot_market(server, filled):
    server.add_bars("BTCUSDT", "1h", make_bars(1500, "h", seed=7), category="spot")
    spot = ["--symbol", "BTC/USDT", "--timeframe", "1h", "--since", "2024-01-01"]
    assert filled("fetch", *spot)[0] == 0
    wanted = ["data", "export", "--timeframe", "1h", "--symbol", "BTCUSDT", "--out", "btc.csv"]
    code, out, _ = filled(*wanted, base=False)
    assert code == 0
    assert "1440 bars of BTC/USDT:USDT 1h" in out


def test_fetch_joins_into_its_file_too(call, tmp_path):
    code, _, _ = call(
        "fetch", "--symbol", "BTC/USDT:USDT", "--timeframe", "1h", "--since", "2024-01-05",
        "--also", "funding", "--out", "btc.csv",
    )  # fmt: skip
    assert code == 0
    assert read_bars(tmp_path / "btc.csv")["funding_rate"].notna().all()
    assert [path.name for path in tmp_path.iterdir()] == ["btc.csv"]


def test_damage_is_named_and_repaired(filled, tmp_path):
    part = next(path for path in tmp_path.rglob("*.parquet") if "bars" in path.parts[-2])
    whole = part.read_bytes()
    part.write_bytes(whole[:-9])
    code, out, _ = filled("data", "check", base=False)
    assert code == 1
    assert part.name in out
    assert "`glow-bt data repair`" in out
    code, out, _ = filled("data", "repair")
    assert code == 0
    assert "1440 rows fetched" in out
    assert part.read_bytes() == whole
    code, out, _ = filled("data", "check", base=False)
    assert (code, "all sound" in out) == (0, True)


def test_ls_goes_on_where_something_is_damaged(filled, tmp_path):
    index = next(iter(tmp_path.rglob("series.json")))
    index.write_text("{}")
    code, out, _ = filled("data", "ls", base=False)
    assert code == 0
    assert "series.json" in out
    assert "1,440" in out


@pytest.mark.parametrize(
    ("args", "said", "code"),
    [
        (["data", "ls", "--store", "nowhere"], "expected a store, found no folder nowhere", 2),
        (
            ["data", "export", "--symbol", "XRPUSDT", "--timeframe", "1h", "--out", "x.csv"],
            "expected stored bars of bybit XRPUSDT 1h, found bybit BTC/USDT:USDT bars 1h",
            1,
        ),
        (["fetch", "--timeframe", "1h", "--since", "2024-01-01"], "--symbol or --symbols", 2),
        ([*SEVERAL, "A,B", "--out", "x.csv"], "expected one --symbol with --out", 2),
        ([*SEVERAL, "A,,B"], "expected symbols such as", 2),
        ([*SEVERAL, "BTCUSDT,ETHUSDX"], "did you mean ETH/USDT:USDT", 1),
    ],
)
def test_wrong_calls_are_one_line(filled, args, said, code):
    found, _, errors = filled(*args, base=args[0] == "fetch")
    assert (found, errors.count("\n")) == (code, 1)
    assert said in errors


def test_a_span_before_the_listing_says_when_it_starts(call):
    _, _, errors = call(
        "fetch", "--symbol", "BTCUSDT", "--timeframe", "1h", "--since", "2022-01-01"
    )
    assert "BTC/USDT:USDT 1h begins at 2024-01-01 00:00:00+00:00" in errors


def test_what_a_killed_fetch_left_is_no_damage(filled, tmp_path):
    journal = next(path.parent for path in tmp_path.rglob("series.json")) / "journal"
    journal.write_bytes(b"")
    code, out, _ = filled("data", "check", base=False)
    assert code == 0
    assert "a fetch was interrupted; the next one goes on from there" in out
    assert "0 damages" in out


@pytest.mark.parametrize("name", ["x.xlsx", "x.json", ".csv", "x"])
def test_a_file_of_another_kind_is_refused_at_once(filled, tmp_path, name):
    for command in (
        ["fetch", "--symbol", "BTCUSDT", "--timeframe", "1h", "--since", "2024-01-01"],
        ["data", "export", "--symbol", "BTCUSDT", "--timeframe", "1h"],
    ):
        code, _, errors = filled(*command, "--out", name, base=command[0] == "fetch")
        assert code == 2
        assert "expected a file .csv, .csv.gz or .parquet" in errors
        assert not (tmp_path / name).exists()


def test_mark_prices_are_not_dropped_silently(call):
    code, _, errors = call(
        "fetch", "--symbol", "BTCUSDT", "--timeframe", "1h", "--since", "2024-01-01",
        "--also", "mark", "--out", "x.csv",
    )  # fmt: skip
    assert code == 2
    assert "mark prices are no column" in errors


def test_a_folder_that_is_no_store_is_refused(call, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "manifest.json").write_text("{}")
    code, _, errors = call("data", "check", "--store", "models", base=False)
    assert code == 2
    assert "expected a store, found other things in models" in errors


def test_the_group_alone_prints_its_help(call):
    code, out, _ = call("data", base=False)
    assert code == 0
    assert "Commands:\n  check" in out
