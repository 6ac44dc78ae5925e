"""From the parts of a flow to programs for the kernel, one a direction."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from glow_bt.fused import machine
from glow_bt.fused.machine import Frame, Operation
from glow_bt.fused.parts import (
    AffineMap,
    BasePart,
    CouplingPart,
    GlowParts,
    LevelPart,
    MixtureBase,
    NetPart,
    StudentTBase,
    TailPart,
)
from glow_bt.fused.products import PANEL_BYTES, pack, padded

__all__ = ["Program", "decoding", "encoding"]

_LOG_2PI = math.log(2 * math.pi)
# Rows a block, in bytes of a line: activations stay in the first cache beside the weights of a
# product, and the weights are read often enough from the second.
_LINE_BYTES = 256


@dataclass(frozen=True)
class Program:
    """What the kernel carries out.

    Attributes:
        table: (M, 8), a `Frame` and `Operation`s.
        weights: flat, of the dtype that the kernel computes in.
    """

    table: npt.NDArray[np.int64]
    weights: npt.NDArray[np.floating[Any]]


def encoding(parts: GlowParts, dtype: np.dtype[Any]) -> Program:
    """Return the program from rows to latents and log-densities."""
    writer = _Writer(parts, dtype, sign=1)
    constant = _log_normaliser(parts)
    if parts.tails is not None:
        writer.tails(parts.tails)
    for first, width, level in _levels(parts):
        for step in level.steps:
            writer.affine_map(step.forward, first)
            writer.coupling(step.coupling, first, width, passed=width // 2)
            constant += step.log_det
        if level.leaving is not None:
            writer.leaving(level.leaving, first, width)
    writer.coupling(parts.top, *_top(parts), passed=0)
    writer.base(parts.base)
    return writer.program(constant)


def decoding(parts: GlowParts, dtype: np.dtype[Any]) -> Program:
    """Return the program from latents to rows and log |det dx/dz|."""
    writer = _Writer(parts, dtype, sign=-1)
    constant = 0.0
    writer.coupling(parts.top, *_top(parts), passed=0)
    for first, width, level in reversed(list(_levels(parts))):
        if level.leaving is not None:
            writer.leaving(level.leaving, first, width)
        for step in reversed(level.steps):
            writer.coupling(step.coupling, first, width, passed=width // 2)
            writer.affine_map(step.inverse, first)
            constant -= step.log_det
    if parts.tails is not None:
        writer.tails(parts.tails)
    return writer.program(constant)


def _levels(parts: GlowParts) -> Iterator[tuple[int, int, LevelPart]]:
    """Yield the first line, the width and the part of each level."""
    first, width = 0, parts.num_features
    for level in parts.levels:
        yield first, width, level
        first, width = first + width // 2, width - width // 2


def _top(parts: GlowParts) -> tuple[int, int]:
    """Return the first line and the width of what never leaves before the top."""
    first = sum(width // 2 for _, width, level in _levels(parts) if level.leaving is not None)
    return first, parts.num_features - first


class _Writer:
    """Collects operations and weights.

    Working memory: the row, its context, log_det, and four regions as tall as the program needs:
    the condition of a network and the outputs of its layers in turn (from `region` 0 to 2), and
    the settings of the tail layer (3).
    """

    def __init__(self, parts: GlowParts, dtype: np.dtype[Any], sign: int) -> None:
        self._dtype, self._sign = dtype, sign
        self._width, self._num_contexts = parts.num_features, parts.context_features
        self._operations: list[Operation] = []
        self._weights: list[npt.NDArray[Any]] = []
        self._num_weights = 0
        self._context = parts.num_features
        self._log_det = self._context + parts.context_features
        self._height = padded(_tallest(parts) + 3, dtype.itemsize)

    def program(self, constant: float) -> Program:
        """Return what was written; the constant is added to every row's log_det."""
        frame = Frame(
            lines=self._region(6),
            context=self._context,
            log_det=self._log_det,
            spare=self._region(4),
            gathered=self._height,
            constant=self._keep(np.array([constant])),
            block=_LINE_BYTES // self._dtype.itemsize,
        )
        weights = _aligned(np.concatenate(self._weights))
        return Program(np.array([frame, *self._operations], np.int64), weights)

    def affine_map(self, part: AffineMap, first: int) -> None:
        """Replace lines by matrix @ lines + shift."""
        out = self._region(1)
        self._product(part, first, out)
        self._add(machine.COPY, first, len(part.shift), out)

    def coupling(self, part: CouplingPart, first: int, width: int, passed: int) -> None:
        """Change the features after those that pass, given them and the context."""
        raw = self._net(part.net, first, passed)
        self._change(part, first + passed, width - passed, raw)

    def leaving(self, part: CouplingPart, first: int, width: int) -> None:
        """Standardise the first half, given the second and the context."""
        half = width // 2
        raw = self._net(part.net, first + half, width - half)
        self._change(part, first, half, raw)

    def tails(self, part: TailPart) -> None:
        """Bend tails, with settings that stand fast or that the context moves."""
        width, settings = self._width, self._region(3)
        moves = part.moves
        if moves is None:
            log_factor = -self._sign * part.log_scale
            lines = [part.location, np.exp(log_factor), log_factor]
            lines += list(part.min_index + np.exp(part.log_excess))
            shift = np.concatenate(lines)
            self._product(AffineMap(np.zeros((5 * width, 0)), shift), 0, settings)
        else:
            raw = self._net(moves.net, 0, 0)
            bounds = [moves.location_bound, moves.log_scale_bound, moves.log_index_bound]
            moved = [part.location, part.log_scale, *part.log_excess]
            at = self._keep(np.concatenate([bounds, [part.min_index], *moved]))
            self._add(machine.MOVE_TAILS, settings, width, raw, at=at)
        self._add(machine.BEND_TAILS, 0, width, settings)

    def base(self, part: BasePart) -> None:
        """Add the log-density of the latents, but for its constant."""
        if isinstance(part, StudentTBase):
            self._add(machine.ADD_STUDENT_T, 0, self._width, at=self._keep(part.df))
        elif isinstance(part, MixtureBase):
            constants = part.log_weights - part.log_scales.sum(axis=1)
            each = np.column_stack([constants, part.means, np.exp(-part.log_scales)])
            joint = self._region(0)
            self._add(
                machine.ADD_MIXTURE, 0, self._width, joint, at=self._keep(each), size=len(each)
            )
        else:
            self._add(machine.ADD_NORMAL, 0, self._width)

    def _net(self, part: NetPart, first: int, count: int) -> int:
        """Run a network on `count` lines and the context; return its first output line."""
        inputs = count + self._num_contexts
        region = self._region(0)
        if inputs:
            self._add(machine.COPY, region, count, first)
            self._add(machine.COPY, region + count, self._num_contexts, self._context)
            self._add(machine.DRAW_IN, region, inputs, at=self._keep([part.input_bound]))
        for number, layer in enumerate(part.layers):
            out = self._region(1 + number % 2)
            last = number == len(part.layers) - 1
            self._product(layer, region, out, relu=not last, hidden=number > 0)
            region = out
        return region

    def _change(self, part: CouplingPart, first: int, count: int, raw: int) -> None:
        spline = part.spline
        bend = None
        if spline is not None:
            numbers = [spline.half_width, spline.min_share, spline.min_slope]
            bend = Operation(
                machine.BEND,
                first,
                count,
                raw + 2 * count,
                self._sign,
                self._keep(numbers),
                spline.num_bins,
            )
        if bend is not None and self._sign > 0:
            self._operations.append(bend)
        if part.kind == "additive":
            self._add(machine.SHIFT, first, count, raw)
        else:
            at = self._keep([part.log_scale_bound])
            self._add(machine.SCALE_AND_SHIFT, first, count, raw, at=at)
        if bend is not None and self._sign < 0:
            self._operations.append(bend)

    def _product(
        self,
        part: AffineMap,
        source: int,
        target: int,
        *,
        relu: bool = False,
        hidden: bool = False,
    ) -> None:
        outputs, inputs = part.matrix.shape
        packed = pack(part.matrix.astype(self._dtype), part.shift.astype(self._dtype))
        self._operations.append(
            Operation(
                machine.PRODUCT,
                target,
                outputs,
                source,
                int(relu),
                self._keep(packed),
                inputs,
                int(hidden),
            )
        )

    def _add(
        self, kind: int, target: int, count: int, source: int = 0, at: int = 0, size: int = 0
    ) -> None:
        if count:
            self._operations.append(Operation(kind, target, count, source, self._sign, at, size))

    def _keep(self, numbers: Any) -> int:
        """Store weights, from the start of a cache line on, and return where they are."""
        flat = np.asarray(numbers, self._dtype).ravel()
        full = np.zeros(padded(flat.size, self._dtype.itemsize), self._dtype)
        full[: flat.size] = flat
        at = self._num_weights
        self._weights.append(full)
        self._num_weights += full.size
        return at

    def _region(self, number: int) -> int:
        return self._log_det + 1 + number * self._height


def _tallest(parts: GlowParts) -> int:
    """Return the most lines that any region has to hold."""
    couplings = [parts.top]
    for level in parts.levels:
        couplings += [step.coupling for step in level.steps]
        couplings += [] if level.leaving is None else [level.leaving]
    nets = [coupling.net for coupling in couplings]
    heights = [5 * parts.num_features, parts.num_features + parts.context_features]
    if parts.tails is not None and parts.tails.moves is not None:
        nets.append(parts.tails.moves.net)
    if isinstance(parts.base, MixtureBase):
        heights.append(len(parts.base.log_weights))
    heights += [size for net in nets for layer in net.layers for size in layer.matrix.shape]
    return max(heights)


def _log_normaliser(parts: GlowParts) -> float:
    """Return the constant of the base's log-density."""
    if isinstance(parts.base, StudentTBase):
        return sum(
            math.lgamma(0.5 * (df + 1)) - math.lgamma(0.5 * df) - 0.5 * math.log(df * math.pi)
            for df in parts.base.df
        )
    return -0.5 * parts.num_features * _LOG_2PI


def _aligned(numbers: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a copy that begins at the start of a cache line."""
    memory = np.empty(numbers.size + PANEL_BYTES // numbers.itemsize, numbers.dtype)
    first = -memory.ctypes.data % PANEL_BYTES // numbers.itemsize
    aligned = memory[first : first + numbers.size]
    aligned[:] = numbers
    return aligned
