"""A spherical Student-t as a map of radii: what rotations cannot tell apart, in two numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from glow_bt.errors import DataError

__all__ = ["SphericalT"]

Floats = npt.NDArray[np.float64]

_LOG_2PI = math.log(2 * math.pi)
_DEGREES = np.exp(np.linspace(math.log(2.5), math.log(60.0), 40))
_ITERATIONS = 100
# Beyond this probability a chi-squared quantile is no number any more.
_LEAST_TAIL = 1e-300


@dataclass(frozen=True)
class SphericalT:
    """The map between a spherical Student-t with df degrees of freedom, scaled, and N(0, I).

    A row x (N,) keeps its direction; its radius goes to the radius of equal probability:
    |y|^2 = Q(F(|x|^2 / (N scale^2))), with F the cdf of an F(N, df) variable and Q the quantile
    function of a chi-squared one with N degrees of freedom. So x is t exactly if y is normal,
    and log |det dy/dx| is the difference of both log densities. One shared radius is what makes
    assets crash together even where they are not correlated.

    Attributes:
        df: degrees of freedom, above 2.
        scale: of the t, so that the deviation of each x is scale sqrt(df / (df - 2)).
    """

    df: float
    scale: float

    @classmethod
    def fit(cls, x: Floats) -> SphericalT:
        """Return the most likely one for rows x (T, N).

        The scale by the fixed point of its likelihood equation (Liu & Rubin 1995, Statistica
        Sinica 5), the degrees of freedom among 40 from 2.5 to 60.

        Raises:
            DataError: if x has no rows, or values that are not finite.
        """
        if x.ndim != 2 or not x.size or not np.isfinite(x).all():
            raise DataError(f"expected finite rows to fit radii to, found shape {np.shape(x)}")
        squared = np.square(x).sum(axis=1)
        fits = [cls(df, _scale_of(squared, x.shape[1], df)) for df in _DEGREES.tolist()]
        return max(fits, key=lambda fit: float(fit.log_prob(x).sum()))

    def log_prob(self, x: Floats) -> Floats:
        """Return the log density (T,) of rows x (T, N), in nats."""
        n, df = x.shape[1], self.df
        u = np.square(x / self.scale).sum(axis=1)
        constant = special.gammaln((df + n) / 2) - special.gammaln(df / 2)
        constant -= n / 2 * math.log(df * math.pi) + n * math.log(self.scale)
        log_prob: Floats = constant - (df + n) / 2 * np.log1p(u / df)
        return log_prob

    def forward(self, x: Floats) -> tuple[Floats, Floats]:
        """Map rows x (T, N) to y (T, N), with log |det dy/dx| (T,)."""
        n = x.shape[1]
        squared = np.square(x).sum(axis=1)
        u = squared / (n * self.scale**2)
        above = np.maximum(special.fdtrc(n, self.df, u), _LEAST_TAIL)
        below = special.fdtr(n, self.df, u)
        # Each tail from its own end, where it keeps its digits.
        far = special.gammainccinv(n / 2, above)
        near = special.gammaincinv(n / 2, below)
        radius2 = 2 * np.where(above < 0.5, far, near)
        y = (
            x
            * np.sqrt(np.divide(radius2, squared, out=np.ones_like(u), where=squared > 0))[:, None]
        )
        return y, self.log_prob(x) - _log_normal(y)

    def inverse(self, y: Floats) -> Floats:
        """Map rows y (T, N) to x (T, N)."""
        n = y.shape[1]
        squared = np.square(y).sum(axis=1)
        above = np.maximum(special.gammaincc(n / 2, squared / 2), _LEAST_TAIL)
        below = special.gammainc(n / 2, squared / 2)
        # 1 / F(N, df) is F(df, N), so that the upper tail is a lower one.
        far = 1 / special.fdtri(self.df, n, np.where(above < 0.5, above, 0.5))
        near = special.fdtri(n, self.df, np.where(above < 0.5, 0.5, below))
        radius2 = np.where(above < 0.5, far, near) * n * self.scale**2
        stretch = np.divide(radius2, squared, out=np.ones_like(squared), where=squared > 0)
        x: Floats = y * np.sqrt(stretch)[:, None]
        return x


def _scale_of(squared: Floats, n: int, df: float) -> float:
    """Return the s of greatest likelihood: s^2 = mean of (df + n) q / (df + q / s^2) / n."""
    variance = float(np.median(squared)) / n or 1.0
    for _ in range(_ITERATIONS):
        variance = float(np.mean((df + n) * squared / (df + squared / variance))) / n
    return math.sqrt(variance)


def _log_normal(y: Floats) -> Floats:
    log_prob: Floats = -0.5 * (np.square(y) + _LOG_2PI).sum(axis=1)
    return log_prob
