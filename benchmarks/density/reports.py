"""What a density benchmark hands back, and how it is written as Markdown and JSON."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parent


@dataclass
class Report:
    """A benchmark's outcome.

    Attributes:
        title: first line of the page.
        notes: paragraphs under it: what was run and how settings were chosen.
        tables: Markdown tables by heading, see `table`.
        numbers: everything measured, ready for JSON.
    """

    title: str
    notes: list[str]
    tables: dict[str, str]
    numbers: dict[str, object] = field(default_factory=dict)


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def mean_and_spread(values: list[float], digits: int = 3) -> str:
    """Return "mean ± standard deviation" over seeds; a word where a value is not finite."""
    failed = sum(not math.isfinite(value) for value in values)
    if failed:
        return f"diverges ({failed} of {len(values)})"
    mean = statistics.fmean(values)
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    form = f".{digits}f" if abs(mean) < 1000 else ".1e"
    return f"{mean:{form}} ± {spread:{form}}"


def page_of(name: str, report: Report, seconds: float) -> str:
    """Return a report as Markdown."""
    return "\n\n".join(
        [
            f"# {report.title}",
            f"Command: `python -m benchmarks.density {name}` "
            f"({seconds / 60:.0f} min on {_machine()}).",
            *report.notes,
            *(f"## {heading}\n\n{body}" for heading, body in report.tables.items()),
        ]
    )


def write_report(name: str, report: Report, seconds: float) -> str:
    """Write NAME.md and NAME.json beside this file; return the Markdown."""
    page = page_of(name, report, seconds)
    (FOLDER / f"{name}.md").write_text(page + "\n", encoding="utf-8")
    numbers = {"seconds": round(seconds), "machine": _machine(), **report.numbers}
    text = json.dumps(_json_ready(numbers), indent=1, allow_nan=False)
    (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    return page


def _json_ready(value: object) -> object:
    """Return value with floats to six places, and null for those that are not finite."""
    if isinstance(value, dict):
        return {key: _json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_ready(item) for item in value]
    if isinstance(value, float):
        return round(float(value), 6) if math.isfinite(value) else None
    return value


def _machine() -> str:
    return (
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, "
        f"torch {torch.__version__}, numpy {np.__version__}"
    )
