"""Pictures of risk forecasts in time: returns against VaR and shortfall, and rates of violations.

A return stands at the bar before it, at whose close it was forecast. Pictures of the whole
distribution are in `glow_bt.evaluation.risk_shape_pictures`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from scipy.stats import binom

from glow_bt.evaluation.canvas import (
    ALARM,
    INK,
    MOST_POINTS,
    MUTED,
    Picture,
    bounds_note,
    canvas,
    date_axis,
    draw_curve,
    label_panel,
    legend_above,
    mark_bounds,
    sentences,
    time_of,
)
from glow_bt.evaluation.risk_study import RiskStudy
from glow_bt.evaluation.risk_summary import display_name, level_name
from glow_bt.risk import violations
from glow_bt.risk.forecasts import Forecasts

__all__ = ["close_up_picture", "model_colour", "returns_picture", "rolling_picture"]

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.datetime64]

_COLOURS = {"flow": "#56B4E9", "flow_recalibrated": INK}
_BASELINE = "#E69F00"
_SHORTFALL = "#009E73"
_Look = dict[str, Any]
_FAINT = "#7FB2DA"
_CLOSE_UP = 300
_CURVE_POINTS = 1200


def model_colour(model: str) -> str:
    """Return a model's colour, the same in every picture; all baselines share one."""
    return _COLOURS.get(model, _BASELINE)


def returns_picture(study: RiskStudy, model: str) -> Picture:
    """Returns of the whole tested span against a model's VaR in both tails, violations marked."""
    own = study.forecasts[model]
    outer, inner = own.levels[0], _tails(own)[-1]
    with canvas(4.0) as drawn:
        axes = drawn.axes[0]
        times = time_of(study.stamps)
        draw_curve(axes, times, own.returns, colour=MUTED, label="log return", width=0.5)
        _draw_forecasts(axes, times, own)
        _mark_violations(axes, times, own)
        _cut_outliers(axes, own)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        label_panel(axes, "log return")
        mark_bounds(axes, study.bounds[1:])
        date_axis(axes, times)
        legend_above(axes)
    return drawn.picture(
        "returns",
        title="Returns against value at risk",
        caption=sentences(
            f"Each return, and what {display_name(model)} said one bar before: VaR at "
            f"{_percent(inner)} and {_percent(outer)} and expected shortfall at "
            f"{_percent(_middle(own))}, in both tails. Marked are returns beyond the "
            f"{_percent(outer)} VaR: {_counts(own, outer)}.",
            "With so many bars the curves are medians of neighbouring bars; marks are exact."
            if len(own) > MOST_POINTS
            else "",
            bounds_note(study.bounds[1:]),
        ),
    )


def close_up_picture(study: RiskStudy, model: str) -> Picture:
    """The same around the largest loss, bar by bar."""
    own = study.forecasts[model]
    first = max(0, min(int(own.returns.argmin()) - _CLOSE_UP // 2, len(own) - _CLOSE_UP))
    rows = slice(first, first + _CLOSE_UP)
    near, times = own.rows(rows), time_of(study.stamps[rows])
    bounds = [stamp for stamp in study.bounds[1:] if study.stamps[first] < stamp]
    bounds = [stamp for stamp in bounds if stamp < study.stamps[rows][-1]]
    with canvas(3.6) as drawn:
        axes = drawn.axes[0]
        axes.vlines(times, 0.0, near.returns, color=MUTED, linewidth=1.0, label="log return")
        _draw_forecasts(axes, times, near)
        _mark_violations(axes, times, near, all_levels=True)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        label_panel(axes, "log return")
        mark_bounds(axes, bounds)
        date_axis(axes, times)
        legend_above(axes)
    return drawn.picture(
        "close-up",
        title="Around the largest loss",
        caption=sentences(
            f"{len(near):,} bars around the largest loss of the tested span, one by one, with "
            f"what {display_name(model)} said before each. Filled marks lie beyond the "
            f"{_percent(near.levels[0])} VaR, hollow ones beyond the {_percent(_tails(near)[-1])} "
            "VaR only.",
            bounds_note(bounds),
        ),
    )


def rolling_picture(study: RiskStudy, models: Sequence[str]) -> Picture:
    """Rate of violations over a rolling window, for several models, in both tails."""
    count = len(study.stamps)
    window = _window(count)
    own = study.forecasts[models[0]]
    shown = sorted({own.levels[0], _tails(own)[-1], _tails(own, upper=True)[0], own.levels[-1]})
    times = time_of(study.stamps)[window - 1 :]
    rows = np.unique(np.linspace(0, len(times) - 1, _CURVE_POINTS).astype(np.int64))
    with canvas(*[1.35] * len(shown)) as drawn:
        for axes, level in zip(drawn.axes, shown, strict=True):
            probability = min(level, 1 - level)
            low, high = binom.ppf([0.025, 0.975], window, probability) / window
            axes.axhspan(low, high, color="#E8EAED", linewidth=0, zorder=0.5)
            axes.axhline(probability, color="#5F6368", linewidth=0.9)
            for model in models:
                rate = _rolling_rate(study.forecasts[model], level, window)
                axes.plot(
                    times[rows], rate[rows], color=model_colour(model), label=display_name(model)
                )
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
            axes.set_ylim(bottom=0.0)
            label_panel(axes, f"returns beyond VaR, {level_name(level)}")
            mark_bounds(axes, study.bounds[1:])
        date_axis(drawn.axes[-1], times)
        legend_above(drawn.axes[0])
    return drawn.picture(
        "rolling",
        title="Rolling rate of violations",
        caption=sentences(
            f"Share of the last {window:,} returns beyond VaR. The line is the rate that was "
            "promised; the grey band holds 95 % of windows under a right forecast, at any one "
            "time, so that a right model leaves it now and then.",
            bounds_note(study.bounds[1:]),
        ),
    )


def _draw_forecasts(axes: Axes, times: Times, own: Forecasts) -> None:
    """VaR at the outermost and innermost levels and shortfall at the middle one, both tails."""
    outer, inner, middle = own.levels[0], _tails(own)[-1], _middle(own)
    curves: list[tuple[str, Floats, Floats, _Look]] = [
        (
            f"{_percent(middle)} shortfall",
            own.shortfall(middle),
            own.shortfall(_mirror(own, middle)),
            # Broad and pale, because it hardly differs from a VaR further out.
            {"color": _SHORTFALL, "linewidth": 3.2, "alpha": 0.4},
        ),
        (
            f"{_percent(inner)} VaR",
            own.quantile(inner),
            own.quantile(_mirror(own, inner)),
            {"color": _FAINT, "linewidth": 1.1},
        ),
        (
            f"{_percent(outer)} VaR",
            own.quantile(outer),
            own.quantile(own.levels[-1]),
            {"color": INK, "linewidth": 1.1},
        ),
    ]
    for text, lower, upper, look in curves[: 2 if outer == inner else 3]:
        axes.plot(*_medians(times, lower), label=text, **look)
        axes.plot(*_medians(times, upper), **look)


def _medians(times: Times, values: Floats) -> tuple[Times, Floats]:
    """Return a curve; with more bars than the picture has columns, medians of neighbours."""
    if len(values) <= MOST_POINTS:
        return times, values
    edges = np.linspace(0, len(values), _CURVE_POINTS + 1).astype(np.int64)
    pieces = np.split(values, edges[1:-1])
    return times[edges[:-1]], np.array([np.median(piece) for piece in pieces])


def _mark_violations(
    axes: Axes, times: Times, own: Forecasts, *, all_levels: bool = False
) -> None:
    """Mark returns beyond the outermost VaR; on request, hollow, those beyond the innermost."""
    outer = [own.levels[0], own.levels[-1]]
    inner = [_tails(own)[-1], _tails(own, upper=True)[0]]
    size = 5.0 if len(own) <= MOST_POINTS else 3.6
    for side, marker in enumerate("v^"):
        beyond = violations(own.returns, own.quantile(outer[side]), outer[side])
        label = None if side else "violation"
        axes.plot(
            times[beyond], own.returns[beyond], marker, color=ALARM, markersize=size,
            markeredgecolor="white", markeredgewidth=0.4, label=label, zorder=3,
        )  # fmt: skip
        if all_levels:
            only = violations(own.returns, own.quantile(inner[side]), inner[side]) & ~beyond
            axes.plot(
                times[only], own.returns[only], marker, markerfacecolor="white", markersize=5,
                markeredgecolor=ALARM, markeredgewidth=0.9, zorder=3,
            )  # fmt: skip


def _cut_outliers(axes: Axes, own: Forecasts) -> None:
    """Keep a forecast of absurd width from squeezing everything else."""
    largest = float(np.abs(own.returns).max())
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -1.6 * largest), min(high, 1.6 * largest))


def _rolling_rate(own: Forecasts, level: float, window: int) -> Floats:
    hits = violations(own.returns, own.quantile(level), level)
    total = np.concatenate([[0], np.cumsum(hits)])
    return np.asarray((total[window:] - total[:-window]) / window)


def _window(count: int) -> int:
    """Bars enough for some five violations at 1 %, unless the whole span is short."""
    return max(1, min(max(500, count // 20), count // 3))


def _tails(own: Forecasts, *, upper: bool = False) -> list[float]:
    """Return the levels of one tail; the tail that is not there is taken for the other."""
    found = [level for level in own.levels if (level > 0.5) == upper]
    return found or list(own.levels)


def _middle(own: Forecasts) -> float:
    lower = _tails(own)
    return lower[len(lower) // 2]


def _mirror(own: Forecasts, level: float) -> float:
    return min(own.levels, key=lambda other: abs(other - (1 - level)))


def _counts(own: Forecasts, level: float) -> str:
    mirrored = _mirror(own, level)
    lower, upper = (
        int(violations(own.returns, own.quantile(side), side).sum()) for side in (level, mirrored)
    )
    expected = f"{level * len(own):,.1f}"
    return f"{lower:,} losses and {upper:,} gains, {expected} expected of each"


def _percent(level: float) -> str:
    return f"{100 * level:.3g}\u00a0%"
