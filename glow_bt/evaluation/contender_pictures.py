"""A strategy beside what it has to beat, and beside itself with parts left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from glow_bt.evaluation.canvas import (
    INK,
    MUTED,
    Picture,
    bounds_note,
    canvas,
    column_of,
    date_axis,
    draw_curve,
    finite,
    label_panel,
    legend_above,
    log_scale,
    mark_bounds,
    regime_colour,
    sentences,
    time_of,
)
from glow_bt.evaluation.metrics import bar_returns
from glow_bt.evaluation.written import title_of
from glow_bt.statistics import percentile_interval, resampled_statistic

__all__ = ["band_of", "contenders_picture", "intervals_picture"]

Floats = NDArray[np.float64]

_BAND_DRAWS = 1000
# Where the band is worked out; between, it is straight.
_BAND_POINTS = 240
# Names that the legend has room for beside each other.
_IN_A_ROW = 6
_PANELS = (("sharpe", "Sharpe ratio"), ("max_drawdown", "largest drawdown"))


def band_of(
    equity: pd.Series[float], *, starting_equity: float, block_length: float, coverage: float
) -> pd.DataFrame:
    """Return columns low and high: where equity stands in so many of the resampled histories.

    Each bar by itself, not the curve as a whole. Rows are some of the bars only.

    Args:
        equity: account value at each bar's close, above zero.
        starting_equity: before the first bar.
        block_length: mean length of a block of the stationary bootstrap, in bars.
        coverage: share of the histories inside.
    """
    growth = np.log1p(bar_returns(equity, starting_equity=starting_equity))
    points = np.unique(np.linspace(0, len(growth) - 1, _BAND_POINTS).astype(np.intp))
    paths = resampled_statistic(
        lambda drawn: np.cumsum(drawn, axis=1)[:, points],
        growth,
        draws=_BAND_DRAWS,
        block_length=block_length,
    )
    low, high = percentile_interval(paths, coverage)
    return pd.DataFrame(
        {"low": starting_equity * np.exp(low), "high": starting_equity * np.exp(high)},
        index=equity.index[points],
    )


def contenders_picture(
    equity: pd.DataFrame,
    band: pd.DataFrame | None,
    bounds: Sequence[pd.Timestamp] = (),
    coverage: float = 0.95,
) -> Picture:
    """Equity of every contender, the first one's with the band of its bootstrap.

    Args:
        equity: one column a contender.
        band: see `band_of`; None for none.
        bounds: stamps at which a newer model takes over.
        coverage: of the band.
    """
    times = time_of(equity.index)
    names = [str(name) for name in equity]
    rows = 1 if len(names) <= _IN_A_ROW else 2
    with canvas(4.6, legend_rows=rows) as drawn:
        axes = drawn.axes[0]
        if band is not None:
            axes.fill_between(
                time_of(band.index), band["low"], band["high"], color=INK, alpha=0.13, linewidth=0
            )
        for number, name in reversed(list(enumerate(names))):
            values = column_of(equity, name)
            values[values <= 0] = np.nan  # a logarithm has no place for them
            colour = _colour(number)
            draw_curve(
                axes, times, values, colour=colour, label=title_of(name), width=1.0 + (number == 0)
            )
        log_scale(axes)
        label_panel(axes, "equity")
        mark_bounds(axes, bounds)
        date_axis(axes, times)
        by_label = {str(line.get_label()): line for line in axes.lines}
        legend_above(axes, [by_label[title_of(name)] for name in names], rows)
    return drawn.picture(
        "contenders_equity",
        title="Equity of all contenders",
        caption=sentences(
            "Account value at each bar's close, after fees, slippage and funding, on one scale "
            "of ratios.",
            f"The band holds {coverage:.0%} of {_BAND_DRAWS:,} histories that the stationary "
            "bootstrap made of GLOW's own bars, at each stamp by itself: what luck alone could "
            "have made of the same bars."
            if band is not None
            else "",
            bounds_note(bounds),
        ),
    )


def intervals_picture(intervals: Mapping[str, Any], coverage: float) -> Picture:
    """Sharpe ratio and drawdown of every contender with their intervals.

    Args:
        intervals: by contender and measure estimate, low and high.
        coverage: of the intervals.
    """
    names = list(intervals)
    height = 0.5 + 0.29 * len(names)
    with canvas(*[height] * len(_PANELS), dates=False, width=9.5) as drawn:
        for axes, (measure, label) in zip(drawn.axes, _PANELS, strict=True):
            rows = np.arange(len(names))[::-1]
            for row, name in zip(rows, names, strict=True):
                own = intervals[name][measure]
                estimate, low, high = (
                    float("nan") if own[key] is None else own[key]
                    for key in ("estimate", "low", "high")
                )
                colour = INK if name == names[0] else "#5F6368"
                axes.plot([low, high], [row, row], color=colour, linewidth=2.0, alpha=0.55)
                axes.plot(finite([estimate]), [row], "o", color=colour, markersize=5.5)
            axes.axvline(0.0, color=MUTED, linewidth=1.0)
            axes.set_yticks(rows, [title_of(name) for name in names])
            axes.set_ylim(-0.6, len(names) - 0.4)
            label_panel(axes, label)
            # Names need more room than the numbers that other panels have there, and the numbers
            # below a panel have the next one's heading under them.
            box = axes.get_position()
            axes.set_position((0.15, box.y0, box.x1 - 0.15, 0.86 * box.height))
    return drawn.picture(
        "intervals",
        title="Sharpe ratio and drawdown with intervals",
        caption=f"Dots: measured. Lines: {coverage:.0%} intervals of the stationary bootstrap; a "
        "contender without one never held a position. The interval of a drawdown says where those "
        "of like histories lie. Overlapping intervals prove nothing: contenders share their bars, "
        "so that the table of differences is what compares them.",
    )


def _colour(number: int) -> str:
    """Return the first contender's colour, the benchmark's grey, then others."""
    return (INK, MUTED)[number] if number < 2 else regime_colour(number - 1)
