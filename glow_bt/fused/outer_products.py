"""Sums over rows of products of two lines: the gradient of a matrix that a block went through.

For out[j, r] = sum_i weight[i, j] * in[i, r], on a block of features by rows, the gradient of a
weight is d[i, j] = sum_r in[i, r] * dout[j, r]. `TILE` x `TILE` of these sums stay in registers
all along the rows, one partial sum a lane.
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
from glow_bt.fused.lanes import Lanes, pointer_to, vector_of

__all__ = ["TILE", "add_outer_products"]

# Lines of either side that are taken at once: 16 sums are half of the machine's registers.
TILE = 4

Array = npt.NDArray[np.floating[Any]]


@intrinsic
def _add_tile(
    typing: Any,
    left: Any,
    i: Any,
    right: Any,
    j: Any,
    rows: Any,
    out: Any,
    at: Any,
    width: Any,
) -> Any:
    """Add the sums of TILE lines by TILE lines to as many parts of as many lines of `out`."""
    lanes, whole = Lanes(left.dtype), types.int64
    return (
        types.void(left, whole, right, whole, whole, out, whole, whole),
        lambda *emit: _emit_tile(lanes, *emit),
    )


def _emit_tile(lanes: Lanes, context: Any, builder: Any, sig: Any, args: Any) -> Any:
    left, i, right, j, rows, out, at, width = args
    kind, whole = vector_of(lanes), ir.IntType(64)
    totals = []
    for _ in range(TILE * TILE):
        totals.append(cgutils.alloca_once(builder, kind))
        builder.store(ir.Constant(kind, [0.0] * lanes.count), totals[-1])
    start_left = pointer_to(context, builder, sig.args[0], left, i)
    start_right = pointer_to(context, builder, sig.args[2], right, j)
    ends = whole(0), rows, whole(lanes.count)
    with cgutils.for_range_slice(builder, *ends, inc=True) as (r, _):
        xs = _lines(builder, builder.gep(start_left, [r]), rows, kind)
        ys = _lines(builder, builder.gep(start_right, [r]), rows, kind)
        for n, total in enumerate(totals):
            _accumulate(builder, total, xs[n // TILE], ys[n % TILE])
    target = pointer_to(context, builder, sig.args[5], out, at)
    sums = [builder.load(total) for total in totals]
    for first in range(0, len(sums), lanes.count):
        group = _sums_of_lanes(builder, sums[first : first + lanes.count])
        for part in range(lanes.count // TILE):
            line = builder.mul(width, whole(first // TILE + part))
            _add_to(builder, builder.gep(target, [line]), group, part * TILE)
    return context.get_dummy_value()


def _lines(builder: Any, first: Any, rows: Any, kind: Any) -> list[Any]:
    """Emit the same rows of TILE lines."""
    places = [builder.gep(first, [builder.mul(rows, ir.IntType(64)(n))]) for n in range(TILE)]
    return [_read(builder, place, kind) for place in places]


def _read(builder: Any, place: Any, kind: Any) -> Any:
    size = 4 if isinstance(kind.element, ir.FloatType) else 8
    return builder.load(builder.bitcast(place, kind.as_pointer()), align=size)


def _accumulate(builder: Any, total: Any, x: Any, y: Any) -> None:
    kind = x.type
    bits = 32 if isinstance(kind.element, ir.FloatType) else 64
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(kind, [kind] * 3),
        f"llvm.fmuladd.v{kind.count}f{bits}",
    )
    builder.store(builder.call(function, [x, y, builder.load(total)]), total)


def _sums_of_lanes(builder: Any, values: list[Any]) -> Any:
    """Emit one register whose lane n is the sum of the lanes of values[n].

    In each round neighbouring lanes are added, and two registers become one.
    """
    count = values[0].type.count
    order = ir.VectorType(ir.IntType(32), count)
    even = ir.Constant(order, list(range(0, 2 * count, 2)))
    odd = ir.Constant(order, list(range(1, 2 * count, 2)))
    while len(values) > 1:
        values = [
            builder.fadd(builder.shuffle_vector(x, y, even), builder.shuffle_vector(x, y, odd))
            for x, y in zip(values[::2], values[1::2], strict=True)
        ]
    return values[0]


def _add_to(builder: Any, place: Any, value: Any, first: int) -> None:
    """Emit the addition of TILE lanes, from one on, to as many numbers."""
    kind = ir.VectorType(value.type.element, TILE)
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), TILE), list(range(first, first + TILE)))
    part = builder.shuffle_vector(value, value, lanes)
    total = builder.fadd(_read(builder, place, kind), part)
    size = 4 if isinstance(kind.element, ir.FloatType) else 8
    builder.store(total, builder.bitcast(place, kind.as_pointer()), align=size)


@compiled
def add_outer_products(
    left: Array, i: int, right: Array, j: int, rows: int, out: Array, at: int, shape: Any
) -> None:
    """Add sum_r left[i, r] * right[j, r] to every element of a matrix.

    Args:
        left: features by rows, flat; its lines are as many as the matrix has.
        i: index of the first of these lines.
        right: the same, for the columns.
        j: index of the first of these lines.
        rows: of the block, a multiple of a register's lanes.
        out: flat.
        at: index of the matrix's first element.
        shape: of the matrix, two multiples of `TILE`.
    """
    for line in range(0, shape[0], TILE):
        for column in range(0, shape[1], TILE):
            _add_tile(
                left,
                i + line * rows,
                right,
                j + column * rows,
                rows,
                out,
                at + line * shape[1] + column,
                shape[1],
            )
