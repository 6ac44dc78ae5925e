"""`glow-bt paper` against a loopback exchange whose clock is fast, killed and restarted."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from datafeeds.bybit_clock import ExchangeClock
from glow_bt.artifact import save_artifact
from glow_bt.bt import BybitPerpetual
from glow_bt.bt.paper import PaperRun
from glow_bt.bt.paper_state import PaperState, held_folder
from glow_bt.cli import main
from glow_bt.training import TrainConfig, train
from strategies.glow_strategy import GlowStrategy
from tests.bt.live_feed import LiveFeed, history, late, live
from tests.bt.market import random_bars
from tests.datafeeds.live_exchange import LiveExchange

ROOT = Path(__file__).parents[2]
WARM = 130
LIVE_FROM = 700 + WARM  # the bar that opens at 07:55
PACE = 120.0  # a minute in half a second
PARAMS = {"dead_band": 0.0, "risk_budget": 0.05}


@pytest.fixture(scope="module")
def market():
    """Minutes, and a model of the first 700 of them."""
    start = pd.Timestamp("2024-01-02 07:55") - pd.Timedelta(minutes=LIVE_FROM)
    bars = random_bars(1000, seed=11, freq="min", start=start, volatility=0.002)
    config = TrainConfig(
        fractions=(0.7, 0.3, 0.0),
        max_epochs=1,
        num_levels=1,
        num_steps=1,
        hidden_dim=8,
        return_hidden_dim=8,
        return_members=2,
    )
    artifact = train(bars[:700], config)
    sure = replace(artifact.direction, drift_belief=1.0, slope_belief=1.0)
    return replace(artifact, direction=sure), bars[700:]


@pytest.fixture(scope="module")
def model(market, tmp_path_factory):
    """The model is sure of its direction, so that there is something to trade."""
    folder = tmp_path_factory.mktemp("model") / "model"
    save_artifact(market[0], folder)
    return folder


@pytest.fixture(scope="module")
def rates():
    stamps = pd.date_range("2024-01-01", periods=72, freq="h", tz="UTC")
    return pd.Series(np.random.default_rng(2).normal(0, 1e-3, 72).round(8), index=stamps)


@pytest.fixture
def exchange(market, rates):
    with LiveExchange(market[1], WARM, "1m", pace=PACE) as running:
        running.server.add_funding("BTCUSDT", rates)
        yield running


def arguments(exchange, model, state, *more, as_json=True):
    args = ["paper", "--symbol", "BTC/USDT:USDT", "--timeframe", "1m", "--model", model]
    args += ["--state", state, "--base-url", exchange.server.url, "--recalibrate"]
    args += [
        "--stream-url",
        exchange.sockets.url,
        "--var-level",
        "0.05",
        "--history",
        1000,
    ]  # all there are
    for name, value in PARAMS.items():
        args += ["--set", f"{name}={value}"]
    return [*map(str, [*args, *more]), *(["--json"] if as_json else [])]


def call(monkeypatch, exchange, model, state, *more, as_json=True):
    """Run the command in this process with a fast clock, and return its exit code."""

    fast = partial(ExchangeClock, pace=PACE)
    monkeypatch.setattr("datafeeds.bybit_hub.ExchangeClock", fast)
    with pytest.raises(SystemExit) as end:
        main(arguments(exchange, model, state, *more, as_json=as_json))
    return int(end.value.code or 0)


def events(text):
    return [json.loads(line) for line in text.splitlines()]


def replayed(bars, model, rates, folder, state):
    """The same run in one go, offline: bars come live and late as the books say."""
    came = pd.read_csv(folder / "equity.csv", index_col=0, parse_dates=True)["live"]
    numbers = bars.index.get_indexer(came.index)
    assert numbers.tolist() == list(range(numbers[0], numbers[0] + len(numbers)))
    script = [*history(bars, 0, numbers[0]), LiveFeed.LIVE]
    for number, is_live in zip(numbers.tolist(), came, strict=True):
        script += (live if is_live else late)(bars, number, number + 1)
    settings = PaperState.read(folder).settings
    params = {**settings["parameters"], "model": model}
    PaperRun(
        folder=state,
        settings=settings,
        strategy=GlowStrategy,
        params=params,
        commission=BybitPerpetual(funding=rates),
    ).run(LiveFeed(events=script, name="BTC/USDT:USDT"))
    return books(state)


def books(folder):
    names = ("equity.csv", "trades.csv", "state.json")
    return {name: (folder / name).read_text() for name in names}


def test_stopped_and_called_again_it_is_a_run_in_one_go(
    monkeypatch, exchange, model, rates, tmp_path, capsys
):
    state, told = tmp_path / "paper", []
    for count in (6, 3, 4):
        assert call(monkeypatch, exchange, model, state, "--bars", count) == 0
        told.append(events(capsys.readouterr().out))
    assert books(state) == replayed(exchange.bars, model, rates, state, tmp_path / "again")
    first, second, _ = told
    assert first[0]["note"] == "paper trading: the broker is simulated, no real order is sent"
    assert first[0]["real_orders"] is False
    assert first[0]["last_bar"] is None
    bars = [event for event in first if event["event"] == "bar"]
    assert second[0]["last_bar"] == bars[-1]["timestamp"]
    assert len(bars) >= 6
    assert all(bar["var"] < 0 and 0 <= bar["confidence"] <= 1 for bar in bars)
    statuses = [event["status"] for event in first if event["event"] == "status"]
    assert statuses[:2] == ["DELAYED", "LIVE"]
    assert sum(bar["live"] for bar in bars) == 6
    assert first[-1] == {"event": "stop", "bars": len(bars), "state": str(state)}
    assert len((state / "trades.csv").read_text().splitlines()) > 2


def started(exchange, model, state):
    """The command in a process of its own, after its first bar."""
    driver = Path(__file__).with_name("paper_driver.py")
    process = subprocess.Popen(
        [sys.executable, driver, str(PACE), *arguments(exchange, model, state)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if json.loads(line)["event"] == "bar":
            return process
    process.stdout.close()
    raise AssertionError(f"it ended with {process.wait()}")


@pytest.mark.slow
def test_killed_it_goes_on_and_asked_to_stop_it_says_so(exchange, model, rates, tmp_path):
    state = tmp_path / "paper"
    with started(exchange, model, state) as process:
        process.stdout.readline()
        process.kill()
    assert process.returncode == -signal.SIGKILL
    with started(exchange, model, state) as process:
        process.send_signal(signal.SIGINT)
        *_, last = process.stdout
        assert process.wait(10) == 0
    assert json.loads(last)["event"] == "stop"
    assert books(state) == replayed(exchange.bars, model, rates, state, tmp_path / "again")


def test_people_get_a_line_a_bar(monkeypatch, exchange, model, tmp_path, capsys):
    more = ("--bars", 3, "--no-websocket", "--funding-rate", "0.0001")
    assert call(monkeypatch, exchange, model, tmp_path / "paper", *more, as_json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "paper trading: the broker is simulated, no real order is sent"
    assert re.search(
        r"BTC/USDT:USDT 1m, strategy glow, a new account of 10,000.00; state", lines[1]
    )
    bar = r"2024-01-02 \d\d:\d\d  close [\d.]+ +rank \d\.\d\d  direction [+-]\d\.\d\d  VaR -"
    bar += r"[\d.]+%  position [+-][\d.e-]+  equity [\d,.]+"
    count = sum(bool(re.match(bar, line)) for line in lines)
    assert count >= 3
    assert lines[-1].startswith(f"stopped after {count} bars; the same call goes on from")


def test_a_version_with_other_defaults_does_not_go_on(
    monkeypatch, exchange, model, tmp_path, capsys
):
    state = tmp_path / "paper"
    assert call(monkeypatch, exchange, model, state, "--bars", 1) == 0
    saved = json.loads((state / "state.json").read_text())
    saved["settings"]["parameters"]["half_life"] = 12.0
    (state / "state.json").write_text(json.dumps(saved))
    capsys.readouterr()
    assert call(monkeypatch, exchange, model, state, "--bars", 1, as_json=False) == 2
    assert "found parameters.half_life 12.0 there and 24.0 now" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--symbol", "BTC/USDT"], 1, "BTC/USDT"),
        (
            ["--symbol", "ETH/USD:ETH"],
            2,
            "a linear perpetual, found ETH/USD:ETH, which is inverse",
        ),
        (["--timeframe", "7m"], 2, "7m"),
        (["--timeframe", "1h"], 2, "expected --timeframe 1m, the bars that the model was trained"),
        (["--strategy", "nowhere:Class"], 2, "No module named 'nowhere'"),
        (["--strategy", "json:loads"], 2, "module:Class of a Backtrader strategy"),
        (["--strategy", "gloww"], 2, "found 'gloww'"),
        (["--set", "dead_bnd=1"], 2, "found 'dead_bnd=1'"),
        (["--set", "model=x"], 2, "found 'model=x'"),
        (["--cash", "-1"], 2, "cash above 0"),
        (["--leverage", "0"], 2, "leverage above 0"),
        (["--model", "no/such"], 1, "no/such"),
    ],
)
def test_a_wrong_call_is_one_line(exchange, model, tmp_path, capsys, more, code, said):
    exchange.add("ETHUSD", exchange.bars, category="inverse")
    with pytest.raises(SystemExit) as end:
        main([*arguments(exchange, model, tmp_path / "paper"), *more])
    assert end.value.code == code
    told = capsys.readouterr()
    assert told.err.count("\n") == 1
    assert said in told.err
    assert "start" not in [event.get("event") for event in events(told.out)]
    assert not (tmp_path / "paper" / "state.json").exists()


def test_other_settings_are_refused(monkeypatch, exchange, model, tmp_path, capsys):
    assert call(monkeypatch, exchange, model, tmp_path, "--bars", 1) == 0
    assert call(monkeypatch, exchange, model, tmp_path, "--taker", "0.001", "--cash", "5") == 2
    *_, told = capsys.readouterr().err.splitlines()
    assert "cash 10000.0 there and 5.0 now" in told
    assert "costs.taker 0.00055 there and 0.001 now" in told


def test_nothing_is_said_to_begin_before_the_folder_is_known_to_be_good(
    monkeypatch, exchange, model, tmp_path, capsys
):
    state = tmp_path / "paper"
    assert call(monkeypatch, exchange, model, state, "--bars", 1) == 0
    capsys.readouterr()
    refused = partial(call, monkeypatch, exchange, model, as_json=False)
    with held_folder(state):
        assert refused(state) == 1
    told = capsys.readouterr()
    assert (told.out, "the only process that trades in" in told.err) == ("", True)
    assert refused(state, "--cash", "5") == 2
    told = capsys.readouterr()
    assert (told.out, "cash 10000.0 there" in told.err) == ("", True)
    assert refused(state / "lock" / "below") == 1
    told = capsys.readouterr()
    assert (told.out, "could not write" in told.err) == ("", True)


def test_the_help_says_what_becomes_of_missed_bars(capsys):
    with pytest.raises(SystemExit):
        main(["paper", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "the strategy places no order on them, for they are late" in told
