"""The risk tables of README, made from committed risk.json files and nothing else."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from glow_bt.errors import ResultsError
from glow_bt.evaluation.risk_study import FLOW_NAMES
from glow_bt.evaluation.risk_summary import cells_passed, display_name, lowest, p_value

__all__ = ["risk_tables"]

# Where a reader's own runs go: no references.
_SCRATCH = "demo"
_LEVELS = ("0.01", "0.025", "0.05", "0.95", "0.975", "0.99")
_SHORTFALL = "0.025"
_LOG_100 = math.log(100)
_HEADER = (
    "| bars | model | NLL | quantile loss 1 / 2.5 / 5 % | upper 5 / 2.5 / 1 % | violations "
    "1 / 2.5 / 5 % | cells passed | ES 2.5 %: McNeil-Frey p | FZ0 |\n"
    "|---|---|---:|---:|---:|---:|---:|---:|---:|"
)
_COMPARED = (
    "| bars | flow's advantage in | over the best baseline | difference | Diebold-Mariano p |\n"
    "|---|---|---|---:|---:|"
)


def risk_tables(root: str | os.PathLike[str]) -> str:
    """Return two Markdown tables over the folders of `glow-bt risk` under `root`.

    One of all models, the lowest figure of a market in bold; one of the recalibrated flow against
    the baseline that is best in each figure, picked after the fact.

    Raises:
        ResultsError: if there is no such folder.
    """
    files = sorted(Path(root).glob("*/risk.json"))
    reports = [
        json.loads(file.read_text(encoding="utf-8"))
        for file in files
        if file.parent.name != _SCRATCH
    ]
    if not reports:
        raise ResultsError(
            f"expected folders with risk.json under {root}, found none; call `make results-risk`"
        )
    rows = [row for report in reports for row in _rows(report)]
    compared = [row for report in reports for row in _compared(report)]
    return "\n".join([_HEADER, *rows, "", _COMPARED, *compared])


def _rows(report: Mapping[str, Any]) -> list[str]:
    """Return a row a model, figures in % and losses in basis points of log return."""
    models = report["models"]
    figures = {name: _figures(model) for name, model in models.items()}
    best = [lowest([own[i] for own in figures.values()]) for i in range(len(_LEVELS) + 2)]
    rows = []
    for name, model in models.items():
        own = [_bold(value, low) for value, low in zip(figures[name], best, strict=True)]
        nll, fz0, losses = own[0], own[1], own[2:]
        rates = [f"{model['levels'][p]['rate']:.2%}" for p in _LEVELS[:3]]
        passed, cells = cells_passed(model)
        test = p_value(model["es"][_SHORTFALL]["mcneil_frey_p"])
        cells_of_row = [
            report["manifest"]["title"],
            display_name(name),
            nll,
            " / ".join(losses[:3]),
            " / ".join(losses[3:]),
            " / ".join(rates),
            f"{passed} of {cells}",
            test,
            fz0,
        ]
        rows.append(f"| {' | '.join(cells_of_row)} |")
    return rows


def _figures(model: Mapping[str, Any]) -> list[float | None]:
    """Return NLL and FZ0 of returns in %, then the quantile losses in basis points."""
    losses = [1e4 * model["levels"][p]["quantile_loss"] for p in _LEVELS]
    # ln of a return in % is ln 100 more than that of the return.
    nll = None if model["nll"] is None else model["nll"] + _LOG_100
    return [nll, model["es"][_SHORTFALL]["fz0_loss"], *losses]


def _compared(report: Mapping[str, Any]) -> list[str]:
    title = report["manifest"]["title"]
    own = report["comparisons"][FLOW_NAMES[1]]
    what: list[tuple[str, tuple[str, ...], float, str]] = [
        ("NLL", ("nll",), 1.0, "nats"),
        *((f"quantile loss {_tail(p)}", ("quantile_loss", p), 1e4, "bp") for p in _LEVELS),
        ("FZ0 at 2.5 %", ("fz0_loss", _SHORTFALL), 1.0, ""),
    ]
    rows = []
    for label, path, unit, name in what:
        cells = {rival: _at(comparison, path) for rival, comparison in own.items()}
        known = {rival: cell for rival, cell in cells.items() if cell is not None}
        if not known:
            continue
        # The flow's loss less the rival's is largest against the best rival.
        rival = max(known, key=lambda r: float(known[r]["difference"]))
        difference = known[rival]["difference"] * unit
        shown = f"{difference:+.4f} {name}".strip()
        row = [title, label, display_name(rival), shown, p_value(known[rival]["p"])]
        rows.append(f"| {' | '.join(row)} |")
    return rows


def _at(values: Mapping[str, Any], path: Sequence[str]) -> dict[str, Any] | None:
    found: Any = values
    for key in path:
        found = found.get(key)
    return cast("dict[str, Any] | None", found)


def _tail(level: str) -> str:
    p = float(level)
    return f"{100 * p:g} %" if p < 0.5 else f"upper {100 * (1 - p):.3g} %"


def _bold(value: float | None, best: float | None) -> str:
    if value is None:
        return "-"
    text = f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"
    return f"**{text}**" if value == best else text
