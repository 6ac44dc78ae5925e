"""Where a level's numbers lie while it is trained: lines of activations, packed matrices.

A step is four affine maps, x @ matrix + shift: the one that stands before the coupling, and the
three layers of the coupling's network. A block keeps in numbered lines (each one number a row)
what the way back needs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from glow_bt.fused.compiled import compiled
from glow_bt.fused.lanes import VECTOR_BYTES
from glow_bt.fused.outer_products import TILE
from glow_bt.fused.products import PANEL_BYTES

__all__ = [
    "MAPS",
    "Arrays",
    "GradientLines",
    "Layout",
    "Starts",
    "aligned",
    "bring",
    "packed",
    "packed_transposed",
    "rows_of_block",
    "take",
    "tiled",
]

MAPS = 4
# A product writes its lines in groups of so many.
_GROUP = 8
# Rows a block, in bytes of a line.
_LINE_BYTES = 512

Array = npt.NDArray[np.floating[Any]]
Arrays = tuple[Array, Array, Array, Array]
Starts = npt.NDArray[np.int64]


def _padded(count: int) -> int:
    """Return how many lines a product of `count` outputs may write."""
    return -(-count // _GROUP) * _GROUP


def tiled(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape (K, in, out) of a map's gradient, rounded up to whole tiles."""
    steps, *sizes = shape
    return (steps, *(-(-size // TILE) * TILE for size in sizes))


class Layout(NamedTuple):
    """Lines of a block.

    The context and log_det come first; then step by step what enters it, what leaves its affine
    map, the factor that draws the condition in, the drawn-in condition, both hidden layers, and
    the network's output (whose log-scales replace their raw values); then what leaves the level.

    Attributes:
        features: D.
        passed: features that pass a coupling, D // 2.
        context: C.
        hidden: H.
        outputs: of the network.
        mapped: first line, within a step, of what leaves its affine map.
        factor: line within a step.
        condition: first line within a step.
        first: first line, within a step, of the first hidden layer.
        second: of the second one.
        raw: first line, within a step, of the network's output.
        step: lines a step.
        total: lines of the block.
    """

    features: int
    passed: int
    context: int
    hidden: int
    outputs: int
    mapped: int
    factor: int
    condition: int
    first: int
    second: int
    raw: int
    step: int
    total: int

    @classmethod
    def of(cls, maps: Arrays, context: int) -> Layout:
        """Lay out the lines of a level with these maps."""
        (num_steps, features, _), (_, hidden, outputs) = maps[0].shape, maps[3].shape
        passed = features // 2
        factor = features + _padded(features)
        first = factor + 1 + passed + context
        second = first + _padded(hidden)
        raw = second + _padded(hidden)
        step = raw + _padded(outputs)
        # The last lines are read by tiles that reach over the end.
        total = context + 1 + num_steps * step + features + TILE
        return cls(
            *(features, passed, context, hidden, outputs),
            *(features, factor, factor + 1, first, second, raw, step, total),
        )


class GradientLines(NamedTuple):
    """Lines of a block's gradients, of one step at a time; that of log_det is line 0.

    Attributes:
        context: first line of the context, summed over steps.
        here: first line of what leaves the step, and then of what enters it.
        mapped: of what leaves its affine map.
        condition: of the condition.
        first: of the first hidden layer.
        second: of the second one.
        raw: of the network's output.
        total: number of lines.
    """

    context: int
    here: int
    mapped: int
    condition: int
    first: int
    second: int
    raw: int
    total: int

    @classmethod
    def of(cls, layout: Layout) -> GradientLines:
        """Lay out the gradients of a level."""
        here = 1 + layout.context
        mapped = here + _padded(layout.features)
        condition = mapped + layout.features
        first = condition + _padded(layout.passed + layout.context)
        second = first + _padded(layout.hidden)
        raw = second + _padded(layout.hidden)
        # The last lines are read by tiles that reach over the end.
        return cls(1, here, mapped, condition, first, second, raw, raw + layout.outputs + TILE)


@compiled
def aligned(like: Array, size: int) -> Array:
    """Return memory that begins at the start of a cache line."""
    extra = PANEL_BYTES // like.itemsize
    data = np.empty(size + extra, like.dtype)
    first = (-data.ctypes.data % PANEL_BYTES) // like.itemsize
    return data[first : first + size]


@compiled
def rows_of_block(count: int, itemsize: int) -> int:
    """Return the length of a line for so many rows: whole registers."""
    lanes = VECTOR_BYTES // itemsize
    return max(lanes, min(_LINE_BYTES // itemsize, (count + lanes - 1) // lanes * lanes))


@compiled
def bring(data: Array, rows: int, line: int, source: Array, start: int, count: int) -> None:
    """Copy rows into lines, and 0 to the end of the lines."""
    for r in range(count):
        for i in range(source.shape[1]):
            data[(line + i) * rows + r] = source[start + r, i]
    for i in range(source.shape[1]):
        data[(line + i) * rows + count : (line + i + 1) * rows] = 0.0


@compiled
def take(data: Array, rows: int, line: int, target: Array, start: int, count: int) -> None:
    """Copy lines back into rows."""
    for r in range(count):
        for i in range(target.shape[1]):
            target[start + r, i] = data[(line + i) * rows + r]


@compiled
def _packed_size(inputs: int, outputs: int, itemsize: int) -> int:
    panel = PANEL_BYTES // itemsize
    return (outputs + panel - 1) // panel * panel * (inputs + 1)


@compiled
def packed(maps: Arrays, shifts: Arrays) -> tuple[Array, Starts]:
    """Pack the maps of all steps as panels for products, see `glow_bt.fused.products`.

    Args:
        maps: (K, in, out) each.
        shifts: (K, out) each.

    Returns:
        Numbers, flat, and at which of them the map m of step k begins, (K, MAPS).
    """
    starts = np.empty((len(maps[0]), MAPS), np.int64)
    size = 0
    for k in range(len(starts)):
        for m in range(MAPS):
            starts[k, m] = size
            size += _packed_size(maps[m].shape[1], maps[m].shape[2], maps[m].itemsize)
    out = aligned(maps[0], size)
    for k in range(len(starts)):
        for m in range(MAPS):
            _pack(maps[m][k], shifts[m][k], out, starts[k, m])
    return out, starts


@compiled
def packed_transposed(maps: Arrays) -> tuple[Array, Starts]:
    """Pack what gradients go back through: the transposed maps, with shifts of 0."""
    starts = np.empty((len(maps[0]), MAPS), np.int64)
    size = 0
    for k in range(len(starts)):
        for m in range(MAPS):
            starts[k, m] = size
            size += _packed_size(maps[m].shape[2], maps[m].shape[1], maps[m].itemsize)
    out = aligned(maps[0], size)
    for k in range(len(starts)):
        for m in range(MAPS):
            _pack_transposed(maps[m][k], out, starts[k, m])
    return out, starts


@compiled
def _pack(matrix: Array, shift: Array, out: Array, at: int) -> None:
    """Pack a matrix (in, out) and its shift (out,)."""
    inputs, outputs = matrix.shape
    panel = PANEL_BYTES // out.itemsize
    for start in range(0, outputs, panel):
        width = min(panel, outputs - start)
        for i in range(inputs):
            for j in range(width):
                out[at + j] = matrix[i, start + j]
            for j in range(width, panel):
                out[at + j] = 0.0
            at += panel
    for j in range((outputs + panel - 1) // panel * panel):
        out[at + j] = shift[j] if j < outputs else 0.0


@compiled
def _pack_transposed(matrix: Array, out: Array, at: int) -> None:
    """Pack the transpose (out, in) of a matrix (in, out), and shifts of 0."""
    inputs, outputs = matrix.shape
    panel = PANEL_BYTES // out.itemsize
    for start in range(0, inputs, panel):
        width = min(panel, inputs - start)
        for j in range(outputs):
            for i in range(width):
                out[at + i] = matrix[start + i, j]
            for i in range(width, panel):
                out[at + i] = 0.0
            at += panel
    for i in range((inputs + panel - 1) // panel * panel):
        out[at + i] = 0.0
