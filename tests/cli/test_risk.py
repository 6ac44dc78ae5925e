"""`glow-bt risk` as a person or a program calls it, with a cheap model in the flow's place."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout

import pytest
from rich.console import Console

from glow_bt.cli import main
from glow_bt.cli.risk import two_sided
from glow_bt.cli.risk_output import print_risk, risk_progress
from glow_bt.errors import ConfigError
from glow_bt.evaluation import risk_study
from glow_bt.evaluation.risk_folder import read_risk
from glow_bt.evaluation.risk_summary import summarize
from tests.evaluation.risk_studies import fake_flow, made_up_study
from tests.models import sp500_bars

CHEAP = ["--folds", 2, "--baseline", "gaussian", "--baseline", "historical"]


def call(*args):
    """Call risk and return the exit code."""
    with pytest.raises(SystemExit) as end:
        main(["risk", *map(str, args)])
    return int(end.value.code or 0)


@pytest.fixture(autouse=True)
def _cheap_flow(monkeypatch):
    monkeypatch.setattr(risk_study, "_default_flow", lambda: fake_flow)


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    path = tmp_path_factory.mktemp("risk") / "bars.csv"
    sp500_bars(0, 900).to_csv(path)
    return path


def test_it_writes_the_folder_and_prints_the_table(bars, tmp_path, capsys):
    out = tmp_path / "risk"
    assert call(bars, "--out", out, *CHEAP, "--title", "Days") == 0
    captured = capsys.readouterr()
    assert "540 returns, out of sample" in captured.out
    assert "flow, recalibrated" in captured.out
    assert "McNeil-Frey p" in captured.out
    assert captured.out.splitlines()[-1] == f"wrote {out / 'risk.html'} and {out / 'risk.json'}"
    assert captured.err.count("\n") == captured.err.count("note: ")
    assert {path.name for path in out.iterdir()} == {
        "risk.html", "risk.json", "forecasts.parquet", "pictures",
    }  # fmt: skip
    assert "<title>Days</title>" in (out / "risk.html").read_text()
    run = read_risk(out)
    assert list(run.study.forecasts) == ["flow", "flow_recalibrated", "gaussian", "historical"]
    assert list(run.report["models"]["flow"]["levels"]) == [
        "0.01", "0.025", "0.05", "0.95", "0.975", "0.99",
    ]  # fmt: skip


def test_json_is_one_object_with_what_risk_json_holds(bars, tmp_path, capsys):
    out = tmp_path / "risk"
    args = ["--level", 0.05, "--level", 0.02, "--seed", 3, "--test-fraction", 0.5]
    args += ["--members", 3]
    assert call(bars, "--out", out, *CHEAP, *args, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said.pop("out") == str(out)
    assert said == json.loads((out / "risk.json").read_text())
    assert said["n"] == 450
    assert said["manifest"]["seed"] == said["manifest"]["flow"]["seed"] == 3
    assert said["manifest"]["flow"]["return_members"] == 3
    assert list(said["models"]["flow"]["levels"]) == ["0.02", "0.05", "0.95", "0.98"]
    assert said["manifest"]["title"] == "bars.csv"


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--baseline", "garchx"], "expected baselines among gaussian, historical, ewma"),
        (["--level", "0.5"], r"expected a level in (0, 0.5), found 0.5"),
        (["--level", "0"], r"expected a level in (0, 0.5), found 0"),
        (["--level", "many"], "--help"),
        (["--folds", "0"], "expected at least 1 fold"),
        (["--test-fraction", "1"], "expected test_fraction inside (0, 1)"),
        (["--seed", "-1"], "seed"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(bars, tmp_path, capsys, args, told):
    assert call(bars, "--out", tmp_path / "risk", *args) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if not line.startswith("note: ")]
    assert len(lines) == 1
    assert told in lines[0]
    assert not (tmp_path / "risk").exists()


def test_bars_that_cannot_be_studied_are_exit_code_1(tmp_path, capsys):
    few, flat = tmp_path / "few.csv", tmp_path / "flat.csv"
    sp500_bars(0, 400).to_csv(few)
    constant = sp500_bars(0, 900)
    constant[["open", "high", "low", "close"]] = 100.0
    constant.to_csv(flat)
    out = tmp_path / "risk"
    assert call(few, "--out", out, *CHEAP) == 1
    assert "2 folds with purge 62 needs at least" in capsys.readouterr().err
    assert call(flat, "--out", out, *CHEAP, "--json") == 1
    assert "closes that change" in json.loads(capsys.readouterr().out)["error"]
    assert call(tmp_path / "none.csv", "--out", out) == 1
    assert not out.exists()


def test_a_halted_market_goes_the_whole_way(tmp_path, capsys):
    bars = sp500_bars(0, 900)
    rows, last = bars.index[600:620], bars["close"].iloc[599]
    bars.loc[rows, ["open", "high", "low", "close"]] = last
    bars.loc[rows, "volume"] = 0.0
    bars.to_csv(tmp_path / "halted.csv")
    assert call(tmp_path / "halted.csv", "--out", tmp_path / "risk", *CHEAP, "--json") == 0
    json.loads(capsys.readouterr().out, parse_constant=pytest.fail)


def test_an_existing_folder_is_refused_before_any_work(bars, tmp_path, capsys, monkeypatch):
    out = tmp_path / "risk"
    assert call(bars, "--out", out, *CHEAP) == 0
    assert call(bars, "--out", out, *CHEAP, "--overwrite") == 0
    capsys.readouterr()
    monkeypatch.setattr(risk_study, "run_risk_study", pytest.fail)
    assert call(bars, "--out", out) == 1
    assert "--overwrite" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    assert call(bars, "--out", tmp_path / "other", "--overwrite") == 1
    assert "remove it yourself" in capsys.readouterr().err


def test_levels_of_both_tails():
    assert two_sided((0.05, 0.01, 0.05)) == (0.01, 0.05, 0.95, 0.99)
    with pytest.raises(ConfigError, match=r"found 0\.6"):
        two_sided((0.01, 0.6))


def test_the_printed_table_marks_the_best_and_what_fails():
    report = summarize(made_up_study(600), seed=5)
    models = report["models"]
    console = Console(
        file=io.StringIO(), force_terminal=True, color_system="standard", width=160
    )  # fmt: skip
    print_risk(report, console)
    text = console.file.getvalue()
    best = min(model["nll"] for model in models.values() if model["nll"] is not None)
    assert f"\x1b[1m{best:.4f}\x1b[0m" in text
    losses = [model["levels"]["0.01"]["quantile_loss"] for model in models.values()]
    assert f"\x1b[1m{1e4 * min(losses):.4f}\x1b[0m" in text
    lower = [model["levels"][level] for model in models.values() for level in ("0.01", "0.025")]
    failed = [cell["kupiec_p"] for cell in lower if 0.001 <= cell["kupiec_p"] < 0.05]
    assert failed
    for p in failed:
        assert f"\x1b[31m{p:.3f}\x1b[0m" in text


def test_piped_tables_are_not_broken_by_a_narrow_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    with redirect_stdout(io.StringIO()) as output:
        print_risk(summarize(made_up_study(200), seed=5))
    assert "cells with p > 0.05" in output.getvalue()


def test_progress_is_shown_on_a_terminal_only():
    for watched in (True, False):
        console = Console(file=io.StringIO(), force_terminal=watched, width=120)
        with risk_progress(console) as progress:
            progress("garch_t", 1, 8)
            progress("garch_t", 8, 8)
        said = console.file.getvalue()
        assert ("GARCH t" in said and "8/8" in said) == watched
        assert bool(said) == watched
