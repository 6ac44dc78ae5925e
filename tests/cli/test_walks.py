"""`glow-bt walk-forward` over several files of bars, and from the fold before."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from dataclasses import replace

import pytest

from glow_bt.artifact import load_artifact
from glow_bt.cli import main
from glow_bt.evaluation import run_folder, study, unit_training
from tests.models import small_artifact, sp500_bars

SMALL = ["--hidden", "8", "--levels", "1", "--steps", "1", "--epochs", "1", "--regimes", "2"]
SMALL += ["--members", "2", "--folds", "2", "--test-fraction", "0.3", "--no-ablations"]


def call(*args):
    with redirect_stdout(io.StringIO()) as output, pytest.raises(SystemExit) as end:
        main([str(arg) for arg in args])
    return int(end.value.code or 0), output.getvalue()


@pytest.fixture
def files(tmp_path):
    """Two files of bars, and a trainer that takes no time."""
    for name, bars in (("one", sp500_bars(0, 1000)), ("two", sp500_bars(500, 1400))):
        bars.to_csv(tmp_path / f"{name}.csv.gz")
    return tmp_path / "one.csv.gz", tmp_path / "two.csv.gz"


@pytest.fixture
def trained(monkeypatch):
    """Let a model stand for all; return the first bars of those that were to be trained."""
    begun = []

    def train(bars, config, **others):
        begun.append((bars.index[0], config.seed, others["start"]))
        record = replace(
            small_artifact().training,
            trained_from=bars.index[0],
            trained_until=bars.index[-1],
            seed=config.seed,
        )
        return replace(small_artifact(), training=record)

    monkeypatch.setattr(unit_training, "train", train)
    monkeypatch.setattr(unit_training, "unit_scores", lambda *_: {})
    skipped = {"skipped": "it takes long"}
    monkeypatch.setattr(study, "density_metrics", lambda *_, **__: skipped)
    monkeypatch.setattr(run_folder, "write_pages", lambda run: (run.folder / "index.html").touch())
    return begun


def numbers(out):
    return json.loads((out / "metrics.json").read_text())


def test_two_files_give_the_numbers_of_two_calls_and_a_page_over_both(files, tmp_path, trained):
    out = tmp_path / "many"
    code, printed = call("walk-forward", *files, *SMALL, "--out", out, "--json")
    assert code == 0
    told = json.loads(printed)
    assert set(told) == {"out", "symbols", "mean", "spread"}
    assert len(trained) == 4
    for file in files:
        name = file.name.removesuffix(".csv.gz")
        single = tmp_path / f"single-{name}"
        assert call("walk-forward", file, *SMALL, "--out", single)[0] == 0
        assert numbers(out / name) == numbers(single) == told["symbols"][name]
        manifest = json.loads((out / name / "manifest.json").read_text())
        assert manifest == json.loads((single / "manifest.json").read_text())
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "<h1>one, two</h1>" in page
    assert 'href="one/index.html"' in page
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"one.csv.gz", "two.csv.gz", "many", "single-one", "single-two"}
    code, printed = call("report", out)
    assert code == 0
    assert "2 symbols: one, two; mean" in printed


def test_symbols_have_seeds_and_a_title_and_an_interrupted_call_goes_on(
    files, tmp_path, trained, monkeypatch, capsys
):
    out = tmp_path / "many"
    args = ["walk-forward", *files, *SMALL, "--seeds", 2, "--title", "Both", "--out", out]
    quick = unit_training.train

    def interrupt(bars, config, **others):
        if len(trained) == 5:
            raise KeyboardInterrupt
        return quick(bars, config, **others)

    monkeypatch.setattr(unit_training, "train", interrupt)
    assert call(*args)[0] == 1
    assert "goes on" in capsys.readouterr().err
    assert not out.exists()
    monkeypatch.setattr(unit_training, "train", quick)
    code, printed = call(*args)
    assert code == 0
    assert len(trained) == 8
    assert "2 symbols: one, two; mean" in printed
    assert "<h1>Both</h1>" in (out / "index.html").read_text(encoding="utf-8")
    for symbol in ("one", "two"):
        manifest = json.loads((out / symbol / "seed_1" / "manifest.json").read_text())
        assert (manifest["title"], manifest["seed"]) == (f"Both, {symbol}", 1)


def test_one_bad_file_is_named_before_anything_is_trained(files, tmp_path, trained, capsys):
    one, two = files
    bad = {
        "short": sp500_bars(0, 300),
        "still": sp500_bars(0, 1000).assign(volume=1000.0),
        "broken": sp500_bars(0, 1000).assign(high=1.0),
    }
    for name, bars in bad.items():
        file = tmp_path / f"{name}.csv"
        bars.to_csv(file)
        out = tmp_path / "out"
        assert call("walk-forward", one, two, file, *SMALL, "--out", out)[0] in (1, 2)
        assert f"Error: {file}: " in capsys.readouterr().err
        assert not out.exists()
    assert call("walk-forward", one, two, tmp_path / "none.csv", *SMALL, "--out", out)[0] == 1
    assert "none.csv" in capsys.readouterr().err
    assert not trained


def test_files_of_one_name_are_refused(files, tmp_path, trained, capsys):
    one, _ = files
    (tmp_path / "other").mkdir()
    same = tmp_path / "other" / "ONE.csv"
    sp500_bars(0, 1000).to_csv(same)
    out = tmp_path / "out"
    assert call("walk-forward", one, same, *SMALL, "--out", out)[0] == 2
    told = capsys.readouterr().err
    assert f"found {one} and {same}; rename, or call once for each" in told
    assert not trained


def test_warm_folds_name_the_model_that_they_started_at(files, tmp_path, trained):
    out, store = tmp_path / "warm", tmp_path / "store"
    args = ["walk-forward", files[0], *SMALL, "--store", store]
    assert call(*args, "--warm-start", "--out", out)[0] == 0
    assert [start is None for _, _, start in trained] == [True, False]
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["trading"]["warm_start"] is True
    first, second = (load_artifact(out / "artifacts" / f"fold_{k}").training for k in (1, 2))
    assert first.parent is None
    assert second.parent is not None
    assert call(*args, "--reuse", "--out", tmp_path / "cold")[0] == 1
    assert call(*args, "--out", tmp_path / "cold")[0] == 0
    assert [start is None for _, _, start in trained] == [True, False, True]
    manifest = json.loads((tmp_path / "cold" / "manifest.json").read_text())
    assert "warm_start" not in manifest["trading"]
