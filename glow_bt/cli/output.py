"""What the commands show: tables, and progress on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from datafeeds.series import SeriesKey

__all__ = ["print_series", "print_study", "series_name", "series_progress"]

# Printed where nobody's terminal decides on the width.
_PIPED_WIDTH = 120

_ROWS: tuple[tuple[str, str, str], ...] = (
    ("Total return", "total_return", "{:+.1%}"),
    ("Annual return", "annual_return", "{:+.1%}"),
    ("Annual volatility", "annual_volatility", "{:.1%}"),
    ("Sharpe", "sharpe", "{:.2f}"),
    ("Sortino", "sortino", "{:.2f}"),
    ("Calmar", "calmar", "{:.2f}"),
    ("Max drawdown", "max_drawdown", "{:.1%}"),
    ("Win rate (bars)", "win_rate", "{:.1%}"),
    ("Turnover a year", "turnover", "{:.1f}"),
    ("Time in market", "time_in_market", "{:.1%}"),
)


def print_study(metrics: Mapping[str, Any]) -> None:
    """Print a study's metrics as two tables on standard output."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PIPED_WIDTH)
    span = metrics["span"]
    names = list(metrics["strategies"])
    table = Table(
        title=f"{span['bars']} unseen bars, {span['from'][:10]} to {span['until'][:10]}, "
        "net of costs"
    )
    table.add_column("")
    for name in names:
        table.add_column(name.replace("_", " "), justify="right")
    for label, key, pattern in _ROWS:
        values = [metrics["strategies"][name][key] for name in names]
        table.add_row(label, *(_format(value, pattern) for value in values))
    costs = [sum(metrics["strategies"][name]["costs"].values()) for name in names]
    table.add_row("Costs paid", *(f"{cost:,.0f}" for cost in costs))
    console.print(table)
    console.print(_model_table(metrics))
    for name in names:
        if not metrics["strategies"][name]["n_orders"]:
            console.print(
                f"{name} placed no order: what it wanted to hold stayed within the dead-band, "
                "which costs widen, or there was no evidence for a direction."
            )


def _model_table(metrics: Mapping[str, Any]) -> Table:
    table = Table(title="What the model said, out of sample", show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    model = metrics["model"]
    table.add_row("Bars in distribution", _format(model["in_distribution_share"], "{:.1%}"))
    raw = _format(model["mean_log_likelihood"], "{:.3f} nats")
    table.add_row("Mean log-likelihood, raw state", raw)
    table.add_row(
        "NLL held out, scaled state as in training", _format(model["nll"], "{:.3f} nats")
    )
    table.add_row("Bits per dimension, scaled state", _format(model["bits_per_dim"], "{:.3f}"))
    for level, var in metrics["var"].items():
        table.add_row(
            f"VaR {float(level):.0%} violations",
            f"{var['violations']} of {var['n']} ({var['rate']:.2%}), "
            f"Kupiec p {_p_value(var['kupiec_p'])}, "
            f"Christoffersen p {_p_value(var['christoffersen_p'])}",
        )
    return table


def _p_value(value: float | None) -> str:
    return "< 0.001" if value is not None and value < 0.001 else _format(value, "{:.3f}")


def _format(value: float | None, pattern: str) -> str:
    return "-" if value is None else pattern.format(value)


class _RateColumn(ProgressColumn):
    """Steps a second, of a task that is under way."""

    def render(self, task: Task) -> Text:
        """Show the rate once there is one."""
        return Text("" if task.speed is None else f"{task.speed:,.0f}/s")


@contextmanager
def series_progress() -> Iterator[Callable[[SeriesKey, int, int], None]]:
    """Show how much of each series is there while a block runs; silent where nobody watches.

    Yields:
        A callback that takes a series, the steps that are dealt with, and all of them.
    """
    console = Console(stderr=True)
    tasks: dict[SeriesKey, TaskID] = {}
    lock = Lock()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:.0f}/{task.total:.0f} bars"),
        _RateColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as progress:

        def show(key: SeriesKey, done: int, total: int) -> None:
            with lock:
                if key not in tasks:
                    tasks[key] = progress.add_task(series_name(key), total=total)
            progress.update(tasks[key], completed=done, total=total)

        yield show


def series_name(key: SeriesKey) -> str:
    """Return what a series is called where bars are the usual thing."""
    kind = "" if key.kind == "bars" else key.kind.replace("_", " ")
    return " ".join(filter(None, (key.symbol, key.timeframe, kind)))


def print_series(listed: Sequence[Mapping[str, Any]]) -> None:
    """Print what a store holds as a table."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PIPED_WIDTH)
    table = Table()
    for name in ("exchange", "symbol", "kind", "timeframe"):
        table.add_column(name)
    for name in ("rows", "from", "until", "lacking", "MB"):
        table.add_column(name, justify="right")
    for one in listed:
        table.add_row(
            *(str(one[name]) for name in ("exchange", "symbol", "kind", "timeframe")),
            f"{one['rows']:,}",
            *("-" if one[name] is None else one[name][:16] for name in ("from", "until")),
            f"{one['lacking']:,}",
            f"{one['bytes'] / 1e6:,.1f}",
        )
    console.print(table)
    for damage in [one["damage"] for one in listed if one["damage"]]:
        console.print(damage)
