"""Ray with real worker processes, one of which is killed in mid-run.

Where Ray is not installed, as in CI, nothing of this runs.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Thread

import pytest

from glow_bt.cli import main
from glow_bt.errors import TrainingError
from glow_bt.evaluation import run_folder
from glow_bt.evaluation.engines import Engine, Task, run_tasks
from tests.evaluation import unit_tasks
from tests.models import sp500_bars

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="needs ray: pip install 'glow-bt[ray]'"),
    pytest.mark.skipif(sys.platform != "linux", reason="finds Ray's workers in /proc"),
    # What Ray leaves open or says of itself while processes die around it.
    pytest.mark.filterwarnings("default"),
]

SMALL = ["--hidden", 8, "--levels", 1, "--steps", 1, "--epochs", 2, "--regimes", 2]
SMALL += ["--members", 2, "--folds", 4, "--test-fraction", 0.3, "--no-ablations"]


def tasks(*arguments):
    return [Task(f"key {i}", f"task {i}", lambda own=own: own) for i, own in enumerate(arguments)]


def descendants(process):
    """Processes that a process has started, itself or through others."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has just ended
            continue
    found = [process]
    for parent in found:
        found += [child for child, its in parents.items() if its == parent]
    return found[1:]


class Killer(Thread):
    """Kills the first worker that it sees at work."""

    def __init__(self):
        super().__init__()
        self.killed = None
        self.over = Event()

    def run(self):
        while self.killed is None and not self.over.wait(0.02):
            for process in descendants(os.getpid()):
                try:
                    name = Path(f"/proc/{process}/cmdline").read_bytes()
                except OSError:
                    continue
                if name.startswith(b"ray::PoolActor.run_batch"):
                    os.kill(process, signal.SIGKILL)
                    self.killed = process
                    break

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error):
        self.over.set()
        self.join(10)


def test_a_run_is_that_of_one_process_though_a_worker_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "write_pages", lambda run: None)
    sp500_bars(0, 1000).to_csv(tmp_path / "bars.csv")

    def walk(name, *engine):
        words = ["walk-forward", tmp_path / "bars.csv", *SMALL, *engine, "--out", tmp_path / name]
        with redirect_stdout(io.StringIO()), pytest.raises(SystemExit) as end:
            main([str(word) for word in words])
        assert not end.value.code
        files = (path for path in (tmp_path / name).rglob("*") if path.is_file())
        return {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in files}

    expected = walk("local")
    with Killer() as killer:
        found = walk("ray", "--engine", "ray", "--jobs", 2)
    assert killer.killed is not None
    assert found.keys() == expected.keys()
    assert sum("artifacts/fold_" in name for name in found) >= 4
    assert [name for name, content in found.items() if content != expected[name]] == []


def test_a_lost_task_is_tried_again_and_one_that_loses_every_worker_is_named(tmp_path):
    given = tasks(*((i, str(tmp_path / "mark")) for i in range(4)))
    found = dict(run_tasks(unit_tasks.die_once, given, Engine("ray", jobs=2)))
    assert found == {f"key {i}": i for i in range(4)}
    with pytest.raises(TrainingError, match=r"task 1, found its worker lost 2 times") as error:
        list(run_tasks(unit_tasks.die_always, tasks((0,), (1,)), Engine("ray", jobs=2, retries=1)))
    assert "task 0" not in str(error.value)


def test_one_job_is_done_in_another_process():
    found = dict(run_tasks(unit_tasks.process_id, tasks((0,), (1,)), Engine("ray", jobs=1)))
    assert os.getpid() not in {process for _, process in found.values()}
