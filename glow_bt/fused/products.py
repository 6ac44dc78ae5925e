"""Matrix products: a block of rows at once, or one row that skips what is 0.

Weights lie in panels: for each 64 bytes' worth of outputs (16 of float32, 8 of float64) one line
an input, then the biases; the last panel is filled up with zeros. A panel's line is read whole,
and the same storage serves both kernels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from glow_bt.fused.compiled import compiled
from glow_bt.fused.lanes import VECTOR_BYTES, Lanes, element_type, fill, pointer_to, vector_of

__all__ = ["PANEL_BYTES", "pack", "padded", "product_of_block", "product_of_row"]

PANEL_BYTES = 64
# Outputs times registers of rows that are summed at once: as many as the machine's registers
# hold beside the operands.
_TILE_OUTPUTS = 8 if VECTOR_BYTES == 64 else 4
_TILE_VECTORS = 2
# The same for one row, where registers hold outputs: panels side by side, or inputs at once.
_ROW_PANELS = 8 if VECTOR_BYTES == 64 else 4
_ROW_UNROLL = 4

Array = npt.NDArray[np.floating[Any]]


def padded(count: int, itemsize: int) -> int:
    """Return a number of outputs, rounded up to whole panels."""
    panel = PANEL_BYTES // itemsize
    return -(-count // panel) * panel


def pack(weight: Array, bias: Array) -> Array:
    """Return a weight (out, in) and bias (out,) as panels, flat."""
    outputs, inputs = weight.shape
    full = padded(outputs, weight.itemsize)
    panel = PANEL_BYTES // weight.itemsize
    lines = np.zeros((full, inputs + 1), weight.dtype)
    lines[:outputs, :inputs] = weight
    lines[:outputs, inputs] = bias
    panels = lines[:, :inputs].reshape(full // panel, panel, inputs).transpose(0, 2, 1)
    return np.concatenate([panels.ravel(), lines[:, inputs]])


def _tile(num_vectors: int) -> Any:
    """Return a function that computes `_TILE_OUTPUTS` outputs of some registers of rows.

    out[i, r] = bias[i] + sum_k weight[k, i] * in[k, r], with the sums in registers all along.
    """

    @intrinsic
    def tile(
        typing: Any,
        weights: Any,
        line: Any,
        bias: Any,
        data: Any,
        source: Any,
        target: Any,
        rows: Any,
        inputs: Any,
        relu: Any,
    ) -> Any:
        lanes = Lanes(data.dtype)
        at = types.int64
        return (
            types.void(weights, at, at, data, at, at, at, at, types.boolean),
            lambda *emit: _emit_tile(lanes, num_vectors, *emit),
        )

    return tile


def _emit_tile(
    lanes: Lanes,
    num_vectors: int,
    context: Any,
    builder: Any,
    sig: Any,
    args: Any,
) -> Any:
    weights, line, bias, data, source, target, rows, inputs, relu = args
    kind = vector_of(lanes)
    line = pointer_to(context, builder, sig.args[0], weights, line)
    bias = pointer_to(context, builder, sig.args[0], weights, bias)
    source = pointer_to(context, builder, sig.args[3], data, source)
    target = pointer_to(context, builder, sig.args[3], data, target)
    sums = []
    for i in range(_TILE_OUTPUTS):
        start = fill(builder, builder.load(_step(builder, bias, i)), kind)
        sums.append([_variable(builder, start) for _ in range(num_vectors)])
    panel = PANEL_BYTES // (lanes.dtype.bitwidth // 8)
    with cgutils.for_range(builder, inputs) as loop:
        here = builder.gep(line, [builder.mul(loop.index, ir.IntType(64)(panel))])
        row = builder.gep(source, [builder.mul(loop.index, rows)])
        values = [
            _read(builder, _step(builder, row, v * lanes.count), lanes) for v in range(num_vectors)
        ]
        for i in range(_TILE_OUTPUTS):
            weight = fill(builder, builder.load(_step(builder, here, i)), kind)
            for total, value in zip(sums[i], values, strict=True):
                _accumulate(builder, total, weight, value)
    for i in range(_TILE_OUTPUTS):
        row = builder.gep(target, [builder.mul(rows, ir.IntType(64)(i))])
        for v in range(num_vectors):
            value = _rectified(builder, builder.load(sums[i][v]), relu)
            _write(builder, value, _step(builder, row, v * lanes.count), lanes)
    return context.get_dummy_value()


def _panels(num_panels: int, unroll: int) -> Any:
    """Return a function that computes whole panels of outputs of one row.

    out[j] = bias[j] + sum_i weight[index[i], j] * value[i] over the inputs that are not 0,
    `unroll` of them at a time.
    """

    @intrinsic
    def panels(
        typing: Any,
        weights: Any,
        line: Any,
        bias: Any,
        data: Any,
        values: Any,
        target: Any,
        indices: Any,
        count: Any,
        inputs: Any,
        relu: Any,
    ) -> Any:
        lanes = Lanes(data.dtype)
        at = types.int64
        return (
            types.void(weights, at, at, data, at, at, indices, at, at, types.boolean),
            lambda *emit: _emit_panels(lanes, num_panels, unroll, *emit),
        )

    return panels


def _emit_panels(
    lanes: Lanes,
    num_panels: int,
    unroll: int,
    context: Any,
    builder: Any,
    sig: Any,
    args: Any,
) -> Any:
    weights, line, bias, data, values, target, indices, count, inputs, relu = args
    panel = PANEL_BYTES // (lanes.dtype.bitwidth // 8)
    kind = ir.VectorType(element_type(lanes.dtype), panel)
    whole = ir.IntType(64)
    line = pointer_to(context, builder, sig.args[0], weights, line)
    bias = pointer_to(context, builder, sig.args[0], weights, bias)
    values = pointer_to(context, builder, sig.args[3], data, values)
    target = pointer_to(context, builder, sig.args[3], data, target)
    indices = pointer_to(context, builder, sig.args[6], indices, whole(0))
    stride = builder.mul(inputs, whole(panel))
    starts = [
        _read_as(builder, _step(builder, bias, p * panel), kind, lanes) for p in range(num_panels)
    ]
    sums = [[_variable(builder, start)] for start in starts]
    zero = ir.Constant(kind, [0.0] * panel)
    for partial in sums:
        partial.extend(_variable(builder, zero) for _ in range(unroll - 1))
    with cgutils.for_range_slice(builder, whole(0), count, whole(unroll)) as (first, _):
        for u in range(unroll):
            i = builder.add(first, whole(u))
            value = fill(builder, builder.load(builder.gep(values, [i])), kind)
            k = builder.load(builder.gep(indices, [i]))
            here = builder.gep(line, [builder.mul(k, whole(panel))])
            for partial in sums:
                weight = _read_as(builder, here, kind, lanes)
                _accumulate(builder, partial[u], weight, value)
                here = builder.gep(here, [stride])
    for p, partial in enumerate(sums):
        total = builder.load(partial[0])
        for other in partial[1:]:
            total = builder.fadd(total, builder.load(other))
        _write(builder, _rectified(builder, total, relu), _step(builder, target, p * panel), lanes)
    return context.get_dummy_value()


def _step(builder: Any, address: Any, count: int) -> Any:
    return builder.gep(address, [ir.IntType(64)(count)])


def _variable(builder: Any, start: Any) -> Any:
    """Return a place for a sum; the optimiser makes a register of it."""
    place = cgutils.alloca_once(builder, start.type)
    builder.store(start, place)
    return place


def _accumulate(builder: Any, total: Any, weight: Any, value: Any) -> None:
    kind = weight.type
    bits = 32 if isinstance(kind.element, ir.FloatType) else 64
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(kind, [kind] * 3),
        f"llvm.fmuladd.v{kind.count}f{bits}",
    )
    builder.store(builder.call(function, [weight, value, builder.load(total)]), total)


def _rectified(builder: Any, value: Any, relu: Any) -> Any:
    """Return max(value, 0) if relu, and NaN for NaN."""
    kind = value.type
    zero = ir.Constant(kind, [0.0] * kind.count)
    wanted = fill(builder, relu, ir.VectorType(ir.IntType(1), kind.count))
    negative = builder.and_(builder.fcmp_ordered("<", value, zero), wanted)
    return builder.select(negative, zero, value)


def _read(builder: Any, address: Any, lanes: Lanes) -> Any:
    return _read_as(builder, address, vector_of(lanes), lanes)


def _read_as(builder: Any, address: Any, kind: Any, lanes: Lanes) -> Any:
    return builder.load(
        builder.bitcast(address, kind.as_pointer()), align=lanes.dtype.bitwidth // 8
    )


def _write(builder: Any, value: Any, address: Any, lanes: Lanes) -> None:
    builder.store(
        value,
        builder.bitcast(address, value.type.as_pointer()),
        align=lanes.dtype.bitwidth // 8,
    )


_wide_tile = _tile(_TILE_VECTORS)
_narrow_tile = _tile(1)
_many_panels = _panels(_ROW_PANELS, 1)
_one_panel = _panels(1, _ROW_UNROLL)


@compiled
def product_of_block(
    weights: Array,
    at: int,
    data: Array,
    source: int,
    target: int,
    rows: int,
    inputs: int,
    outputs: int,
    relu: bool,
) -> None:
    """Compute out = weight @ in + bias for a block, features by rows.

    Args:
        weights: packed, flat.
        at: index of this product's first weight.
        data: features by rows, flat.
        source: index of the first input.
        target: index of the first output.
        rows: of the block, a multiple of a register's lanes.
        inputs: their number.
        outputs: their number; up to a panel more rows than that are written.
        relu: whether negative outputs become 0.
    """
    panel = PANEL_BYTES // data.itemsize
    lanes = VECTOR_BYTES // data.itemsize
    bias = at + (outputs + panel - 1) // panel * panel * inputs
    for first in range(0, outputs, _TILE_OUTPUTS):
        line = at + first // panel * panel * inputs + first % panel
        for r in range(0, rows - lanes, 2 * lanes):
            _wide_tile(
                weights,
                line,
                bias + first,
                data,
                source + r,
                target + first * rows + r,
                rows,
                inputs,
                relu,
            )
        if rows // lanes % 2:
            r = rows - lanes
            _narrow_tile(
                weights,
                line,
                bias + first,
                data,
                source + r,
                target + first * rows + r,
                rows,
                inputs,
                relu,
            )


@compiled
def product_of_row(
    weights: Array,
    at: int,
    data: Array,
    values: int,
    indices: npt.NDArray[np.int64],
    target: int,
    count: int,
    inputs: int,
    outputs: int,
    relu: bool,
) -> None:
    """Compute out = weight @ in + bias for one row of which only the inputs that are not 0 come.

    Args:
        weights: packed, flat.
        at: index of this product's first weight.
        data: flat.
        values: index of the first of the inputs that are not 0, side by side.
        indices: which inputs those are.
        target: index of the first output, side by side as well.
        count: how many inputs are not 0; up to the next multiple of 4 zeros follow.
        inputs: the number of all inputs.
        outputs: their number; whole panels are written.
        relu: whether negative outputs become 0.
    """
    panel = PANEL_BYTES // data.itemsize
    full = (outputs + panel - 1) // panel
    bias = at + full * panel * inputs
    p = 0
    while p + _ROW_PANELS <= full:
        _many_panels(
            weights,
            at + p * panel * inputs,
            bias + p * panel,
            data,
            values,
            target + p * panel,
            indices,
            count,
            inputs,
            relu,
        )
        p += _ROW_PANELS
    while p < full:
        _one_panel(
            weights,
            at + p * panel * inputs,
            bias + p * panel,
            data,
            values,
            target + p * panel,
            indices,
            count,
            inputs,
            relu,
        )
        p += 1
