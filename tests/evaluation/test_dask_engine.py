"""Dask with a real scheduler and worker processes, one of which is killed in mid-run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from glow_bt.artifact.manifest import manifest_of, tensors_of
from glow_bt.errors import ConfigError, TrainingError
from glow_bt.evaluation import dask_backend
from glow_bt.evaluation.engines import Engine, Task, run_tasks
from glow_bt.evaluation.walk_forward import train_walk_forward
from tests.evaluation import unit_tasks
from tests.models import small_config, sp500_bars

pytestmark = [
    pytest.mark.skipif(
        find_spec("distributed") is None, reason="needs Dask: pip install 'glow-bt[dask]'"
    ),
    # What Dask leaves open or says of itself while processes die around it.
    pytest.mark.filterwarnings("default"),
]

ROOT = Path(__file__).parents[2]


def start(*command, folder):
    """Start a part of a cluster that has this checkout's modules, without a nanny's help."""
    return subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_" + command[0], *command[1:]],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A scheduler's address, and two worker processes of one thread each."""
    folder = tmp_path_factory.mktemp("dask")
    file = folder / "scheduler.json"
    here = ["--host", "127.0.0.1", "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
    parts = [
        start("scheduler", *here, "--port", "0", "--scheduler-file", str(file), folder=folder)
    ]
    deadline = time.monotonic() + 30
    while not file.exists() or not file.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    address = json.loads(file.read_text())["address"]
    worker = ["worker", address, *here, "--nthreads", "1", "--no-nanny"]
    worker += ["--preload", "tests.short_training"]
    parts += [start(*worker, folder=folder) for _ in range(2)]
    yield address, parts[1:]
    for part in reversed(parts):
        part.kill()
        part.wait()


class Killer:
    """Kills a worker as soon as the first model is there."""

    def __init__(self, worker):
        self.worker = worker
        self.labels = []

    def begin(self, total, kept):
        pass

    def epoch(self, label, flow, epoch, max_epochs):
        raise AssertionError("no epoch is told from elsewhere")

    def done(self, label):
        if not self.labels:
            self.worker.send_signal(signal.SIGKILL)
            self.worker.wait()
        self.labels.append(label)


def test_results_are_those_of_one_process_though_a_worker_is_killed_in_mid_run(cluster, tmp_path):
    address, workers = cluster
    bars, config = sp500_bars(0, 1000), small_config(max_epochs=2)
    divided = {"n_folds": 3, "test_fraction": 0.15}
    expected = train_walk_forward(bars, config, **divided)
    killer = Killer(workers[0])
    found = train_walk_forward(
        bars,
        config,
        **divided,
        engine=Engine("dask", dask_address=address),
        store=tmp_path / "store",
        progress=killer,
    )
    assert workers[0].returncode == -signal.SIGKILL
    assert sorted(killer.labels) == [f"fold {k}, seed 0" for k in range(1, 4)]
    for model, whole in zip(found, expected, strict=True):
        assert model.scores == whole.scores
        assert manifest_of(model.artifact) == manifest_of(whole.artifact)
        tensors = tensors_of(whole.artifact)
        for name, tensor in tensors_of(model.artifact).items():
            assert tensor.equal(tensors[name]), name


def test_a_task_that_loses_every_worker_is_named():
    tasks = [Task(f"key {i}", f"task {i}", lambda i=i: (i,)) for i in range(3)]
    engine, found = Engine("dask", jobs=2, retries=0), []
    results = run_tasks(unit_tasks.die_always, tasks, engine)
    with pytest.raises(TrainingError, match="task 1, found its worker lost"):
        found.extend(key for key, _ in results)
    assert sorted(found) in ([], ["key 0", "key 2"])


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setattr(dask_backend, "_CONNECT_SECONDS", 1)
    tasks = [Task("key", "task", lambda: (0,))]
    with pytest.raises(ConfigError, match=r"a Dask scheduler at tcp://127.0.0.1:9, found none"):
        list(
            run_tasks(
                unit_tasks.process_id, tasks, Engine("dask", dask_address="tcp://127.0.0.1:9")
            )
        )


@pytest.mark.parametrize("address", ["", "nonsense://a", "tcp://127.0.0.1"])
def test_an_address_that_is_none_is_refused_at_once(address):
    with pytest.raises(ConfigError, match="the address of a Dask scheduler, such as tcp://"):
        list(run_tasks(unit_tasks.process_id, [], Engine("dask", dask_address=address)))


def test_workers_with_other_code_are_refused(cluster, monkeypatch):
    monkeypatch.setattr(dask_backend, "code_sha256", lambda: "0" * 64)
    engine = Engine("dask", dask_address=cluster[0])
    with pytest.raises(ConfigError, match=r"found at tcp://127\S* source code with sha256 \w+;"):
        list(run_tasks(unit_tasks.process_id, [], engine))


def test_a_task_waits_for_no_worker_where_all_are_gone(cluster, monkeypatch):
    """The last test of the cluster: one of its workers is left, and takes a task and dies."""
    monkeypatch.setattr(dask_backend, "_DESERTED_SECONDS", 0)
    address, workers = cluster
    for worker in workers[:-1]:
        worker.kill()
    engine, tasks = Engine("dask", dask_address=address), [Task("key", "task 1", lambda: (1,))]
    with pytest.raises(TrainingError, match=r"task 1, found its worker lost .*no worker is left"):
        list(run_tasks(unit_tasks.die_always, tasks, engine))
    assert workers[-1].wait(10) == -signal.SIGKILL


def test_the_only_worker_is_another_process():
    tasks = [Task(f"key {i}", f"task {i}", lambda i=i: (i,)) for i in range(2)]
    found = dict(run_tasks(unit_tasks.process_id, tasks, Engine("dask", jobs=1)))
    assert os.getpid() not in {process for _, process in found.values()}
