"""Nodes and weights for means beyond a quantile of a standard normal latent."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy import special

__all__ = ["nodes_between", "normal_tail_cuts", "normal_tail_nodes", "normal_tail_weights"]

Floats = npt.NDArray[np.float64]

_LOG_2PI = math.log(2 * math.pi)
# Pieces get longer outwards, where what is integrated is smooth. At 30 even the quantile of a
# power law of index 1.2 times the normal density is below 1e-30, and still a float.
_REACH = (4.0, 6.0, 9.0, 14.0, 21.0, 30.0)
_NODES = 12


def normal_tail_nodes(p: float, borders: npt.ArrayLike = ()) -> tuple[Floats, Floats]:
    """Return nodes z (K,) and weights (K,) with sum_k weight_k g(z_k) = E[g(Z) | Z beyond z_p].

    Beyond is below the p-quantile of Z ~ N(0, 1), or above it where p > 1/2; the weights sum
    to 1. Gauss-Legendre with 12 nodes in each piece of `normal_tail_cuts`.

    Args:
        p: inside (0, 1), at least 1e-190 away from both ends.
        borders: (B,) latents at which g is continuous, but not smooth.
    """
    cuts = np.unique(normal_tail_cuts(p, borders))  # without pieces of no length
    return nodes_between(cuts), normal_tail_weights(p, cuts)


def normal_tail_cuts(p: float, borders: npt.ArrayLike = ()) -> Floats:
    """Return (..., C) the ends of pieces, ascending, which together are the tail beyond z_p.

    The tail is cut off at 30. Borders that lie outside of the tail give pieces of no length.

    Args:
        p: as for `normal_tail_nodes`.
        borders: (..., B) where pieces have to end, in any order.
    """
    sign = 1.0 if p > 0.5 else -1.0
    start = -float(special.ndtri(min(p, 1 - p)))  # as if it were an upper tail
    inner = sign * np.asarray(borders, dtype=np.float64)
    fixed = np.array([start, *(cut for cut in _REACH if cut > start)])
    fixed = np.broadcast_to(fixed, (*inner.shape[:-1], len(fixed)))
    cuts = np.concatenate([fixed, inner.clip(start, _REACH[-1])], axis=-1)
    cuts = sign * cuts
    cuts.sort(axis=-1)
    return cuts


def nodes_between(cuts: Floats) -> Floats:
    """Return (..., (C - 1) * 12) the nodes of the pieces between cuts (..., C)."""
    share = 0.5 * (_legendre()[0] + 1)
    nodes = cuts[..., :-1, None] + np.diff(cuts)[..., None] * share
    return nodes.reshape(*cuts.shape[:-1], -1)


def normal_tail_weights(p: float, cuts: Floats) -> Floats:
    """Return (..., (C - 1) * 12) weights of `nodes_between` the `normal_tail_cuts` of p."""
    z = nodes_between(cuts)
    lengths = (0.5 * np.diff(cuts))[..., None] * _legendre()[1]
    density: Floats = np.exp(-0.5 * (z * z + _LOG_2PI)) / min(p, 1 - p)
    return lengths.reshape(z.shape) * density


@cache
def _legendre() -> tuple[Floats, Floats]:
    return np.polynomial.legendre.leggauss(_NODES)
