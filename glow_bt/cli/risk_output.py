"""What `glow-bt risk` shows: a table of models, and progress on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from glow_bt.evaluation.risk_summary import (
    SIGNIFICANT,
    cells_passed,
    display_name,
    level_name,
    lowest,
    p_value,
)
from glow_bt.terminal import table_console, terminal_progress

if TYPE_CHECKING:
    from glow_bt.evaluation.risk_study import RiskProgress

__all__ = ["print_risk", "risk_progress"]


def print_risk(report: Mapping[str, Any], console: Console | None = None) -> None:
    """Print what risk.json holds as tables on standard output: models, then the lower tails."""
    shown = console or table_console()
    models = report["models"]
    levels = list(next(iter(models.values()))["levels"])
    lower = [level for level in levels if float(level) < 0.5]
    table = Table(title=f"{report['n']:,} returns, out of sample")
    for head in ("", "NLL", "cells with p > 0.05", *(f"loss {level}, bp" for level in lower)):
        table.add_column(head, justify="right" if head else "left")
    best_nll = lowest([model["nll"] for model in models.values()])
    best = {
        level: lowest([model["levels"][level]["quantile_loss"] for model in models.values()])
        for level in lower
    }
    for name, model in models.items():
        passed, cells = cells_passed(model)
        losses = [(model["levels"][level]["quantile_loss"], best[level]) for level in lower]
        table.add_row(
            display_name(name),
            _best(model["nll"], best_nll, 1.0),
            f"{passed} of {cells}",
            *(_best(loss, least, 1e4) for loss, least in losses),
        )
    shown.print(table)
    for level in lower:
        shown.print(_level_table(models, level))


def _level_table(models: Mapping[str, Any], level: str) -> Table:
    table = Table(title=f"VaR and shortfall, {level_name(float(level))}")
    heads = ("violations", "expected", "Kupiec p", "Christoffersen p", "McNeil-Frey p", "FZ0 loss")
    for head in ("", *heads):
        table.add_column(head, justify="right" if head else "left")
    best = lowest([model["es"][level]["fz0_loss"] for model in models.values()])
    for name, model in models.items():
        cell, tail = model["levels"][level], model["es"][level]
        table.add_row(
            display_name(name),
            f"{cell['violations']:,}",
            f"{cell['expected']:,.1f}",
            _p(cell["kupiec_p"]),
            _p(cell["christoffersen_p"]),
            _p(tail["mcneil_frey_p"]),
            _best(tail["fz0_loss"], best, 1.0),
        )
    return table


def _best(value: float | None, best: float | None, unit: float) -> str:
    if value is None:
        return "–"
    text = f"{unit * value:.4f}"
    return f"[bold]{text}[/bold]" if value == best else text


def _p(value: float | None) -> str:
    text = escape(p_value(value))
    return f"[red]{text}[/red]" if value is not None and value < SIGNIFICANT else text


@contextmanager
def risk_progress(console: Console | None = None) -> Iterator[RiskProgress]:
    """Show each model's steps and time left while a block runs; silent where nobody watches.

    Yields:
        A callback that takes a model's name, steps done and steps in all.
    """
    tasks: dict[str, TaskID] = {}
    with terminal_progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as progress:

        def show(model: str, done: int, total: int) -> None:
            if model not in tasks:
                tasks[model] = progress.add_task(escape(display_name(model)), total=total)
            progress.update(tasks[model], completed=done, total=total)

        yield show
