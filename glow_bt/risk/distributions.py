"""Location-scale distributions of returns with exact tails: normal, Student-t, Hansen's skew-t.

R = mean + sigma Z, where Z has mean 0, variance 1 and one of the shapes below. Quantile, cdf,
density and the mean beyond a quantile are closed forms (Hansen 1994, "Autoregressive conditional
density estimation", International Economic Review 35(3); parameters as in the package `arch`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln, log_ndtr, ndtr, ndtri, stdtr, stdtrit

from glow_bt.errors import ConfigError, DataError
from glow_bt.risk.scenarios import Scenarios

__all__ = ["LocationScale", "NormalShape", "SkewStudentShape", "StandardShape", "StudentShape"]

Floats = npt.NDArray[np.float64]


class StandardShape(Protocol):
    """Distribution of one standardised variable Z."""

    def quantile(self, p: npt.ArrayLike) -> Floats:
        """Return the p-quantile for each p, of the shape of p."""
        ...

    def cdf(self, z: Floats) -> Floats:
        """Return P(Z <= z) for each z."""
        ...

    def log_density(self, z: Floats) -> Floats:
        """Return the log density at each z in nats; NaN for a shape without any."""
        ...

    def lower_mean(self, p: float) -> float:
        """Return E[Z | Z <= p-quantile]."""
        ...

    def mirrored(self) -> StandardShape:
        """Return the shape of -Z."""
        ...


@dataclass(frozen=True)
class NormalShape:
    """Z ~ N(0, 1)."""

    def quantile(self, p: npt.ArrayLike) -> Floats:
        """Return the p-quantile for each p."""
        return np.asarray(ndtri(p), dtype=np.float64)

    def cdf(self, z: Floats) -> Floats:
        """Return P(Z <= z) for each z."""
        return np.asarray(ndtr(z), dtype=np.float64)

    def log_density(self, z: Floats) -> Floats:
        """Return the log density at each z, nats."""
        return np.asarray(-0.5 * z**2 - 0.5 * math.log(2 * math.pi))

    def lower_mean(self, p: float) -> float:
        """Return E[Z | Z <= q] = -phi(q) / p."""
        quantile = float(ndtri(p))
        return -math.exp(
            -0.5 * quantile**2 - 0.5 * math.log(2 * math.pi) - float(log_ndtr(quantile))
        )

    def mirrored(self) -> Self:
        """Return itself: it is symmetric."""
        return self


@dataclass(frozen=True)
class SkewStudentShape:
    """Hansen's skewed Student-t with mean 0 and variance 1.

    b c (1 + ((b z + a) / (1 + sign(b z + a) skew))^2 / (df - 2))^(-(df + 1) / 2) with
    c = Gamma((df+1)/2) / (sqrt(pi (df-2)) Gamma(df/2)), a = 4 skew c (df-2)/(df-1) and
    b^2 = 1 + 3 skew^2 - a^2. Hansen 1994, eq. 10-13.

    Attributes:
        df: degrees of freedom, above 2.
        skew: in (-1, 1); the left tail is the longer one below 0.

    Raises:
        ConfigError: on a parameter outside its interval.
    """

    df: float
    skew: float = 0.0

    def __post_init__(self) -> None:
        if not (2.0 < self.df < math.inf and -1.0 < self.skew < 1.0):
            raise ConfigError(
                "expected more than 2 degrees of freedom and a skew in (-1, 1), found "
                f"{self.df} and {self.skew}; the variance has to exist"
            )

    @cached_property
    def _log_c(self) -> float:
        df = self.df
        return float(gammaln((df + 1) / 2) - gammaln(df / 2) - 0.5 * math.log(math.pi * (df - 2)))

    @cached_property
    def _a(self) -> float:
        return 4 * self.skew * math.exp(self._log_c) * (self.df - 2) / (self.df - 1)

    @cached_property
    def _b(self) -> float:
        return math.sqrt(1 + 3 * self.skew**2 - self._a**2)

    @cached_property
    def _t_scale(self) -> float:
        """Standard deviation 1 of a Student-t needs this factor."""
        return math.sqrt((self.df - 2) / self.df)

    def quantile(self, p: npt.ArrayLike) -> Floats:
        """Return the p-quantile for each p: two halves of Student-t quantiles, stretched."""
        p = np.asarray(p, dtype=np.float64)
        below, above = 1 - self.skew, 1 + self.skew
        left = p < below / 2
        # The right half by symmetry from the upper end, where 1 - p keeps its digits.
        tail = np.where(left, p / below, np.minimum((1 - p) / above, 0.5))
        stretched = stdtrit(self.df, tail) * np.where(left, below, -above)
        return np.asarray((stretched * self._t_scale - self._a) / self._b, dtype=np.float64)

    def cdf(self, z: Floats) -> Floats:
        """Return P(Z <= z) for each z."""
        centred = (self._b * np.asarray(z) + self._a) / self._t_scale
        left = (1 - self.skew) * stdtr(self.df, np.minimum(centred, 0.0) / (1 - self.skew))
        right = (1 + self.skew) * stdtr(self.df, -np.maximum(centred, 0.0) / (1 + self.skew))
        return np.asarray(np.where(centred < 0, left, 1 - right), dtype=np.float64)

    def log_density(self, z: Floats) -> Floats:
        """Return the log density at each z, nats."""
        centred = self._b * np.asarray(z) + self._a
        ratio = centred / (1 + np.sign(centred) * self.skew)
        tail = -(self.df + 1) / 2 * np.log1p(ratio**2 / (self.df - 2))
        return np.asarray(math.log(self._b) + self._log_c + tail, dtype=np.float64)

    def lower_mean(self, p: float) -> float:
        """Return E[Z | Z <= q] from the partial mean of the Student-t.

        With M(y) = integral of t f(t) up to y = -f(y) (df + y^2) / (df - 1), the part of Z below
        q <= -a/b has mean ((1-skew) M(y) s (1-skew) - a p) / (b p), y the Student-t's own
        quantile and s its scale; the part above is added with 1 + skew.
        """
        below, above = 1 - self.skew, 1 + self.skew
        if p < below / 2:
            partial = below**2 * self._partial(float(stdtrit(self.df, p / below)))
        else:
            y = -float(stdtrit(self.df, (1 - p) / above))
            partial = below**2 * self._partial(0.0)
            partial += above**2 * (self._partial(y) - self._partial(0.0))
        return (partial * self._t_scale / p - self._a) / self._b

    def mirrored(self) -> SkewStudentShape:
        """Return the shape of -Z: the skew changes its sign."""
        return SkewStudentShape(self.df, -self.skew)

    def _partial(self, y: float) -> float:
        """Mean of a Student-t below y times the probability of that."""
        df = self.df
        log_peak = self._log_c + math.log(self._t_scale)
        density = math.exp(log_peak - (df + 1) / 2 * math.log1p(y**2 / df))
        return -density * (df + y**2) / (df - 1)


class StudentShape(SkewStudentShape):
    """Student-t with variance 1: a `SkewStudentShape` without skew."""


@dataclass(frozen=True, eq=False)
class LocationScale:
    """N distributions mean + sigma Z that share the shape of Z; a `ReturnDistribution`.

    Attributes:
        mean: (N,) means, in log returns.
        sigma: (N,) standard deviations, in log returns, above 0.
        shape: of the standardised return.

    Raises:
        DataError: if shapes differ, or a number is not finite or a sigma not above 0.
    """

    mean: Floats
    sigma: Floats
    shape: StandardShape

    def __post_init__(self) -> None:
        if np.ndim(self.mean) != 1 or np.shape(self.mean) != np.shape(self.sigma):
            raise DataError(
                "expected mean and sigma of shape (N,), found "
                f"{np.shape(self.mean)} and {np.shape(self.sigma)}"
            )
        if not (np.isfinite(self.mean).all() and np.isfinite(self.sigma).all()):
            raise DataError("expected finite means and sigmas, found NaN or infinity")
        if not (self.sigma > 0).all():
            raise DataError(f"expected sigmas above 0, found {self.sigma.min()}")

    def __len__(self) -> int:
        return len(self.mean)

    def quantile(self, p: float) -> Floats:
        """Return the p-quantiles (N,)."""
        return self.mean + self.sigma * self.shape.quantile(p)

    def shortfall(self, p: float) -> Floats:
        """Return (N,) the exact mean below the p-quantile, or above it where p > 1/2."""
        if p > 0.5:
            return self.mean - self.sigma * self.shape.mirrored().lower_mean(1 - p)
        return self.mean + self.sigma * self.shape.lower_mean(p)

    def cdf(self, returns: Floats) -> Floats:
        """Return (N,) the probability of a return at most as high as each of returns (N,)."""
        return self.shape.cdf((returns - self.mean) / self.sigma)

    def log_prob(self, returns: Floats) -> Floats:
        """Return (N,) log densities at returns (N,), nats per unit of log return."""
        density = self.shape.log_density((returns - self.mean) / self.sigma)
        return np.asarray(density - np.log(self.sigma), dtype=np.float64)

    def sample(self, num_scenarios: int, seed: int = 0) -> Scenarios:
        """Draw scenarios (N, num_scenarios) by inverting the cdf."""
        uniform = np.random.default_rng(seed).random((len(self), num_scenarios))
        # The generator may give 0, whose quantile is minus infinity.
        uniform = np.maximum(uniform, np.finfo(np.float64).tiny)
        z = self.shape.quantile(uniform)
        return Scenarios(self.mean[:, None] + self.sigma[:, None] * z)
