"""Run it: `python -m benchmarks.speed [--quick] [--rounds N] [--only TASK ...]`."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.status import Status

from benchmarks.speed.contender import Size
from benchmarks.speed.line_up import contenders, missing_peers
from benchmarks.speed.page import numbers, page
from benchmarks.speed.run import measure
from benchmarks.speed.summary import verdicts
from benchmarks.speed.tasks import TASKS
from glow_bt.threads import one_thread

FOLDER = Path(__file__).parents[1]
QUICK = ("encode-1", "encode-256", "sample-1000", "train-256")


def main(words: Sequence[str]) -> int:
    """Time, print the page, and write speed.md and speed.json if every task was timed."""
    options = _options(words)
    chosen = options.only or (QUICK if options.quick else [task.key for task in TASKS])
    tasks = [task for task in TASKS if task.key in chosen]
    rounds = options.rounds or (3 if options.quick else None)
    size = Size()
    with one_thread(), warnings.catch_warnings(), _progress() as tick:
        warnings.simplefilter("ignore")  # of the peers, which use what torch means to remove
        everyone = contenders(size, compiled=not options.quick)
        slice_seconds = 0.002 if options.quick else 0.02
        measured = measure(everyone, tasks, size.features, rounds, slice_seconds, tick)
        found = verdicts(measured.seconds, {c.name: c.group for c in everyone})
        results = numbers(measured, everyone, size, found, _command(words))
    text = page(results)
    print(text)
    for name in missing_peers():
        print(f"{name} is not installed and was left out: pip install 'glow-bt[bench]'")
    if options.out is not None or tasks == TASKS:
        folder = options.out or FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "speed.md").write_text(text, encoding="utf-8")
        (folder / "speed.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


def _command(words: Sequence[str]) -> str:
    return f'make bench-speed ARGS="{" ".join(words)}"' if words else "make bench-speed"


def _options(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    keys = [task.key for task in TASKS]
    parser.add_argument("--quick", action="store_true", help="few rounds, nothing compiled")
    parser.add_argument("--rounds", type=int, help="how often each contender is timed")
    parser.add_argument("--only", nargs="+", choices=keys, metavar="TASK", help=", ".join(keys))
    parser.add_argument("--out", type=Path, help="folder of speed.md and speed.json")
    return parser.parse_args(words)


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Show what is going on, on a terminal only."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda message: None
        return
    with Status("starting", console=console) as status:
        yield status.update


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
