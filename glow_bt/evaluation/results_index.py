"""The tables of README, made from committed metrics and nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glow_bt.errors import ResultsError
from glow_bt.evaluation.risk_index import risk_tables
from glow_bt.evaluation.run_list import write_run_list
from glow_bt.evaluation.written import interval_of, known, p_value, percent

__all__ = ["results_table", "update_readme"]

_START = "<!-- {}: made by `make {}`, do not edit -->"
_END = "<!-- end of {} -->"
# Where `make demo` writes: a reader's own run, not a reference.
_SCRATCH = "demo"
_HEADER = (
    "| bars | strategy | return | Sharpe | Sortino | Calmar | max drawdown | win rate | "
    "turnover a year | costs |\n"
    "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|"
)
_MODEL_HEADER = (
    "| bars | unseen bars | in distribution | mean log-likelihood | bits/dim | 1 % VaR violations "
    "(Kupiec p, Christoffersen p) | 5 % VaR violations (Kupiec p, Christoffersen p) |\n"
    "|---|---:|---:|---:|---:|---:|---:|"
)


def results_table(root: str | os.PathLike[str]) -> str:
    """Return two Markdown tables, performance and model, over the run folders under `root`.

    Sharpe ratio and drawdown have their intervals beside them, where the run has any.

    Raises:
        ResultsError: if there is no run folder.
    """
    runs = []
    for file in sorted(Path(root).glob("*/metrics.json")):
        if file.parent.name == _SCRATCH:
            continue
        manifest = json.loads((file.parent / "manifest.json").read_text(encoding="utf-8"))
        metrics = json.loads(file.read_text(encoding="utf-8"))
        runs.append((manifest["title"], metrics))
    if not runs:
        raise ResultsError(
            f"expected run folders with metrics.json under {root}, found none; call `make results`"
        )
    performance = [
        _performance_row(title, name, metrics)
        for title, metrics in runs
        for name in metrics["strategies"]
    ]
    models = [_model_row(title, metrics) for title, metrics in runs]
    return "\n".join([_HEADER, *performance, "", _MODEL_HEADER, *models])


def update_readme(readme: str | os.PathLike[str], root: str | os.PathLike[str]) -> None:
    """Replace the tables of results and of risk between their markers in a README.

    Raises:
        ResultsError: if markers are missing.
    """
    file = Path(readme)
    text = file.read_text(encoding="utf-8")
    text = _between(text, "results", "results", results_table(root), file)
    text = _between(text, "risk", "results-risk", risk_tables(root), file)
    file.write_text(text, encoding="utf-8")


def _between(text: str, name: str, target: str, table: str, file: Path) -> str:
    """Return a text with what is between two markers replaced."""
    opening, closing = _START.format(name, target), _END.format(name)
    before, start, rest = text.partition(opening)
    _, end, after = rest.partition(closing)
    if not (start and end):
        raise ResultsError(
            f"expected the markers {opening!r} and {closing!r} in {file}, found none"
        )
    return f"{before}{opening}\n{table}\n{closing}{after}"


def _performance_row(title: str, name: str, metrics: Mapping[str, Any]) -> str:
    row, statistics = metrics["strategies"][name], metrics.get("statistics")
    intervals = {} if statistics is None else statistics["intervals"].get(name, {})
    cells = [
        title,
        name.replace("_", " "),
        percent(row["total_return"], 1, sign=True),
        _with_interval(row, intervals, "sharpe", "{:.2f}"),
        known(row["sortino"], "{:.2f}"),
        known(row["calmar"], "{:.2f}"),
        _with_interval(row, intervals, "max_drawdown", "{:.1%}"),
        percent(row["win_rate"]),
        known(row["turnover"], "{:.1f}"),
        f"{sum(row['costs'].values()):,.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _model_row(title: str, metrics: Mapping[str, Any]) -> str:
    model = metrics["model"]
    cells = [
        title,
        f"{metrics['span']['bars']:,}",
        percent(model["in_distribution_share"]),
        known(model["mean_log_likelihood"], "{:.3f}"),
        known(model["bits_per_dim"], "{:.3f}"),
    ]
    for level in ("0.01", "0.05"):
        var = metrics["var"][level]
        cells.append(
            f"{percent(var['rate'], 2)} ({p_value(var['kupiec_p'])}, "
            f"{p_value(var['christoffersen_p'])})"
        )
    return f"| {' | '.join(cells)} |"


def _with_interval(
    row: Mapping[str, Any], intervals: Mapping[str, Any], name: str, pattern: str
) -> str:
    ends = interval_of(intervals.get(name), pattern)
    return known(row[name], pattern) + (f" ({ends})" if ends else "")


if __name__ == "__main__":
    update_readme("README.md", "results")
    write_run_list("results")
