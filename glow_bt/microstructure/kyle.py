"""Kyle's lambda: by how much trading moves the price."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Slopes", "rolling_slope"]

Floats = npt.NDArray[np.float64]
# Windows that are worked on at once, so that memory does not grow with the history.
_BLOCK = 8192
# Two points always lie on a line: an error is known from three on.
_FEWEST = 3


class Slopes(NamedTuple):
    """Slopes of regression lines.

    Attributes:
        slope: (M,) price per volume.
        standard_error: (M,) its standard error.
    """

    slope: Floats
    standard_error: Floats


def rolling_slope(
    flow: Floats, change: Floats, ends: npt.NDArray[np.int64], window: int
) -> Slopes:
    """Regress price changes on signed volume over the last intervals.

    Ordinary least squares with an intercept over the n intervals of a window with trades::

        change_i = c + lambda flow_i + u_i
        lambda = S_xy / S_xx,  standard error = sqrt(sum u_i^2 / (n - 2) / S_xx)

    - Linear: change is that of the last trade's price, flow the volume of buying takers less that
      of selling ones; lambda is in price per unit of volume. Source: Kyle 1985, "Continuous
      auctions and insider trading", Econometrica 53(6), where the price is linear in the order
      flow.
    - Square root: change is that of the log price, flow the sum of side times the square root of
      price times volume, trade by trade; lambda is in log return per root of the quote coin.
      Source: Hasbrouck 2009, "Trading costs and returns for U.S. equities", J. Finance 64(3),
      there over five minutes and without an intercept.

    Trade prices bounce between bid and ask, which raises lambda over short intervals.

    Args:
        flow: (L,) signed volumes; NaN for an interval without trades, which then is no
            observation (not one of no change).
        change: (L,) price changes; NaN likewise, and where no price was known before.
        ends: (M,) rows of the intervals that the windows end with.
        window: intervals that a window has.

    Returns:
        NaN for windows that begin before the first row, that have fewer than three
        observations, or in which the flow does not vary.
    """
    slope, error = np.full((2, len(ends)), np.nan)
    full = np.flatnonzero(ends >= window - 1)
    for start in range(0, len(full), _BLOCK):
        block = full[start : start + _BLOCK]
        rows = ends[block] - window + 1
        x = np.lib.stride_tricks.sliding_window_view(flow, window)[rows]
        y = np.lib.stride_tricks.sliding_window_view(change, window)[rows]
        slope[block], error[block] = _slopes(x, y)
    return Slopes(slope, error)


def _slopes(x: Floats, y: Floats) -> Slopes:
    seen = np.isfinite(x) & np.isfinite(y)
    count = seen.sum(axis=1)
    x, y = _centred(x, seen, count), _centred(y, seen, count)
    sxx = np.einsum("ij,ij->i", x, x)
    sxy = np.einsum("ij,ij->i", x, y)
    able = (count >= _FEWEST) & (sxx > 0)
    slope = np.divide(sxy, sxx, out=np.full(len(x), np.nan), where=able)
    residual = np.where(seen, y - slope[:, None] * x, 0.0)
    variance = np.einsum("ij,ij->i", residual, residual) / np.maximum(count - 2, 1)
    error = np.full(len(x), np.nan)
    np.sqrt(np.divide(variance, sxx, out=error, where=able), out=error)
    return Slopes(slope, error)


def _centred(values: Floats, seen: npt.NDArray[np.bool_], count: npt.NDArray[np.int64]) -> Floats:
    kept = np.where(seen, values, 0.0)
    mean = kept.sum(axis=1) / np.maximum(count, 1)
    return np.where(seen, kept - mean[:, None], 0.0)
