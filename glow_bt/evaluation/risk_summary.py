"""The table of a comparison of risk models: what `risk.json` holds, and how it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from glow_bt.evaluation.risk_study import FLOW_NAMES, RiskStudy
from glow_bt.risk.report import assess, compare

__all__ = [
    "SIGNIFICANT",
    "best_baseline",
    "cells_passed",
    "display_name",
    "level_name",
    "lowest",
    "p_value",
    "summarize",
]

# A p below it speaks against a forecast.
SIGNIFICANT = 0.05
_CELLS = ("kupiec_p", "christoffersen_p")
_NAMES = {
    "flow": "flow",
    "flow_recalibrated": "flow, recalibrated",
    "gaussian": "Gaussian",
    "historical": "historical",
    "ewma": "EWMA",
    "garch_normal": "GARCH normal",
    "garch_t": "GARCH t",
    "gjr_skewt": "GJR skew-t",
    "egarch_skewt": "EGARCH skew-t",
    "fhs": "filtered historical",
}


def summarize(study: RiskStudy, *, seed: int = 0) -> dict[str, Any]:
    """Back-test every model of a study, and compare the flow with each baseline.

    Returns:
        n; models: by name what `glow_bt.risk.report.assess` says; comparisons: by flow and
        baseline what `glow_bt.risk.report.compare` says. JSON-ready, None for what is not known.

    Raises:
        DataError: if a forecast is not finite, or a shortfall is no loss.
        TooFewBarsError: if there are too few bars for a test.
    """
    flows = [name for name in FLOW_NAMES if name in study.forecasts]
    return {
        "n": len(study.stamps),
        "models": {name: assess(own, seed=seed) for name, own in study.forecasts.items()},
        "comparisons": {
            flow: {
                name: compare(study.forecasts[flow], own)
                for name, own in study.forecasts.items()
                if name not in FLOW_NAMES
            }
            for flow in flows
        },
    }


def best_baseline(models: Mapping[str, Any]) -> str | None:
    """Return the baseline of the lowest NLL, or of the lowest quantile losses without densities.

    None where there is no baseline.
    """
    names = [name for name in models if name not in FLOW_NAMES]
    dense = [name for name in names if models[name]["nll"] is not None]
    if dense:
        return min(dense, key=lambda name: float(models[name]["nll"]))
    if not names:
        return None
    return min(
        names,
        key=lambda name: sum(cell["quantile_loss"] for cell in models[name]["levels"].values()),
    )


def cells_passed(model: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many of a model's Kupiec and Christoffersen cells have p > 0.05, and of how many.

    A cell is one of the two tests at one level.
    """
    values = [cell[name] for cell in model["levels"].values() for name in _CELLS]
    return sum(value is not None and value > SIGNIFICANT for value in values), len(values)


def lowest(values: Sequence[float | None]) -> float | None:
    """Return the lowest of the values that are known, None where none is."""
    return min((value for value in values if value is not None), default=None)


def display_name(model: str) -> str:
    """Return how a model is called on pages and in pictures."""
    return _NAMES.get(model, model.replace("_", " "))


def level_name(level: float) -> str:
    """Return how a level is called: by its tail and the probability of a violation."""
    tail = "lower" if level < 0.5 else "upper"
    return f"{100 * min(level, 1 - level):.3g} % {tail} tail"


def p_value(value: float | None) -> str:
    """Return a p-value as it is written in tables."""
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
