"""A folder of risk results: whole or not at all, checkable from its forecasts, refused damaged."""

import json

import numpy as np
import pandas as pd
import pytest

from glow_bt.errors import ResultsError
from glow_bt.evaluation import risk_folder
from glow_bt.evaluation.risk_folder import read_risk, refuse_existing, write_risk
from glow_bt.evaluation.risk_summary import summarize
from tests.evaluation.risk_studies import made_up_study

STUDY = made_up_study(400)


@pytest.fixture
def write(monkeypatch):
    """Write a folder without its page, which other tests look at."""
    monkeypatch.setattr(risk_folder, "write_risk_page", lambda *args, **kwargs: [])
    return lambda folder, **options: write_risk(folder, STUDY, title="Hours", **options)


def test_the_table_follows_from_the_forecasts_alone(write, tmp_path):
    write(tmp_path / "risk")
    report = json.loads((tmp_path / "risk" / "risk.json").read_text())
    run = read_risk(tmp_path / "risk")
    again = summarize(run.study, seed=report["manifest"]["seed"])
    assert again == {key: report[key] for key in ("n", "models", "comparisons")}
    assert run.report == report
    assert list(run.study.stamps) == list(STUDY.stamps)
    assert list(run.study.bounds) == list(STUDY.bounds)


def test_a_stranger_can_check_a_cell_with_pandas(write, tmp_path):
    run = write(tmp_path / "risk")
    frame = pd.read_parquet(tmp_path / "risk" / "forecasts.parquet")
    for model, rows in frame.groupby("model"):
        told = run.report["models"][model]
        came = rows["realised_log_return"]
        assert told["levels"]["0.025"]["violations"] == (came < rows["var_0.025"]).sum()
        assert told["levels"]["0.975"]["violations"] == (came > rows["var_0.975"]).sum()
        excess = came - rows["var_0.05"]
        loss = ((0.05 - (excess < 0)) * excess).mean()
        assert told["levels"]["0.05"]["quantile_loss"] == pytest.approx(loss, rel=1e-12)
        if told["nll"] is not None:
            assert told["nll"] == pytest.approx(-rows["log_prob"].mean(), rel=1e-12)
        assert (rows["es_0.01"] < rows["var_0.01"]).all()
        assert len(rows) == run.report["n"] == 400


def test_risk_json_has_the_keys_that_were_promised(write, tmp_path):
    report = write(tmp_path / "risk").report
    assert list(report) == ["n", "models", "comparisons", "manifest"]
    assert list(report["models"]) == list(STUDY.forecasts)
    cell = report["models"]["flow"]["levels"]["0.01"]
    assert {"violations", "kupiec_p", "christoffersen_p", "quantile_loss"} <= set(cell)
    assert {"nll", "levels", "es"} <= set(report["models"]["flow"])
    text = (tmp_path / "risk" / "risk.json").read_text()
    assert "NaN" not in text
    assert report["models"]["historical"]["nll"] is None
    assert report["manifest"]["title"] == "Hours"


def test_it_is_all_there_page_included(tmp_path):
    write_risk(tmp_path / "deep" / "risk", STUDY, title="Hours")
    assert {path.name for path in (tmp_path / "deep" / "risk").iterdir()} == {
        "risk.html", "risk.json", "forecasts.parquet", "pictures",
    }  # fmt: skip
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["risk"]


def test_results_are_replaced_only_when_asked(write, tmp_path):
    write(tmp_path / "risk")
    (tmp_path / "risk" / "mark").touch()
    with pytest.raises(ResultsError, match="already"):
        write(tmp_path / "risk")
    write(tmp_path / "risk", overwrite=True)
    assert not (tmp_path / "risk" / "mark").exists()
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty", overwrite=True)


@pytest.mark.parametrize("kind", ["file", "folder", "another json"])
def test_nothing_else_is_ever_replaced(write, tmp_path, kind):
    target = tmp_path / "precious"
    if kind == "file":
        target.write_text("thesis")
    else:
        target.mkdir()
        (target / "risk.json").write_text('{"models": []}' if kind == "another json" else "")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ResultsError, match="remove it yourself"):
        write(target, overwrite=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_working_folder_is_refused(write, tmp_path, monkeypatch):
    write(tmp_path / "risk")
    monkeypatch.chdir(tmp_path / "risk")
    with pytest.raises(ResultsError, match="the working folder"):
        refuse_existing(".", overwrite=True)


def test_a_full_disk_is_told_in_one_line_and_leaves_the_old(write, tmp_path, monkeypatch):
    write(tmp_path / "risk")

    def fail(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(risk_folder, "write_risk_page", fail)
    with pytest.raises(ResultsError, match=r"cannot be: No space.*choose another place"):
        write(tmp_path / "risk", overwrite=True)
    read_risk(tmp_path / "risk")
    assert [path.name for path in tmp_path.iterdir()] == ["risk"]


@pytest.mark.parametrize("name", ["risk.json", "forecasts.parquet"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "rubbish"])
def test_a_damaged_folder_is_refused_with_a_remedy(write, tmp_path, name, damage):
    write(tmp_path / "risk")
    file = tmp_path / "risk" / name
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"\xff{")
    with pytest.raises(ResultsError, match=r"expected a .*run .* again"):
        read_risk(tmp_path / "risk")


def test_forecasts_without_a_column_or_with_rows_missing_are_damage(write, tmp_path):
    write(tmp_path / "risk")
    file = tmp_path / "risk" / "forecasts.parquet"
    frame = pd.read_parquet(file)
    for damaged in (frame.drop(columns="es_0.05"), frame.iloc[:-1]):
        damaged.to_parquet(file)
        with pytest.raises(ResultsError, match="damaged"):
            read_risk(tmp_path / "risk")


def test_results_of_another_version_are_refused(write, tmp_path):
    write(tmp_path / "risk")
    file = tmp_path / "risk" / "risk.json"
    report = json.loads(file.read_text())
    report["manifest"]["schema_version"] = 99
    file.write_text(json.dumps(report))
    with pytest.raises(ResultsError, match="schema version 1, found 99"):
        read_risk(tmp_path / "risk")


def test_forecasts_are_kept_to_the_last_bit(write, tmp_path):
    write(tmp_path / "risk")
    kept = read_risk(tmp_path / "risk").study
    for name, own in STUDY.forecasts.items():
        other = kept.forecasts[name]
        for values in ("returns", "log_prob", "pit", "quantiles", "shortfalls"):
            np.testing.assert_array_equal(getattr(own, values), getattr(other, values))
        assert own.levels == other.levels
