"""A run's folder: whole or not at all, and refused when damaged."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from glow_bt.artifact import save_artifact
from glow_bt.errors import LookAheadError, ResultsError
from glow_bt.evaluation import run_folder
from glow_bt.evaluation.run_folder import (
    num_trials,
    read_run,
    refuse_existing,
    write_pages,
    write_run,
)
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

    def call(folder, models=None, **options):
        bars = sp500_bars(0, 800)
        names = {"title": "S&P 500", "command": "backtest", "trading": TRADING}
        return write_run(folder, study, models or small_artifact(), bars, **names, **options)

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


def test_results_are_replaced_only_when_asked(write, tmp_path):
    run = write(tmp_path / "run")
    (run.folder / "metrics.json").unlink()
    (run.folder / "manifest.json").write_bytes((run.folder / "manifest.json").read_bytes()[:200])
    with pytest.raises(ResultsError, match="already"):
        write(tmp_path / "run")
    with pytest.raises(ResultsError):
        read_run(run.folder)
    write(tmp_path / "run", overwrite=True)
    read_run(run.folder)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("kind", ["file", "folder", "model", "package"])
def test_nothing_but_results_is_ever_replaced(write, tmp_path, kind):
    target = tmp_path / "precious"
    if kind == "file":
        target.write_text("thesis")
    elif kind == "model":
        save_artifact(small_artifact(), target)
    else:
        target.mkdir()
        (target / "thesis.txt").touch()
        if kind == "package":
            (target / "manifest.json").write_text('{"schema_version": 1}')
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ResultsError, match=r"results folder to overwrite, found an?.*precious"):
        refuse_existing(target, overwrite=True)
    with pytest.raises(ResultsError, match="remove it yourself"):
        write(target, overwrite=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_folder_may_be_replaced(write, tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(ResultsError, match="already"):
        write(tmp_path / "run")
    write(tmp_path / "run", overwrite=True)
    read_run(tmp_path / "run")


@pytest.mark.parametrize("path", [".", "..", "below/.."])
def test_the_working_folder_is_refused(write, tmp_path, monkeypatch, path):
    work = tmp_path / "work"
    (work / "below").mkdir(parents=True)
    monkeypatch.chdir(work)
    with pytest.raises(ResultsError, match="already"):
        write(path)
    with pytest.raises(ResultsError, match="the working folder"):
        write(path, overwrite=True)
    assert [p.name for p in tmp_path.rglob("*")] == ["work", "below"]


def test_a_path_that_ends_above_is_resolved(write, tmp_path):
    (tmp_path / "run" / "below").mkdir(parents=True)
    (tmp_path / "run" / "below").rmdir()
    run = write(tmp_path / "run" / "below" / "..", overwrite=True)
    assert run.folder == tmp_path / "run"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_place_that_cannot_be_written_is_refused_early(tmp_path, monkeypatch, overwrite):
    (tmp_path / "file").touch()
    with pytest.raises(ResultsError, match=r"found a file, .*file; choose another place"):
        refuse_existing(tmp_path / "file" / "deep" / "run", overwrite=overwrite)
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    with pytest.raises(ResultsError, match="without permission to write"):
        refuse_existing(tmp_path / "deep" / "run", overwrite=overwrite)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_is_told_in_one_line(write, tmp_path, monkeypatch):
    def fail(run):
        raise OSError("No space left on device")

    monkeypatch.setattr(run_folder, "write_pages", fail)
    with pytest.raises(ResultsError, match=r"cannot be: No space.*choose another place"):
        write(tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a_move_that_fails_keeps_the_old_results_and_the_new(write, tmp_path, monkeypatch):
    run = write(tmp_path / "run")
    (run.folder / "mark").touch()
    rename = Path.rename

    def fail_on_new(self, target):
        if self.suffix == ".tmp":
            raise OSError("device gone")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_on_new)
    with pytest.raises(ResultsError, match="device gone"):
        write(tmp_path / "run", overwrite=True)
    assert (read_run(tmp_path / "run").folder / "mark").exists()
    (new,) = tmp_path.glob(".run.*.tmp")
    read_run(new)


@pytest.mark.parametrize("missing", [["states.parquet"], ["equity.parquet", "latents.parquet"]])
def test_missing_tables_are_named_and_not_called_damage(write, tmp_path, missing):
    run = write(tmp_path / "run")
    for name in missing:
        (run.folder / name).unlink()
    with pytest.raises(ResultsError, match=f"without {', '.join(missing)}; run the study") as e:
        read_run(run.folder)
    assert "damaged" not in str(e.value)


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


@pytest.mark.parametrize(
    ("search", "count"), [(None, 1), ({"trials": 40}, 40), ({"trials": [{"a": 1}, {"a": 2}]}, 2)]
)
def test_what_a_search_tried_is_kept_and_counted(write, tmp_path, search, count):
    assert num_trials(search) == count
    run = write(tmp_path / "run", search=search)
    assert run.manifest.get("search") == search


def test_a_search_that_used_tested_bars_is_refused_unless_it_is_allowed(write, study, tmp_path):
    first = study.latents.index[0]
    search = {"trials": 4, "bars_until": first.isoformat()}
    with pytest.raises(LookAheadError, match="the last bar that the search behind --config used"):
        write(tmp_path / "run", search=search)
    assert not (tmp_path / "run").exists()
    allowed = search | {"overlap_allowed": True}
    assert write(tmp_path / "run", search=allowed).manifest["search"] == allowed


def test_the_models_own_record_of_a_search_counts_where_none_is_given(study, write, tmp_path):
    search = {"trials": 4, "bars_until": study.latents.index[0].isoformat()}
    parent = "0123456789abcdef" * 4
    artifact = small_artifact()

    def call(search):
        record = replace(artifact.training, search=search, parent=parent)
        model = replace(artifact, training=record)
        return write(tmp_path / "run", models=model)

    with pytest.raises(LookAheadError, match=r"behind the model's settings .* at most 120, the"):
        call(search)
    assert not (tmp_path / "run").exists()
    run = call(search | {"overlap_allowed": True})
    assert run.manifest["search"] == search | {"overlap_allowed": True}
    assert run.manifest["models"][0]["parent"] == parent
    facts = run_folder._facts(run)
    assert facts["Adapted from or started at"] == parent[:16]
    assert "TESTED ONES AMONG THEM" in facts["Settings found by a search"]


@pytest.fixture
def no_tearsheet(monkeypatch):
    """Leave the tearsheet empty, which takes seconds to draw."""
    monkeypatch.setattr(
        run_folder, "write_tearsheet", lambda own, other, path, title: path.touch()
    )


def test_the_summary_links_the_other_pages_which_link_it(study, tmp_path, no_tearsheet):
    bars = sp500_bars(0, 800)
    names = {"title": "S&P 500", "command": "backtest", "trading": TRADING}
    run = write_run(tmp_path / "run", study, small_artifact(), bars, **names)
    summary = (run.folder / "index.html").read_text(encoding="utf-8")
    for page in ("model.html", "tearsheet.html"):
        assert f'<a href="{page}">' in summary
        assert (run.folder / page).is_file()
    assert '<a href="index.html">' in (run.folder / "model.html").read_text(encoding="utf-8")
    pictures = {path.stem for path in (run.folder / "pictures").iterdir()}
    assert {"contenders_equity", "intervals", "equity", "regimes"} <= pictures
    assert "GLOW strategy, S&amp;P 500" in summary
    assert run.metrics["statistics"]["bootstrap"]["bars"] == run.metrics["span"]["bars"]
    for name in run.equity:
        assert name in run.metrics["statistics"]["intervals"]


def test_pages_of_a_run_of_an_earlier_version_can_be_made_anew(write, tmp_path, no_tearsheet):
    run = write(tmp_path / "run")
    file = run.folder / "metrics.json"
    old = {name: run.metrics[name] for name in ("span", "strategies", "model", "var")}
    file.write_text(json.dumps(old))
    again = read_run(run.folder)
    write_pages(again)
    assert "Performance" in (run.folder / "index.html").read_text(encoding="utf-8")
