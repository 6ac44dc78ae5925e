"""Log-density of the latents of a block, added to its line of log_det; constants left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from glow_bt.fused.compiled import compiled
from glow_bt.fused.elementary import exp, log, log1p
from glow_bt.fused.lanes import VECTOR_BYTES, filled, load, multiply_add, select, store

__all__ = ["add_mixture", "add_normal", "add_student_t"]

Array = npt.NDArray[np.floating[Any]]


@compiled
def add_normal(data: Array, rows: int, source: int, count: int, log_det: int) -> None:
    """Add -|z|^2 / 2."""
    lanes = VECTOR_BYTES // data.itemsize
    for r in range(0, rows, lanes):
        total = filled(data, 0.0)
        for i in range(count):
            z = load(data, (source + i) * rows + r)
            total = multiply_add(z, z, total)
        at = log_det * rows + r
        store(data, at, load(data, at) - total * 0.5)


@compiled
def add_student_t(
    data: Array, rows: int, source: int, count: int, log_det: int, weights: Array, at: int
) -> None:
    """Add -(df + 1) / 2 * log(1 + z^2 / df), with the df of each feature at `at` in weights."""
    lanes = VECTOR_BYTES // data.itemsize
    for r in range(0, rows, lanes):
        total = load(data, log_det * rows + r)
        for i in range(count):
            df = weights[at + i]
            z = load(data, (source + i) * rows + r)
            total = total - log1p(z * z / df) * (0.5 * (df + 1.0))
        store(data, log_det * rows + r, total)


@compiled
def add_mixture(
    data: Array,
    rows: int,
    source: int,
    count: int,
    log_det: int,
    weights: Array,
    at: int,
    components: int,
    joint: int,
) -> None:
    """Add log sum_k exp(c_k - sum_i ((z_i - m_ki) / s_ki)^2 / 2).

    Weights from `at` on, a component after another: c_k, then all m, then all 1 / s. The lines
    from `joint` on are overwritten, one a component.
    """
    lanes = VECTOR_BYTES // data.itemsize
    for r in range(0, rows, lanes):
        top = filled(data, -np.inf)
        for k in range(components):
            first = at + k * (1 + 2 * count)
            total = filled(data, 0.0)
            for i in range(count):
                z = load(data, (source + i) * rows + r)
                u = (z - weights[first + 1 + i]) * weights[first + 1 + count + i]
                total = multiply_add(u, u, total)
            value = total * -0.5 + weights[first]
            store(data, (joint + k) * rows + r, value)
            top = select(value < top, top, value)
        total = filled(data, 0.0)
        for k in range(components):
            total = total + exp(load(data, (joint + k) * rows + r) - top)
        here = log_det * rows + r
        store(data, here, load(data, here) + top + log(total))
