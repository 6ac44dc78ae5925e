"""Direction: a readout of latent space against forward returns.

No latent axis has a sign of its own, so direction is fitted, and shrunk to nothing where the
training bars hold no evidence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import erf
from sklearn.linear_model import BayesianRidge

from glow_bt.errors import ConfigError, TooFewBarsError

__all__ = ["DirectionReadout", "forward_scaled_return"]

Floats = npt.NDArray[np.float64]

_MIN_ROWS = 50


@dataclass(frozen=True, eq=False)
class DirectionReadout:
    """P(mean forward return > 0 | z) - P(mean < 0 | z), in [-1, 1].

    A Bayesian linear regression of the forward volatility-scaled return on latents gives the
    mean's posterior N(m(z), s(z)^2); direction = 2 Phi(m/s) - 1. With no evidence m is small
    beside s and direction is near 0; the prior precision is set by the evidence itself
    (MacKay 1992, Neural Computation 4, 415).

    Attributes:
        coefficients: (D,), one a latent.
        intercept: mean of the scaled return; the market's drift counts as evidence too.
        covariance: (D, D), posterior covariance of the coefficients.
        intercept_variance: posterior variance of the intercept.
        centre: (D,), mean of the latents it was fitted on.
        horizon: bars ahead.
    """

    coefficients: Floats
    intercept: float
    covariance: Floats
    intercept_variance: float
    centre: Floats
    horizon: int

    @classmethod
    def fit(cls, latents: Floats, forward_return: Floats, horizon: int) -> DirectionReadout:
        """Fit on training latents (N, D) and their scaled forward returns (N,).

        Rows whose forward return is NaN are left out. Only every horizon-th row is used, so
        that forward returns do not overlap and the evidence is not counted twice.

        Raises:
            TooFewBarsError: if fewer than 50 rows remain.
        """
        known = np.isfinite(forward_return)
        x, y = latents[known][::horizon], forward_return[known][::horizon]
        if len(y) < _MIN_ROWS:
            raise TooFewBarsError(
                _MIN_ROWS * horizon, int(known.sum()), f"a direction readout {horizon} bars ahead"
            )
        ridge = BayesianRidge().fit(x, y)
        centre = x.mean(axis=0)
        return cls(
            coefficients=np.asarray(ridge.coef_, dtype=np.float64),
            intercept=float(y.mean()),
            covariance=np.asarray(ridge.sigma_, dtype=np.float64),
            intercept_variance=float(1.0 / (ridge.alpha_ * len(y))),
            centre=centre,
            horizon=horizon,
        )

    def __call__(self, latents: Floats) -> Floats:
        """Return the direction of each row of latents (N, D), shape (N,), in [-1, 1]."""
        z = latents - self.centre
        mean = self.intercept + z @ self.coefficients
        variance = self.intercept_variance + np.einsum("ij,jk,ik->i", z, self.covariance, z)
        direction: Floats = erf(mean / np.sqrt(2 * variance))
        return direction


def forward_scaled_return(close: Floats, volatility: Floats, horizon: int) -> Floats:
    """Return ln(close[t+h] / close[t]) / (volatility[t] * sqrt(h)); NaN in the last h rows.

    Args:
        close: (N,), closing prices.
        volatility: (N,), volatility of one bar's log return, known at t.
        horizon: h, bars ahead.
    """
    if horizon < 1:
        raise ConfigError(f"expected a horizon of at least 1 bar, found {horizon}")
    log_close = np.log(close)
    result = np.full(len(close), np.nan)
    result[:-horizon] = log_close[horizon:] - log_close[:-horizon]
    scaled: Floats = result / (volatility * np.sqrt(horizon))
    return scaled
