"""VaR and CVaR of one live bar under a recalibration, in few steps."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from glow_bt.fused.corrected_nodes import corrected_nodes, prepare
from glow_bt.quadrature import nodes_between, normal_tail_cuts
from glow_bt.risk.recalibration import (
    LEAST_SLOPE,
    REACH,
    LatentDistribution,
    Recalibration,
    check_probability,
)

__all__ = ["CorrectedTail", "corrected_tail"]

Floats = npt.NDArray[np.float64]

# Beyond the last knots latents go on in parallel, as on a line to a far knot.
_FAR = 64.0


class CorrectedTail(NamedTuple):
    """What is said of one return.

    Attributes:
        quantile: the p-quantile.
        shortfall: the mean beyond it.
        followed: returns whose latents are the quantiles that the recalibration follows.
    """

    quantile: float
    shortfall: float
    followed: list[float]


def corrected_tail(
    distribution: LatentDistribution, recalibration: Recalibration, p: float
) -> CorrectedTail:
    """Return quantile and shortfall at p of one distribution, as a recalibration corrects it.

    Those of `glow_bt.risk.recalibration.Recalibrated`, but for rounding (1e-12), at a small
    share of the time: for so few numbers the calls are what takes it.

    Args:
        distribution: of one row.
        recalibration: as it stands.
        p: inside (0, 1).

    Raises:
        ConfigError: if p is outside (0, 1).
    """
    check_probability(p)
    normal, before = _levels_of(recalibration.levels)
    nodes = corrected_nodes(
        normal,
        np.array(recalibration.offsets),
        before,
        LEAST_SLOPE,
        _level_cuts(p, recalibration.levels),
        np.array(distribution.kinks),  # a copy: compiled code tells read-only arrays from others
        _rule(),
        p,
    )
    values = distribution.at_latent(nodes[:1])[0]
    first_node = 1 + len(recalibration.levels)
    quantile, *at_followed = values[:first_node].tolist()
    return CorrectedTail(quantile, float(values[first_node:] @ nodes[1, first_node:]), at_followed)


@cache
def _rule() -> Floats:
    """Return nodes on [0, 1] and weights (2, R) of the quadrature rule."""
    prepare()
    nodes = nodes_between(np.array([0.0, 1.0]))
    return np.array([nodes, np.polynomial.legendre.leggauss(len(nodes))[1]])


@lru_cache(maxsize=64)
def _levels_of(levels: tuple[float, ...]) -> tuple[Floats, int]:
    """Return the normal quantiles that have knots, and how many are below those of the levels."""
    own: list[float] = special.ndtri(np.array(levels)).tolist()
    ends = [[side * REACH] if 0 < side * own[k] < REACH else [] for side, k in ((-1, 0), (1, -1))]
    known = [*ends[0], *own, *ends[1]]
    return np.array([known[0] - _FAR, *known, known[-1] + _FAR]), 1 + len(ends[0])


@lru_cache(maxsize=64)
def _level_cuts(p: float, levels: tuple[float, ...]) -> Floats:
    """Return the ends, ascending, of the pieces that the knots cut p's tail into."""
    return np.unique(normal_tail_cuts(p, _levels_of(levels)[0][1:-1]))
