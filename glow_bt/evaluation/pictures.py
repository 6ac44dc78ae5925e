"""Pictures of a model at work, each drawn from the states that a run recorded.

States are a frame by bar open (see `glow_bt.bt.GlowRecorder`): close, exposure, equity and the
scores log_prob, in_distribution, regime and var, NaN where no model was valid, and optionally
filter_low and filter_high, the band of log-likelihoods that the filter lets pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.dates import date2num
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from glow_bt.evaluation.canvas import (
    ALARM,
    INK,
    MUTED,
    Picture,
    bounds_note,
    canvas,
    column_of,
    date_axis,
    draw_curve,
    label_panel,
    legend_above,
    log_scale,
    mark_bounds,
    regime_colour,
    regime_handles,
    regimes_in,
    say_empty,
    sentences,
    time_of,
)
from glow_bt.risk import christoffersen_test, kupiec_test

__all__ = [
    "equity_picture",
    "exposure_picture",
    "likelihood_picture",
    "regime_picture",
    "var_picture",
]

Bounds = Sequence[pd.Timestamp]
Floats = NDArray[np.float64]
_RIBBON_COLUMNS = 300
_NO_MODEL = "#D5D8DC"


def regime_picture(states: pd.DataFrame, bounds: Bounds = ()) -> Picture:
    """Price coloured by regime, over the share of each regime in time."""
    times, close = time_of(states.index), column_of(states, "close")
    regime = column_of(states, "regime")
    with canvas(3.4, 0.7) as drawn:
        price, ribbon = drawn.axes
        _draw_by_regime(price, times, close, regime)
        log_scale(price)
        label_panel(price, "close, log scale")
        _draw_ribbon(ribbon, times, regime)
        for axes in drawn.axes:
            mark_bounds(axes, bounds)
        date_axis(ribbon, times)
        legend_above(price, regime_handles(regime))
    return drawn.picture(
        "regimes",
        title="Price by regime",
        caption=sentences(
            "Each bar's close in the colour of the regime that the model read from its latent "
            "state; the strip below shows what share of the bars each regime had.",
            "Grey: no model was valid." if np.isnan(regime).any() else "",
            bounds_note(bounds),
        ),
    )


def likelihood_picture(states: pd.DataFrame, bounds: Bounds = ()) -> Picture:
    """Log-likelihood with the filter's band, and the bars outside it."""
    times, log_prob = time_of(states.index), column_of(states, "log_prob")
    inside = column_of(states, "in_distribution")
    scored = np.isfinite(log_prob)
    outside = scored & (inside == 0)
    with canvas(3.2) as drawn:
        axes = drawn.axes[0]
        draw_curve(axes, times, log_prob, colour=INK, label="log-likelihood", width=0.7)
        _draw_band(axes, times, states)
        bottom, cut = _cut_low_outliers(axes, log_prob[scored])
        shown = np.maximum(log_prob, bottom)
        axes.plot(
            times[outside], shown[outside], ".", color=ALARM, markersize=4, label="filtered out"
        )
        if not scored.any():
            say_empty(axes, "no model was valid on these bars")
        label_panel(axes, "log-likelihood, nats")
        mark_bounds(axes, bounds)
        date_axis(axes, times)
        legend_above(axes)
    return drawn.picture(
        "likelihood",
        title="Log-likelihood and filter",
        caption=sentences(
            "How likely the model finds each bar's market state.",
            "Bars outside the filter's band (dots) count as wholly unfamiliar: "
            f"{outside.sum():,} of {scored.sum():,} scored bars, {outside[scored].mean():.1%}."
            if scored.any()
            else "",
            f"Dots on the lower edge stand for still lower values ({cut:,})." if cut else "",
            bounds_note(bounds),
        ),
    )


def var_picture(
    states: pd.DataFrame, level: float, bounds: Bounds = (), horizon: int = 1
) -> Picture:
    """Log returns against the VaR forecast before them, violations marked.

    Args:
        states: the run's states; var at bar t is about the return from bar t to t + horizon.
        level: tail probability of the VaR.
        bounds: stamps at which a new model takes over.
        horizon: bars that a return is over; those shown do not overlap.
    """
    stamps = time_of(states.index)
    log_close, var = np.log(column_of(states, "close")), column_of(states, "var")
    first = int(np.isfinite(var).argmax()) % horizon
    made = np.arange(first, len(states) - horizon, horizon)
    times, var = stamps[made + horizon], var[made]
    returns = log_close[made + horizon] - log_close[made]
    known = np.isfinite(var) & np.isfinite(returns)
    hits = np.zeros(len(returns), dtype=bool)
    hits[known] = returns[known] < var[known]
    with canvas(3.4) as drawn:
        axes = drawn.axes[0]
        draw_curve(axes, times, returns, colour=MUTED, label="log return", width=0.6)
        draw_curve(axes, times, var, colour=INK, label=f"{_percent(level)} VaR")
        axes.plot(
            times[hits],
            returns[hits],
            "v",
            color=ALARM,
            markersize=5,
            markeredgecolor="white",
            markeredgewidth=0.4,
            label="violation",
        )
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        label_panel(axes, "log return")
        mark_bounds(axes, bounds)
        date_axis(axes, stamps)
        legend_above(axes)
    subject = "Each bar's return" if horizon == 1 else f"The return over every {horizon} bars"
    before = "one bar" if horizon == 1 else f"{horizon} bars"
    return drawn.picture(
        "var",
        title=f"Returns against {_percent(level)} VaR",
        caption=sentences(
            f"{subject} and the loss that the model, {before} before, expected to be "
            f"exceeded {_percent(level)} of the time.",
            _var_verdict(hits[known], level),
            bounds_note(bounds),
        ),
    )


def exposure_picture(states: pd.DataFrame, bounds: Bounds = ()) -> Picture:
    """Position value over equity at each close."""
    times, exposure = time_of(states.index), column_of(states, "exposure")
    held = exposure != 0
    with canvas(2.4) as drawn:
        axes = drawn.axes[0]
        axes.axhline(0.0, color="#5F6368", linewidth=0.8)
        draw_curve(axes, times, exposure, colour=INK)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        label_panel(axes, "position over equity")
        mark_bounds(axes, bounds)
        date_axis(axes, times)
    return drawn.picture(
        "exposure",
        title="Exposure",
        caption=sentences(
            "Value of the position as a share of the account, negative when short. In the "
            f"market at {held.mean():.1%} of the closes; mean exposure {exposure.mean():.1%}, "
            f"largest {exposure.max():.1%}, smallest {exposure.min():.1%}.",
            bounds_note(bounds),
        ),
    )


def equity_picture(
    states: pd.DataFrame, benchmark: pd.Series[float] | None = None, bounds: Bounds = ()
) -> Picture:
    """Growth of the account and of a benchmark, and how far each is below its peak.

    Args:
        states: the run's states.
        benchmark: value of the benchmark on the states' stamps. Default: the close.
        bounds: stamps at which a new model takes over.
    """
    times = time_of(states.index)
    held = states["close"] if benchmark is None else benchmark.reindex(states.index)
    curves = {
        "strategy": (column_of(states, "equity"), INK),
        "buy and hold": (held.to_numpy(dtype=np.float64), MUTED),
    }
    with canvas(3.0, 1.4) as drawn:
        growth, drawdown = drawn.axes
        for label, (values, colour) in reversed(curves.items()):
            relative = values / values[np.isfinite(values)][0]
            draw_curve(growth, times, relative, colour=colour, label=label, width=1.3)
            peak = np.fmax.accumulate(relative)
            draw_curve(drawdown, times, relative / peak - 1.0, colour=colour)
        low, high = growth.dataLim.intervaly
        if low > 0 and high > 4 * low:
            log_scale(growth)
        label_panel(growth, "value of 1 at the start")
        drawdown.yaxis.set_major_formatter(PercentFormatter(1.0))
        label_panel(drawdown, "loss since the peak")
        for axes in drawn.axes:
            mark_bounds(axes, bounds)
        date_axis(drawdown, times)
        legend_above(growth)
    return drawn.picture(
        "equity",
        title="Equity and drawdown",
        caption=sentences(
            "What one unit of money became with the strategy, after costs, and with buying and "
            "holding the same bars; below, the loss since the highest value so far.",
            bounds_note(bounds),
        ),
    )


def _percent(level: float) -> str:
    return f"{100 * level:g}%"


def _draw_by_regime(
    axes: Axes, times: NDArray[np.datetime64], values: Floats, regime: Floats
) -> None:
    """One line whose pieces, of equal regime each, have that regime's colour."""
    numbers = date2num(times)  # type: ignore[no-untyped-call]
    points = np.column_stack([numbers, values])
    codes = np.where(np.isnan(regime), -1, regime).astype(np.int64)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(codes)) + 1])
    ends = np.concatenate([starts[1:] + 1, [len(codes)]])
    colours = [_NO_MODEL if codes[i] < 0 else regime_colour(int(codes[i])) for i in starts]
    pieces = [points[start:end] for start, end in zip(starts, ends, strict=True)]
    axes.add_collection(LineCollection(pieces, colors=colours, linewidths=1.2))
    axes.autoscale_view()


def _draw_ribbon(axes: Axes, times: NDArray[np.datetime64], regime: Floats) -> None:
    """Share of each regime among neighbouring bars, stacked."""
    edges = np.linspace(0, len(regime), min(len(regime), _RIBBON_COLUMNS) + 1).astype(np.int64)
    at = times[np.minimum(edges, len(times) - 1)]
    sizes = np.diff(edges)
    below = np.zeros(len(sizes))
    for number in regimes_in(regime):
        above = below + np.add.reduceat((regime == number).astype(float), edges[:-1]) / sizes
        axes.fill_between(
            at, np.append(below, below[-1]), np.append(above, above[-1]),
            step="post", color=regime_colour(number), linewidth=0,
        )  # fmt: skip
        below = above
    axes.set_facecolor(_NO_MODEL)
    axes.set_ylim(0.0, 1.0)
    axes.set_yticks([])
    label_panel(axes, "share of bars by regime")
    axes.grid(visible=False)


def _draw_band(axes: Axes, times: NDArray[np.datetime64], states: pd.DataFrame) -> None:
    """Where the log-likelihood has to lie for the filter to let a bar pass."""
    if "filter_low" not in states or "filter_high" not in states:
        return
    low, high = column_of(states, "filter_low"), column_of(states, "filter_high")
    axes.fill_between(times, low, high, step="post", color="#009E73", alpha=0.13, linewidth=0)
    for edge, label in ((low, "filter's band"), (high, None)):
        axes.step(times, edge, where="post", color="#00795A", linewidth=1.1, label=label)


def _cut_low_outliers(axes: Axes, log_prob: Floats) -> tuple[float, int]:
    """Keep single bars of tiny likelihood from squeezing all others; lower edge, bars below."""
    if not log_prob.size:
        return -np.inf, 0
    low, high = np.quantile(log_prob, [0.005, 0.995])
    bottom = low - (high - low)
    below = int((log_prob < bottom).sum())
    if below:
        axes.set_ylim(bottom, log_prob.max() + 0.05 * (log_prob.max() - bottom))
    return float(bottom), below


def _var_verdict(hits: NDArray[np.bool_], level: float) -> str:
    if len(hits) < 2:
        return "Too few bars with a forecast to test it."
    rate, order = kupiec_test(hits, level), christoffersen_test(hits)
    return (
        f"{rate.num_violations:,} violations in {rate.num_bars:,} bars, "
        f"{rate.expected_violations:,.1f} expected. Kupiec's test of their number: "
        f"{_p_value(rate.pvalue)}; Christoffersen's test of their independence: "
        f"{_p_value(order.pvalue)}; a p below 0.05 speaks against the forecast."
    )


def _p_value(pvalue: float) -> str:
    return f"p = {pvalue:.3f}" if pvalue >= 0.001 else "p < 0.001"
