"""What is worked out of one row at a live bar's close, compiled: arrays are short, calls cost.

The formulas are those of `SkewedTails`, `KnotSpline`, `FusedUnivariate` and, for a
recalibration, `glow_bt.risk.recalibration`, with numbers in place of arrays.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import float64, int64

from glow_bt.fused.compiled import compiled, kept

__all__ = ["mean_beyond", "parameters", "prepare", "quantile_spread", "quantiles", "values_at"]

Floats = npt.NDArray[np.float64]
Widths = npt.NDArray[np.int64]

_LEAST_RATIO = 1e-16


@compiled
def _stretch(w: float) -> float:
    """Return exp(w/2) sqrt((1 - exp(-w)) / w), which is 1 at w = 0."""
    safe = max(w, _LEAST_RATIO)
    return math.exp(0.5 * w) * math.sqrt(-math.expm1(-safe) / safe)


@compiled
def _soft_bound(x: float, bound: float) -> float:
    return bound * math.tanh(x / bound)


@compiled
def _body_of(value: float, knots: Floats) -> float:
    """Return the inverse of the spline with abscissas, ordinates and slopes (3, K)."""
    x, y, slopes = knots
    last = len(y) - 1
    if not y[0] < value < y[last]:
        return value
    k = 0
    while k < last - 1 and value >= y[k + 1]:
        k += 1
    width, height, d0, d1 = x[k + 1] - x[k], y[k + 1] - y[k], slopes[k], slopes[k + 1]
    slope = height / width
    rise = value - y[k]
    bend = rise * (d0 + d1 - 2.0 * slope)
    a = height * (slope - d0) + bend
    b = height * d0 - bend
    c = -slope * rise
    t = 2.0 * c / (-b - math.sqrt(max(b * b - 4.0 * a * c, 0.0)))
    body: float = x[k] + t * width
    return body


@compiled
def _value_at(body: float, scale: float, left: float, right: float, location: float) -> float:
    index = left if body < 0.0 else right
    return scale * (location + body * _stretch(body * body / index))


@kept
def values_at(
    values: Floats, knots: Floats, scale: float, left: float, right: float, location: float
) -> None:
    """Replace latents (K,) by the values of a row of `SkewedTails` there.

    Args:
        values: the latents.
        knots: abscissas, ordinates and slopes (3, K) of the spline.
        scale: above 0.
        left: index of the lower tail.
        right: index of the upper tail.
        location: in scales.
    """
    for k in range(len(values)):
        values[k] = _value_at(_body_of(values[k], knots), scale, left, right, location)


@kept
def quantiles(body: float, scale: Floats, left: Floats, right: Floats, location: float) -> Floats:
    """Return (N,) the values of rows of `SkewedTails` at one value of the body."""
    found = np.empty(len(scale))
    for i in range(len(scale)):
        found[i] = _value_at(body, scale[i], left[i], right[i], location)
    return found


@kept
def mean_beyond(nodes: Floats, scale: float, left: float, right: float, location: float) -> float:
    """Return the weighted sum over nodes (2, K), body and weight, of the values of a row."""
    total = 0.0
    for k in range(nodes.shape[1]):
        total += nodes[1, k] * _value_at(nodes[0, k], scale, left, right, location)
    return total


@kept
def parameters(
    context: Floats, weights: Floats, widths: Widths, constants: Floats, moves: Floats
) -> Floats:
    """Return scale, left and right index (3,) of the averaged flow given one context.

    Args:
        context: (C,).
        weights: of a member after another: of each layer biases (out,) and weights (in, out),
            then the line's weights (C,) and bias.
        widths: of context, inner layers and output.
        constants: bounds of context, log-scale and log-index, least index, mean log-scale and
            mean log-excesses.
        moves: (M, 3), filled with what each member's network says.

    Returns:
        NaN where the context is not finite.
    """
    clipped, found = np.empty(len(context)), np.empty(3)
    for i in range(len(context)):
        clipped[i] = min(max(context[i], -constants[0]), constants[0])
        if not math.isfinite(context[i]):
            clipped[i] = math.nan
    at = 0
    for member in range(len(moves)):
        at = _outputs(clipped, weights, widths, at, moves, member)
    for k in range(3):
        total = 0.0
        for member in range(len(moves)):
            total += moves[member, k]
        own = _soft_bound(total / len(moves), constants[1 if k == 0 else 2])
        found[k] = math.exp(constants[4 + k] + own) + (0.0 if k == 0 else constants[3])
    return found


@compiled
def _outputs(
    context: Floats, weights: Floats, widths: Widths, at: int, moves: Floats, member: int
) -> int:
    """Fill in what one member's network says, and return where the next one's weights begin."""
    values = context
    last = len(widths) - 1
    for layer in range(last):
        wide = widths[layer + 1]
        sums = np.empty(wide)
        for j in range(wide):
            sums[j] = weights[at + j]
        at += wide
        for i in range(widths[layer]):
            for j in range(wide):
                sums[j] += values[i] * weights[at + j]
            at += wide
        if layer < last - 1:
            for j in range(wide):
                sums[j] /= 1.0 + math.exp(-sums[j])
        values = sums
    for k in range(3):
        moves[member, k] = values[k]
    for i in range(len(context)):
        moves[member, 0] += weights[at + i] * context[i]
    moves[member, 0] += weights[at + len(context)]
    return at + len(context) + 1


@kept
def quantile_spread(moves: Floats, members: Floats, constants: Floats) -> float:
    """Return the population standard deviation of the members' quantiles, in units of y.

    Args:
        moves: (M, 3) what each member's network says.
        members: (M, 5) the body's value at the level, location, log-scale and log-excesses.
        constants: as for `parameters`.
    """
    count = len(moves)
    found = np.empty(count)
    for m in range(count):
        body, location, log_scale = members[m, 0], members[m, 1], members[m, 2]
        side = 1 if body >= 0.0 else 0
        excess = members[m, 3 + side] + _soft_bound(moves[m, 1 + side], constants[2])
        index = constants[3] + math.exp(excess)
        scale = math.exp(log_scale + _soft_bound(moves[m, 0], constants[1]))
        found[m] = _value_at(body, scale, index, index, location)
    mean = 0.0
    for m in range(count):
        mean += found[m] / count
    square = 0.0
    for m in range(count):
        square += (found[m] - mean) ** 2
    return math.sqrt(square / count)


def prepare() -> None:
    """Load these kernels from disk, or compile them (a second or two) and keep them there."""
    row, table, number = float64[::1], float64[:, ::1], float64
    signatures: tuple[tuple[Any, tuple[Any, ...]], ...] = (
        (values_at, (row, table, number, number, number, number)),
        (quantiles, (number, row, row, row, number)),
        (mean_beyond, (table, number, number, number, number)),
        (parameters, (row, row, int64[::1], row, table)),
        (quantile_spread, (table, table, row)),
    )
    for kernel, types in signatures:
        # Code that cannot be kept, as on a full disk, runs all the same.
        with contextlib.suppress(OSError):
            kernel.compile(types)
