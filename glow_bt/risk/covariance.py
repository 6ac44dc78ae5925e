"""Gaussian forecasts of a portfolio: one constant covariance, RiskMetrics' EWMA, DCC-like EWMA.

Each goes through a history in order of time: what it says of a row of returns comes from rows
before it. Portfolio returns are simple returns, because only those add up over assets:
R = sum_i w_i R_i. Give simple returns (`numpy.expm1` of log returns), and read the forecasts in
their unit.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from glow_bt.errors import ConfigError, DataError, TooFewBarsError
from glow_bt.risk.distributions import LocationScale, NormalShape
from glow_bt.risk.forecasts import Forecasts, forecasts_of

__all__ = [
    "CovarianceForecast",
    "check_weights",
    "dcc_covariance",
    "ewma_covariance",
    "ewma_covariances",
    "static_covariance",
]

Floats = npt.NDArray[np.float64]

_LOG_2PI = math.log(2 * math.pi)
# Fewest rows before the first forecast: a variance of fewer is noise.
_MIN_ROWS = 20
_PERCENT = 100.0  # arch fits best where returns are of the order of one


@dataclass(frozen=True, eq=False)
class CovarianceForecast:
    """What a Gaussian model says of M rows of returns of N assets.

    Attributes:
        mean: (M, N).
        covariance: (M, N, N), symmetric and positive definite.
    """

    mean: Floats
    covariance: Floats

    def __len__(self) -> int:
        return len(self.mean)

    def log_prob(self, returns: npt.ArrayLike) -> Floats:
        """Return the log density (M,) of rows of returns (M, N), in nats.

        Raises:
            DataError: on returns of another shape, or that are not finite.
        """
        rows = _as_returns(returns)
        if rows.shape != self.mean.shape:
            raise DataError(
                f"expected returns of shape {self.mean.shape}, as forecast, found {rows.shape}"
            )
        lower = np.linalg.cholesky(self.covariance)
        z = np.linalg.solve(lower, (rows - self.mean)[:, :, None])[:, :, 0]
        log_scale = np.log(np.diagonal(lower, axis1=1, axis2=2)).sum(axis=1)
        log_prob: Floats = -0.5 * (z**2 + _LOG_2PI).sum(axis=1) - log_scale
        return log_prob

    def forecasts(
        self, weights: npt.ArrayLike, returns: npt.ArrayLike, levels: Sequence[float]
    ) -> Forecasts:
        """Return what is said of the portfolio: N(w'm, w'Cw), its quantiles and shortfalls.

        Args:
            weights: (N,) shares of equity, negative for short positions.
            returns: (M, N) simple returns that came true.
            levels: probabilities, as `Forecasts` takes them.

        Raises:
            ConfigError: on levels that are none.
            DataError: on weights or returns that do not belong to the assets.
        """
        w = check_weights(weights, self.mean.shape[1])
        variance = np.einsum("i,mij,j->m", w, self.covariance, w)
        normal = LocationScale(self.mean @ w, np.sqrt(variance), NormalShape())
        return forecasts_of(normal, _as_returns(returns) @ w, levels)

    def component_var(self, weights: npt.ArrayLike, level: float) -> Floats:
        """Return (M, N) parts of the portfolio's VaR, w_i m_i + z_p w_i (Cw)_i / sqrt(w'Cw).

        They add up to it. Garman 1996, "Improving on VaR", Risk 9(5).

        Raises:
            ConfigError: on a level outside (0, 0.5).
            DataError: on weights that do not match the assets.
        """
        _check_level(level)
        return self._components(weights, float(NormalShape().quantile(level)))

    def component_cvar(self, weights: npt.ArrayLike, level: float) -> Floats:
        """Return (M, N) parts of the portfolio's expected shortfall; they add up to it.

        Raises:
            ConfigError: on a level outside (0, 0.5).
            DataError: on weights that do not match the assets.
        """
        _check_level(level)
        return self._components(weights, NormalShape().lower_mean(level))

    def _components(self, weights: npt.ArrayLike, deviations: float) -> Floats:
        w = check_weights(weights, self.mean.shape[1])
        moved = self.covariance @ w
        spread = np.sqrt(moved @ w)[:, None]
        parts: Floats = w * (self.mean + deviations * moved / spread)
        return parts


def static_covariance(
    returns: npt.ArrayLike, start: int, *, refit: int | None = None
) -> CovarianceForecast:
    """Forecast rows start... by mean and covariance of all rows before, taken anew at times.

    Args:
        returns: (T, N) simple returns in order of time.
        start: first row that is forecast.
        refit: rows between two estimates; None for one estimate, from the rows before start.

    Raises:
        ConfigError: on a refit below 1, or a start outside the rows.
        DataError: on returns that are not finite, or an asset that never moved.
        TooFewBarsError: if fewer rows come before start than assets + 1, or 20.
    """
    rows = _checked(returns, start)
    step = _checked_refit(refit, len(rows))
    means, covariances = [], []
    for first in range(start, len(rows), step):
        count = min(step, len(rows) - first)
        past = rows[:first]
        means.append(np.tile(past.mean(axis=0), (count, 1)))
        covariances.append(np.tile(np.cov(past, rowvar=False, ddof=0), (count, 1, 1)))
    width = rows.shape[1]
    return CovarianceForecast(
        np.concatenate(means), np.concatenate(covariances).reshape(-1, width, width)
    )


def ewma_covariance(
    returns: npt.ArrayLike, start: int, *, decay: float = 0.94
) -> CovarianceForecast:
    """Forecast rows start... by C_t = decay C_{t-1} + (1 - decay) r_t r_t', mean 0.

    RiskMetrics Technical Document (J.P. Morgan 1996, ch. 5): decay 0.94 for daily returns.
    It starts from the second moments of the rows before start.

    Raises:
        ConfigError: on a decay outside (0, 1), or a start outside the rows.
        DataError: on returns that are not finite, or an asset that never moved.
        TooFewBarsError: if fewer rows come before start than assets + 1, or 20.
    """
    _check_decay("decay", decay)
    rows = _checked(returns, start)
    first = rows[:start].T @ rows[:start] / start
    covariance = ewma_covariances(rows, decay, first)[start - 1 : -1]
    return CovarianceForecast(np.zeros_like(rows[start:]), covariance)


def dcc_covariance(
    returns: npt.ArrayLike,
    start: int,
    *,
    volatility: Literal["ewma", "garch"] = "ewma",
    decay: float = 0.94,
    correlation_decay: float = 0.97,
    refit: int | None = None,
) -> CovarianceForecast:
    """Forecast rows start... by a volatility of each asset and an EWMA of correlations.

    C = D R D: D holds each asset's own volatility, and R is the EWMA of outer products of
    returns over those volatilities, scaled to a diagonal of ones: the integrated form of dynamic
    conditional correlations, Engle 2002, J. Business & Economic Statistics 20(3), eq. 5 and 6.

    Args:
        returns: (T, N) simple returns in order of time.
        start: first row that is forecast.
        volatility: "ewma" with `decay`, or "garch": a GARCH(1,1) with normal errors for each.
        decay: of the variances.
        correlation_decay: of the correlations.
        refit: rows between two fits of the GARCH models; None for one, on the rows before start.

    Raises:
        ConfigError: on a setting outside what can work, or a start outside the rows.
        DataError: on returns that are not finite, or an asset that never moved.
        TooFewBarsError: if fewer rows come before start than assets + 1, or 20.
    """
    _check_decay("decay", decay)
    _check_decay("correlation_decay", correlation_decay)
    rows = _checked(returns, start)
    if volatility == "ewma":
        first = np.square(rows[:start]).mean(axis=0)
        own = np.column_stack(
            [_ewma_variance(r, decay, v) for r, v in zip(rows.T, first, strict=True)]
        )
    elif volatility == "garch":
        step = _checked_refit(refit, len(rows))
        own = np.column_stack([_garch_variance(r, start, step) for r in rows.T])
    else:
        raise ConfigError(f"expected volatility 'ewma' or 'garch', found {volatility!r}")
    spread = np.sqrt(own)
    z = rows / spread
    covariances = ewma_covariances(z, correlation_decay, z[:start].T @ z[:start] / start)
    joint = covariances[start - 1 : -1]
    unit = np.sqrt(np.diagonal(joint, axis1=1, axis2=2))
    scale = spread[start:] / unit
    return CovarianceForecast(
        np.zeros_like(rows[start:]), scale[:, :, None] * joint * scale[:, None, :]
    )


def ewma_covariances(rows: Floats, decay: float, first: Floats) -> Floats:
    """Return (T, N, N): after each row, decay C + (1 - decay) r r' from C = first (N, N) on."""
    covariances = np.empty((*rows.shape, rows.shape[1]))
    current = first
    for t, row in enumerate(rows):
        current = decay * current + (1 - decay) * np.outer(row, row)
        covariances[t] = current
    return covariances


def check_weights(weights: npt.ArrayLike, num_assets: int) -> Floats:
    """Return weights as (N,) floats.

    Raises:
        DataError: unless there is one finite number an asset.
    """
    w = np.asarray(weights, dtype=np.float64)
    if w.shape != (num_assets,):
        found = f"{w.size}" if w.ndim == 1 else f"an array of shape {w.shape}"
        raise DataError(
            f"expected {num_assets} weights, one an asset, found {found}; "
            "give them in the order of the assets"
        )
    if not np.isfinite(w).all():
        raise DataError(
            f"expected finite weights, found {w[~np.isfinite(w)][0]} for asset "
            f"{int((~np.isfinite(w)).argmax())}; give 0 for an asset that is not held"
        )
    return w


def _ewma_variance(returns: Floats, decay: float, first: float) -> Floats:
    """Return (T,) the variance known before each return, from `first` on."""
    variance = np.empty(len(returns))
    current = first
    for t, squared in enumerate(np.square(returns)):
        variance[t] = current
        current = decay * current + (1 - decay) * squared
    return variance


def _garch_variance(returns: Floats, start: int, refit: int) -> Floats:
    """Return (T,) the GARCH(1,1) variance known before each return.

    Parameters come from the rows before the last refit; rows before start share those of the
    first fit, which only start the correlations.
    """
    variance = np.empty(len(returns))
    for first in range(start, len(returns), refit):
        stop = min(first + refit, len(returns))
        path = _garch_path(returns[:stop], first)
        if first == start:
            variance[:first] = path[:first]
        variance[first:stop] = path[first:stop]
    return variance


def _garch_path(returns: Floats, fitted_until: int) -> Floats:
    from arch import arch_model  # slow to load, and few need it

    model = arch_model(_PERCENT * returns, mean="Zero", vol="GARCH", p=1, q=1, rescale=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fit that stops early is as good a baseline
        result = model.fit(disp="off", last_obs=fitted_until, show_warning=False)
    omega, alpha, beta = (float(value) for value in result.params)
    squared = np.square(_PERCENT * returns)
    variance = np.empty(len(returns))
    current = float(squared[:fitted_until].mean())
    for t, value in enumerate(squared):
        variance[t] = current
        current = omega + alpha * value + beta * current
    return variance / _PERCENT**2


def _checked(returns: npt.ArrayLike, start: int) -> Floats:
    rows = _as_returns(returns)
    needed = max(rows.shape[1] + 1, _MIN_ROWS)
    if start < needed:
        raise TooFewBarsError(needed, max(start, 0), "a covariance before the first forecast")
    if start >= len(rows):
        raise ConfigError(
            f"expected a start before the end of {len(rows)} rows of returns, found {start}"
        )
    still = np.flatnonzero(np.ptp(rows[:start], axis=0) == 0)
    if still.size:
        raise DataError(
            f"expected returns that vary before row {start}, found asset {int(still[0])} without "
            "any move; leave it out, or give a longer history"
        )
    return rows


def _as_returns(returns: npt.ArrayLike) -> Floats:
    rows = np.asarray(returns, dtype=np.float64)
    if rows.ndim != 2 or not rows.shape[1]:
        raise DataError(f"expected returns of shape (T, N), a row a bar, found {rows.shape}")
    if not np.isfinite(rows).all():
        row = int((~np.isfinite(rows).all(axis=1)).argmax())
        raise DataError(f"expected finite returns, found row {row}: {rows[row].tolist()}")
    return rows


def _check_level(level: float) -> None:
    if not 0 < level < 0.5:
        raise ConfigError(f"expected a level inside (0, 0.5), found {level}")


def _check_decay(name: str, decay: float) -> None:
    if not 0 < decay < 1:
        raise ConfigError(f"expected {name} inside (0, 1), found {decay}")


def _checked_refit(refit: int | None, count: int) -> int:
    if refit is None:
        return count
    if refit < 1:
        raise ConfigError(f"expected refit of at least 1 row, found {refit}")
    return refit
