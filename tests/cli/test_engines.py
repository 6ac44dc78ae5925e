"""`glow-bt walk-forward` in several processes, of several seeds, from a store."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout

import pytest
from rich.console import Console

from datafeeds.samples import load_sp500
from glow_bt.cli import main
from glow_bt.cli.app import app
from glow_bt.cli.engines import FoldsProgress
from glow_bt.cli.output import print_several
from glow_bt.evaluation import run_folder, unit_training
from glow_bt.evaluation.engines import ENGINES
from glow_bt.training import Epoch

SMALL = ["--hidden", "8", "--levels", "1", "--steps", "1", "--epochs", "2", "--regimes", "2"]
SMALL += ["--members", "2", "--folds", "2", "--test-fraction", "0.3", "--no-ablations"]


def call(*args):
    with redirect_stdout(io.StringIO()) as output, pytest.raises(SystemExit) as end:
        main([str(arg) for arg in args])
    return int(end.value.code or 0), output.getvalue()


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    file = tmp_path_factory.mktemp("bars") / "bars.csv"
    load_sp500().iloc[:1000].to_csv(file)
    return file


@pytest.fixture(autouse=True)
def _without_pages(monkeypatch):
    monkeypatch.setattr(run_folder, "write_pages", lambda run: None)


def test_the_engines_can_be_chosen_wherever_folds_are_trained():
    for command in ("demo", "walk-forward"):
        (option,) = [o for o in app.commands[command].params if o.name == "engine"]
        assert tuple(option.type.choices) == ENGINES


def test_seeds_have_a_run_folder_each_and_models_are_kept_in_the_store(
    bars, tmp_path, monkeypatch
):
    store, out = tmp_path / "store", tmp_path / "out"
    args = ["walk-forward", bars, *SMALL, "--store", store, "--seed", 3]
    code, printed = call(*args, "--seeds", 2, "--out", out, "--json")
    assert code == 0
    told = json.loads(printed)
    assert set(told["seeds"]) == {"3", "4"}
    assert told["spread"]["model"]["nll"] > 0
    for seed in (3, 4):
        manifest = json.loads((out / f"seed_{seed}" / "manifest.json").read_text())
        assert manifest["seed"] == seed
        assert not {"engine", "jobs", "store", "reuse", "seeds"} & set(manifest["trading"])
    assert len(list(store.iterdir())) == 4
    monkeypatch.setattr(unit_training, "train", None)
    code, printed = call(*args, "--reuse", "--out", tmp_path / "again", "--json")
    assert code == 0
    again = json.loads(printed)
    again.pop("out")
    assert again == told["seeds"]["3"]
    assert call(*args[:-1], 5, "--reuse", "--out", tmp_path / "other")[0] == 1
    with redirect_stdout(io.StringIO()) as output:
        print_several(told, out, as_json=False)
    assert "2 seeds: 3, 4; mean" in output.getvalue()


def test_what_cannot_work_is_refused_before_any_work(bars, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(unit_training, "train", None)
    for wrong, told in (
        (["--reuse"], "expected --store with --reuse"),
        (["--jobs", 0], "jobs from 1 on"),
        (["--seeds", 0], "seeds from 1 on"),
        (["--dask-address", "tcp://127.0.0.1:9"], "with engine dask only"),
    ):
        assert call("walk-forward", bars, *SMALL, "--out", tmp_path / "o", *wrong)[0] == 2
        assert told in capsys.readouterr().err
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("precious")
    args = ["walk-forward", bars, *SMALL, "--out", tmp_path / "o"]
    assert call(*args, "--store", tmp_path / "thesis")[0] == 1
    assert "with thesis.tex in it" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]


def test_progress_counts_models_and_tells_what_is_left():
    file = io.StringIO()
    with FoldsProgress(Console(file=file, force_terminal=True, width=120)) as progress:
        progress.begin(5, 2)
        progress.epoch("fold 3, seed 0", "state", Epoch(7, 1.0, 2.0, 1e-3, 0), 100)
        progress.done("fold 3, seed 0")
    shown = file.getvalue()
    assert "3/5" in shown
    assert "0:00:00 left" in shown


def test_nothing_is_shown_where_there_is_no_terminal():
    file = io.StringIO()
    with FoldsProgress(Console(file=file)) as progress:
        progress.begin(2, 0)
        progress.done("fold 1, seed 0")
    assert file.getvalue().strip() == ""
