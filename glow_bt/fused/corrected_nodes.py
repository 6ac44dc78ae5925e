"""Where a recalibrated distribution is looked at for its tail, compiled, for one row.

The formulas are those of `glow_bt.risk.recalibration.Recalibrated`, with numbers in place of
arrays.
"""

from __future__ import annotations

import contextlib
import math

import numpy as np
import numpy.typing as npt
from numba import float64, int64

from glow_bt.fused.compiled import compiled, kept

__all__ = ["corrected_nodes", "prepare"]

Floats = npt.NDArray[np.float64]

_LOG_2PI = math.log(2 * math.pi)


@kept
def corrected_nodes(
    normal: Floats,
    offsets: Floats,
    before: int,
    least_slope: float,
    fixed: Floats,
    kinks: Floats,
    rule: Floats,
    p: float,
) -> Floats:
    """Return latents (2, 1 + L + K) and their weights in the mean beyond the p-quantile.

    The first latent is the quantile's, L follow that the recalibration follows, all of no weight;
    the rest are nodes of the pieces that knots and kinks cut the tail into.

    Args:
        normal: normal quantiles of all knots, ascending.
        offsets: (L,) of the followed quantiles.
        before: knots below those of the followed quantiles.
        least_slope: share of normal quantiles' distances that latents' keep.
        fixed: ends of the tail's pieces, ascending, as normal quantiles.
        kinks: latents at which the distribution is not smooth.
        rule: nodes on [0, 1] and weights, which sum to 2, of a quadrature rule (2, R).
        p: level, inside (0, 1).
    """
    count, per_piece = len(offsets), rule.shape[1]
    knots = np.empty(len(normal))
    _fill_knots(knots, normal, offsets, before, least_slope)
    cuts = np.empty(len(fixed) + len(kinks))
    last = _fill_cuts(cuts, fixed, kinks, knots, normal)
    latents = np.empty(last + 1)
    for k in range(last + 1):
        latents[k] = _interpolated(cuts[k], normal, knots)
    found = np.empty((2, 1 + count + last * per_piece))
    for k in range(1 + count):
        found[0, k] = latents[0 if p > 0.5 else last]
        found[1, k] = 0.0
    for k in range(count):
        found[0, 1 + k] = normal[before + k] + offsets[k]
    at, share = 1 + count, min(p, 1.0 - p)
    for piece in range(last):
        length, wide = cuts[piece + 1] - cuts[piece], latents[piece + 1] - latents[piece]
        for k in range(per_piece):
            z = cuts[piece] + length * rule[0, k]
            density = math.exp(-0.5 * (z * z + _LOG_2PI)) / share
            found[0, at] = latents[piece] + wide * rule[0, k]
            found[1, at] = 0.5 * length * rule[1, k] * density
            at += 1
    return found


@compiled
def _fill_knots(
    knots: Floats, normal: Floats, offsets: Floats, before: int, least_slope: float
) -> None:
    """Fill in the latents that normal quantiles stand for, in order whatever the offsets."""
    ends, after = len(normal) - 1, before + len(offsets)
    for k in range(before, after):
        knots[k] = normal[k] + offsets[k - before] - least_slope * normal[k]
    middle = before + len(offsets) // 2
    for k in range(middle + 1, after):
        knots[k] = max(knots[k], knots[k - 1])
    for k in range(middle - 1, before - 1, -1):
        knots[k] = min(knots[k], knots[k + 1])
    for k in range(before, after):
        knots[k] += least_slope * normal[k]
    # In proportion to the outermost level, where it has a knot further out, then in parallel.
    for k in range(before - 1, -1, -1):
        slope = max(knots[before] / normal[before], least_slope) if k > 0 else 1.0
        knots[k] = knots[k + 1] + slope * (normal[k] - normal[k + 1])
    for k in range(after, ends + 1):
        slope = max(knots[after - 1] / normal[after - 1], least_slope) if k < ends else 1.0
        knots[k] = knots[k - 1] + slope * (normal[k] - normal[k - 1])


@compiled
def _fill_cuts(cuts: Floats, fixed: Floats, kinks: Floats, knots: Floats, normal: Floats) -> int:
    """Fill in the fixed ends of pieces and the kinks between them, ascending; return the last."""
    last = len(fixed) - 1
    for k in range(last + 1):
        cuts[k] = fixed[k]
    for k in range(len(kinks)):
        w = _interpolated(kinks[k], knots, normal)
        if fixed[0] < w < fixed[len(fixed) - 1]:
            last += 1
            at = last
            while cuts[at - 1] > w:
                cuts[at] = cuts[at - 1]
                at -= 1
            cuts[at] = w
    return last


@compiled
def _interpolated(value: float, x: Floats, y: Floats) -> float:
    """Return `numpy.interp` of one value; beyond the ends the value there."""
    last = len(x) - 1
    k = 0
    while k < last - 1 and value >= x[k + 1]:
        k += 1
    inside = min(max(value, x[0]), x[last])
    found: float = (y[k + 1] - y[k]) / (x[k + 1] - x[k]) * (inside - x[k]) + y[k]
    return found


def prepare() -> None:
    """Load the kernel from disk, or compile it (a second) and keep it there."""
    row = float64[::1]
    # Code that cannot be kept, as on a full disk, runs all the same.
    with contextlib.suppress(OSError):
        corrected_nodes.compile(  # type: ignore[attr-defined]
            (row, row, int64, float64, row, row, float64[:, ::1], float64)
        )
