"""`glow-bt verify` as a person or a program calls it."""

import json
import subprocess
import sys

import pytest

from glow_bt.artifact import save_artifact
from glow_bt.cli import main
from tests.bt.market import random_bars
from tests.models import small_artifact, unseen_bars

CODE = """
import backtrader as bt
import pandas as pd


def momentum(bars):
    print("talks")
    out = pd.DataFrame({"momentum": bars["close"].pct_change(5)})
    out["scaled"] = out["momentum"] / out["momentum"].std()
    return out


def clean(bars):
    return bars["close"].pct_change(5)


def failing(bars):
    raise SystemExit("no more")


class Peeking(bt.Strategy):
    def next(self):
        if self.data.close[1] > self.data.close[0]:
            self.buy()


number = 3
"""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with bars, user code and a model."""
    folder = tmp_path_factory.mktemp("verify")
    (folder / "mine.py").write_text(CODE)
    (folder / "broken.py").write_text("x = 1\ny = x +\n")
    (folder / "raising.py").write_text("x = {}\nx['a']\n")
    random_bars(200).to_csv(folder / "bars.csv")
    unseen_bars(30).to_csv(folder / "unseen.csv")
    save_artifact(small_artifact(), folder / "model")
    return folder


def call(*args):
    """Call verify and return the exit code."""
    with pytest.raises(SystemExit) as end:
        main(["verify", *map(str, args)])
    return int(end.value.code or 0)


def test_a_leak_is_shown_with_its_line_and_exit_code_1(workplace, capsys):
    assert call(workplace / "mine.py:momentum", workplace / "bars.csv") == 1
    said = capsys.readouterr().out
    assert "looks ahead" in said
    assert "scaled" in said
    assert "mine.py:9" in said
    assert "194 bars, to the end" in said
    assert "over 200 bars, the future taken away at 60 of them: 1 finding." in " ".join(
        said.split()
    )
    assert "talks" not in said


def test_a_clean_function_ends_with_exit_code_0_and_says_what_was_tried(workplace, capsys):
    assert call(workplace / "mine.py:clean", workplace / "bars.csv", "--bars", 10) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "32 runs of" in said
    assert said.endswith("taken away at 10 of them: none of 1 outputs changed before it.")


def test_json_says_the_same_in_one_object(workplace, capsys):
    args = [workplace / "mine.py:momentum", workplace / "bars.csv", "--seed", 5, "--json"]
    assert call(*args) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["clean"] is False
    assert said["seed"] == 5
    assert said["outputs"] == ["momentum", "scaled"]
    assert said["cut_points"] == 60
    (leak,) = said["leaks"]
    assert leak["output"] == "scaled"
    assert leak["line"] == 9
    assert leak["ahead"] == 194
    assert leak["to_end"] is True
    assert leak["code"] == 'out["scaled"] = out["momentum"] / out["momentum"].std()'


def test_a_strategy_that_reads_past_the_end_has_leaked_not_failed(workplace, capsys):
    assert call(workplace / "mine.py:Peeking", workplace / "bars.csv") == 1
    said = capsys.readouterr().out
    assert "reads a later bar" in said
    assert "self.data.close[1]" in said


def test_a_module_and_a_model_are_found_by_name(workplace, capsys):
    target = "strategies.glow_strategy:GlowStrategy"
    args = [target, workplace / "unseen.csv", "--model", workplace / "model", "--bars", 3]
    assert call(*args) == 0
    assert "future taken away at 3 of them" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("{}/mine.py", "expected TARGET as module:name or file.py:name"),
        ("{}/mine.py:momentun", "did you mean momentum?"),
        ("{}/mime.py:momentum", "did you mean mine.py"),
        ("no_such_module_here:momentum", "found none called 'no_such_module_here'"),
        ("no_such_package.inside:momentum", "found none called 'no_such_package.inside'"),
        ("{}/mine.py:number", "number, a int; wrap it in a function"),
        ("{}/broken.py:x", "found SyntaxError"),
        ("{}/raising.py:x", "raising.py:2"),
        ("{}/mine.py:failing", "found SystemExit: no more at"),
        ("glow_bt.bt:GlowIndicator", "expected model="),
    ],
)
def test_what_gives_no_verdict_is_one_line_and_exit_code_2(workplace, target, message, capsys):
    assert call(target.format(workplace), workplace / "bars.csv") == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_a_model_for_a_target_without_that_parameter_is_refused(workplace, capsys):
    args = [workplace / "mine.py:clean", workplace / "bars.csv", "--model", workplace / "model"]
    assert call(*args) == 2
    assert "to have a parameter model, found none" in capsys.readouterr().err


def test_bars_that_cannot_be_read_are_no_verdict(workplace, capsys):
    assert call(workplace / "mine.py:clean", workplace / "none.csv") == 2
    assert "none.csv" in capsys.readouterr().err


def test_help_says_what_it_cannot_see(capsys):
    assert call("--help") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "It cannot see a leak that changes no compared value" in said
    assert "0 clean, 1 a leak was found, 2 no verdict" in said


def test_help_waits_for_neither_torch_nor_backtrader():
    code = "import sys, glow_bt.cli.verify; print(*{'torch', 'backtrader'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
