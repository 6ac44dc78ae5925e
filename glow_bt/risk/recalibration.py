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
it goes on in proportion (q/w as at the last level, right for a scale that is wrong) to w = 4 and
then in parallel; so quantiles at any level, shortfall, probability and density come from one
distribution. Where two q_k come closer than a quarter of what lies between the w_k,
that distribution spreads them (`Recalibrated`), so that its quantiles never cross; what is
followed stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy import special

from glow_bt.errors import ConfigError, DataError
from glow_bt.quadrature import nodes_between, normal_tail_cuts, normal_tail_weights

__all__ = [
    "LEAST_SLOPE",
    "REACH",
    "LatentDistribution",
    "Recalibrated",
    "Recalibration",
    "check_probability",
]

Floats = npt.NDArray[np.float64]

_STEP = 0.01
_LEVELS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99)
# Neighbouring quantiles keep this share of the distance that normal ones have.
LEAST_SLOPE = 0.25
# A scale that is wrong moves quantiles in proportion; out to here that is carried on beyond the
# outermost levels. Further out the tails stay as heavy as they are, so that means stay finite.
REACH = 4.0
_BLOCK_ROWS = 2048


class LatentDistribution(Protocol):
    """N distributions, each an increasing function of a standard normal latent."""

    @property
    def kinks(self) -> Floats:
        """(B,) latents at which these functions are continuous, but not smooth."""
        ...

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
            # The offset is what is summed up, so that going on from a state loses no bit.
            offset, out, back = self.offsets[k], self.step * (p - 1), self.step * p
            column = [offset]
            for value in values:
                offset += out if value < w + offset else back
                column.append(offset)
            trail[:, k] = column
        return trail, replace(self, offsets=tuple(trail[-1].tolist()))

    def below(self, latent: float) -> list[bool]:
        """Return of each level whether a latent is below the quantile that is followed.

        Raises:
            DataError: if the latent is NaN.
        """
        if math.isnan(latent):
            raise DataError("expected a latent, found NaN; leave out bars without a forecast")
        pairs = zip(self._normal, self.offsets, strict=True)
        return [latent < w + offset for w, offset in pairs]

    def after(self, below: Sequence[bool]) -> Recalibration:
        """Return the state once one more return is known, as `follow` does, in fewer steps.

        Args:
            below: of each level, whether the latent was `below`.
        """
        state = copy(self)
        steps = zip(self.offsets, self.levels, below, strict=True)
        offsets = tuple(
            offset + (self.step * (p - 1) if out else self.step * p) for offset, p, out in steps
        )
        object.__setattr__(state, "offsets", offsets)
        return state

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
        try:
            rows = [tuple(map(float, values[name])) for name in ("levels", "offsets")]
            step = float(values["step"])
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"expected a recalibration of numbers, found {dict(values)}: {error}; "
                "start it anew"
            ) from error
        return cls(step, *rows)

    @cached_property
    def _normal(self) -> list[float]:
        normal: list[float] = _normal_quantiles(self.levels).tolist()
        return normal


class Recalibrated:
    """Distributions with latents corrected; a `ReturnDistribution`.

    Args:
        distribution: N distributions.
        offsets: (N, K), see `Recalibration.follow`.
        levels: of the K columns.

    Raises:
        DataError: if there is not one offset a level.
    """

    def __init__(
        self, distribution: LatentDistribution, offsets: Floats, levels: Sequence[float]
    ) -> None:
        if offsets.ndim != 2 or offsets.shape[1] != len(levels):
            raise DataError(
                f"expected offsets of shape (N, {len(levels)}), one a level, found {offsets.shape}"
            )
        self.distribution = distribution
        self.normal: Floats = _normal_quantiles(tuple(levels))
        # Of each gap at least a share stays; both sides spread from the middle, which stays put.
        middle = len(levels) // 2
        least = LEAST_SLOPE * self.normal
        loose = self.normal + offsets - least
        loose[:, middle:] = np.maximum.accumulate(loose[:, middle:], axis=1)
        loose[:, middle::-1] = np.minimum.accumulate(loose[:, middle::-1], axis=1)
        self.knots: Floats = loose + least
        self._continue_outwards()

    def rows(self, rows: slice) -> Recalibrated:
        """Return some of the distributions."""
        some = copy(self)
        some.distribution, some.knots = self.distribution.rows(rows), self.knots[rows]
        return some

    def quantile(self, p: float) -> Floats:
        """Return the p-quantiles (N,).

        Raises:
            ConfigError: if p is outside (0, 1).
        """
        check_probability(p)
        w = np.full((len(self.knots), 1), special.ndtri(p))
        return self.distribution.at_latent(self._corrected(w))[:, 0]

    def shortfall(self, p: float) -> Floats:
        """Return (N,) the mean below the p-quantile, or above it where p > 1/2.

        By Gauss-Legendre quadrature in each piece between levels and kinks of the distribution.

        Raises:
            ConfigError: if p is outside (0, 1).
        """
        check_probability(p)
        means = np.empty(len(self.knots))
        for start in range(0, len(means), _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            means[rows] = self.rows(rows)._shortfall(p)
        return means

    def cdf(self, returns: Floats) -> Floats:
        """Return (N,) the probability of at most each of returns (N,)."""
        below: Floats = special.ndtr(self.latent(returns))
        return below

    def latent(self, y: Floats) -> Floats:
        """Return the corrected latent (N,) of each value (N,)."""
        return self._normal_of(self.distribution.latent(y)[:, None])[0][:, 0]

    def log_prob(self, returns: Floats) -> Floats:
        """Return (N,) log densities at returns (N,): a piecewise rescaling of the latent's."""
        z = self.distribution.latent(returns)
        w, slope = (values[:, 0] for values in self._normal_of(z[:, None]))
        changed: Floats = 0.5 * (z * z - w * w) - np.log(slope)
        return self.distribution.log_prob(returns) + changed

    def _continue_outwards(self) -> None:
        """Add a knot at either end, in proportion to the outermost level."""
        for side, last in ((-1.0, 0), (1.0, -1)):
            w, q = float(self.normal[last]), self.knots[:, last]
            if not 0 < side * w < REACH:
                continue
            outer = q + np.maximum(q / w, LEAST_SLOPE) * (side * REACH - w)
            order = 1 if last else -1
            self.normal = np.concatenate([self.normal, np.array([side * REACH])][::order])
            self.knots = np.concatenate([self.knots, outer[:, None]][::order], axis=1)

    def _shortfall(self, p: float) -> Floats:
        count = len(self.knots)
        kinks = np.broadcast_to(self.distribution.kinks, (count, len(self.distribution.kinks)))
        levels = np.broadcast_to(self.normal, self.knots.shape)
        cuts = normal_tail_cuts(p, np.concatenate([levels, self._normal_of(kinks)[0]], axis=1))
        cuts = cuts[:, np.append(True, (np.diff(cuts) > 0).any(axis=0))]
        # Between two cuts the correction is a straight line, so nodes stay nodes.
        values = self.distribution.at_latent(nodes_between(self._corrected(cuts)))
        means: Floats = np.einsum("nk,nk->n", values, normal_tail_weights(p, cuts))
        return means

    def _corrected(self, w: Floats) -> Floats:
        """Return (N, J) the latents that normal quantiles w (N, J) stand for."""
        count = np.searchsorted(self.normal, w, side="right")
        w0, z0, slope = self._piece(count)
        return z0 + slope * (w - w0)

    def _normal_of(self, z: Floats) -> tuple[Floats, Floats]:
        """Return (N, J) the normal quantiles w of latents z (N, J), and dz/dw."""
        count = (z[:, :, None] >= self.knots[:, None, :]).sum(axis=2)
        w0, z0, slope = self._piece(count)
        return w0 + (z - z0) / slope, slope

    def _piece(self, count: npt.NDArray[np.intp]) -> tuple[Floats, Floats, Floats]:
        """Return a normal quantile, its latent and dz/dw of pieces (N, J) above `count` levels."""
        last = len(self.normal) - 1
        left, right = np.maximum(count - 1, 0), np.minimum(count, last)
        low, high = (np.take_along_axis(self.knots, at, axis=1) for at in (left, right))
        start, inside = self.normal[left], left < right
        gap = np.where(inside, self.normal[right] - start, 1.0)
        return start, low, np.where(inside, (high - low) / gap, 1.0)


@lru_cache(maxsize=64)
def _normal_quantiles(levels: tuple[float, ...]) -> Floats:
    normal: Floats = special.ndtri(np.array(levels))
    normal.flags.writeable = False
    return normal


def check_probability(p: float) -> None:
    """Refuse what is no probability of a tail.

    Raises:
        ConfigError: if it is outside (0, 1).
    """
    if not 0 < p < 1:
        raise ConfigError(f"expected a probability inside (0, 1), found {p}")
