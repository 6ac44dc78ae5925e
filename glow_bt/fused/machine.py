"""The compiled kernel: it carries out a program on blocks of rows, or on one row.

A program is a table of operations, one a line, on numbered lines of a working memory; each
line holds one number a row of the block. So one compiled function a dtype serves every width,
depth and setting, in both directions. The block stays in the cache from the first operation to
the last. One row takes a register's worth of lanes in every line, and its matrix products skip
what is 0 (half of the hidden units).
"""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import float32, float64, int64

from glow_bt.fused.bases import add_mixture, add_normal, add_student_t
from glow_bt.fused.compiled import compiled, kept
from glow_bt.fused.lanes import VECTOR_BYTES, filled, store
from glow_bt.fused.layers import bend_tails, draw_in, move_tails, scale_and_shift, shift
from glow_bt.fused.products import PANEL_BYTES, product_of_block, product_of_row
from glow_bt.fused.spline import bend

__all__ = [
    "ADD_MIXTURE",
    "ADD_NORMAL",
    "ADD_STUDENT_T",
    "BEND",
    "BEND_TAILS",
    "COPY",
    "DRAW_IN",
    "MOVE_TAILS",
    "PRODUCT",
    "SCALE_AND_SHIFT",
    "SHIFT",
    "Frame",
    "Operation",
    "prepare",
    "run",
]

Array = npt.NDArray[np.floating[Any]]
Table = npt.NDArray[np.int64]

PRODUCT, COPY, DRAW_IN = 0, 1, 2
SHIFT, SCALE_AND_SHIFT, BEND, BEND_TAILS, MOVE_TAILS = 3, 4, 5, 6, 7
ADD_NORMAL, ADD_STUDENT_T, ADD_MIXTURE = 8, 9, 10


class Operation(NamedTuple):
    """A line of a program after the first.

    Attributes:
        kind: one of the constants above.
        target: first line that is written (for a base: read).
        lines: how many; of a product its outputs.
        source: first line that is read besides.
        sign: 1 or -1, the direction; of a product 1 if negative outputs become 0.
        at: index of the first weight.
        size: inputs of a product, bins of a spline, components of a mixture.
        hidden: of a product 1 if its inputs are another product's non-negative outputs.
    """

    kind: int
    target: int
    lines: int
    source: int = 0
    sign: int = 1
    at: int = 0
    size: int = 0
    hidden: int = 0


class Frame(NamedTuple):
    """The first line of a program.

    Attributes:
        lines: of working memory.
        context: first line of the context; rows begin at line 0.
        log_det: line of the logarithm of the density, or of the determinant.
        spare: first of twice `gathered` lines in which a row's products gather numbers.
        gathered: at least 3 more than the inputs of any product, and whole panels of outputs.
        constant: index of the weight that is added to the line log_det.
        block: rows a block.
        rows: first line of the rows themselves, 0.
    """

    lines: int
    context: int
    log_det: int
    spare: int
    gathered: int
    constant: int
    block: int
    rows: int = 0


@compiled
def _aligned(like: Array, size: int) -> Array:
    """Return memory that begins at the start of a cache line."""
    extra = PANEL_BYTES // like.itemsize
    data = np.empty(size + extra, like.dtype)
    first = (-data.ctypes.data % PANEL_BYTES) // like.itemsize
    return data[first : first + size]


@compiled
def _bring(data: Array, rows: int, line: int, source: Array, start: int, count: int) -> int:
    """Copy rows into lines, the last one again up to the end of the lines.

    Returns:
        The first row that is not finite, or -1.
    """
    bad = -1
    for r in range(rows):
        n = start + min(r, count - 1)
        check = source.dtype.type(0.0)
        for i in range(source.shape[1]):
            value = source[n, i]
            data[(line + i) * rows + r] = value
            check += value * source.dtype.type(0.0)
        if check != 0.0 and bad < 0:
            bad = n
    return bad


@compiled
def _gather(data: Array, source: int, step: int, inputs: int, target: int, indices: Table) -> int:
    """Collect the inputs of one row that are not 0, and which they are.

    Returns:
        Their number; the next multiple of 4 is reached by zeros.
    """
    count = 0
    for i in range(inputs):
        value = data[source + i * step]
        data[target + count] = value
        indices[count] = i
        count += value != 0.0
    for i in range(count, count + 3):
        data[target + i] = 0.0
        indices[i] = 0
    return count


@compiled
def _multiply_row(
    op: Table, weights: Array, data: Array, rows: int, spare: int, indices: Table
) -> None:
    """Compute a product for one row.

    Hidden units lie side by side from the start of a line on; else every lane of a line holds
    the row's number.
    """
    target, outputs, inputs = op[1] * rows, op[2], op[6]
    values = spare * rows
    count = _gather(data, op[3] * rows, 1 if op[7] else rows, inputs, values, indices)
    relu = op[4] == 1
    out = target if relu else (spare + len(indices)) * rows
    product_of_row(weights, op[5], data, values, indices, out, count, inputs, outputs, relu)
    if not relu:
        for i in range(outputs):
            store(data, target + i * rows, filled(data, data[out + i]))


@compiled
def _perform(op: Table, frame: Table, weights: Array, data: Array, rows: int) -> None:
    kind, target, count, source = op[0], op[1], op[2], op[3]
    sign, at, size, log_det = op[4], op[5], op[6], frame[2]
    if kind == COPY:
        for i in range(count * rows):
            data[target * rows + i] = data[source * rows + i]
    elif kind == DRAW_IN:
        draw_in(data, rows, target, count, weights[at])
    elif kind == SHIFT:
        shift(data, rows, target, count, source, sign)
    elif kind == SCALE_AND_SHIFT:
        scale_and_shift(data, rows, target, count, source, sign, weights[at], log_det)
    elif kind == BEND:
        bend(data, rows, target, count, source, sign, log_det, weights, at, size)
    elif kind == BEND_TAILS:
        bend_tails(data, rows, target, count, source, sign, log_det)
    elif kind == MOVE_TAILS:
        move_tails(data, rows, target, count, source, sign, weights, at)
    else:
        _add_base(op, frame, weights, data, rows)


@compiled
def _add_base(op: Table, frame: Table, weights: Array, data: Array, rows: int) -> None:
    kind, target, count, source = op[0], op[1], op[2], op[3]
    at, size, log_det = op[5], op[6], frame[2]
    if kind == ADD_NORMAL:
        add_normal(data, rows, target, count, log_det)
    elif kind == ADD_STUDENT_T:
        add_student_t(data, rows, target, count, log_det, weights, at)
    else:
        add_mixture(data, rows, target, count, log_det, weights, at, size, source)


@kept
def run(program: Table, weights: Array, block: Array, context: Array, log_density: Array) -> int:
    """Carry out a program on rows, in place.

    Args:
        program: a `Frame` and `Operation`s, (M, 8).
        weights: of all operations, flat.
        block: rows (N, D), overwritten by the result.
        context: (N, C).
        log_density: (N,), filled with the line log_det.

    Returns:
        The first row that is not finite, in itself, its context or its log_density; or -1 when
        all are. Rows of its block and after it are not worked on.
    """
    frame = program[0]
    lanes = VECTOR_BYTES // weights.itemsize
    longest = min(frame[6], (len(block) // lanes + 1) * lanes)
    memory = _aligned(weights, frame[0] * longest)
    indices = np.empty(frame[4], np.int64)
    constant = weights[frame[5]]
    for start in range(0, len(block), longest):
        count = min(longest, len(block) - start)
        rows = (count + lanes - 1) // lanes * lanes
        bad = max(
            _bring(memory, rows, frame[7], block, start, count),
            _bring(memory, rows, frame[1], context, start, count),
        )
        if bad >= 0:
            return bad
        for r in range(0, rows, lanes):
            store(memory, frame[2] * rows + r, filled(memory, constant))
        for k in range(1, len(program)):
            op = program[k]
            if op[0] != PRODUCT:
                _perform(op, frame, weights, memory, rows)
            elif count == 1:
                _multiply_row(op, weights, memory, rows, frame[3], indices)
            else:
                product_of_block(
                    weights,
                    op[5],
                    memory,
                    op[3] * rows,
                    op[1] * rows,
                    rows,
                    op[6],
                    op[2],
                    op[4] == 1,
                )
        for r in range(count):
            for i in range(block.shape[1]):
                block[start + r, i] = memory[i * rows + r]
            log_density[start + r] = memory[frame[2] * rows + r]
            if np.isnan(log_density[start + r]):
                return start + r
    return -1


def prepare(dtype: np.dtype[Any]) -> None:
    """Load the kernel for a dtype from disk, or compile it (some seconds) and keep it there."""
    kind = float32 if dtype == np.float32 else float64
    # Code that cannot be kept, as on a full disk, runs all the same.
    with contextlib.suppress(OSError):
        run.compile(  # type: ignore[attr-defined]
            (int64[:, ::1], kind[::1], kind[:, ::1], kind[:, ::1], kind[::1])
        )
