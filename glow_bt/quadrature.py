"""Nodes and weights for means beyond a quantile of a standard normal latent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy import special

__all__ = ["normal_tail_nodes"]

Floats = npt.NDArray[np.float64]

_LOG_2PI = math.log(2 * math.pi)
# Pieces get longer outwards, where what is integrated is smooth. At 36 even the quantile of a
# power law of index 1.2 times the normal density is below 1e-40, and still a float.
_REACH = (4.0, 6.0, 9.0, 14.0, 24.0, 36.0)
_NODES = 12
# A piece shorter than this is left to its neighbour.
_LEAST_PIECE = 1e-9


def normal_tail_nodes(p: float, borders: Sequence[float] = ()) -> tuple[Floats, Floats]:
    """Return nodes z (K,) and weights (K,) with sum_k weight_k g(z_k) = E[g(Z) | Z beyond z_p].

    Beyond is below the p-quantile of Z ~ N(0, 1), or above it where p > 1/2; the weights sum
    to 1. Gauss-Legendre with 12 nodes in each piece between 0, the borders and where the tail is
    cut.

    Args:
        p: inside (0, 1).
        borders: latents at which g is continuous, but not smooth.
    """
    sign = 1.0 if p > 0.5 else -1.0
    start = -float(special.ndtri(min(p, 1 - p)))  # as if it were an upper tail
    inner = {0.0, *_REACH, *(sign * border for border in borders)}
    cuts = [start, *sorted(cut for cut in inner if start + _LEAST_PIECE < cut <= _REACH[-1])]
    unit, unit_weights = _legendre()
    z = np.concatenate([a + 0.5 * (b - a) * (unit + 1) for a, b in pairwise(cuts)])
    weights = np.concatenate([0.5 * (b - a) * unit_weights for a, b in pairwise(cuts)])
    weights = weights * np.exp(-0.5 * (z * z + _LOG_2PI)) / min(p, 1 - p)
    return sign * z, weights


@cache
def _legendre() -> tuple[Floats, Floats]:
    return np.polynomial.legendre.leggauss(_NODES)
