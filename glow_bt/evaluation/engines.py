"""Where units of work run: in this process, in others beside it, on a Dask or a Ray cluster.

Outside this process it is joblib that runs them, one call a task, whatever the engine; what
differs is joblib's backend. A worker that is lost (killed, out of memory, unplugged) takes the
task that it was at with it. Such a task is tried again, alone, so that it can be told from those
that were merely near.
"""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import Any, cast

import joblib
from joblib.externals.loky import get_reusable_executor

from glow_bt.errors import ConfigError, GlowError, MissingExtraError, TrainingError
from glow_bt.evaluation.dask_backend import FEWEST_PROCESSES, Lost, dask_backend

__all__ = ["ENGINES", "Engine", "Task", "run_tasks"]

ENGINES = ("local", "dask", "ray")

# How often a worker looks whether the process that it works for is still there.
_WATCH_SECONDS = 0.5


@dataclass(frozen=True)
class Engine:
    """Where to run.

    Attributes:
        name: "local", or "dask" or "ray", which need the extra of that name.
        jobs: processes on this machine; -1 for one a processor.
        dask_address: of a Dask scheduler, such as "tcp://10.0.0.1:8786", whose workers are then
            all used; None starts `jobs` workers here. Ray finds its cluster by RAY_ADDRESS.
        retries: how often a task is tried again whose worker was lost. A Dask scheduler that
            was started elsewhere goes by its own setting, distributed.scheduler.allowed-failures.

    Raises:
        ConfigError: on an unknown engine, or settings that do not belong together.
    """

    name: str = "local"
    jobs: int = 1
    dask_address: str | None = None
    retries: int = 2

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise ConfigError(
                f"expected an engine among {', '.join(ENGINES)}, found {self.name!r}"
            )
        if type(self.jobs) is not int or (self.jobs < 1 and self.jobs != -1):
            raise ConfigError(
                f"expected a number of jobs from 1 on, or -1 for one a processor, found "
                f"{self.jobs!r}"
            )
        if self.dask_address is not None and self.name != "dask":
            raise ConfigError(
                f"expected a Dask address with engine dask only, found it with {self.name}; "
                "choose engine dask or leave the address out"
            )
        if type(self.retries) is not int or self.retries < 0:
            raise ConfigError(f"expected retries of 0 or more, found {self.retries!r}")

    @property
    def num_processes(self) -> int:
        """Processes on this machine."""
        return self.jobs if self.jobs > 0 else joblib.cpu_count()

    @property
    def in_process(self) -> bool:
        """Whether work is done in the calling process."""
        return self.name == "local" and self.num_processes == 1


@dataclass(frozen=True, eq=False)
class Task:
    """A call to make.

    Attributes:
        key: unique.
        label: how errors name it.
        arguments: returns what the function is called with; called when the task's turn comes.
        after: key of a task whose result must have been yielded before, if there is one.
    """

    key: str
    label: str
    arguments: Callable[[], tuple[object, ...]]
    after: str | None = None


@dataclass(frozen=True, eq=False)
class _Session:
    """An engine that is up.

    Attributes:
        lost: what joblib raises when a worker is lost.
        width: calls under way at a time.
        streams: whether results come one by one; else a batch of `width` calls at a time.
        retries: what is left to this module of trying again.
    """

    lost: tuple[type[Exception], ...]
    width: int | str
    streams: bool
    retries: int


@dataclass(frozen=True)
class _Failure:
    """An error that a task ended in, as it can go from process to process."""

    message: str
    is_setting: bool


def run_tasks(
    function: Callable[..., Any], tasks: Sequence[Task], engine: Engine
) -> Iterator[tuple[str, Any]]:
    """Call a function of a module once a task, and yield keys and results as they come.

    Tasks that wait for others are called in rounds: of all that wait for nothing, so many that
    every process is busy, in the order given. No task may wait for one that is not given.

    Workers that were started for it are gone when the iterator ends, by whatever.

    Raises:
        MissingExtraError: if the engine is not installed.
        ConfigError: if the Dask scheduler does not answer or has no workers, if a Ray cluster is
            too small, or a task ended in an error of that kind.
        TrainingError: naming the task, if it ended in another error of this package, or its
            worker was lost again and again.
    """
    missing = {task.key: task for task in tasks}
    losses: Counter[str] = Counter()
    with _session_of(engine) as session:
        while missing:
            suspects = [task for key, task in missing.items() if losses[key]]
            width = 1 if suspects else session.width
            begun: list[Task] = []
            reasons: list[object] = []
            calls = _calls(function, suspects or _ready(missing, width), begun)
            try:
                with closing(_results(calls, width, session, reasons)) as results:
                    for key, outcome in results:
                        if isinstance(outcome, _Failure):
                            kind = ConfigError if outcome.is_setting else TrainingError
                            raise kind(f"{missing[key].label}: {outcome.message}")
                        del missing[key]
                        yield key, outcome
            except session.lost as error:
                reasons.append(error)
            for task in begun:
                if task.key in missing:
                    losses[task.key] += 1
                    if losses[task.key] > session.retries:
                        raise _named(task, engine, reasons)


def _ready(missing: Mapping[str, Task], width: int | str) -> list[Task]:
    """Return the tasks that wait for nothing; while others wait, as many as fill all processes."""
    ready = [task for task in missing.values() if task.after not in missing]
    if len(ready) == len(missing) or not isinstance(width, int):
        return ready
    return ready[: max(len(ready) // width, 1) * width]


def _named(task: Task, engine: Engine, reason: object) -> TrainingError:
    first = str(reason).strip().splitlines()[0]
    return TrainingError(
        f"expected a result of {task.label}, found its worker lost {engine.retries + 1} times "
        f"({first}); give workers more memory, or try it with engine local and one job"
    )


def _calls(
    function: Callable[..., Any], tasks: Sequence[Task], begun: list[Task]
) -> Iterator[Any]:
    """Yield joblib's calls; what is handed out is noted as begun."""
    for task in tasks:
        begun.append(task)
        yield joblib.delayed(_attempt)(function, task.key, task.arguments())


def _attempt(
    function: Callable[..., Any], key: str, arguments: tuple[object, ...]
) -> tuple[str, Any]:
    """Make a call; errors become values, for not all of them can be pickled."""
    try:
        return key, function(*arguments)
    except GlowError as error:
        return key, _Failure(str(error), isinstance(error, ConfigError))


def _results(
    calls: Iterator[Any], width: int | str, session: _Session, reasons: list[object]
) -> Generator[tuple[str, Any], None, None]:
    """Yield what comes of calls, but for those that were lost: why goes to the reasons."""
    settings = {"batch_size": 1, "pre_dispatch": width}
    if session.streams:
        outcomes = joblib.Parallel(return_as="generator_unordered", **settings)(calls)
        try:
            for outcome in outcomes:
                if isinstance(outcome, Lost):
                    reasons.append(outcome.reason)
                else:
                    yield outcome
        finally:
            with warnings.catch_warnings():
                # joblib warns of what is left undone: here that is meant.
                warnings.simplefilter("ignore", UserWarning)
                outcomes.close()
        return
    while wave := [call for _, call in zip(range(cast("int", width)), calls, strict=False)]:
        yield from joblib.Parallel(**settings)(wave)


@contextmanager
def _session_of(engine: Engine) -> Iterator[_Session]:
    opened = {"local": _local, "dask": _dask, "ray": _ray}[engine.name]
    with opened(engine) as session:
        yield session


@contextmanager
def _local(engine: Engine) -> Iterator[_Session]:
    processes = max(engine.num_processes, FEWEST_PROCESSES)
    width = engine.num_processes
    try:
        with joblib.parallel_config(
            "loky",
            n_jobs=processes,
            inner_max_num_threads=1,
            initializer=_serve,
            initargs=(os.getpid(),),
        ):
            yield _Session((BrokenProcessPool,), width, streams=True, retries=engine.retries)
    finally:
        get_reusable_executor(reuse=True).shutdown(wait=True, kill_workers=True)


def _serve(parent: int) -> None:
    """Make a worker of this process: one that goes when the process it works for is gone.

    Ctrl-C, which a terminal sends to all processes, is left to that one.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_SECONDS)
        os._exit(1)  # whatever is written is written whole or not at all

    Thread(target=watch, name="glow-bt-parent", daemon=True).start()


@contextmanager
def _dask(engine: Engine) -> Iterator[_Session]:
    with (
        dask_backend(engine.dask_address, engine.num_processes, engine.retries) as backend,
        joblib.parallel_config(backend, n_jobs=-1),
    ):
        # Its scheduler tries again by itself.
        yield _Session((), "n_jobs", streams=True, retries=0)


@contextmanager
def _ray(engine: Engine) -> Iterator[_Session]:
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError as error:
        raise MissingExtraError("ray", "ray", "engine ray") from error
    register_ray()
    started = not ray.is_initialized()
    here = started and "RAY_ADDRESS" not in os.environ
    if started:
        ray.init(
            num_cpus=max(engine.num_processes, FEWEST_PROCESSES) if here else None,
            include_dashboard=False if here else None,
            log_to_driver=False,
            logging_level="ERROR",
        )
    try:
        processors = int(ray.cluster_resources().get("CPU", 1))
        if processors < FEWEST_PROCESSES:
            raise ConfigError(
                f"expected a Ray cluster of {FEWEST_PROCESSES} processors or more, found "
                f"{processors}; add some, or choose engine local"
            )
        with joblib.parallel_config("ray", n_jobs=processors):
            lost = (ray.exceptions.RayError,)
            width = engine.num_processes if here else processors
            yield _Session(lost, width, streams=False, retries=engine.retries)
    finally:
        if started:
            ray.shutdown()
