"""What the commands show: tables, and progress on a terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import click
from rich.progress import (
    BarColumn,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from glow_bt.evaluation.written import interval_of, known, p_is, p_value, title_of
from glow_bt.terminal import table_console, terminal_progress

if TYPE_CHECKING:
    from datafeeds.series import SeriesKey

__all__ = ["print_series", "print_several", "print_study", "series_name", "series_progress"]

_COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("Return", "total_return", "{:+.1%}"),
    ("Sharpe", "sharpe", "{:.2f}"),
    ("Sortino", "sortino", "{:.2f}"),
    ("Calmar", "calmar", "{:.2f}"),
    ("Max drawdown", "max_drawdown", "{:.1%}"),
    ("Win rate", "win_rate", "{:.1%}"),
    ("Turnover", "turnover", "{:.1f}"),
    ("In market", "time_in_market", "{:.1%}"),
)
# Whose intervals are printed, and how; the summary page has all of them.
_WITH_INTERVALS = {"sharpe": "{:.2f}", "max_drawdown": "{:.0%}"}


def print_study(metrics: Mapping[str, Any]) -> None:
    """Print a study's metrics as two tables on standard output."""
    console = table_console()
    strategies = metrics["strategies"]
    console.print(_performance_table(metrics))
    console.print(_model_table(metrics))
    idle = [title_of(name) for name, own in strategies.items() if not own["n_orders"]]
    if idle:
        console.print(
            f"No order was placed by {', '.join(idle)}: what was wanted stayed within the "
            "dead-band, which costs widen, or there was neither a stance nor evidence for a "
            "direction."
        )
    statistics = metrics.get("statistics")
    if statistics is not None:
        for sentence in _likely(statistics):
            console.print(sentence)


def _performance_table(metrics: Mapping[str, Any]) -> Table:
    span, statistics = metrics["span"], metrics.get("statistics")
    table = Table(
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        header_style="bold underline",
        title=f"{span['bars']} unseen bars, {span['from'][:10]} to {span['until'][:10]}, "
        "net of costs"
        + ("" if statistics is None else f"; {statistics['bootstrap']['coverage']:.0%} intervals"),
    )
    table.add_column("", no_wrap=True)
    for label in (*(label for label, _, _ in _COLUMNS), "Costs paid"):
        table.add_column(label, justify="right")
    for name, own in metrics["strategies"].items():
        intervals = {} if statistics is None else statistics["intervals"][name]
        cells = []
        for _, key, pattern in _COLUMNS:
            shown = _WITH_INTERVALS.get(key)
            ends = "" if shown is None else interval_of(intervals.get(key), shown)
            cells.append("\n".join(filter(None, (known(own[key], pattern), ends))))
        table.add_row(title_of(name), *cells, f"{sum(own['costs'].values()):,.0f}")
    return table


def _likely(statistics: Mapping[str, Any]) -> Iterator[str]:
    """Say what the tests leave of a result."""
    deflated = statistics["deflated_sharpe"]
    if deflated["probability"] is not None:
        yield (
            f"Deflated Sharpe ratio: {deflated['probability']:.1%} likely to be above 0, trials "
            f"counted: {deflated['num_trials']}."
        )
    test = statistics["sharpe_difference"].get("buy_and_hold")
    if test is not None:
        yield (
            f"Sharpe minus that of buy and hold: {test['difference']:+.2f}, "
            f"{p_is(test['pvalue'])}."
        )


def _model_table(metrics: Mapping[str, Any]) -> Table:
    table = Table(title="What the model said, out of sample", show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    model = metrics["model"]
    table.add_row("Bars in distribution", known(model["in_distribution_share"], "{:.1%}"))
    raw = known(model["mean_log_likelihood"], "{:.3f} nats")
    table.add_row("Mean log-likelihood, raw state", raw)
    table.add_row("NLL held out, scaled state as in training", known(model["nll"], "{:.3f} nats"))
    table.add_row("Bits per dimension, scaled state", known(model["bits_per_dim"], "{:.3f}"))
    for level, var in metrics["var"].items():
        table.add_row(
            f"VaR {float(level):.0%} violations",
            f"{var['violations']} of {var['n']} ({var['rate']:.2%}), "
            f"Kupiec p {p_value(var['kupiec_p'])}, "
            f"Christoffersen p {p_value(var['christoffersen_p'])}",
        )
    return table


def print_several(summary: Mapping[str, Any], out: Path, as_json: bool) -> None:
    """Print what several seeds or symbols came to: of each strategy, means and spreads."""
    from glow_bt.evaluation.several import KINDS

    if as_json:
        click.echo(json.dumps({"out": str(out), **summary}))
        return
    kind = next(kind for kind in KINDS if kind in summary)
    members = summary[kind]
    click.echo(f"{len(members)} {kind}: {', '.join(members)}; mean ± deviation between them")
    for name, mean in summary["mean"]["strategies"].items():
        spread = summary["spread"]["strategies"][name]
        told = [
            f"{what.replace('_', ' ')} "
            + ("-" if mean[what] is None else f"{mean[what]:+.3f} ± {spread[what]:.3f}")
            for what in ("total_return", "sharpe", "max_drawdown")
        ]
        click.echo(f"  {title_of(name):<18} {', '.join(told)}")
    model, spread = summary["mean"]["model"], summary["spread"]["model"]
    click.echo(f"  NLL of scaled states {model['nll']:.4f} ± {spread['nll']:.4f} nats")
    click.echo(f"wrote {out / 'index.html'}, which links every run, and {kind}.json beside it")


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
    tasks: dict[SeriesKey, TaskID] = {}
    lock = Lock()
    with terminal_progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:.0f}/{task.total:.0f} bars"),
        _RateColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
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
    console = table_console()
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
