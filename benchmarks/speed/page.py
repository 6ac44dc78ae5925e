"""The page and the numbers behind it."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed.contender import Contender, Size
from benchmarks.speed.run import Measured
from benchmarks.speed.summary import Spread, Verdict, fastest, ratios
from benchmarks.speed.tasks import BARE, BEST_PEER, TASKS, Task

_LIBRARIES = ("torch", "numpy", "numba", "normflows", "nflows", "zuko")
_HEADINGS = {
    "encode": "Latents and log-densities, time a call",
    "sample": "Sampling, time a call",
    "train": "Training, rows a second",
}


def numbers(
    measured: Measured,
    contenders: Sequence[Contender],
    size: Size,
    verdicts: Sequence[Verdict],
    command: str = "make bench-speed",
) -> dict[str, Any]:
    """Return everything measured, ready for JSON; times in seconds."""
    return {
        "command": command,
        "machine": machine(),
        "size": asdict(size),
        "contenders": {
            contender.name: {"group": contender.group, "parameters": contender.parameters}
            for contender in contenders
        },
        "tasks": {
            task: {
                name: asdict(Spread.of(seconds)) | _against(name, rounds, contenders)
                for name, seconds in rounds.items()
            }
            for task, rounds in measured.seconds.items()
        },
        "bars": [verdict.as_dict() for verdict in verdicts],
        "left_out": measured.left_out,
    }


def machine() -> dict[str, str | int]:
    """Return what the times depend on."""
    versions = {name: _version(name) for name in _LIBRARIES}
    return {
        "processor": _processor(),
        "processors": os.cpu_count() or 0,
        "load": f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown",
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: found for name, found in versions.items() if found},
    }


def page(results: Mapping[str, Any]) -> str:
    """Return the Markdown page of what `numbers` returned."""
    facts = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    size = ", ".join(f"{key} {value}" for key, value in results["size"].items())
    parts = [
        "# Speed",
        f"Command: `{results['command']}`. How it is measured and how to read it: "
        "[README](README.md).",
        f"Machine: {facts}.\n\nSize: {size}.",
        "## Bars\n\n" + _bars(results["bars"]),
    ]
    for kind, heading in _HEADINGS.items():
        tasks = [t for t in TASKS if t.kind == kind and results["tasks"].get(t.key)]
        if tasks:
            parts.append(f"## {heading}\n\nMedian (least).\n\n{_times(results, tasks)}")
    if results["left_out"]:
        lines = [f"- {who}: {why}" for who, why in results["left_out"].items()]
        parts.append("## Left out\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _bars(bars: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for bar in bars:
        is_peer = bar["against"] == BEST_PEER
        wanted = f"{'at least' if is_peer else 'at most'} {bar['factor']:g}x"
        what = "faster than the best peer" if is_peer else "the bare matrix products"
        rows.append(
            [
                bar["task"],
                bar["ours"],
                f"{wanted} {what}" + (f" ({bar['other']})" if is_peer else ""),
                f"{bar['ratio']:.2f}x",
                f"{bar['ratio_of_minima']:.2f}x",
                "met" if bar["met"] else "**not met**",
            ]
        )
    header = ["task", "ours", "bar", "ratio (median)", "ratio (of least times)", ""]
    return table(header, rows)


def _times(results: Mapping[str, Any], tasks: Sequence[Task]) -> str:
    rows = []
    for name, contender in results["contenders"].items():
        spreads = [results["tasks"][task.key].get(name) for task in tasks]
        if any(spreads):
            count = f"{contender['parameters']:,}" if contender["parameters"] else ""
            cells = [_cell(t, s) for t, s in zip(tasks, spreads, strict=True)]
            rows.append([name, count, *cells])
    return table(["", "parameters", *(_rows(task.rows) for task in tasks)], rows)


def _cell(task: Task, spread: Mapping[str, Any] | None) -> str:
    if spread is None:
        return "-"
    median, least = spread["median"], spread["minimum"]
    if task.kind == "train":
        return f"{task.rows / median:,.0f} ({task.rows / least:,.0f})"
    return f"{duration(median)} ({duration(least)})"


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def duration(seconds: float) -> str:
    """Return a time with three digits, in microseconds, milliseconds or seconds."""
    for unit, name in ((1e-6, "us"), (1e-3, "ms")):
        if seconds < 1000 * unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.3g} s"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _against(
    name: str, rounds: Mapping[str, Sequence[float]], contenders: Sequence[Contender]
) -> dict[str, float]:
    """Return a contender's time over that of the best peer and of the bare products."""
    peers = [c.name for c in contenders if c.group == "peer" and c.name in rounds]
    others = {"over_best_peer": fastest(rounds, peers), "over_bare": BARE}
    return {
        key: statistics.median(ratios(rounds[name], rounds[other]))
        for key, other in others.items()
        if other in rounds
    }


def _processor() -> str:
    names = Path("/proc/cpuinfo")
    if not names.exists():
        return platform.processor() or platform.machine()
    found = [line for line in names.read_text("utf-8").splitlines() if "model name" in line]
    return found[0].partition(":")[2].strip() if found else platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
