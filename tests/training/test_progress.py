import io
import math

import pytest
from rich.console import Console

from glow_bt.training import TrainingProgress
from glow_bt.training.loop import Epoch


def terminal(force=True):
    return Console(file=io.StringIO(), force_terminal=force, width=160, color_system=None)


def shown(console):
    return console.file.getvalue()


def test_a_terminal_sees_nll_bits_per_dimension_and_epochs_of_each_flow():
    console = terminal()
    with TrainingProgress(console) as progress:
        progress("state", Epoch(1, 20.0, 16 * math.log(2) * 1.5, 1e-3, 0), 40, 16)
        progress("state", Epoch(2, 19.25, 16 * math.log(2) * 1.25, 1e-3, 3), 40, 16)
        progress("return", Epoch(7, 1.0, math.log(2), 1e-3, 0), 40, 1)
    last = [line for line in shown(console).splitlines() if "epochs" in line][-2:]
    assert "state" in last[0]
    assert "2/40 epochs" in last[0]
    assert "NLL 19.250 / 13.863 held out, 1.250 bits/dim, 3 steps skipped" in last[0]
    assert "return" in last[1]
    assert "7/40 epochs" in last[1]
    assert "NLL 1.000 / 0.693 held out, 1.000 bits/dim" in last[1]
    assert "skipped" not in last[1]


def test_an_objective_that_is_no_likelihood_has_no_bits():
    console = terminal()
    with TrainingProgress(console) as progress:
        progress("state", Epoch(1, 20.0, 16.5, 1e-3, 0, "loss"), 40, 16)
    assert "loss 20.000 / 16.500 held out " in shown(console)
    assert "bits" not in shown(console)


def test_labels_tell_folds_apart():
    console = terminal()
    with TrainingProgress(console) as progress:
        for fold in (1, 2):
            progress.labelled(f"fold {fold} ")("state", Epoch(1, 1.0, 1.0, 1e-3, 0), 5, 16)
    assert "fold 1 state" in shown(console)
    assert "fold 2 state" in shown(console)


def test_nothing_is_written_where_no_terminal_is():
    console = terminal(force=False)
    with TrainingProgress(console) as progress:
        progress("state", Epoch(1, 1.0, 1.0, 1e-3, 0), 5, 16)
    assert shown(console) == ""


def test_by_default_it_writes_to_standard_error(capsys):
    with TrainingProgress() as progress:
        progress("state", Epoch(1, 1.0, 1.0, 1e-3, 0), 5, 16)
    assert capsys.readouterr().out == ""


def test_an_epoch_without_a_likelihood_is_shown_as_such():
    console = terminal()
    with TrainingProgress(console) as progress:
        progress("state", Epoch(1, math.nan, math.inf, 1e-3, 9), 5, 16)
    assert "NLL nan / inf held out" in shown(console)
    assert "9 steps skipped" in shown(console)


def test_the_display_is_given_back_when_training_fails():
    console = terminal()
    with pytest.raises(RuntimeError), TrainingProgress(console):
        raise RuntimeError
    assert shown(console).endswith("\x1b[?25h")  # the cursor is shown again
