"""Engines run tasks, outlive lost workers and name what cannot be done."""

from __future__ import annotations

import os
import sys
import time
from contextlib import closing

import pytest

from glow_bt.errors import ConfigError, MissingExtraError, TrainingError
from glow_bt.evaluation.engines import ENGINES, Engine, Task, run_tasks
from tests.evaluation import unit_tasks

TWO = Engine(jobs=2)


def tasks(*arguments):
    return [Task(f"key {i}", f"task {i}", lambda own=own: own) for i, own in enumerate(arguments)]


def is_running(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_tasks_run_in_other_processes_that_are_gone_at_the_end():
    found = dict(run_tasks(unit_tasks.process_id, tasks(*((i,) for i in range(6))), TWO))
    assert {key: number for key, (number, _) in found.items()} == {f"key {i}": i for i in range(6)}
    workers = {process for _, process in found.values()}
    assert os.getpid() not in workers
    assert not any(is_running(process) for process in workers)


def test_workers_are_gone_when_nobody_asks_for_more():
    with closing(run_tasks(unit_tasks.process_id, tasks((0,), (1,), (2,)), TWO)) as results:
        _, (_, worker) = next(results)
        assert is_running(worker)
    assert not is_running(worker)


def test_workers_use_one_thread_each():
    assert dict(run_tasks(unit_tasks.threads, tasks((0,), (1,)), TWO)) == {
        "key 0": "1",
        "key 1": "1",
    }


def test_a_task_whose_worker_was_lost_is_tried_again(tmp_path):
    given = tasks(*((i, str(tmp_path / "mark")) for i in range(4)))
    found = dict(run_tasks(unit_tasks.die_once, given, TWO))
    assert found == {f"key {i}": i for i in range(4)}
    assert (tmp_path / "mark").exists()


def chains(count, length, mark):
    """Tasks of which each waits for the one before in its chain, the ends of chains last."""
    return [
        Task(
            f"{chain}.{number}",
            f"task {chain}.{number}",
            lambda number=number: (number, str(mark)),
            f"{chain}.{number - 1}" if number else None,
        )
        for number in range(length)
        for chain in range(count)
    ]


def test_tasks_wait_for_those_they_come_after_though_a_worker_is_lost(tmp_path):
    found = list(run_tasks(unit_tasks.die_once, chains(3, 2, tmp_path / "mark"), TWO))
    assert (tmp_path / "mark").exists()
    assert sorted(found) == [(f"{chain}.{n}", n) for chain in range(3) for n in range(2)]
    order = [key for key, _ in found]
    for chain in range(3):
        assert order.index(f"{chain}.0") < order.index(f"{chain}.1")


def test_a_task_that_loses_every_worker_is_named_and_its_neighbour_is_not():
    given = tasks((0,), (1,), (2,))
    begun = time.monotonic()
    with pytest.raises(TrainingError, match=r"task 1, found its worker lost 2 times") as error:
        list(run_tasks(unit_tasks.die_always, given, Engine(jobs=2, retries=1)))
    assert "task 0" not in str(error.value)
    assert time.monotonic() - begun < 60


@pytest.mark.parametrize(
    ("kind", "expected", "told"),
    [
        ("bars", TrainingError, "task 0: a test needs at least 10 bars, found 5"),
        ("setting", ConfigError, "task 0: expected something else"),
    ],
)
def test_an_error_in_a_worker_comes_back_in_one_line(kind, expected, told):
    with pytest.raises(expected, match=told):
        list(run_tasks(unit_tasks.fail, tasks((kind,)), TWO))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"name": "spark"}, "an engine among local, dask, ray, found 'spark'"),
        ({"jobs": 0}, "jobs from 1 on, or -1"),
        ({"jobs": -2}, "jobs from 1 on, or -1"),
        ({"jobs": 1.5}, "jobs from 1 on, or -1"),
        ({"dask_address": "tcp://127.0.0.1:1"}, "with engine dask only, found it with local"),
        ({"retries": -1}, "retries of 0 or more"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, told):
    with pytest.raises(ConfigError, match=told):
        Engine(**settings)


def test_one_local_job_needs_no_other_process():
    assert Engine().in_process
    assert not Engine(jobs=2).in_process
    assert not Engine("dask").in_process
    assert Engine(jobs=-1).num_processes >= 1


@pytest.mark.parametrize("name", [name for name in ENGINES if name != "local"])
def test_an_engine_that_is_not_installed_names_its_extra(name, monkeypatch):
    monkeypatch.setitem(sys.modules, {"dask": "distributed", "ray": "ray"}[name], None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'glow-bt\[{name}\]'"):
        list(run_tasks(unit_tasks.process_id, tasks((0,)), Engine(name)))
