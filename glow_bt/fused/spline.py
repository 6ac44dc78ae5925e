"""Rational-quadratic splines on a block; see `glow_bt.flows.spline` for the formulas."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from glow_bt.fused.compiled import compiled
from glow_bt.fused.elementary import absolute, exp, log, softplus
from glow_bt.fused.lanes import VECTOR_BYTES, filled, load, select, square_root, store

__all__ = ["bend"]

Array = npt.NDArray[np.floating[Any]]


@compiled
def bend(
    data: Array,
    rows: int,
    target: int,
    count: int,
    raw: int,
    sign: int,
    log_det: int,
    weights: Array,
    at: int,
    bins: int,
) -> None:
    """Send `count` lines through their splines, or back.

    From line `raw` on, a feature after another: raw widths, heights and inner slopes; widths
    and heights are overwritten. Weights from `at` on: half width, least share, least slope.
    """
    lanes = VECTOR_BYTES // data.itemsize
    half_width, min_share, min_slope = weights[at], weights[at + 1], weights[at + 2]
    unit = math.log(math.expm1(1.0 - min_slope))
    for i in range(count):
        knots = (raw + i * (3 * bins - 1)) * rows
        for r in range(0, rows, lanes):
            here = (target + i) * rows + r
            value = load(data, here)
            inside = absolute(value) < half_width
            middle = select(inside, value, 0.0)
            x0, x1, y0, y1, d0, d1 = _bin_of(
                data, rows, knots + r, bins, middle, sign, half_width, min_share
            )
            d0 = softplus(d0 + unit) + min_slope
            d1 = softplus(d1 + unit) + min_slope
            if sign > 0:
                bent, log_slope = _forward(middle, x0, x1 - x0, y0, y1 - y0, d0, d1)
            else:
                bent, log_slope = _inverse(middle, x0, x1 - x0, y0, y1 - y0, d0, d1)
            store(data, here, select(inside, bent, value))
            line = log_det * rows + r
            store(data, line, load(data, line) + select(inside, log_slope * sign, 0.0))


@compiled
def _bin_of(
    data: Array,
    rows: int,
    knots: int,
    bins: int,
    value: Any,
    sign: int,
    half_width: float,
    min_share: float,
) -> Any:
    """Return both ends of the bin that holds a value, in x and y, and raw slopes there."""
    heights, slopes = knots + bins * rows, knots + 2 * bins * rows
    width_unit = (1.0 - bins * min_share) / _exponentiate(data, rows, knots, bins)
    height_unit = (1.0 - bins * min_share) / _exponentiate(data, rows, heights, bins)
    end = filled(data, half_width)
    # A raw slope of 0 stands for slope 1, which the ends have.
    flat = filled(data, 0.0)
    x, y, slope = end * -1.0, end * -1.0, flat
    x0, x1, y0, y1, d0, d1 = x, end, y, end, flat, flat
    x_share, y_share = flat, flat
    for k in range(bins):
        x_share = x_share + load(data, knots + k * rows) * width_unit + min_share
        y_share = y_share + load(data, heights + k * rows) * height_unit + min_share
        next_x, next_y, next_slope = end, end, flat
        if k < bins - 1:
            next_x = x_share * (2.0 * half_width) - half_width
            next_y = y_share * (2.0 * half_width) - half_width
            next_slope = load(data, slopes + k * rows)
        reached = value >= (x if sign > 0 else y)
        x0, x1 = select(reached, x, x0), select(reached, next_x, x1)
        y0, y1 = select(reached, y, y0), select(reached, next_y, y1)
        d0, d1 = select(reached, slope, d0), select(reached, next_slope, d1)
        x, y, slope = next_x, next_y, next_slope
    return x0, x1, y0, y1, d0, d1


@compiled
def _exponentiate(data: Array, rows: int, at: int, count: int) -> Any:
    """Replace values by exp(value - largest) and return their sum."""
    top = load(data, at)
    for k in range(1, count):
        value = load(data, at + k * rows)
        top = select(value > top, value, top)
    total = filled(data, 0.0)
    for k in range(count):
        value = exp(load(data, at + k * rows) - top)
        store(data, at + k * rows, value)
        total = total + value
    return total


@compiled
def _forward(x: Any, x0: Any, width: Any, y0: Any, height: Any, d0: Any, d1: Any) -> Any:
    slope = height / width
    t = (x - x0) / width
    u = t * (1.0 - t)
    denominator = slope + (d0 + d1 - slope * 2.0) * u
    y = y0 + height * (slope * t * t + d0 * u) / denominator
    return y, _log_slope(t, u, slope, d0, d1, denominator)


@compiled
def _inverse(y: Any, x0: Any, width: Any, y0: Any, height: Any, d0: Any, d1: Any) -> Any:
    slope = height / width
    rise = y - y0
    bend = rise * (d0 + d1 - slope * 2.0)
    a = height * (slope - d0) + bend
    b = height * d0 - bend
    c = slope * rise * -1.0
    square = b * b - a * c * 4.0
    root = square_root(select(square < 0.0, 0.0, square))
    t = c * -2.0 / (b + root)
    u = t * (1.0 - t)
    denominator = slope + (d0 + d1 - slope * 2.0) * u
    return x0 + t * width, _log_slope(t, u, slope, d0, d1, denominator)


@compiled
def _log_slope(t: Any, u: Any, slope: Any, d0: Any, d1: Any, denominator: Any) -> Any:
    rest = 1.0 - t
    numerator = d1 * t * t + slope * u * 2.0 + d0 * rest * rest
    ratio = slope / denominator
    return log(ratio * ratio * numerator)
