"""A walk-forward that is killed at any instant goes on to the same models.

`python -m tests.evaluation.test_kills 20` kills as many calls, one after the other.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.evaluation.kill_driver import FOLDS, trained

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
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return output.splitlines()


def killed(store, jobs, seconds):
    """Kill a call so many seconds after training began; return how many units it had done.

    Its workers hold the pipe as well: that the reading ends shows that they are gone.
    """
    process = start(store, jobs)
    first = process.stdout.readline()
    assert first.startswith("begun"), process.stderr.read()
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    output, _ = process.communicate(timeout=30)
    return output.count("done")


def units(store):
    names = (path.name for path in store.iterdir()) if store.exists() else ()
    return {name for name in names if re.fullmatch("[0-9a-f]{64}", name)}


def kill_and_go_on(folder, jobs, seed, kills, longest):
    """Kill calls at random instants; return what one printed that was left alone.

    A call that is through before it is killed makes room for a new store.
    """
    draw, round_, store = random.Random(seed), 0, folder / "0"
    for _ in range(kills):
        before = len(units(store))
        done = killed(store, jobs, draw.uniform(0, longest))
        # What was told to be done is there; at most what was under way is lost.
        kept = len(units(store))
        assert before + done <= kept <= FOLDS
        if kept == FOLDS:
            round_ += 1
            store = folder / str(round_)
    kept = len(units(store))
    rest = finished(store, jobs)
    assert rest[0] == f"begun {kept}"
    assert len(units(store)) == FOLDS
    return [line.removeprefix("model ") for line in rest if line.startswith("model ")]


@pytest.mark.slow
def test_a_killed_walk_forward_of_two_processes_goes_on_to_the_models_of_one(tmp_path):
    assert kill_and_go_on(tmp_path, jobs=2, seed=0, kills=1, longest=6.0) == trained()


if __name__ == "__main__":
    expected = trained()
    for jobs in (1, 2):
        for seed in range(max(int(sys.argv[1]) // 4, 1)):
            with tempfile.TemporaryDirectory() as place:
                found = kill_and_go_on(Path(place), jobs, seed, kills=2, longest=8.0)
            print(jobs, seed, "the same" if found == expected else "DIFFERENT", flush=True)
