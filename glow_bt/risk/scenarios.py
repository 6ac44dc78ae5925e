"""Distributions of returns that are given by equally likely draws.

One convention for all of them. The quantile at p <= 1/2 is the ceil(S p)-th lowest of S draws,
the inverse of the empirical distribution function; for p > 1/2 it is the ceil(S (1-p))-th
highest, so that gains are treated as losses are. The shortfall is the mean of the empirical
distribution beyond its quantile, where the draw at the quantile counts as far as it is needed to
make up the share p (Acerbi & Tasche 2002, "On the coherence of expected shortfall", Journal of
Banking & Finance 26(7), definition 2.6). The cdf is the mid-rank of the return among the draws
and itself: never 0 or 1, uniform if the return comes from where the draws come from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glow_bt.errors import ConfigError, DataError

__all__ = ["EmpiricalShape", "Scenarios", "tail_rank"]

Floats = npt.NDArray[np.float64]

# Draws that are partitioned at a time: what stays in the cache of one core.
_BLOCK = 2**17


def tail_rank(share: float, size: int) -> int:
    """Return which of `size` draws, counted from the end, is the quantile with `share` beyond.

    ceil(share size), at least 1; 0.07 x 100 counts as 7 in spite of its rounding error.
    """
    return max(1, math.ceil(share * size - 1e-9 * size * share))


@dataclass(frozen=True, eq=False)
class Scenarios:
    """N distributions, each of S equally likely draws of a return; a `ReturnDistribution`.

    Attributes:
        draws: (N, S) log returns.

    Raises:
        DataError: if draws are of another shape, none, or not finite.
    """

    draws: Floats

    def __post_init__(self) -> None:
        if np.ndim(self.draws) != 2 or not np.shape(self.draws)[1]:
            raise DataError(
                "expected draws of shape (N, S) with S of 1 or more, found "
                f"{np.shape(self.draws)}; give one row a distribution"
            )
        if not all(np.isfinite(self.draws[rows]).all() for rows in self._blocks()):
            raise DataError(
                "expected finite draws, found NaN or infinity; leave out rows without a forecast"
            )

    @classmethod
    def from_paths(cls, paths: Floats, horizon: int) -> Scenarios:
        """Sum paths (N, S, H) of log returns of single bars over their first `horizon` bars.

        Raises:
            ConfigError: on a horizon below 1 or above H.
            DataError: if paths are of another shape or not finite.
        """
        if np.ndim(paths) != 3:
            raise DataError(f"expected paths of shape (N, S, H), found {np.shape(paths)}")
        if not 1 <= horizon <= paths.shape[2]:
            raise ConfigError(
                f"expected a horizon of 1 to {paths.shape[2]} bars, found {horizon}; "
                "draw longer paths for more"
            )
        return cls(paths[:, :, :horizon].sum(axis=2))

    def __len__(self) -> int:
        return len(self.draws)

    @property
    def num_scenarios(self) -> int:
        """Draws a distribution, S."""
        return int(self.draws.shape[1])

    def extremes(self, count: int, *, upper: bool) -> Floats:
        """Return (N, count) the lowest draws ascending, or the highest ones descending."""
        sign = -1.0 if upper else 1.0
        found = np.empty((len(self), count))
        for rows in self._blocks():
            lowest = np.partition(sign * self.draws[rows], count - 1, axis=1)[:, :count]
            found[rows] = np.sort(lowest, axis=1)
        return sign * found

    def quantile(self, p: float) -> Floats:
        """Return the p-quantiles (N,), one of the draws each."""
        rank = tail_rank(min(p, 1 - p), self.num_scenarios)
        return self.extremes(rank, upper=p > 0.5)[:, -1]

    def shortfall(self, p: float) -> Floats:
        """Return (N,) the mean of the share p of lowest draws, of 1 - p of the highest ones."""
        share = min(p, 1 - p) * self.num_scenarios
        tail = self.extremes(tail_rank(min(p, 1 - p), self.num_scenarios), upper=p > 0.5)
        return np.asarray((tail * _tail_weights(tail.shape[1], share)).sum(axis=1))

    def cdf(self, returns: Floats) -> Floats:
        """Return (N,) the mid-rank of each of returns (N,) among its draws and itself."""
        below = self.share(returns, strict=True)
        up_to = self.share(returns, strict=False)
        size = self.num_scenarios
        return ((below + up_to) * size + 1) / (2 * (size + 1))

    def log_prob(self, returns: Floats) -> Floats:
        """Return (N,) NaN: draws have no density."""
        return np.full(len(returns), np.nan)

    def share(self, returns: Floats, *, strict: bool) -> Floats:
        """Return (N,) the share of draws below each of returns (N,), or up to it if not strict."""
        compare = np.less if strict else np.less_equal
        found = np.empty(len(self))
        for rows in self._blocks():
            found[rows] = compare(self.draws[rows], returns[rows, None]).mean(axis=1)
        return found

    def _blocks(self) -> Iterator[slice]:
        step = max(1, _BLOCK // self.draws.shape[1])
        for start in range(0, len(self.draws), step):
            yield slice(start, start + step)


class EmpiricalShape:
    """A standardised variable known by a sample (S,) of it; a `StandardShape`.

    Raises:
        DataError: if the sample is no row of finite numbers.
    """

    def __init__(self, sample: Floats) -> None:
        if np.ndim(sample) != 1 or not len(sample) or not np.isfinite(sample).all():
            raise DataError(
                f"expected a sample (S,) of finite numbers, found shape {np.shape(sample)}"
                " or a NaN in it; leave out bars without a residual"
            )
        self._sorted = np.sort(sample)

    def quantile(self, p: npt.ArrayLike) -> Floats:
        """Return the draw that is the p-quantile for each p."""
        p, size = np.asarray(p, dtype=np.float64), len(self._sorted)
        beyond = np.minimum(p, 1 - p) * size
        rank = np.maximum(1, np.ceil(beyond * (1 - 1e-9))).astype(np.int64)
        return np.asarray(self._sorted[np.where(p > 0.5, size - rank, rank - 1)])

    def cdf(self, z: Floats) -> Floats:
        """Return the mid-rank of each z among the sample and itself."""
        below = np.searchsorted(self._sorted, z, side="left")
        up_to = np.searchsorted(self._sorted, z, side="right")
        return np.asarray((below + up_to + 1) / (2 * (len(self._sorted) + 1)))

    def log_density(self, z: Floats) -> Floats:
        """Return NaN for each z: a sample has no density."""
        return np.full(np.shape(z), np.nan)

    def lower_mean(self, p: float) -> float:
        """Return the mean of the share p of lowest draws."""
        size = len(self._sorted)
        rank = tail_rank(p, size)
        return float(self._sorted[:rank] @ _tail_weights(rank, p * size))

    def mirrored(self) -> EmpiricalShape:
        """Return the shape of -Z."""
        return EmpiricalShape(-self._sorted)


def _tail_weights(rank: int, share: float) -> Floats:
    """Return weights (rank,) of the draws in the tail, the one at the quantile last."""
    weights = np.ones(rank)
    if rank > 1:
        weights[-1] = share - (rank - 1)
    return np.asarray(weights / weights.sum(), dtype=np.float64)
