"""`glow-bt verify`: what a strategy, an indicator or a feature function knows too early."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from glow_bt.cli.options import ExampleCommand, load_bars, output_options
from glow_bt.errors import ConfigError, GlowError
from glow_bt.terminal import table_console

if TYPE_CHECKING:
    from glow_bt.evaluation.leaks import Leak, LeakReport

__all__ = ["verify"]

_PIPED_WIDTH = 160


@click.command(
    cls=ExampleCommand,
    examples=(
        "glow-bt verify features.py:momentum btc.parquet",
        "glow-bt verify my_strategies:Breakout btc.parquet --bars 100",
        "glow-bt verify strategies.glow_strategy:GlowStrategy btc.parquet --model models/btc",
    ),
)
@click.argument("target")
@click.argument("bars", type=click.Path(path_type=Path))
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Folder with a trained model, for the target's parameter 'model'.",
)
@click.option(
    "--bars",
    "cut_points",
    type=click.IntRange(min=1),
    help="Bars after which the future is taken away. [default: 60 for a function, 40 for an "
    "indicator, 24 for a strategy]",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of all chance.")
@output_options
def verify(
    target: str,
    bars: Path,
    model: Path | None,
    cut_points: int | None,
    seed: int,
    as_json: bool,
) -> None:
    """Prove that TARGET looks ahead, on the bars in file BARS.

    TARGET is module:name or file.py:name: a Backtrader strategy, a Backtrader indicator, or a
    function from a frame of bars to one row a bar. It runs over the bars; then, at many bars, the
    future is cut off or given another course, and it runs again. What it said up to there (orders,
    account, indicator lines, feature columns) must not change. Reads of later bars by index,
    data.close[1] or a negative index that wraps to the end, are seen as well, and Backtrader's two
    modes must agree.

    A leak is named with its first bar, how far ahead it looks, and the line of code as well as it
    can be found. It cannot see a leak that changes no compared value at the bars tried, what code
    keeps outside of a run (module variables, files, network), or knowledge from within a bar.

    Exit codes: 0 clean, 1 a leak was found, 2 no verdict: a wrong call, or the target fails on
    these bars.
    """
    from glow_bt.evaluation.leaks import load_target
    from glow_bt.evaluation.leaks import verify as look_for_leaks

    try:
        found = load_target(target, None if model is None else str(model))
        frame = load_bars(bars)
        with _progress() as progress:
            report = look_for_leaks(
                found, frame, cut_points=cut_points, seed=seed, progress=progress
            )
    except GlowError as error:
        raise ConfigError(str(error)) from error  # 1 would say that a leak was found
    if as_json:
        click.echo(json.dumps(report.facts()))
    else:
        _show(report)
    if not report.clean:
        sys.exit(1)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    console = Console(stderr=True)
    with Progress(
        TextColumn("taking away the future"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        redirect_stdout=False,
    ) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _show(report: LeakReport) -> None:
    console = table_console(_PIPED_WIDTH)
    if report.leaks:
        table = Table(title=f"{report.target} looks ahead")
        for heading in ("What", "First bar", "Looks ahead", "How it shows", "Line"):
            table.add_column(heading, overflow="fold")
        for leaks in _together(report.leaks):
            table.add_row(*(Text(cell) for cell in _cells(leaks)))
        console.print(table)
    console.print(Text(_sentence(report)))


def _together(leaks: tuple[Leak, ...]) -> list[list[Leak]]:
    """Group what one line of code does to one kind of outputs."""
    groups: dict[tuple[object, ...], list[Leak]] = {}
    for leak in leaks:
        place = (leak.where, leak.row) if leak.where is None else (leak.where,)
        groups.setdefault((leak.kind, *place), []).append(leak)
    return list(groups.values())


def _cells(leaks: list[Leak]) -> list[str]:
    first = leaks[0]
    names = list(dict.fromkeys(leak.output for leak in leaks))
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    ahead = "-"
    if first.ahead is not None:
        ahead = f"{first.ahead} bar{'s' * (first.ahead != 1)}"
        ahead += ", to the end" * first.to_end
    how = f"{first.how} ({first.mode})" if first.mode and first.kind != "modes" else first.how
    line = f"{first.where} {first.where.code}" if first.where else "not found"
    return [shown, f"{first.stamp:%Y-%m-%d %H:%M}", ahead, how, line]


def _sentence(report: LeakReport) -> str:
    failed = (
        f", {report.num_failed} of them ended by an error of its own" if report.num_failed else ""
    )
    tried = (
        f"{report.num_runs} runs of {report.target} over {report.num_bars} bars, the future taken "
        f"away at {len(report.cuts)} of them{failed}"
    )
    if report.clean:
        return f"{tried}: none of {len(report.outputs)} outputs changed before it."
    return f"{tried}: {len(report.leaks)} finding{'s' * (len(report.leaks) != 1)}."
