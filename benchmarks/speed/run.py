"""Times every task and keeps what came out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.speed.contender import Call, Contender
from benchmarks.speed.tasks import Task
from benchmarks.speed.timing import interleaved


@dataclass
class Measured:
    """What a run came to.

    Attributes:
        seconds: a call's, one number a round, by contender, by task.
        left_out: why a contender has no time, by "task, contender".
    """

    seconds: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def measure(
    contenders: Sequence[Contender],
    tasks: Sequence[Task],
    features: int,
    rounds: int | None = None,
    slice_seconds: float = 0.02,
    tick: Callable[[str], None] = lambda message: None,
) -> Measured:
    """Time the tasks one after another, the contenders of each interleaved.

    Args:
        contenders: what to compare.
        tasks: on what.
        features: width of the rows.
        rounds: instead of each task's own number.
        slice_seconds: least time for a contender in a round.
        tick: called with what is going on, before each start and after each round.
    """
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(max(task.rows for task in tasks), features, generator=generator)
    measured = Measured()
    for task in tasks:
        calls = {}
        for contender in contenders:
            tick(f"{task.key}: preparing {contender.name}")
            call = _ready(task, contender, x, measured)
            if call is not None:
                calls[contender.name] = call
        timing = partial(tick, f"{task.key}: timing")
        measured.seconds[task.key] = interleaved(
            calls, rounds or task.rounds, slice_seconds, tick=timing
        )
    return measured


def _ready(task: Task, contender: Contender, x: Tensor, measured: Measured) -> Call | None:
    """Return the contender's call after one that went well, or None."""
    try:
        call = task.call(contender, x)
        if call is None:
            return None
        result = call()
    except RuntimeError as error:  # torch.compile's too
        reason = str(error).strip().splitlines()[0]
        measured.left_out[f"{task.key}, {contender.name}"] = f"{type(error).__name__}: {reason}"
        return None
    if task.kind == "encode" and result is not None:
        _check(contender.name, result, x[: task.rows].shape)
    return call


def _check(name: str, result: tuple[Any, Any], shape: Sequence[int]) -> None:
    """Refuse a contender whose latents or densities are not what was asked for."""
    z, log_prob = (np.asarray(part) for part in result)
    if z.shape != tuple(shape) or log_prob.shape != z.shape[:1]:
        raise ValueError(
            f"expected latents {tuple(shape)} and one density a row of {name}, "
            f"found {z.shape} and {log_prob.shape}"
        )
    if not (np.isfinite(z).all() and np.isfinite(log_prob).all()):
        raise ValueError(f"expected finite latents and densities of {name}, found others")
