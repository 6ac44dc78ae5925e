"""What a frozen flow is made of: plain arrays, in the order in which a row meets them.

`glow_bt.flows` fills these from trained modules; nothing here knows torch. All arrays are
float64, and matrices stand to the left of columns: h <- matrix @ h + shift.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = [
    "AffineMap",
    "BasePart",
    "CouplingPart",
    "GlowParts",
    "LevelPart",
    "MixtureBase",
    "NetPart",
    "NormalBase",
    "SplineSettings",
    "StepPart",
    "StudentTBase",
    "TailMoves",
    "TailPart",
]

Array: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class AffineMap:
    """matrix (out, in) and shift (out,)."""

    matrix: Array
    shift: Array


@dataclass(frozen=True)
class NetPart:
    """A network with ReLU between its layers.

    Attributes:
        layers: first to last. With no inputs there is one, of a matrix (out, 0).
        input_bound: b in c / sqrt(1 + mean(c^2) / b^2), by which the condition c is drawn in.
    """

    layers: tuple[AffineMap, ...]
    input_bound: float


@dataclass(frozen=True)
class SplineSettings:
    """Constants of the rational-quadratic spline.

    Attributes:
        num_bins: between the ends.
        half_width: the ends are at -half_width and half_width.
        min_share: least share of a bin's width or height.
        min_slope: least slope at a knot.
    """

    num_bins: int
    half_width: float
    min_share: float
    min_slope: float


@dataclass(frozen=True)
class CouplingPart:
    """What a network does to features, given those that pass and the context.

    Attributes:
        kind: "affine", "additive" or "spline".
        net: its outputs are all log-scales, all shifts (the only ones of "additive"), then each
            feature's knots.
        log_scale_bound: b in log_s = b * tanh(raw / b).
        spline: for "spline".
    """

    kind: str
    net: NetPart
    log_scale_bound: float
    spline: SplineSettings | None = None


@dataclass(frozen=True)
class StepPart:
    """One affine map (D, D), its inverse, its log |det|, and the coupling after it."""

    forward: AffineMap
    inverse: AffineMap
    log_det: float
    coupling: CouplingPart


@dataclass(frozen=True)
class LevelPart:
    """Steps at one width, and the standardising of the features that leave after them.

    Attributes:
        steps: at least one.
        leaving: conditions the first half on the second; None after the last level.
    """

    steps: tuple[StepPart, ...]
    leaving: CouplingPart | None


@dataclass(frozen=True)
class TailMoves:
    """How a context moves the tail layer.

    Attributes:
        net: outputs are moves of all m, all s, all left and all right log(a - min_index).
        location_bound: bound on the move of m, in scales.
        log_scale_bound: bound on the move of s.
        log_index_bound: bound on the moves of log(a - min_index).
    """

    net: NetPart
    location_bound: float
    log_scale_bound: float
    log_index_bound: float


@dataclass(frozen=True)
class TailPart:
    """u = (x - m) exp(-s), z = sign(u) sqrt(a log(1 + u^2 / a)), each (D,).

    Attributes:
        location: m.
        log_scale: s.
        log_excess: (2, D), log(a - min_index) to the left and to the right.
        min_index: least tail index.
        moves: by the context, if there is one.
    """

    location: Array
    log_scale: Array
    log_excess: Array
    min_index: float
    moves: TailMoves | None


@dataclass(frozen=True)
class NormalBase:
    """z ~ N(0, I)."""


@dataclass(frozen=True)
class StudentTBase:
    """Independent Student's t latents, degrees of freedom df (D,)."""

    df: Array


@dataclass(frozen=True)
class MixtureBase:
    """Diagonal Gaussians: log_weights (K,), means (K, D), log_scales (K, D)."""

    log_weights: Array
    means: Array
    log_scales: Array


BasePart: TypeAlias = NormalBase | StudentTBase | MixtureBase


@dataclass(frozen=True)
class GlowParts:
    """A whole Glow.

    Attributes:
        num_features: D.
        context_features: C.
        tails: nearest the data; None without.
        levels: first to last.
        top: standardises what is left, given the context alone.
        base: distribution of the latents.
    """

    num_features: int
    context_features: int
    tails: TailPart | None
    levels: tuple[LevelPart, ...]
    top: CouplingPart
    base: BasePart
