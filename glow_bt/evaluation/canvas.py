"""The look that all pictures share: a figure off screen, a palette, a date axis, fewer points.

Figures are made without pyplot, so that neither the caller's settings, window system nor open
figures matter or change.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import ArrayLike, NDArray

from glow_bt.errors import DataError

__all__ = [
    "ALARM",
    "INK",
    "MOST_POINTS",
    "MUTED",
    "Canvas",
    "Picture",
    "bounds_note",
    "canvas",
    "column_of",
    "date_axis",
    "draw_curve",
    "finite",
    "label_panel",
    "legend_above",
    "log_scale",
    "mark_bounds",
    "regime_colour",
    "regime_handles",
    "regimes_in",
    "say_empty",
    "sentences",
    "time_of",
]

# Okabe & Ito's colours, which people with any colour vision tell apart; vermilion is kept for
# what needs attention and yellow is too faint on white.
_REGIME_COLOURS = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#8C5109",
    "#444444",
    "#6A51A3",
)
INK = "#0072B2"
MUTED = "#8A8F98"
ALARM = "#D55E00"
# A picture is about as many pixels wide; beyond, curves are drawn as bands.
MOST_POINTS = 4000
_COLUMNS = 900
_DPI = 144
_CSS_DPI = 96
_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#9AA0A6",
    "axes.grid": True,
    "axes.labelcolor": "#3C4043",
    "axes.labelsize": 9.5,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": "#3C4043",
    "axes.titlesize": 9.5,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "grid.color": "#E8EAED",
    "grid.linewidth": 0.8,
    "legend.fontsize": 9.0,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "xtick.color": "#5F6368",
    "ytick.color": "#5F6368",
}


@dataclass(frozen=True)
class Picture:
    """A finished picture.

    Attributes:
        name: short name, for the page's anchors.
        title: heading.
        caption: what it shows, in plain words.
        png: the image.
        width: how many CSS pixels wide it is meant to be seen.
    """

    name: str
    title: str
    caption: str
    png: bytes
    width: int


@dataclass
class Canvas:
    """A figure being drawn; `png` holds the image once the `canvas` block has ended."""

    figure: Figure
    axes: Sequence[Axes]
    png: bytes = field(default=b"")

    def picture(self, name: str, *, title: str, caption: str) -> Picture:
        """Return the finished picture with its words; after the `canvas` block only."""
        width = round(_CSS_DPI * self.figure.get_figwidth())
        return Picture(name, title, caption, self.png, width)


@contextmanager
def canvas(
    *heights: float,
    width: float = 11.0,
    right: float = 0.3,
    dates: bool = True,
    legend_rows: int = 1,
) -> Iterator[Canvas]:
    """Draw panels one below the other.

    Panels start and end at the same place in every picture of one width, so that times stand
    below each other on a page.

    Args:
        heights: height of each panel in inches.
        width: width of the picture in inches.
        right: space beside the panels in inches.
        dates: whether the panels share a horizontal axis of dates, which needs no label.
        legend_rows: of the legend above the first panel.

    Yields:
        The figure with one Axes a panel.
    """
    top, between, bottom, left = 0.36, 0.3, 0.5 if dates else 0.56, 0.82
    top += 0.2 * (legend_rows - 1)
    height = top + sum(heights) + between * (len(heights) - 1) + bottom
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=(width, height))
        grid = figure.subplots(
            len(heights),
            1,
            sharex=dates,
            squeeze=False,
            height_ratios=heights,
            gridspec_kw={
                "left": left / width,
                "right": 1.0 - right / width,
                "top": 1.0 - top / height,
                "bottom": bottom / height,
                "hspace": between / (sum(heights) / len(heights)),
            },
        )
        drawn = Canvas(figure, list(grid[:, 0]))
        yield drawn
        file = io.BytesIO()
        # Without the name and version of the library equal input gives equal bytes.
        figure.savefig(file, format="png", dpi=_DPI, metadata={"Software": None})
        drawn.png = file.getvalue()


def regime_colour(regime: int) -> str:
    """Return the colour of a regime; it is the same in every picture."""
    return _REGIME_COLOURS[regime % len(_REGIME_COLOURS)]


def column_of(states: pd.DataFrame, name: str) -> NDArray[np.float64]:
    """Return a column of a run's states, NaN for what cannot be drawn.

    Raises:
        DataError: if there is no such column.
    """
    if name not in states:
        raise DataError(
            f"expected states with a column {name}, found {', '.join(map(str, states.columns))}; "
            "give the frame that a run recorded"
        )
    return finite(states[name])


def finite(values: ArrayLike) -> NDArray[np.float64]:
    """Return values as floats, with NaN for what cannot be drawn."""
    floats = np.array(values, dtype=np.float64)
    floats[~np.isfinite(floats)] = np.nan
    return floats


def regimes_in(regime: NDArray[np.float64]) -> list[int]:
    """Return the regimes that occur, in order."""
    return [int(number) for number in np.unique(regime[np.isfinite(regime)])]


def regime_handles(regime: NDArray[np.float64]) -> list[Line2D]:
    """Return a legend's entries: colour and share of each regime."""
    known = np.isfinite(regime).sum()
    return [
        Line2D(
            [], [], color=regime_colour(number), linewidth=3,
            label=f"regime {number} ({(regime == number).sum() / known:.0%})",
        )
        for number in regimes_in(regime)
    ]  # fmt: skip


def sentences(*parts: str) -> str:
    """Join the sentences of a caption, leaving out empty ones."""
    return " ".join(filter(None, parts))


def bounds_note(bounds: Sequence[pd.Timestamp]) -> str:
    """Return what a caption says about the lines of `mark_bounds`."""
    return "A dotted line marks where a newer model takes over." if len(bounds) else ""


def time_of(index: pd.Index[Any]) -> NDArray[np.datetime64]:
    """Return stamps in UTC without a time zone, as matplotlib reads them."""
    stamps = pd.DatetimeIndex(index)
    if stamps.tz is not None:
        stamps = stamps.tz_convert("UTC").tz_localize(None)
    return stamps.to_numpy()


def date_axis(axes: Axes, times: NDArray[np.datetime64]) -> None:
    """Label the horizontal axis with as many dates as fit, over the whole of the times."""
    # matplotlib's own dates carry no types.
    locator = AutoDateLocator(minticks=4, maxticks=10)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    formatter = ConciseDateFormatter(locator)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(formatter)
    if times[0] < times[-1]:
        axes.set_xlim(times[0], times[-1])
    axes.margins(x=0)


def mark_bounds(axes: Axes, bounds: Sequence[pd.Timestamp]) -> None:
    """Draw a dotted line where a new model takes over."""
    for stamp in time_of(pd.DatetimeIndex(list(bounds))):
        axes.axvline(stamp, color="#5F6368", linestyle=":", linewidth=1.0, zorder=1.5)


def log_scale(axes: Axes) -> None:
    """Scale the vertical axis by ratios, with ticks written out."""
    low, high = axes.get_ylim()
    axes.set_yscale("log")
    one_decade = high < 8 * max(low, 1e-300)
    axes.yaxis.set_major_locator(MaxNLocator(6) if one_decade else LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def label_panel(axes: Axes, text: str) -> None:
    """Say above the panel's left edge what its vertical axis measures."""
    axes.set_title(text, loc="left")


def say_empty(axes: Axes, text: str) -> None:
    """Say in the middle of an empty panel why it is empty."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="#5F6368")
    axes.set_yticks([])


def legend_above(axes: Axes, handles: Sequence[Line2D] | None = None, rows: int = 1) -> None:
    """Put the legend above the panel's right edge, where it hides nothing.

    Args:
        axes: the panel.
        handles: what is named; default all that has a label.
        rows: as many as the `canvas` was told.
    """
    named = axes.get_legend_handles_labels()[0] if handles is None else handles
    axes.legend(
        handles=named,
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=max(math.ceil(len(named) / rows), 1),
        borderaxespad=0.2,
        columnspacing=1.4,
        handlelength=1.6,
    )


def draw_curve(
    axes: Axes,
    times: NDArray[np.datetime64],
    values: NDArray[np.float64],
    *,
    colour: str,
    label: str | None = None,
    width: float = 1.0,
) -> None:
    """Draw one value a bar, NaN as gaps.

    With more bars than the picture has columns, neighbouring bars share a column: a band from
    the lowest to the highest of them, and their median as a line.
    """
    if len(values) <= MOST_POINTS:
        axes.plot(times, values, color=colour, linewidth=width, label=label)
        return
    starts, low, middle, high = _columns(values)
    at = times[starts]
    axes.fill_between(at, low, high, color=colour, alpha=0.3, linewidth=0)
    axes.plot(at, middle, color=colour, linewidth=width, label=label)


def _columns(
    values: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Gather neighbours: first row, lowest, median and highest value of each column."""
    edges = np.linspace(0, len(values), _COLUMNS + 1).astype(np.int64)
    per_column = int(np.diff(edges).max())
    rows = np.minimum(edges[:-1, None] + np.arange(per_column), edges[1:, None] - 1)
    table = values[rows]
    known = np.isfinite(table).any(axis=1)
    summary = np.full((3, _COLUMNS), np.nan)
    summary[0, known] = np.nanmin(table[known], axis=1)
    summary[1, known] = np.nanmedian(table[known], axis=1)
    summary[2, known] = np.nanmax(table[known], axis=1)
    return edges[:-1], summary[0], summary[1], summary[2]
