"""The tables of README, made from committed metrics and nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glow_bt.errors import ResultsError
from glow_bt.evaluation.risk_index import risk_tables

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
        _performance_row(title, name, row)
        for title, metrics in runs
        for name, row in metrics["strategies"].items()
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


def _performance_row(title: str, name: str, row: Mapping[str, Any]) -> str:
    cells = [
        title,
        name.replace("_", " "),
        _percent(row["total_return"], 1, sign=True),
        _number(row["sharpe"]),
        _number(row["sortino"]),
        _number(row["calmar"]),
        _percent(row["max_drawdown"]),
        _percent(row["win_rate"]),
        _number(row["turnover"], 1),
        f"{sum(row['costs'].values()):,.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _model_row(title: str, metrics: Mapping[str, Any]) -> str:
    model = metrics["model"]
    cells = [
        title,
        f"{metrics['span']['bars']:,}",
        _percent(model["in_distribution_share"]),
        _number(model["mean_log_likelihood"], 3),
        _number(model["bits_per_dim"], 3),
    ]
    for level in ("0.01", "0.05"):
        var = metrics["var"][level]
        cells.append(
            f"{_percent(var['rate'], 2)} ({_p_value(var['kupiec_p'])}, "
            f"{_p_value(var['christoffersen_p'])})"
        )
    return f"| {' | '.join(cells)} |"


def _p_value(value: float | None) -> str:
    return "< 0.001" if value is not None and value < 0.001 else _number(value, 3)


def _percent(value: float | None, digits: int = 1, sign: bool = False) -> str:
    return "-" if value is None else f"{value:{'+' if sign else ''}.{digits}%}"


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    update_readme("README.md", "results")
