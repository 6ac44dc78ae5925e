"""Elementwise layers on a block: features by rows, flat, with a line of log_det beside them.

Lines are given by their number; `rows` is the length of one, a multiple of a register's lanes.
Each function takes `sign` 1 for the way to the latents and -1 for the way back.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from glow_bt.fused.compiled import compiled
from glow_bt.fused.elementary import absolute, exp, expm1, log, log1p, tanh
from glow_bt.fused.lanes import (
    VECTOR_BYTES,
    filled,
    load,
    multiply_add,
    select,
    square_root,
    store,
)

__all__ = ["bend_tails", "draw_in", "move_tails", "scale_and_shift", "shift"]

Array = npt.NDArray[np.floating[Any]]

# Beyond this ratio r, log(1 + r^2) is 2 log(r) to the last bit of either dtype.
_FAR = 1e8


@compiled
def draw_in(data: Array, rows: int, target: int, count: int, bound: float) -> None:
    """Divide `count` lines by sqrt(1 + mean(c^2) / bound^2)."""
    lanes = VECTOR_BYTES // data.itemsize
    share = 1.0 / (count * bound * bound)
    for r in range(0, rows, lanes):
        total = filled(data, 0.0)
        for i in range(count):
            value = load(data, (target + i) * rows + r)
            total = multiply_add(value, value, total)
        factor = 1.0 / square_root(total * share + 1.0)
        for i in range(count):
            at = (target + i) * rows + r
            store(data, at, load(data, at) * factor)


@compiled
def shift(data: Array, rows: int, target: int, count: int, shifts: int, sign: int) -> None:
    """Add to `count` lines the lines of shifts, or take them away."""
    lanes = VECTOR_BYTES // data.itemsize
    for i in range(0, count * rows, lanes):
        at = target * rows + i
        store(data, at, load(data, at) + load(data, shifts * rows + i) * sign)


@compiled
def scale_and_shift(
    data: Array,
    rows: int,
    target: int,
    count: int,
    raw: int,
    sign: int,
    bound: float,
    log_det: int,
) -> None:
    """Apply y * exp(log_s) + t to `count` lines, or undo it; log_s = bound * tanh(raw / bound).

    `raw` is the first line of the raw log-scales; the shifts follow them.
    """
    lanes = VECTOR_BYTES // data.itemsize
    inverse_bound = 1.0 / bound
    for r in range(0, rows, lanes):
        total = load(data, log_det * rows + r)
        for i in range(count):
            at = (target + i) * rows + r
            log_s = tanh(load(data, (raw + i) * rows + r) * inverse_bound) * (bound * sign)
            t = load(data, (raw + count + i) * rows + r)
            if sign > 0:
                store(data, at, multiply_add(load(data, at), exp(log_s), t))
            else:
                store(data, at, (load(data, at) - t) * exp(log_s))
            total = total + log_s
        store(data, log_det * rows + r, total)


@compiled
def move_tails(
    data: Array,
    rows: int,
    target: int,
    count: int,
    raw: int,
    sign: int,
    weights: Array,
    at: int,
) -> None:
    """Write the settings of `bend_tails` from a network's output.

    Weights from `at` on: bounds on the moves of m (in scales), s and log(a - min_index),
    min_index; then what moves, m, s, left and right log(a - min_index), a number a feature.
    """
    lanes = VECTOR_BYTES // data.itemsize
    least = weights[at + 3]
    start = at + 4
    for i in range(count):
        scale = exp(filled(data, weights[start + count + i]))
        for r in range(0, rows, lanes):
            line = (raw + i) * rows + r
            step = count * rows
            move = _bounded(load(data, line), weights[at]) * scale
            log_scale = _bounded(load(data, line + step), weights[at + 1])
            log_scale = (log_scale + weights[start + count + i]) * (sign * -1)
            left = _bounded(load(data, line + 2 * step), weights[at + 2])
            right = _bounded(load(data, line + 3 * step), weights[at + 2])
            line = (target + i) * rows + r
            store(data, line, move + weights[start + i])
            store(data, line + step, exp(log_scale))
            store(data, line + 2 * step, log_scale)
            store(data, line + 3 * step, exp(left + weights[start + 2 * count + i]) + least)
            store(data, line + 4 * step, exp(right + weights[start + 3 * count + i]) + least)


@compiled
def bend_tails(
    data: Array, rows: int, target: int, count: int, settings: int, sign: int, log_det: int
) -> None:
    """Turn power-law tails of `count` lines into Gaussian ones, or the reverse.

    Settings are 5 groups of `count` lines: location m, exp(-sign * s), -sign * s, left and
    right tail index. See `glow_bt.flows.tails.TailLayer`.
    """
    lanes = VECTOR_BYTES // data.itemsize
    step = count * rows
    for r in range(0, rows, lanes):
        total = load(data, log_det * rows + r)
        for i in range(count):
            line = (settings + i) * rows + r
            at = (target + i) * rows + r
            m, factor = load(data, line), load(data, line + step)
            left, right = load(data, line + 3 * step), load(data, line + 4 * step)
            value = load(data, at)
            if sign > 0:
                value = (value - m) * factor
                value, log_slope = _compress(value, select(value < 0.0, left, right))
            else:
                value, log_slope = _stretch(value, select(value < 0.0, left, right))
                value = multiply_add(value, factor, m)
            store(data, at, value)
            total = total + log_slope + load(data, line + 2 * step)
        store(data, log_det * rows + r, total)


@compiled
def _bounded(x: Any, bound: float) -> Any:
    return tanh(x * (1.0 / bound)) * bound


@compiled
def _compress(u: Any, index: Any) -> Any:
    """Return z = sign(u) sqrt(a log(1 + u^2 / a)) and log dz/du.

    With r = |u| / sqrt(a), w = log(1 + r^2) and root = sqrt(w) / r: z = u * root and
    log dz/du = -log(root) - w.
    """
    ratio = absolute(u) / square_root(index)
    far = ratio > _FAR
    near = select(far, 0.0, ratio)
    w = select(far, log(select(far, ratio, 1.0)) * 2.0, log1p(near * near))
    # sqrt(w) / r tends to 1 at 0, and is 1 to the last bit where r^2 is below eps.
    root = select(ratio > 1e-9, square_root(w) / ratio, 1.0)
    return u * root, log(root) * -1.0 - w


@compiled
def _stretch(z: Any, index: Any) -> Any:
    """Return u = sign(z) sqrt(a (exp(z^2 / a) - 1)) and log du/dz.

    With w = z^2 / a and root = sqrt((1 - exp(-w)) / w): u = z * exp(w / 2) * root and
    log du/dz = w / 2 - log(root).
    """
    w = z * z / index
    near = select(w > 80.0, 80.0, w)
    root = square_root(select(w > 1e-17, expm1(near * -1.0) * -1.0 / w, 1.0))
    return z * exp(w * 0.5) * root, w * 0.5 - log(root)
