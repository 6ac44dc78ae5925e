"""Variance of a mean of dependent values."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from glow_bt.errors import ConfigError

__all__ = ["long_run_variance", "usual_lags"]

Floats = npt.NDArray[np.float64]


def usual_lags(num_bars: int) -> int:
    """Return 4 (N / 100)^(2/9), rounded down (Newey & West 1994)."""
    return min(int(4 * (num_bars / 100) ** (2 / 9)), num_bars - 1)


def long_run_variance(values: Floats, lags: int | None = None) -> float:
    """Return gamma_0 + 2 sum_k (1 - k/(L+1)) gamma_k of values (N,), up to lag L.

    Bartlett weights: Newey & West 1987, Econometrica 55(3). Over N it is the variance of the mean.

    Args:
        values: (N,) in order of time.
        lags: L; unless given, `usual_lags`.

    Raises:
        ConfigError: on lags below 0 or of N and more.
    """
    if lags is None:
        lags = usual_lags(values.size)
    elif not 0 <= lags < values.size:
        raise ConfigError(
            f"expected lags from 0 to {values.size - 1}, one less than the bars, found {lags}"
        )
    centred = values - values.mean()
    total = float(centred @ centred)
    for lag in range(1, lags + 1):
        total += 2.0 * (1.0 - lag / (lags + 1)) * float(centred[lag:] @ centred[:-lag])
    return total / values.size
