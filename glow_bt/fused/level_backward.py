"""The way back through a level in training: gradients of rows, contexts and all parameters.

With the names of `glow_bt.fused.level_forward`, and d. for the gradient of the loss, step by
step from the last to the first, e being exp(s):

    d.t = d.h,  d.s = d.h * changed g * e + d.log_det,  d.s' = d.s (1 - (s / d)^2)
    d.q = (d.s', d.t) W_3^T where q > 0,  d.p = d.q W_2^T where p > 0,  d.u = d.p W_1^T
    d.c = f (d.u - u (u . d.u) / (n b^2))
    d.g = (d.h passed + d.c passed, d.h changed * e),  d.h <- d.g A^T

and for each map y = x W + w: d.W = sum over rows of x^T d.y, d.w = sum over rows of d.y.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from glow_bt.fused.compiled import compiled, kept
from glow_bt.fused.elementary import exp
from glow_bt.fused.lanes import (
    VECTOR_BYTES,
    filled,
    load,
    multiply_add,
    select,
    store,
    sum_of_lanes,
)
from glow_bt.fused.level_layout import (
    MAPS,
    Arrays,
    GradientLines,
    Layout,
    Starts,
    aligned,
    bring,
    packed_transposed,
    rows_of_block,
    take,
)
from glow_bt.fused.outer_products import add_outer_products
from glow_bt.fused.products import product_of_block

__all__ = ["backward"]

Array = npt.NDArray[np.floating[Any]]


@compiled
def _uncouple(
    grad: Array,
    lines: GradientLines,
    rows: int,
    data: Array,
    layout: Layout,
    line: int,
    bound: float,
) -> None:
    """Write d.g of the changed features, and (d.s', d.t), or d.t only.

    Args:
        grad: gradients, features by rows.
        lines: of these.
        rows: length of a line.
        data: what was saved.
        layout: of the level.
        line: first line of the step.
        bound: d; 0 for a coupling without log-scales.
    """
    lanes = VECTOR_BYTES // data.itemsize
    passed, count = layout.passed, layout.features - layout.passed
    for i in range(count):
        for r in range(0, rows, lanes):
            change = load(grad, (lines.here + passed + i) * rows + r)
            at = (lines.mapped + passed + i) * rows + r
            if bound > 0.0:
                log_s = load(data, (line + layout.raw + i) * rows + r)
                y = load(data, (line + layout.mapped + passed + i) * rows + r)
                through = change * exp(log_s)
                share = log_s * (1.0 / bound)
                slope = multiply_add(share * -1.0, share, filled(data, 1.0))
                log_s_grad = multiply_add(through, y, load(grad, r))
                store(grad, (lines.raw + i) * rows + r, log_s_grad * slope)
                store(grad, (lines.raw + count + i) * rows + r, change)
                store(grad, at, through)
            else:
                store(grad, (lines.raw + i) * rows + r, change)
                store(grad, at, change)


@compiled
def _release(
    grad: Array,
    lines: GradientLines,
    rows: int,
    data: Array,
    layout: Layout,
    line: int,
    bound: float,
) -> None:
    """Turn d.u into d.c: write d.g of the passed features, and add to d.context."""
    lanes = VECTOR_BYTES // data.itemsize
    count = layout.passed + layout.context
    share = 1.0 / (count * bound * bound)
    for r in range(0, rows, lanes):
        product = filled(data, 0.0)
        for i in range(count):
            u = load(data, (line + layout.condition + i) * rows + r)
            product = multiply_add(u, load(grad, (lines.condition + i) * rows + r), product)
        product = product * (share * -1.0)
        factor = load(data, (line + layout.factor) * rows + r)
        for i in range(count):
            u = load(data, (line + layout.condition + i) * rows + r)
            change = (
                multiply_add(u, product, load(grad, (lines.condition + i) * rows + r)) * factor
            )
            if i < layout.passed:
                change = change + load(grad, (lines.here + i) * rows + r)
                store(grad, (lines.mapped + i) * rows + r, change)
            else:
                at = (lines.context + i - layout.passed) * rows + r
                store(grad, at, load(grad, at) + change)


@compiled
def _add_gradients(
    grad: Array,
    origin: int,
    rows: int,
    data: Array,
    source: int,
    map_grad: Array,
    shift_grad: Array,
    step: int,
) -> None:
    """Add up d.W and d.w of one map.

    Args:
        grad: gradients, features by rows.
        origin: first line of d.y.
        rows: length of a line.
        data: what was saved.
        source: first line of x.
        map_grad: of all steps.
        shift_grad: of all steps.
        step: which one.
    """
    shape = map_grad.shape[1:]
    at = step * shape[0] * shape[1]
    add_outer_products(data, source * rows, grad, origin * rows, rows, map_grad, at, shape)
    lanes = VECTOR_BYTES // grad.itemsize
    for i in range(shift_grad.shape[1]):
        total = filled(grad, 0.0)
        for r in range(0, rows, lanes):
            total = total + load(grad, (origin + i) * rows + r)
        shift_grad[step, i] += sum_of_lanes(total)


@compiled
def _hide(grad: Array, first: int, count: int, rows: int, data: Array, hidden: int) -> None:
    """Set gradients to 0 where the hidden units of the block were."""
    lanes = VECTOR_BYTES // grad.itemsize
    for r in range(0, count * rows, lanes):
        at = first * rows + r
        store(grad, at, select(load(data, hidden * rows + r) > 0.0, load(grad, at), 0.0))


@compiled
def _return_through(
    step: int,
    grad: Array,
    lines: GradientLines,
    rows: int,
    data: Array,
    layout: Layout,
    bounds: tuple[float, float],
    weights: Array,
    starts: Starts,
    map_grads: Arrays,
    shift_grads: Arrays,
) -> None:
    """Go back through one step of a block."""
    line = layout.context + 1 + step * layout.step
    # Of the maps' inputs: their number, where they were saved, where their gradients go.
    conditions = layout.passed + layout.context
    inputs = (layout.features, conditions, layout.hidden, layout.hidden)
    sources = (0, layout.condition, layout.first, layout.second)
    targets = (lines.here, lines.condition, lines.first, lines.second)
    # Where the gradients of the maps' outputs are.
    origins = (lines.mapped, lines.first, lines.second, lines.raw)
    _uncouple(grad, lines, rows, data, layout, line, bounds[1])
    for m in range(MAPS - 1, -1, -1):
        if m == 0:
            _release(grad, lines, rows, data, layout, line, bounds[0])
        source = line + sources[m]
        _add_gradients(grad, origins[m], rows, data, source, map_grads[m], shift_grads[m], step)
        product_of_block(
            weights,
            starts[step, m],
            grad,
            origins[m] * rows,
            targets[m] * rows,
            rows,
            shift_grads[m].shape[1],
            inputs[m],
            False,
        )
        if m > 1:
            _hide(grad, targets[m], inputs[m], rows, data, source)


@kept
def backward(
    z_grad: Array,
    log_det_grad: Array,
    maps: Arrays,
    layout: Layout,
    lines: GradientLines,
    bounds: tuple[float, float],
    saved: Array,
    x_grad: Array,
    context_grad: Array,
    map_grads: Arrays,
    shift_grads: Arrays,
) -> None:
    """Take gradients back through a level.

    Args:
        z_grad: (N, D).
        log_det_grad: (N, 1).
        maps: as `forward` had them.
        layout: of the level.
        lines: `GradientLines` of the layout.
        bounds: b, and d or 0 for a coupling without log-scales.
        saved: filled by `forward`.
        x_grad: (N, D), filled.
        context_grad: (N, C), filled.
        map_grads: zeros, of the maps' shapes with the last two rounded up to whole `TILE`; to
            these the gradients are added.
        shift_grads: zeros, of the shifts' shapes.
    """
    weights, starts = packed_transposed(maps)
    longest = rows_of_block(len(z_grad), weights.itemsize)
    lanes = VECTOR_BYTES // weights.itemsize
    grad = aligned(weights, lines.total * longest)
    for start in range(0, len(z_grad), longest):
        count = min(longest, len(z_grad) - start)
        rows = (count + lanes - 1) // lanes * lanes
        data = saved[layout.total * start : layout.total * (start + rows)]
        bring(grad, rows, 0, log_det_grad, start, count)
        grad[rows : lines.here * rows] = 0.0
        bring(grad, rows, lines.here, z_grad, start, count)
        for step in range(len(starts) - 1, -1, -1):
            _return_through(
                step,
                grad,
                lines,
                rows,
                data,
                layout,
                bounds,
                weights,
                starts,
                map_grads,
                shift_grads,
            )
        take(grad, rows, lines.here, x_grad, start, count)
        take(grad, rows, lines.context, context_grad, start, count)
