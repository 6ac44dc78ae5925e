"""Interleaved timing: each round times every contender once, in random order."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

Call = Callable[[], Any]

_MOST_CALLS = 2000


def interleaved(
    calls: Mapping[str, Call],
    rounds: int,
    slice_seconds: float = 0.02,
    seed: int = 0,
    tick: Callable[[], None] = lambda: None,
) -> dict[str, list[float]]:
    """Return seconds a call for each contender, one number a round.

    Seconds of processor time, of all threads of this process: other programs on the machine
    take none of it, and a second thread would be counted. What they do take (the cache, the
    processor's clock) slows all contenders of a round alike, so a ratio within a round means
    something where a single time does not. Short calls are repeated until a slice is full.

    Args:
        calls: what to time, by name; each is called three times before the first round.
        rounds: how many times each is timed.
        slice_seconds: least time to spend on a contender in one round.
        seed: of the order within the rounds.
        tick: called after each round.
    """
    repeats = {name: _calls_in(slice_seconds, call) for name, call in calls.items()}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    shuffle = random.Random(seed).shuffle
    with _no_garbage_collection():
        for _ in range(rounds):
            shuffle(order)
            for name in order:
                seconds[name].append(_time(calls[name], repeats[name]))
            tick()
    return seconds


def _calls_in(seconds: float, call: Call) -> int:
    _time(call, 2)  # compiles, fills caches
    once = max(_time(call, 1), seconds / _MOST_CALLS)
    return max(1, round(seconds / once))


def _time(call: Call, repeats: int) -> float:
    start = time.process_time()
    for _ in range(repeats):
        call()
    return (time.process_time() - start) / repeats


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
