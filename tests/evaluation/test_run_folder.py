"""A run's folder: whole or not at all, and refused when damaged."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest

from glow_bt.errors import ResultsError
from glow_bt.evaluation import run_folder
from glow_bt.evaluation.run_folder import read_run, write_run
from glow_bt.evaluation.study import Contender, run_study
from strategies.glow_baselines import BuyAndHold
from strategies.glow_strategy import GlowStrategy
from tests.models import small_artifact, sp500_bars

TRADING = {"cash": 1e5, "slippage_bps": 1.0, "risk_budget": 0.02}


@pytest.fixture(scope="module")
def study():
    contenders = [
        Contender("glow", GlowStrategy, {}, uses_model=True),
        Contender("buy_and_hold", BuyAndHold, {}),
    ]
    return run_study(sp500_bars(0, 800), small_artifact(), contenders)


@pytest.fixture
def write(study, monkeypatch):
    """Write a run without its pages, which other tests look at."""
    monkeypatch.setattr(run_folder, "write_pages", lambda run: None)

    def call(folder, **options):
        bars = sp500_bars(0, 800)
        names = {"title": "S&P 500", "command": "backtest", "trading": TRADING}
        return write_run(folder, study, small_artifact(), bars, **names, **options)

    return call


def test_what_is_written_is_what_is_read(write, study, tmp_path):
    run = write(tmp_path / "run")
    states = study.results["glow"].states
    pd.testing.assert_frame_equal(run.states, states, check_exact=True, check_freq=False)
    assert run.metrics == json.loads(json.dumps(study.metrics))
    assert list(run.equity) == ["glow", "buy_and_hold"]
    assert run.manifest["bars"]["count"] == 800
    assert run.manifest["models"][0]["trained_until"] == (
        small_artifact().training.trained_until.isoformat()
    )
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_an_existing_folder_is_kept_unless_told(write, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").touch()
    with pytest.raises(ResultsError, match="already"):
        write(tmp_path / "run")
    assert (tmp_path / "run" / "precious").exists()
    write(tmp_path / "run", overwrite=True)
    assert not (tmp_path / "run" / "precious").exists()


def test_a_failure_half_way_leaves_the_old_results(write, tmp_path, monkeypatch):
    write(tmp_path / "run")
    before = (tmp_path / "run" / "manifest.json").read_bytes()

    def fail(run):
        raise ResultsError("no page")

    monkeypatch.setattr(run_folder, "write_pages", fail)
    with pytest.raises(ResultsError, match="no page"):
        write(tmp_path / "run", overwrite=True)
    assert (tmp_path / "run" / "manifest.json").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    "name",
    ["manifest.json", "metrics.json", "states.parquet", "equity.parquet", "latents.parquet"],
)
@pytest.mark.parametrize("damage", ["missing", "truncated", "rubbish"])
def test_a_damaged_folder_is_refused_with_a_remedy(write, tmp_path, name, damage):
    write(tmp_path / "run")
    run = shutil.copytree(tmp_path / "run", tmp_path / "copy")
    file = run / name
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"\xff{")
    with pytest.raises(ResultsError, match="expected a"):
        read_run(run)


def test_results_of_another_version_are_refused(write, tmp_path):
    run = write(tmp_path / "run")
    file = run.folder / "manifest.json"
    file.write_text(json.dumps({**run.manifest, "schema_version": 99}))
    with pytest.raises(ResultsError, match="schema version 1, found 99"):
        read_run(run.folder)
