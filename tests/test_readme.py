"""README's examples run as they stand, and its numbers are the committed ones."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import pytest
import torch

from datafeeds.samples import load_sp500
from glow_bt.artifact import save_artifact
from glow_bt.cli.app import app
from glow_bt.evaluation.results_index import results_table
from glow_bt.evaluation.risk_index import risk_tables
from glow_bt.ohlcv import write_bars
from glow_bt.training import TrainConfig, train
from tests.datafeeds.live_exchange import LiveExchange, naive
from tests.datafeeds.random_bars import make_bars
from tests.models import small_artifact, unseen_bars

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_cerebro_example_runs_as_written(tmp_path, monkeypatch, capsys):
    code = re.search(r"<!-- example: cerebro -->\n```python\n(.*?)```", README, re.DOTALL).group(1)
    assert len(code.splitlines()) <= 25
    bars = load_sp500()
    config = TrainConfig(hidden_dim=8, num_levels=1, num_steps=1, max_epochs=3)
    artifact = train(bars.iloc[:1000], config)
    save_artifact(artifact, tmp_path / "models" / "btc")
    write_bars(bars.iloc[1000:1300], tmp_path / "unseen.parquet")
    (tmp_path / "example.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path("example.py")
    states = names["cerebro"].runstrats[0][0].analyzers.glow.frame()
    assert len(states) == 300 - artifact.min_bars  # one bar more to recalibrate
    assert states["var"].lt(0).all()
    assert (states["exposure"] > 0).any(), "the example never bought"
    assert "5 rows x 10 columns" in capsys.readouterr().out


def test_the_flow_example_runs_as_written(tmp_path, monkeypatch, capsys):
    code = re.search(r"<!-- example: flows -->\n```python\n(.*?)```", README, re.DOTALL).group(1)
    (tmp_path / "example.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]):
        runpy.run_path("example.py")
    calm, wild = map(float, capsys.readouterr().out.strip(" []\n").split())
    assert wild < 3 * calm < 0


def test_the_risk_example_runs_as_written(tmp_path, monkeypatch, capsys):
    code = re.search(r"<!-- example: risk -->\n```python\n(.*?)```", README, re.DOTALL).group(1)
    save_artifact(small_artifact(), tmp_path / "models" / "btc")
    write_bars(unseen_bars(100), tmp_path / "unseen.parquet")
    (tmp_path / "example.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    runpy.run_path("example.py")
    var, shortfall, probability = map(float, capsys.readouterr().out.split())
    assert shortfall < 0 > var
    assert 0 < probability < 0.5


def test_the_live_example_runs_as_written(tmp_path, monkeypatch, capsys):
    code = re.search(r"<!-- example: live -->\n```python\n(.*?)```", README, re.DOTALL).group(1)
    bars = make_bars(400, "min")
    with LiveExchange(bars, 150) as exchange:
        # Against a server of ours, and with an end.
        where = "history=100, client=CLIENT, stream_url=URL, clock=CLOCK, todate=LAST"
        (tmp_path / "example.py").write_text(code.replace("history=100", where), encoding="utf-8")
        monkeypatch.chdir(tmp_path)
        ours = {
            "CLIENT": exchange.client,
            "URL": exchange.sockets.url,
            "CLOCK": exchange.clock,
            "LAST": naive(bars.index[170]),
        }
        runpy.run_path("example.py", init_globals=ours)
    lines = capsys.readouterr().out.splitlines()
    shown = [line for line in lines if line[:4].isdigit()]
    told = [line for line in lines if not line[:4].isdigit()]
    assert told[:2] == ["DELAYED", "LIVE"]
    expected = [f"{naive(stamp)} {close}" for stamp, close in bars["close"].items()]
    first = expected.index(shown[0])
    assert shown == expected[first:171]
    assert len(shown) > 100


def test_the_risk_tables_are_those_of_the_committed_reports():
    shown = re.search(r"<!-- risk: .*? -->\n(.*?)\n<!-- end of risk -->", README, re.DOTALL)
    assert shown.group(1) == risk_tables(ROOT / "results")


def test_every_command_line_in_readme_is_a_real_one():
    lines = re.findall(r"^glow-bt (.+?)(?:\s+#.*)?$", README, re.MULTILINE)
    assert lines
    for line in lines:
        name, *args = shlex.split(line)
        # Parsing refuses unknown commands, options and missing ones; nothing is run.
        app.commands[name].make_context(name, args)


def test_the_results_table_is_that_of_the_committed_metrics():
    shown = re.search(r"<!-- results: .*? -->\n(.*?)\n<!-- end of results -->", README, re.DOTALL)
    assert shown.group(1) == results_table(ROOT / "results")


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#:]+)\)", README))
def test_links_and_pictures_exist(link):
    assert (ROOT / link).exists()
