"""A walk-forward that is killed at any instant goes on to the same models."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def start(store, jobs):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.evaluation.kill_driver", str(store), str(jobs)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(store, jobs):
    """Return what a call printed, line by line, once it is through."""
    process = start(store, jobs)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output.splitlines()


def killed(store, jobs, seconds):
    """Kill a call so many seconds after training began; return how many units it was through."""
    process = start(store, jobs)
    first = process.stdout.readline()
    assert first.startswith("begun"), process.stderr.read()
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    return output.count("done")


def units(store):
    return {path.name for path in store.iterdir() if re.fullmatch("[0-9a-f]{64}", path.name)}


def kill_and_compare(folder, whole, jobs, kills, longest, seed):
    """Kill so many calls at random instants, and hold the last one against a whole one."""
    draw = random.Random(seed)
    store, kept = folder / "store", 0
    for _ in range(kills):
        kept += killed(store, jobs, draw.uniform(0, longest))
        # What was told to be done is there; at most what was under way is lost.
        assert kept <= (len(units(store)) if store.exists() else 0) <= 3
        kept = len(units(store)) if store.exists() else 0
    rest = finished(store, jobs)
    assert rest[0] == f"begun {kept}"
    models = [line for line in rest if line.startswith("model")]
    assert len(models) == 3
    assert models == [line for line in whole if line.startswith("model")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("whole"), 1)


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_killed_walk_forward_goes_on_to_the_models_of_one_that_was_not(tmp_path, whole, jobs):
    kill_and_compare(tmp_path, whole, jobs, kills=1, longest=4.0, seed=jobs)
