"""Direction: a readout of latent space against forward returns.

No latent axis has a sign of its own, so direction is fitted, and shrunk to nothing where the
training bars hold no evidence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import erf

from glow_bt.errors import ConfigError, TooFewBarsError

__all__ = ["MIN_HELD_OUT_ROWS", "MIN_ROWS", "DirectionReadout", "forward_scaled_return"]

Floats = npt.NDArray[np.float64]

# Fewest forward returns, none overlapping another, that a readout is fitted on.
MIN_ROWS = 50
# Fewest of held-out ones that judge it.
MIN_HELD_OUT_ROWS = 5
_TINY = 1e-300


@dataclass(frozen=True, eq=False)
class DirectionReadout:
    """P(mean forward return > 0 | z) - P(mean < 0 | z), in [-1, 1], as far as it is believed.

    The mean of the forward volatility-scaled return is drift + slope . z. The slope is a
    Bayesian linear regression on training latents (MacKay 1992, Neural Computation 4, 415). How
    far either is believed is decided by how well it foretells later, held-out bars: the slope by
    its correlation with their returns, the drift by their mean. Both are shrunk by
    max(0, 1 - 1/t^2) (positive-part James-Stein for one number, t its t-statistic on the held-out
    bars), and to 0 if they foretell with the wrong sign: without evidence direction is 0.
    direction = 2 Phi(m/s) - 1 with the shrunk mean m; s is the posterior deviation before
    shrinking, since disbelief in a slope is no reason to be surer of the rest.

    Attributes:
        coefficients: (D,), one a latent, before shrinking.
        intercept: mean of the scaled return; the market's drift counts as evidence too.
        covariance: (D, D), posterior covariance of the coefficients.
        intercept_variance: variance of the intercept.
        centre: (D,), mean of the latents it was fitted on.
        slope_belief: factor in [0, 1] on the coefficients.
        drift_belief: factor in [0, 1] on the intercept.
        horizon: bars ahead.

    Raises:
        ConfigError: if the shapes do not belong together, or a number is outside what can be.
    """

    coefficients: Floats
    intercept: float
    covariance: Floats
    intercept_variance: float
    centre: Floats
    slope_belief: float
    drift_belief: float
    horizon: int

    def __post_init__(self) -> None:
        width = len(self.coefficients)
        arrays = (self.coefficients, self.covariance, self.centre)
        shapes = tuple(a.shape for a in arrays)
        sound = (
            shapes == ((width,), (width, width), (width,))
            and all(np.isfinite(a).all() for a in (*arrays, self.intercept))
            and _is_covariance(self.covariance)
            and 0.0 < self.intercept_variance < math.inf
            and 0.0 <= self.slope_belief <= 1.0
            and 0.0 <= self.drift_belief <= 1.0
            and self.horizon >= 1
        )
        if not sound:
            raise ConfigError(
                "expected finite coefficients (D,), a covariance (D, D), a centre (D,), a "
                "positive intercept_variance, beliefs in [0, 1] and a horizon of at least 1, "
                f"found shapes {shapes} or numbers that are not; fit the readout again"
            )

    @classmethod
    def fit(
        cls,
        latents: Floats,
        forward_return: Floats,
        held_out_latents: Floats,
        held_out_return: Floats,
        horizon: int,
    ) -> DirectionReadout:
        """Fit on training latents (N, D) and judge on held-out, later ones (M, D).

        Rows whose forward return is NaN are left out. Only every horizon-th row is used, so
        that forward returns do not overlap and the evidence is not counted twice.

        Raises:
            ConfigError: if the horizon is below 1.
            TooFewBarsError: if fewer than 50 training rows, or 5 held-out ones, remain.
        """
        _check_horizon(horizon)
        x, y = _apart(latents, forward_return, horizon, MIN_ROWS)
        later_x, later_y = _apart(held_out_latents, held_out_return, horizon, MIN_HELD_OUT_ROWS)
        # Here, because whoever only reads a direction need not wait for scikit-learn.
        from sklearn.linear_model import BayesianRidge

        ridge = BayesianRidge().fit(x, y)
        coefficients = np.asarray(ridge.coef_, dtype=np.float64)
        centre = x.mean(axis=0)
        later_t = np.sqrt(len(later_y)) * later_y.mean() / max(later_y.std(ddof=1), _TINY)
        drift_t = float(np.sign(y.mean()) * later_t)
        slope_t = _foretelling((later_x - centre) @ coefficients, later_y)
        return cls(
            coefficients=coefficients,
            intercept=float(y.mean()),
            covariance=np.asarray(ridge.sigma_, dtype=np.float64),
            intercept_variance=float(1.0 / (ridge.alpha_ * len(y))),
            centre=centre,
            slope_belief=_belief(slope_t),
            drift_belief=_belief(drift_t),
            horizon=horizon,
        )

    def __call__(self, latents: Floats) -> Floats:
        """Return the direction of each row of latents (N, D), shape (N,), in [-1, 1]."""
        z = latents - self.centre
        mean = self.drift_belief * self.intercept + self.slope_belief * (z @ self.coefficients)
        variance = self.intercept_variance + ((z @ self.covariance) * z).sum(axis=1)
        direction: Floats = erf(mean / np.sqrt(2 * variance))
        return direction


def forward_scaled_return(close: Floats, volatility: Floats, horizon: int) -> Floats:
    """Return ln(close[t+h] / close[t]) / (volatility[t] * sqrt(h)); NaN in the last h rows.

    Args:
        close: (N,), closing prices.
        volatility: (N,), volatility of one bar's log return, known at t.
        horizon: h, bars ahead.

    Raises:
        ConfigError: if the horizon is below 1.
    """
    _check_horizon(horizon)
    log_close = np.log(close)
    result = np.full(len(close), np.nan)
    result[:-horizon] = log_close[horizon:] - log_close[:-horizon]
    scaled: Floats = result / (volatility * np.sqrt(horizon))
    return scaled


def _apart(
    latents: Floats, forward_return: Floats, horizon: int, needed: int
) -> tuple[Floats, Floats]:
    """Return the rows whose forward return is known, far enough apart not to overlap."""
    known = np.isfinite(forward_return)
    x, y = latents[known][::horizon], forward_return[known][::horizon]
    if len(y) < needed:
        raise TooFewBarsError(
            (needed - 1) * horizon + 1,
            int(known.sum()),
            f"a direction readout {horizon} bars ahead",
        )
    return x, y


def _foretelling(forecast: Floats, realised: Floats) -> float:
    """Return the t-statistic of the correlation between forecasts and what came."""
    forecast, realised = forecast - forecast.mean(), realised - realised.mean()
    scale = np.sqrt((forecast**2).sum() * (realised**2).sum())
    if scale <= _TINY:
        return 0.0
    correlation = float(forecast @ realised / scale)
    return correlation * math.sqrt((len(realised) - 2) / max(1 - correlation**2, _TINY))


def _belief(t: float) -> float:
    """Return max(0, 1 - 1/t^2) of a t-statistic in the right direction, else 0."""
    return 1.0 - (1.0 / t) ** 2 if t > 1 else 0.0


def _is_covariance(matrix: Floats) -> bool:
    """Return whether a matrix is symmetric without negative eigenvalues, up to rounding."""
    rounding = 1e-10 * np.abs(matrix).max(initial=0.0)
    symmetric = np.abs(matrix - matrix.T).max(initial=0.0) <= rounding
    return bool(symmetric and (np.linalg.eigvalsh(matrix) >= -rounding).all())


def _check_horizon(horizon: int) -> None:
    if horizon < 1:
        raise ConfigError(f"expected a horizon of at least 1 bar, found {horizon}")
