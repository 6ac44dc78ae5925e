import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked writers")


def kills(tmp_path, *what):
    """Return how many writers were killed; what they left is checked in there."""
    finished = subprocess.run(
        [sys.executable, ROOT / "tests/datafeeds/killed_writers.py", tmp_path, *what],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    return int(finished.stdout)


@pytest.mark.parametrize(("how", "least"), [("before", 30), ("halfway", 5)])
def test_a_kill_at_any_step_of_fetching_loses_and_doubles_nothing(tmp_path, how, least):
    assert kills(tmp_path, "fetch", how) >= least


@pytest.mark.parametrize(("how", "least"), [("before", 25), ("halfway", 3)])
def test_a_kill_at_any_step_of_forgetting_leaves_what_can_be_fetched_anew(tmp_path, how, least):
    assert kills(tmp_path, "forget", how) >= least


def test_a_kill_at_any_step_of_a_repair_leaves_what_can_be_repaired(tmp_path):
    assert kills(tmp_path, "repair", "before") >= 15


def test_kills_at_random_instants_lose_and_double_nothing(tmp_path):
    assert kills(tmp_path, "random", "20") >= 16
