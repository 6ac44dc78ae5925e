"""`glow-bt search` as a person or a program calls it, and `--config` with what it wrote."""

from __future__ import annotations

import json
from dataclasses import replace

import pandas as pd
import pytest
from scipy.stats import norm

from glow_bt.artifact import load_artifact, save_artifact
from glow_bt.cli import main
from glow_bt.cli.options import train_config
from glow_bt.evaluation import run_folder
from glow_bt.statistics import expected_maximum_sharpe
from tests.models import small_artifact, sp500_bars

pytest.importorskip("optuna")

SMALL = ["--epochs", 1, "--members", 2, "--levels", 1, "--hidden", 8]
SPACE = {"num_steps": [1, 2], "learning_rate": {"low": 1e-3, "high": 1e-2}}


def call(*args):
    with pytest.raises(SystemExit) as end:
        main([*map(str, args)])
    return int(end.value.code or 0)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    sp500_bars(0, 2000).to_csv(folder / "bars.csv")
    (folder / "space.json").write_text(json.dumps(SPACE))
    return folder


def test_what_it_finds_trains_a_model(workplace, capsys):
    bars, out = workplace / "bars.csv", workplace / "found"
    words = ("--trials", 2, "--spans", 1, "--test-fraction", 0.35, *SMALL)
    space = ("--space", workplace / "space.json")
    assert call("search", bars, "--out", out, *space, *words, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    best = json.loads((out / "best.json").read_text())
    assert said["trials"] == best["search"]["trials"] == 2
    assert said["pbo"] == best["search"]["pbo"]
    assert set(said["best"]) == set(SPACE)

    model = workplace / "model"
    seed = ("--seed", 5)
    assert call("train", bars, "--config", out / "best.json", *seed, "--out", model) == 0
    until = pd.Timestamp(best["search"]["bars_until"])
    line = f"settings found by a search of 2 trials, bars until {until}"
    assert line in capsys.readouterr().out.splitlines()
    record = load_artifact(model).training
    changed = {name for name, value in best["config"].items() if record.config[name] != value}
    assert changed == {"seed"}
    assert record.search == best["search"]
    again = ("--config", out / "best.json", *seed, "--out", model, "--overwrite", "--json")
    assert call("train", bars, *again) == 0
    assert json.loads(capsys.readouterr().out)["search"] == best["search"]


def test_a_backtest_counts_the_trials_behind_a_model_and_tests_no_bar_that_they_used(
    workplace, capsys, monkeypatch
):
    monkeypatch.setattr(run_folder, "write_pages", lambda run: None)
    artifact, bars = small_artifact(), sp500_bars(0, 800)
    until = bars.index[600]
    record = {"trials": 7, "pbo": 0.5, "bars_until": until.isoformat()}
    model = replace(artifact, training=replace(artifact.training, search=record))
    save_artifact(model, workplace / "searched")
    words = ["--model", workplace / "searched", "--no-ablations", "--json"]
    warm_up = artifact.min_bars - 1
    # All bars; one too many of the warm-up; as many as the message says.
    for first, code in ((0, 1), (600 - warm_up, 1), (601 - warm_up, 0)):
        file, run = workplace / f"from-{first}.csv", workplace / f"backtest-{first}"
        bars.iloc[first:].to_csv(file)
        assert call("backtest", file, *words, "--trials", 3, "--out", run) == code
        said = capsys.readouterr()
        assert ("the search behind the model's settings used" in said.err) == code
        assert (f"at most {warm_up}, the warm-up, begin by then" in said.err) == code
        assert run.exists() != code
    assert json.loads((run / "manifest.json").read_text())["search"] == record
    found = json.loads(said.out)
    assert found["span"]["from"] == bars.index[601].isoformat()
    # Seven of the search, two more that were told.
    assert found["statistics"]["deflated_sharpe"]["num_trials"] == 9


def test_bars_that_a_search_used_are_not_tested(workplace, capsys, monkeypatch):
    monkeypatch.setattr(run_folder, "write_pages", lambda run: None)
    file = workplace / "best.json"
    search = {"trials": 7, "pbo": 0.5}
    config = {"num_levels": 1, "num_steps": 1, "hidden_dim": 8, "max_epochs": 1}
    bars = sp500_bars(0, 2000)
    words = ["walk-forward", workplace / "bars.csv", "--config", file, "--no-ablations"]
    words += ["--folds", 1, "--test-fraction", 0.1, "--members", 2, "--json"]
    for row, code in ((1800, 1), (1799, 0)):
        record = search | {"bars_until": bars.index[row].isoformat()}
        file.write_text(json.dumps({"config": config, "search": record}))
        assert call(*words, "--out", workplace / f"run-{row}") == code
        said = capsys.readouterr()
        assert ("the last bar that the search behind --config used" in said.err) == code
        assert (workplace / f"run-{row}").exists() != code
    manifest = json.loads((workplace / "run-1799" / "manifest.json").read_text())
    assert manifest["search"] == record
    fold = load_artifact(workplace / "run-1799" / "artifacts" / "fold_1")
    assert fold.training.search == record
    found = json.loads(said.out)["statistics"]
    deflated, moments = found["deflated_sharpe"], found["sharpe"]["glow"]
    assert deflated["num_trials"] == 7
    least = deflated["expected_maximum_per_bar"]
    assert least == pytest.approx(expected_maximum_sharpe(7, deflated["sharpe_variance"]))
    # Bailey & Lopez de Prado 2014, equation 2.
    shift = (moments["per_bar"] - least) / moments["standard_error"]
    assert deflated["probability"] == pytest.approx(norm.cdf(shift))
    assert deflated["probability"] < moments["probabilistic"]


def test_a_search_without_a_space_is_of_the_default_one(workplace, capsys, monkeypatch):
    seen = {}

    def seek(bars, out, **settings):
        seen.update(settings, bars=bars)
        raise KeyboardInterrupt

    monkeypatch.setattr("glow_bt.training.search.search", seek)
    assert call("search", workplace / "bars.csv", "--out", workplace / "new", *SMALL) == 1
    assert seen["space"] is None
    assert seen["bars"].index[-1] == sp500_bars(0, 800).index[-1]
    assert (seen["trials"], seen["objective"], seen["n_folds"]) == (30, "likelihood", 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "expected settings as a JSON file"),
        ("[1]", "expected settings among"),
        ('{"hiden_dim": 3}', "found 'hiden_dim'"),
        ('{"hidden_dim": 0}', "expected hidden_dim to be a whole number"),
    ],
)
def test_a_config_that_is_none_is_refused(workplace, tmp_path, capsys, content, message):
    file = tmp_path / "config.json"
    file.write_text(content)
    bars = workplace / "bars.csv"
    assert call("train", bars, "--config", file, "--out", tmp_path / "model") == 2
    assert message in capsys.readouterr().err


def test_too_few_bars_before_the_tests_are_told_as_such(workplace, tmp_path, capsys):
    words = ("--spans", 3, "--test-fraction", 0.8)
    assert call("search", workplace / "bars.csv", "--out", tmp_path / "new", *words) == 1
    said = capsys.readouterr().err
    assert "a search of 3 validation spans in the 20% of the bars before the tests" in said
    assert "found 400" in said


def test_without_a_config_nothing_is_said_of_a_search():
    settings = {"hidden_dim": 8, "config_file": None}
    assert train_config(settings).hidden_dim == 8
    assert settings == {"hidden_dim": 8}
