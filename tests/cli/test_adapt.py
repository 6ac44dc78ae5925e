"""`glow-bt adapt` as a person or a program calls it."""

from __future__ import annotations

import io
import json
import shutil
from contextlib import redirect_stdout

import pytest

from glow_bt.artifact import fingerprint, load_artifact, save_artifact
from glow_bt.cli import main
from tests.models import small_artifact, sp500_bars

QUICK = ["--steps", 60, "--learning-rate", 5e-3]


def call(*args):
    """Call adapt and return the exit code."""
    with pytest.raises(SystemExit) as end:
        main(["adapt", *map(str, args)])
    return int(end.value.code or 0)


def printed(*args):
    """Call adapt to success and return what it printed on standard output."""
    with redirect_stdout(io.StringIO()) as output:
        assert call(*args) == 0
    return output.getvalue()


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with the small model and 400 bars that it has not seen."""
    folder = tmp_path_factory.mktemp("adapt")
    save_artifact(small_artifact(), folder / "model")
    sp500_bars(0, 960).to_csv(folder / "bars.csv")
    return folder


def test_it_writes_a_model_that_names_its_parent_and_says_what_it_kept(workplace, tmp_path):
    out = tmp_path / "new"
    said = printed(workplace / "bars.csv", "--model", workplace / "model", "--out", out, *QUICK)
    child = load_artifact(out)
    metrics = child.training.metrics
    lines = [
        f"{name}: held-out NLL {metrics[f'{name}_held_out_nll_before']:.4f} -> "
        f"{metrics[f'{name}_held_out_nll_after']:.4f}, "
        f"{'kept' if metrics[f'{name}_kept'] else 'dropped'}"
        for name in ("state", "return")
    ]
    first = f"400 bars after {small_artifact().training.trained_until}"
    expected = [first, *lines, f"wrote {out}"]
    assert said.splitlines() == expected
    assert lines[0].endswith("kept")
    assert child.training.parent == fingerprint(small_artifact())


def test_json_says_the_same(workplace, tmp_path, capsys):
    out = tmp_path / "new"
    args = [workplace / "bars.csv", "--model", workplace / "model", "--out", out, "--seed", 4]
    assert call(*args, *QUICK, "--held-out", 0.3, "--json") == 0
    captured = capsys.readouterr()
    assert captured.err.startswith("note: ")  # of the days after 11 September 2001
    assert captured.err.count("\n") == 1
    said, child = json.loads(captured.out), load_artifact(out)
    record = child.training
    assert said["out"] == str(out)
    assert said["kept"] is True
    assert said["flows"]["state"] == {
        "nll_before": record.metrics["state_held_out_nll_before"],
        "nll_after": record.metrics["state_held_out_nll_after"],
        "steps": 60,
        "kept": True,
    }
    assert said["latent_shift"] == record.metrics["latent_shift"] > 0
    assert said["new_bars"] == 400
    assert said["seed"] == record.seed == 4
    assert said["parent"] == record.parent == fingerprint(small_artifact())
    assert said["fingerprint"] == fingerprint(child)
    assert said["trained_until"] == record.trained_until.isoformat()
    own = {"max_steps": 60, "learning_rate": 5e-3, "held_out": 0.3}
    assert record.config["adapt"] == own


def test_when_nothing_is_kept_no_folder_is_written(workplace, tmp_path, capsys):
    sp500_bars(0, 1260).to_csv(tmp_path / "bars.csv")
    args = [tmp_path / "bars.csv", "--model", workplace / "model", "--out", tmp_path / "new"]
    wild = ["--steps", 60, "--learning-rate", 1.0]
    said = printed(*args, *wild).splitlines()
    assert [line.rsplit(", ")[-1] for line in said[1:3]] == ["dropped", "dropped"]
    assert said[3].startswith(f"nothing is better than {workplace / 'model'}: it stays in use")
    facts = json.loads(printed(*args, *wild, "--json"))
    assert facts["kept"] is False
    assert facts["out"] is None
    assert facts["parent"] is None
    assert facts["fingerprint"] == fingerprint(small_artifact())
    assert [path.name for path in tmp_path.iterdir()] == ["bars.csv"]


def test_a_fit_that_ends_nowhere_is_null_in_json(workplace, tmp_path):
    args = [workplace / "bars.csv", "--model", workplace / "model", "--out", tmp_path / "new"]
    facts = json.loads(printed(*args, "--learning-rate", 1e30, "--steps", 5, "--json"))
    assert facts["flows"]["state"]["nll_after"] is None


def test_a_model_may_be_replaced_by_what_it_became(workplace, tmp_path):
    model = shutil.copytree(workplace / "model", tmp_path / "model")
    args = [workplace / "bars.csv", "--model", model, "--out", model, *QUICK]
    assert call(*args) == 1
    printed(*args, "--overwrite")
    assert load_artifact(model).training.parent == fingerprint(small_artifact())


def test_an_existing_folder_is_refused_before_any_work(workplace, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("glow_bt.training.adapt", None)
    args = [workplace / "bars.csv", "--model", workplace / "model", "--out", workplace / "model"]
    assert call(*args) == 1
    assert "already" in capsys.readouterr().err
    (tmp_path / "thesis.tex").write_text("precious")
    assert call(*args[:-1], tmp_path, "--overwrite") == 1
    assert "found another folder" in capsys.readouterr().err


def test_too_few_new_bars_says_how_many_suffice(workplace, tmp_path, capsys):
    file, out = tmp_path / "few.csv", tmp_path / "new"
    sp500_bars(0, 600).to_csv(file)
    assert call(file, "--model", workplace / "model", "--out", out) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "needs at least 374 bars, found 40" in told
    sp500_bars(0, 560 + 374).to_csv(file)
    assert call(file, "--model", workplace / "model", "--out", out, "--steps", 1) == 0


@pytest.mark.parametrize(
    "options",
    [["--steps", 0], ["--held-out", 1], ["--learning-rate", -1], ["--seed", -1], ["--steps", "x"]],
)
def test_a_setting_that_cannot_work_has_exit_code_2(options, workplace, tmp_path, capsys):
    args = [workplace / "bars.csv", "--model", workplace / "model", "--out", tmp_path / "new"]
    assert call(*args, *options) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1].startswith("Error: ")
    assert not (tmp_path / "new").exists()


def test_a_folder_that_is_no_model_is_one_line(workplace, tmp_path, capsys):
    args = [workplace / "bars.csv", "--model", tmp_path, "--out", tmp_path / "new", "--json"]
    assert call(*args) == 1
    assert "expected a model folder" in json.loads(capsys.readouterr().out)["error"]
