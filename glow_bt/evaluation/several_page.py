"""The page over several runs of one study: every run, and their means and spreads."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from glow_bt.evaluation.page import page_of, prose, table, write_page
from glow_bt.evaluation.run_list import SORT_SCRIPT, runs_table
from glow_bt.evaluation.written import known, title_of

__all__ = ["mean_and_spread", "write_several_page"]

_STRATEGY = (
    ("Return", "total_return", "{:+.1%}", "{:.1%}"),
    ("Sharpe", "sharpe", "{:.2f}", "{:.2f}"),
    ("Largest drawdown", "max_drawdown", "{:.1%}", "{:.1%}"),
    ("Turnover a year", "turnover", "{:.1f}", "{:.1f}"),
    ("Time in market", "time_in_market", "{:.1%}", "{:.1%}"),
)
_MODEL = (
    ("NLL of scaled states, nats", ("model", "nll"), "{:.3f}", "{:.3f}"),
    ("Bars in distribution", ("model", "in_distribution_share"), "{:.1%}", "{:.1%}"),
    ("Bars below VaR 1 %", ("var", "0.01", "rate"), "{:.2%}", "{:.2%}"),
    ("Bars below VaR 5 %", ("var", "0.05", "rate"), "{:.2%}", "{:.2%}"),
)
_SPREAD = {
    "seeds": "It is what luck in training makes of one history, not the error of the mean over "
    "histories.",
    "symbols": "It is no error of the mean: symbols rise and fall together, and their spans "
    "may differ.",
}


def write_several_page(folder: Path, kind: str, title: str, summary: Mapping[str, Any]) -> None:
    """Write index.html over the runs that lie in a folder, readable without network.

    Args:
        folder: with a run folder a member, or a folder of them.
        kind: "seeds" or "symbols".
        title: heading.
        summary: see `glow_bt.evaluation.several.summarize`.

    Raises:
        ResultsError: if a run is damaged, or the page cannot be written.
    """
    members = summary[kind]
    runs, count = runs_table(folder)
    about = f"{len(members)} {kind}, {count} runs: {', '.join(members)}."
    words = prose(
        f"Mean over {kind} ± standard deviation between them. {_SPREAD[kind]} A dash stands where "
        "a number is missing in one of them."
    )
    body = [
        f'<section id="runs">\n<h2>Every run</h2>\n{runs}\n</section>',
        f'<section id="means">\n<h2>Means over {kind}</h2>\n{words}\n{_strategies(summary)}\n'
        "</section>",
        f'<section id="model">\n<h2>Model</h2>\n{_model(summary)}\n</section>',
    ]
    links = [("#runs", "Every run"), ("#means", f"Means over {kind}"), ("#model", "Model")]
    write_page(page_of(title, about, links, body, script=SORT_SCRIPT), folder / "index.html")


def mean_and_spread(
    mean: float | None, spread: float | None, pattern: str, spread_pattern: str
) -> str:
    """Return "mean ± spread"; a dash where there is none."""
    if mean is None:
        return "-"
    return f"{pattern.format(mean)} ± {known(spread, spread_pattern)}"


def _strategies(summary: Mapping[str, Any]) -> str:
    rows = []
    for name, mean in summary["mean"]["strategies"].items():
        spread = summary["spread"]["strategies"][name]
        cells = "".join(
            f"<td>{mean_and_spread(mean.get(key), spread.get(key), *patterns)}</td>"
            for _, key, *patterns in _STRATEGY
        )
        kind = ' class="flow"' if name == "glow" else ""
        rows.append(f'<tr{kind}><th scope="row">{escape(title_of(name))}</th>{cells}</tr>')
    return table(["Strategy", *(head for head, *_ in _STRATEGY)], rows, kind="wide dense")


def _model(summary: Mapping[str, Any]) -> str:
    rows = []
    for head, path, *patterns in _MODEL:
        mean, spread = (_at(summary[part], path) for part in ("mean", "spread"))
        cell = mean_and_spread(mean, spread, *patterns)
        rows.append(f'<tr><th scope="row">{escape(head)}</th><td>{cell}</td></tr>')
    return table(["", "Mean ± deviation"], rows)


def _at(values: Mapping[str, Any], path: tuple[str, ...]) -> float | None:
    """Return a number of nested values; None if it is not there."""
    found: Any = values
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, int | float) else None
