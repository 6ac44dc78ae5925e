"""Pictures of whole risk forecasts: PIT histograms, QQ plots, and losses beside the best baseline.

The PIT of a return is the probability that the model gave to at most that return; under a right
model PITs are independent and uniform on (0, 1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter
from scipy.stats import beta, binom, norm

from glow_bt.evaluation.canvas import (
    Canvas,
    Picture,
    canvas,
    label_panel,
    legend_above,
    regime_colour,
    sentences,
)
from glow_bt.evaluation.risk_pictures import model_colour
from glow_bt.evaluation.risk_study import FLOW_NAMES, RiskStudy
from glow_bt.evaluation.risk_summary import display_name, level_name

__all__ = ["loss_picture", "pit_picture", "qq_picture"]

Floats = npt.NDArray[np.float64]

_BINS = 20
_BAND = "#D5D8DC"
_FURTHEST = 4.5  # normal scores shown
_MOST_DOTS = 1500


def pit_picture(study: RiskStudy, models: Sequence[str]) -> Picture:
    """Histograms of the PITs with the band in which 95 % of bars lie under a right model."""
    count = len(study.stamps)
    low, high = binom.ppf([0.025, 0.975], count, 1 / _BINS) * _BINS / count
    with canvas(2.6, dates=False) as drawn:
        panels = _side_by_side(drawn, len(models))
        for axes, model in zip(panels, models, strict=True):
            heights, edges = np.histogram(study.forecasts[model].pit, _BINS, range=(0.0, 1.0))
            axes.bar(
                edges[:-1], heights * _BINS / count, np.diff(edges), align="edge",
                color=model_colour(model), alpha=0.75, edgecolor="white", linewidth=0.6,
            )  # fmt: skip
            axes.axhspan(low, high, color="#5F6368", alpha=0.22, linewidth=0, zorder=2)
            axes.axhline(1.0, color="#3C4043", linewidth=0.9, zorder=2.1)
            axes.set_xlim(0.0, 1.0)
            axes.set_xticks([0.1, 0.3, 0.5, 0.7, 0.9])
            axes.set_xlabel("PIT")
            label_panel(axes, display_name(model))
        _share_top(panels)
    return drawn.picture(
        "pit",
        title="PIT histograms",
        caption="How often the return came at each place of its forecast distribution, against "
        "the uniform rate 1. The grey band holds 95 % of the columns of a right model. High "
        "columns at both ends: the forecast is too narrow; at one end: it is biased.",
    )


def qq_picture(study: RiskStudy, models: Sequence[str]) -> Picture:
    """Normal scores of the PITs against N(0, 1), with pointwise 95 % bands."""
    count = len(study.stamps)
    ranks = _shown_ranks(count)
    expected = norm.ppf((ranks - 0.5) / count)
    low, high = (norm.ppf(beta.ppf(q, ranks, count - ranks + 1)) for q in (0.025, 0.975))
    beyond = 0
    with canvas(3.3, dates=False) as drawn:
        panels = _side_by_side(drawn, len(models))
        for axes, model in zip(panels, models, strict=True):
            pit = np.sort(study.forecasts[model].pit)
            scores = norm.ppf(pit)[ranks - 1]
            beyond += int((np.abs(scores) > _FURTHEST).sum())
            axes.fill_between(expected, low, high, color=_BAND, linewidth=0)
            axes.plot([-5, 5], [-5, 5], color="#5F6368", linewidth=0.9)
            axes.plot(
                expected, np.clip(scores, -_FURTHEST, _FURTHEST), "o", markersize=2.6,
                color=model_colour(model), markeredgewidth=0,
            )  # fmt: skip
            edge = max(3.0, float(np.abs(expected).max()) + 0.2)
            axes.set_xlim(-edge, edge)
            axes.set_ylim(-_FURTHEST - 0.1, _FURTHEST + 0.1)
            axes.set_xlabel("expected normal score")
            label_panel(axes, display_name(model))
    return drawn.picture(
        "qq",
        title="QQ plot",
        caption=sentences(
            "Normal scores of the PITs against what a right model gives, from the largest loss "
            "(left) to the largest gain. Dots below the line on the left: losses were larger than "
            "the model held likely; above it on the right: gains were. The band holds 95 % of a "
            "right model's dots at each place.",
            f"Dots on the edge stand for scores beyond ±{_FURTHEST:g} ({beyond:,})."
            if beyond
            else "",
            "The tails are drawn return by return, the middle thinned out."
            if len(ranks) < count
            else "",
        ),
    )


def loss_picture(models: Mapping[str, Any]) -> Picture:
    """Quantile loss of each model relative to the best baseline, level by level.

    Args:
        models: by name, what `glow_bt.risk.report.assess` says.
    """
    excess = _excess_losses(models)
    names = sorted(models, key=lambda name: float(np.mean(list(excess[name].values()))))
    furthest = _furthest(excess)
    levels = list(next(iter(excess.values())))
    probabilities = sorted({round(min(float(p), 1 - float(p)), 9) for p in levels})
    with canvas(0.42 * len(names) + 0.2, dates=False) as drawn:
        axes = drawn.axes[0]
        axes.axvline(0.0, color="#5F6368", linewidth=0.9)
        for row, name in enumerate(names):
            for level, value in excess[name].items():
                probability = float(level)
                at = probabilities.index(round(min(probability, 1 - probability), 9))
                lane = (levels.index(level) + 0.5) / len(levels) - 0.5
                axes.plot(
                    min(value, furthest), row + 0.72 * lane,
                    ">" if value > furthest else _marker(probability),
                    color=regime_colour(at), markersize=6, markeredgecolor="white",
                    markeredgewidth=0.4, clip_on=False,
                )  # fmt: skip
        _name_rows(axes, names)
        low = min(min(values.values()) for values in excess.values())
        axes.set_xlim(min(1.15 * low, -0.08 * furthest), 1.03 * furthest)
        axes.xaxis.set_major_formatter(
            FuncFormatter(lambda value, _: f"{value:+.3g} %" if value else "0")
        )
        axes.set_xlabel("quantile loss above that of the best baseline")
        legend_above(axes, _level_handles(levels, probabilities))
        _leave_room_for_names(drawn)
    return drawn.picture(
        "losses",
        title="Quantile loss beside the best baseline",
        caption=sentences(
            "Mean quantile loss of each model at each level, in per cent above that of the "
            "baseline which turned out best at this level. Left of the line is better than every "
            "baseline.",
            f"Marks that point right, on the edge, lie beyond {furthest:.3g} %."
            if any(value > furthest for values in excess.values() for value in values.values())
            else "",
        ),
    )


def _side_by_side(drawn: Canvas, count: int) -> list[Axes]:
    """Replace the canvas's one panel by several in a row."""
    whole = drawn.axes[0]
    spec = whole.get_subplotspec()
    whole.remove()
    if spec is None:
        return []
    grid = spec.subgridspec(1, count, wspace=0.14)
    drawn.axes = [drawn.figure.add_subplot(grid[0, column]) for column in range(count)]
    return list(drawn.axes)


def _share_top(panels: Sequence[Axes]) -> None:
    top = max(axes.get_ylim()[1] for axes in panels)
    for axes in panels:
        axes.set_ylim(0.0, top)


def _shown_ranks(count: int) -> npt.NDArray[np.int64]:
    """All ranks, or those of the tails and evenly spaced ones between."""
    if count <= _MOST_DOTS:
        return np.arange(1, count + 1)
    tail = _MOST_DOTS // 3
    middle = np.linspace(tail, count - tail, tail).astype(np.int64)
    return np.unique(
        np.concatenate([np.arange(1, tail), middle, np.arange(count - tail, count + 1)])
    )


def _excess_losses(models: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return for each model and level the loss above the best baseline's, in per cent."""
    losses = {
        name: {level: cell["quantile_loss"] for level, cell in model["levels"].items()}
        for name, model in models.items()
    }
    baselines = [name for name in losses if name not in FLOW_NAMES] or list(losses)
    return {
        name: {
            level: 100 * (value / min(losses[other][level] for other in baselines) - 1)
            for level, value in own.items()
        }
        for name, own in losses.items()
    }


def _furthest(excess: Mapping[str, Mapping[str, float]]) -> float:
    """Return where the axis ends; the quarter of the models furthest off do not decide on it."""
    furthest = sorted(max(own.values()) for own in excess.values())
    return max(1.0, 1.25 * furthest[3 * (len(furthest) - 1) // 4])


def _marker(level: float) -> str:
    return "v" if level < 0.5 else "^"


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [display_name(name) for name in names])
    for text, name in zip(axes.get_yticklabels(), names, strict=True):
        if name in FLOW_NAMES:
            text.set_fontweight("bold")
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(names) - 0.5, -0.5)


def _level_handles(levels: Sequence[str], probabilities: Sequence[float]) -> list[Line2D]:
    handles = []
    for level in map(float, levels):
        at = probabilities.index(round(min(level, 1 - level), 9))
        handles.append(
            Line2D([], [], marker=_marker(level), linestyle="",
                   color=regime_colour(at), markersize=6, label=level_name(level))
        )  # fmt: skip
    return handles


def _leave_room_for_names(drawn: Canvas) -> None:
    axes = drawn.axes[0]
    box = axes.get_position()
    left = 1.55 / drawn.figure.get_figwidth()
    axes.set_position((left, box.y0, box.x1 - left, box.height))
