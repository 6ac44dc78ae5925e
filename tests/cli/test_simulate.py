"""`glow-bt simulate` as a person or a program calls it, with a model whose law is known."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from glow_bt.artifact import save_artifact
from glow_bt.cli import main
from glow_bt.training import paths as training_paths
from tests.models import small_artifact, sp500_bars
from tests.path_models import known_model

FEW = ["--paths", 5, "--bars", 7]


def call(*args):
    """Call simulate and return the exit code."""
    with pytest.raises(SystemExit) as end:
        main(["simulate", *map(str, args)])
    return int(end.value.code or 0)


@pytest.fixture(autouse=True)
def fitted_to(monkeypatch):
    """Put a known model in the place of a fit; what it would be fitted to is kept."""
    seen = []

    def fit_paths(bars, config, progress):
        seen.append((len(bars), config.seed))
        progress(1, 1)
        return known_model(0.8, index=8.0, window=120, max_volatility=0.02)

    monkeypatch.setattr(training_paths, "fit_paths", fit_paths)
    return seen


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    path = tmp_path_factory.mktemp("simulate") / "bars.csv"
    sp500_bars(0, 800).to_csv(path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulate") / "model"
    save_artifact(small_artifact(), folder)
    return folder


def test_it_writes_the_paths_that_go_on_from_the_last_bar(bars, tmp_path, capsys, fitted_to):
    out = tmp_path / "new" / "paths.parquet"
    assert call(bars, "--out", out, *FEW, "--seed", 3) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[0].startswith("5 paths of 7 bars; the limit of volatility")
    assert captured.out.splitlines()[-1] == f"wrote {out}"
    assert fitted_to == [(800, 3)]
    frame = pd.read_parquet(out)
    model = known_model(0.8, index=8.0, window=120, max_volatility=0.02)
    expected = model.simulate(5, 7, start=sp500_bars(0, 800), seed=3).returns.T
    assert frame.columns.tolist() == [f"path_{k}" for k in range(5)]
    assert frame.to_numpy() == pytest.approx(expected, abs=0)


def test_json_is_one_object_with_the_facts(bars, tmp_path, capsys):
    out = tmp_path / "paths.parquet"
    assert call(bars, "--out", out, *FEW, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["out"], facts["paths"], facts["bars"]) == (str(out), 5, 7)
    assert facts["regime"] is None
    assert 0 <= facts["capped_bars"] <= facts["capped_paths"] <= 1


def test_a_regime_changes_where_paths_start(bars, model, tmp_path, capsys):
    written = []
    for regime in (0, 1):
        out = tmp_path / f"{regime}.parquet"
        assert call(bars, "--out", out, *FEW, "--regime", regime, "--model", model) == 0
        written.append(pd.read_parquet(out))
    assert not written[0].equals(written[1])
    out = tmp_path / "none.parquet"
    assert call(bars, "--out", out, *FEW, "--regime", 9, "--model", model) == 2
    assert "bars of regime 9 with 120 returns up to them, found" in capsys.readouterr().err
    assert not out.exists()


def test_the_report_judges_a_model_of_the_first_bars_by_the_rest(
    bars, tmp_path, capsys, fitted_to
):
    out = tmp_path / "paths.parquet"
    assert call(bars, "--out", out, *FEW, "--report") == 0
    said = capsys.readouterr().out
    assert "fidelity, 480 held-out returns beside 200 paths" in said
    assert "excess kurtosis: real" in said
    assert "of 160 statistics outside the intervals" in said
    assert fitted_to == [(800, 0), (320, 0)]
    assert call(bars, "--out", out, *FEW, "--report", "--overwrite", "--json") == 0
    report = json.loads(capsys.readouterr().out)["fidelity"]
    assert (report["num_real"], report["num_paths"]) == (480, 200)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--paths", 0], "expected --paths of at least 1, found 0"),
        (["--bars", 0], "expected --bars of at least 1, found 0"),
        (["--regime", 1], "expected --regime and --model together"),
        (["--model", "m"], "expected --regime and --model together"),
        (["--seed", -1], "seed"),
        (["--paths", "many"], "--help"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(bars, tmp_path, capsys, args, told):
    out = tmp_path / "paths.parquet"
    assert call(bars, "--out", out, *args) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert told in captured.err
    assert not out.exists()


def test_other_files_are_refused_before_any_work(bars, tmp_path, capsys, fitted_to):
    assert call(bars, "--out", tmp_path / "paths.csv", *FEW) == 2
    assert "ending .parquet, found paths.csv" in capsys.readouterr().err
    there = tmp_path / "there.parquet"
    there.touch()
    assert call(bars, "--out", there, *FEW) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert call(tmp_path / "none.csv", "--out", tmp_path / "a.parquet", *FEW) == 1
    assert fitted_to == []
