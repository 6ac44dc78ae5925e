"""A level of a Glow in training: its latents, and on the way back the gradients of everything.

Each step, given the affine map (A, a) and the layers of its network (W_m, b_m):

    g = h A + a,  c = (passed g, context),  u = f c  with f = (1 + |c|^2 / (n b^2))^(-1/2)
    p = relu(u W_1 + b_1),  q = relu(p W_2 + b_2),  (s', t) = q W_3 + b_3
    s = d tanh(s' / d),  h <- (passed g, changed g * exp(s) + t),  log_det <- log_det + sum(s)

with n features in c, b the bound on the condition and d that on log-scales; without log-scales
(NICE) s = 0 and the network gives t only. See `glow_bt.flows.level.GlowLevel`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from glow_bt.fused.compiled import compiled, kept
from glow_bt.fused.elementary import exp, tanh
from glow_bt.fused.lanes import VECTOR_BYTES, filled, load, multiply_add, square_root, store
from glow_bt.fused.level_layout import MAPS, Arrays, Layout, bring, packed, rows_of_block, take
from glow_bt.fused.products import product_of_block

__all__ = ["forward", "saved_size"]

Array = npt.NDArray[np.floating[Any]]


def saved_size(layout: Layout, count: int, itemsize: int) -> int:
    """Return how many numbers `forward` saves for `backward`."""
    lanes = VECTOR_BYTES // itemsize
    return layout.total * -(-count // lanes) * lanes


@compiled
def _copy(data: Array, rows: int, source: int, target: int, count: int) -> None:
    lanes = VECTOR_BYTES // data.itemsize
    for at in range(0, count * rows, lanes):
        store(data, target * rows + at, load(data, source * rows + at))


@compiled
def _draw_in(data: Array, rows: int, layout: Layout, line: int, bound: float) -> None:
    """Write a step's factor f and its condition u."""
    lanes = VECTOR_BYTES // data.itemsize
    count = layout.passed + layout.context
    share = 1.0 / (count * bound * bound)
    condition = line + layout.condition
    _copy(data, rows, line + layout.mapped, condition, layout.passed)
    _copy(data, rows, 0, condition + layout.passed, layout.context)
    for r in range(0, rows, lanes):
        total = filled(data, 0.0)
        for i in range(count):
            value = load(data, (condition + i) * rows + r)
            total = multiply_add(value, value, total)
        factor = 1.0 / square_root(total * share + 1.0)
        store(data, (line + layout.factor) * rows + r, factor)
        for i in range(count):
            at = (condition + i) * rows + r
            store(data, at, load(data, at) * factor)


@compiled
def _couple(data: Array, rows: int, layout: Layout, line: int, bound: float) -> None:
    """Write what enters the next step, and a step's log-scales over their raw values."""
    lanes = VECTOR_BYTES // data.itemsize
    source = line + layout.mapped
    target = line + layout.step
    _copy(data, rows, source, target, layout.passed)
    count = layout.features - layout.passed
    for r in range(0, rows, lanes):
        total = load(data, layout.context * rows + r)
        for i in range(count):
            y = load(data, (source + layout.passed + i) * rows + r)
            at = (target + layout.passed + i) * rows + r
            raw = (line + layout.raw + i) * rows + r
            if bound > 0.0:
                log_s = tanh(load(data, raw) * (1.0 / bound)) * bound
                store(data, at, multiply_add(y, exp(log_s), load(data, raw + count * rows)))
                store(data, raw, log_s)
                total = total + log_s
            else:
                store(data, at, y + load(data, raw))
        store(data, layout.context * rows + r, total)


@kept
def forward(
    x: Array,
    context: Array,
    maps: Arrays,
    shifts: Arrays,
    layout: Layout,
    bounds: tuple[float, float],
    saved: Array,
    z: Array,
    log_det: Array,
) -> None:
    """Take rows through a level.

    Args:
        x: (N, D).
        context: (N, C).
        maps: A (K, D, D), W_1 (K, n, H), W_2 (K, H, H), W_3 (K, H, outputs).
        shifts: the same without the middle dimension.
        layout: of the level.
        bounds: b, and d or 0 for a coupling without log-scales.
        saved: what `backward` needs, `saved_size`; filled.
        z: (N, D), filled.
        log_det: (N,), filled; without what the affine maps add.
    """
    weights, starts = packed(maps, shifts)
    longest = rows_of_block(len(x), weights.itemsize)
    lanes = VECTOR_BYTES // weights.itemsize
    inputs = (layout.features, layout.passed + layout.context, layout.hidden, layout.hidden)
    outputs = (layout.features, layout.hidden, layout.hidden, layout.outputs)
    sources = (0, layout.condition, layout.first, layout.second)
    targets = (layout.mapped, layout.first, layout.second, layout.raw)
    first = layout.context + 1
    for start in range(0, len(x), longest):
        count = min(longest, len(x) - start)
        rows = (count + lanes - 1) // lanes * lanes
        data = saved[layout.total * start : layout.total * (start + rows)]
        bring(data, rows, 0, context, start, count)
        bring(data, rows, first, x, start, count)
        data[layout.context * rows : first * rows] = 0.0
        for k in range(len(starts)):
            line = first + k * layout.step
            for m in range(MAPS):
                if m == 1:
                    _draw_in(data, rows, layout, line, bounds[0])
                product_of_block(
                    weights,
                    starts[k, m],
                    data,
                    (line + sources[m]) * rows,
                    (line + targets[m]) * rows,
                    rows,
                    inputs[m],
                    outputs[m],
                    m == 1 or m == 2,
                )
            _couple(data, rows, layout, line, bounds[1])
        take(data, rows, first + len(starts) * layout.step, z, start, count)
        log_det[start : start + count] = data[layout.context * rows :][:count]
