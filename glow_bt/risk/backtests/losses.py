"""Losses that are lowest, in expectation, for the true quantile and the true shortfall."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from glow_bt.risk.backtests.tails import check_level, check_shortfalls, equal_bars, lower_tail

__all__ = ["fz0_loss", "fz0_losses", "quantile_loss", "quantile_losses"]

Floats = npt.NDArray[np.float64]


def quantile_loss(returns: ArrayLike, quantile: ArrayLike, level: float) -> float:
    """Return the mean of `quantile_losses`, in the units of the returns."""
    return float(np.mean(quantile_losses(returns, quantile, level)))


def quantile_losses(returns: ArrayLike, quantile: ArrayLike, level: float) -> Floats:
    """Return the quantile (pinball, tick) loss (N,) of quantile forecasts.

    (level - 1[r < q]) (r - q): lower is better, and in expectation lowest for the true
    quantile. Koenker & Bassett 1978, "Regression quantiles", Econometrica 46(1).

    Args:
        returns: (N,) returns that came true.
        quantile: (N,) forecasts of their quantile, or one for all.
        level: probability below the quantile, in (0, 1); upper tails are above 0.5.

    Returns:
        The losses in the units of the returns.

    Raises:
        ConfigError: if the level is outside (0, 1).
        DataError: if shapes differ or a value is not finite.
        TooFewBarsError: if there is no return.
    """
    check_level(level)
    realised, forecast = equal_bars(returns, quantile, min_bars=1, purpose="the quantile loss")
    excess = realised - forecast
    return np.asarray((level - (excess < 0.0)) * excess)


def fz0_loss(returns: ArrayLike, quantile: ArrayLike, shortfall: ArrayLike, level: float) -> float:
    """Return the mean of `fz0_losses`."""
    return float(np.mean(fz0_losses(returns, quantile, shortfall, level)))


def fz0_losses(
    returns: ArrayLike, quantile: ArrayLike, shortfall: ArrayLike, level: float
) -> Floats:
    """Return the FZ0 loss (N,) of forecasts of quantile and expected shortfall together.

    L = -1[r <= v] (v - r) / (p e) + v / e + ln(-e) - 1, with quantile v and shortfall e < 0 of
    a lower tail at p. In expectation lowest for the true pair; the one loss of the class of
    Fissler & Ziegel 2016 (Annals of Statistics 44(4)) whose differences do not change with the
    scale of the returns. Patton, Ziegel & Chen 2019, "Dynamic semiparametric models for
    expected shortfall (and value-at-risk)", Journal of Econometrics 211(2), section 2.

    Args:
        returns: (N,) returns that came true.
        quantile: (N,) forecasts of their quantile, or one for all.
        shortfall: (N,) forecasts of the mean return beyond it, or one for all.
        level: probability below the quantile, in (0, 1); upper tails are above 0.5.

    Returns:
        The losses; they have no unit, but the unit of the returns shifts them by a constant.

    Raises:
        ConfigError: if the level is outside (0, 1).
        DataError: if shapes differ, a value is not finite, or a shortfall is no loss.
        TooFewBarsError: if there is no return.
    """
    check_level(level)
    bars = equal_bars(returns, quantile, shortfall, min_bars=1, purpose="the FZ0 loss")
    probability, (realised, var, cvar) = lower_tail(level, *bars)
    check_shortfalls(cvar)
    beyond = np.maximum(var - realised, 0.0)
    return np.asarray(-beyond / (probability * cvar) + var / cvar + np.log(-cvar) - 1.0)
