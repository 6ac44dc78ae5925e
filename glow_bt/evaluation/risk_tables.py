"""HTML tables of a comparison of risk models, from what `risk.json` holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from glow_bt.evaluation.risk_study import FLOW_NAMES
from glow_bt.evaluation.risk_summary import (
    SIGNIFICANT,
    cells_passed,
    display_name,
    level_name,
    lowest,
    p_value,
)

__all__ = ["comparison_table", "level_table", "overview_table"]

_BASIS_POINTS = 1e4


def overview_table(models: Mapping[str, Any]) -> str:
    """One row a model: NLL, PIT tests, and its share of cells that pass."""
    best = lowest([model["nll"] for model in models.values()])
    rows = []
    for name, model in models.items():
        passed, cells = cells_passed(model)
        pit = model["pit"] or {"ks_p": None, "ad_p": None}
        rows.append(
            _row(
                name,
                _loss(model["nll"], best, "{:.4f}"),
                _p(pit["ks_p"]),
                _p(pit["ad_p"]),
                f"<td>{passed} of {cells}</td>",
                f"<td>{passed / cells:.0%}</td>",
            )
        )
    heads = ("model", "NLL", "KS p", "AD p", "cells with p > 0.05", "share")
    return _table(heads, rows)


def level_table(models: Mapping[str, Any], level: str) -> str:
    """One row a model: violations, their tests, and losses at one level."""
    quantile = [model["levels"][level] for model in models.values()]
    shortfall = [model["es"][level] for model in models.values()]
    best = lowest([cell["quantile_loss"] for cell in quantile])
    best_fz0 = lowest([cell["fz0_loss"] for cell in shortfall])
    rows = [
        _row(
            name,
            f"<td>{cell['violations']:,}</td>",
            f"<td>{cell['expected']:,.1f}</td>",
            f"<td>{cell['rate']:.2%}</td>",
            _p(cell["kupiec_p"]),
            _p(cell["christoffersen_p"]),
            _loss(cell["quantile_loss"], best, "{:.4f}", _BASIS_POINTS),
            _p(tail["mcneil_frey_p"]),
            _loss(tail["fz0_loss"], best_fz0, "{:.4f}"),
        )
        for name, cell, tail in zip(models, quantile, shortfall, strict=True)
    ]
    heads = (
        "model",
        "violations",
        "expected",
        "rate",
        "Kupiec p",
        "Christoffersen p",
        "quantile loss, bp",
        "McNeil-Frey p",
        "FZ0 loss",
    )
    heading = f"{level_name(float(level))} (level {level})"
    return f"<h3>{escape(heading)}</h3>\n{_table(heads, rows)}"


def comparison_table(flow: str, others: Mapping[str, Any]) -> str:
    """One row a baseline: p-values that the flow's losses are not the lower ones."""
    levels = list(next(iter(others.values()))["quantile_loss"])
    rows = []
    for name, found in others.items():
        cells = [found["nll"]]
        cells += [found["quantile_loss"][level] for level in levels]
        cells += [found["fz0_loss"][level] for level in levels]
        rows.append(_row(name, *(_better(None if c is None else c["p"]) for c in cells)))
    heads = [
        f"{display_name(flow)} against",
        "NLL",
        *(f"quantile loss {level}" for level in levels),
        *(f"FZ0 {level}" for level in levels),
    ]
    table = _table(heads, rows, kind="wide dense")
    return f"<h3>{escape(display_name(flow).capitalize())}</h3>\n{table}"


def _table(heads: Sequence[str], rows: Sequence[str], *, kind: str = "wide") -> str:
    cells = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    body = "\n".join(rows)
    return (
        f'<div class="{kind}"><table>\n<thead><tr>{cells}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def _row(model: str, *cells: str) -> str:
    kind = ' class="flow"' if model in FLOW_NAMES else ""
    return f'<tr{kind}><th scope="row">{escape(display_name(model))}</th>{"".join(cells)}</tr>'


def _p(value: float | None) -> str:
    kind = ' class="bad"' if value is not None and value < SIGNIFICANT else ""
    return f"<td{kind}>{escape(p_value(value))}</td>"


def _better(value: float | None) -> str:
    kind = ""
    if value is not None and value < SIGNIFICANT:
        kind = ' class="good"'
    elif value is not None and value > 1 - SIGNIFICANT:
        kind = ' class="bad"'
    return f"<td{kind}>{escape(p_value(value))}</td>"


def _loss(value: float | None, best: float | None, pattern: str, unit: float = 1.0) -> str:
    if value is None:
        return "<td>–</td>"
    kind = ' class="best"' if value == best else ""
    return f"<td{kind}>{pattern.format(unit * value)}</td>"
