"""Forecasts corrected online by how past ones turned out, at every level at once.

A forecast gives each return a latent z = Phi^-1(F(r)), which is N(0, 1) if the forecast is
right. At each of a row of levels p_k the recalibration follows the p_k-quantile of these latents:

    q_k <- q_k + step * (p_k - 1[z < q_k])

once a return is known: a violation moves it out by step * (1 - p_k), none moves it in by
step * p_k. This is adaptive conformal inference (Gibbs & Candes 2021, arXiv:2106.00170) with the
quantile itself in place of the level that is asked for, which so never leaves (0, 1): "quantile
tracking" of Angelopoulos, Candes & Tibshirani 2023 (arXiv:2307.16895, sec. 2.1). Whatever the
returns do, over T bars the share of violations differs from p_k by

    |q_k at the start - q_k at the end| / (step * T)

exactly. Between the levels the map from normal quantiles w to q is a straight line, beyond them
it moves as much as at the last one; so quantiles at any level, shortfall, probability and density
come from one distribution, and quantiles at different levels never cross.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy import special

from glow_bt.errors import ConfigError, DataError
from glow_bt.quadrature import normal_tail_nodes

__all__ = ["LatentDistribution", "Recalibrated", "Recalibration"]

Floats = npt.NDArray[np.float64]

_STEP = 0.01
_LEVELS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99)
# Neighbouring quantiles keep this share of the distance that normal ones have.
_LEAST_SLOPE = 0.25
_BLOCK_ROWS = 2048


class LatentDistribution(Protocol):
    """N distributions, each an increasing function of a standard normal latent."""

    def at_latent(self, z: Floats) -> Floats:
        """Return the values (N, K) at latents z (N, K)."""
        ...

    def latent(self, y: Floats) -> Floats:
        """Return the latent (N,) of each value (N,)."""
        ...

    def log_prob(self, returns: Floats) -> Floats:
        """Return the log density (N,) at each value (N,)."""
        ...

    def rows(self, rows: slice) -> LatentDistribution:
        """Return some of the distributions."""
        ...


@dataclass(frozen=True)
class Recalibration:
    """How far the quantiles of latents have moved so far; `follow` gives the next state.

    Attributes:
        step: how fast; 0 never moves. Larger ones follow sooner and wander more.
        levels: p_k, ascending, inside (0, 1).
        offsets: of each level, q_k less the normal quantile w_k; default 0, a right forecast.

    Raises:
        ConfigError: on a step below 0, or levels or offsets that cannot be.
    """

    step: float = _STEP
    levels: tuple[float, ...] = _LEVELS
    offsets: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.step < math.inf:
            raise ConfigError(f"expected a recalibration step of 0 or more, found {self.step}")
        ascending = all(low < high for low, high in pairwise(self.levels))
        if not self.levels or not ascending or not 0 < self.levels[0] <= self.levels[-1] < 1:
            raise ConfigError(
                f"expected ascending levels inside (0, 1), found {self.levels}; leave them out"
            )
        object.__setattr__(self, "offsets", self.offsets or (0.0,) * len(self.levels))
        if len(self.offsets) != len(self.levels) or not all(map(math.isfinite, self.offsets)):
            raise ConfigError(
                f"expected {len(self.levels)} finite offsets, one a level, found {self.offsets}"
            )

    def follow(self, latents: Floats) -> tuple[Floats, Recalibration]:
        """Go through latents z (N,) of returns that came true, in order of time.

        Returns:
            (N + 1, K) offsets: row i as they stand once the latents 0 .. i - 1 are known; and the
            state once all are known. A forecast of the next h bars, made when the last h - 1
            returns before it are still open, takes row i - h + 1.

        Raises:
            DataError: if a latent is NaN, or they are no row.
        """
        z = np.asarray(latents, dtype=np.float64)
        if z.ndim != 1 or np.isnan(z).any():
            raise DataError(
                f"expected latents of shape (N,) without NaN, found shape {z.shape} with "
                f"{int(np.isnan(z).sum())} NaN; leave out bars without a forecast"
            )
        values, trail = z.tolist(), np.empty((len(z) + 1, len(self.levels)))
        for k, (p, w) in enumerate(zip(self.levels, self._normal, strict=True)):
            q, out, back = w + self.offsets[k], self.step * (p - 1), self.step * p
            column = [q]
            for value in values:
                q += out if value < q else back
                column.append(q)
            trail[:, k] = column
        trail -= self._normal
        return trail, replace(self, offsets=tuple(trail[-1].tolist()))

    def to_dict(self) -> dict[str, Any]:
        """Return the state as JSON values; `from_dict` gets every bit of it back."""
        return {
            "step": self.step,
            "levels": list(self.levels),
            "offsets": list(self.offsets),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recalibration:
        """Rebuild a state from `to_dict`.

        Raises:
            ConfigError: if the values are incomplete or cannot be a state's.
        """
        if set(values) != {"step", "levels", "offsets"}:
            raise ConfigError(
                "expected a recalibration of step, levels and offsets, found "
                f"{sorted(values)}; start it anew"
            )
        return cls(float(values["step"]), tuple(values["levels"]), tuple(values["offsets"]))

    @cached_property
    def _normal(self) -> list[float]:
        normal: list[float] = special.ndtri(np.array(self.levels)).tolist()
        return normal


class Recalibrated:
    """Distributions with latents corrected; a `ReturnDistribution`.

    Args:
        distribution: N distributions.
        offsets: (N, K), see `Recalibration.follow`.
        levels: of the K columns.
    """

    def __init__(
        self, distribution: LatentDistribution, offsets: Floats, levels: Sequence[float]
    ) -> None:
        self.distribution = distribution
        self.normal: Floats = special.ndtri(np.asarray(levels))
        # Of each gap at least a share stays; both sides spread from the middle, which stays put.
        middle = len(levels) // 2
        least = _LEAST_SLOPE * self.normal
        loose = self.normal + offsets - least
        loose[:, middle:] = np.maximum.accumulate(loose[:, middle:], axis=1)
        loose[:, middle::-1] = np.minimum.accumulate(loose[:, middle::-1], axis=1)
        self.knots: Floats = loose + least

    def rows(self, rows: slice) -> Recalibrated:
        """Return some of the distributions."""
        some = copy(self)
        some.distribution, some.knots = self.distribution.rows(rows), self.knots[rows]
        return some

    def quantile(self, p: float) -> Floats:
        """Return the p-quantiles (N,)."""
        w = np.array([special.ndtri(p)])
        return self.distribution.at_latent(self._corrected(w, slice(None)))[:, 0]

    def shortfall(self, p: float) -> Floats:
        """Return (N,) the mean below the p-quantile, or above it where p > 1/2."""
        w, weights = normal_tail_nodes(p, self.normal.tolist())
        means = []
        for start in range(0, len(self.knots), _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            values = self.distribution.rows(rows).at_latent(self._corrected(w, rows))
            means.append(values @ weights)
        return np.concatenate(means)

    def cdf(self, returns: Floats) -> Floats:
        """Return (N,) the probability of at most each of returns (N,)."""
        below: Floats = special.ndtr(self.latent(returns))
        return below

    def latent(self, y: Floats) -> Floats:
        """Return the corrected latent (N,) of each value (N,)."""
        return self._normal_of(self.distribution.latent(y))[0]

    def log_prob(self, returns: Floats) -> Floats:
        """Return (N,) log densities at returns (N,): a piecewise rescaling of the latent's."""
        z = self.distribution.latent(returns)
        w, slope = self._normal_of(z)
        changed: Floats = 0.5 * (z * z - w * w) - np.log(slope)
        return self.distribution.log_prob(returns) + changed

    def _corrected(self, w: Floats, rows: slice) -> Floats:
        """Return (N, J) the latents that normal quantiles w (J,) stand for."""
        knots = self.knots[rows]
        left = np.clip(np.searchsorted(self.normal, w, side="right") - 1, 0, None)
        right = np.minimum(left + 1, len(self.normal) - 1)
        gap = self.normal[right] - self.normal[left]
        inside = (w > self.normal[0]) & (gap > 0)
        share = np.where(inside, (w - self.normal[left]) / np.where(gap > 0, gap, 1.0), 0.0)
        beyond = np.where(inside, 0.0, w - self.normal[left])
        return knots[:, left] + share * (knots[:, right] - knots[:, left]) + beyond

    def _normal_of(self, z: Floats) -> tuple[Floats, Floats]:
        """Return the normal quantile w (N,) of each latent (N,), and dz/dw."""
        last = len(self.normal) - 1
        count = (z[:, None] >= self.knots).sum(axis=1)
        left, right = np.clip(count - 1, 0, None), np.minimum(count, last)
        row = np.arange(len(z))
        inside = (count > 0) & (count <= last)
        gap = np.where(inside, self.normal[right] - self.normal[left], 1.0)
        slope = np.where(inside, (self.knots[row, right] - self.knots[row, left]) / gap, 1.0)
        return self.normal[left] + (z - self.knots[row, left]) / slope, slope
