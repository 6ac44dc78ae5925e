"""Levels and their tails: what a violation is, and what may be tested.

A level p is the probability below a quantile. Up to one half it is a lower tail: a violation is
r < quantile and has probability p. Above one half it is an upper tail: a violation is
r > quantile and has probability 1 - p. An upper tail is tested as the lower tail of its mirror
image, (r, quantile, shortfall) -> -(r, quantile, shortfall) at 1 - p.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from glow_bt.errors import ConfigError, DataError, TooFewBarsError

__all__ = [
    "check_level",
    "check_shortfalls",
    "check_violation_level",
    "equal_bars",
    "hits_of",
    "lower_tail",
    "resampled_pvalue",
    "violations",
]

Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]


def violations(returns: ArrayLike, quantile: ArrayLike, level: float) -> Booleans:
    """Return (N,) where a return fell outside its quantile.

    r < quantile for a level up to one half, r > quantile above it.

    Args:
        returns: (N,) returns that came true.
        quantile: (N,) forecasts of their quantile, or one for all.
        level: probability below the quantile, in (0, 1); upper tails are above 0.5.

    Raises:
        ConfigError: if the level is outside (0, 1).
        DataError: if shapes differ or a value is not finite.
        TooFewBarsError: if there is no return.
    """
    check_level(level)
    bars = equal_bars(returns, quantile, min_bars=1, purpose="a violation")
    _, (realised, forecast) = lower_tail(level, *bars)
    return np.asarray(realised < forecast, dtype=np.bool_)


def lower_tail(level: float, *values: Floats) -> tuple[float, tuple[Floats, ...]]:
    """Return the probability of a violation, and values mirrored if the tail is an upper one."""
    if level <= 0.5:
        return level, values
    probability = float(f"{1.0 - level:.12g}")  # 1 - 0.99 is 0.010000000000000009
    return probability, tuple(-value for value in values)


def check_level(level: float) -> None:
    """Refuse what is no probability below a quantile.

    Raises:
        ConfigError: if the level is outside (0, 1).
    """
    if not 0.0 < level < 1.0:
        raise ConfigError(f"expected a level in (0, 1), found {level}; 0.01 is the 1 % quantile")


def check_violation_level(level: float) -> None:
    """Refuse what is no probability of a violation.

    Raises:
        ConfigError: if the level is outside (0, 0.5].
    """
    if not 0.0 < level <= 0.5:
        raise ConfigError(
            f"expected a level in (0, 0.5], found {level}; "
            "give the probability of a violation, 0.01 for a 99 % VaR"
        )


def check_shortfalls(shortfall: Floats) -> None:
    """Refuse expected shortfalls (of a lower tail) that are no losses.

    Raises:
        DataError: unless all are below zero.
    """
    if not (shortfall < 0.0).all():
        raise DataError(
            "expected shortfalls below zero in a lower tail and above zero in an upper one, found "
            f"{int((shortfall >= 0.0).sum())} of {shortfall.size} on the other side; "
            "they are log returns, losses of a long position are negative"
        )


def equal_bars(
    returns: ArrayLike, *forecasts: ArrayLike, min_bars: int, purpose: str
) -> tuple[Floats, ...]:
    """Return returns (N,) and what was forecast of each, (N,) each.

    Raises:
        DataError: if shapes differ or a value is not finite.
        TooFewBarsError: if there are fewer than `min_bars`.
    """
    realised = np.asarray(returns, dtype=np.float64)
    values = [np.asarray(forecast, dtype=np.float64) for forecast in forecasts]
    if realised.ndim != 1 or any(value.shape not in {(), realised.shape} for value in values):
        raise DataError(
            "expected returns (N,) and a forecast for each, found shapes "
            f"{', '.join(str(value.shape) for value in (realised, *values))}"
        )
    if realised.size < min_bars:
        raise TooFewBarsError(min_bars, realised.size, purpose)
    if not all(np.isfinite(value).all() for value in (realised, *values)):
        raise DataError(
            "expected finite returns and forecasts, found NaN or infinity; "
            "leave out bars without a forecast"
        )
    return realised, *(np.broadcast_to(value, realised.shape) for value in values)


def hits_of(violations: ArrayLike, *, min_bars: int, purpose: str) -> Booleans:
    """Return violations (N,) as booleans.

    Raises:
        DataError: if they are not a row of booleans.
        TooFewBarsError: if there are fewer than `min_bars`.
    """
    values = np.asarray(violations)
    if values.ndim != 1:
        raise DataError(
            f"expected violations of shape (N,), found {values.shape}; test one model at a time"
        )
    if values.size < min_bars:
        raise TooFewBarsError(min_bars, values.size, purpose)
    hits = values == 1
    if not (hits | (values == 0)).all():
        other = values[~(hits | (values == 0))][0]
        raise DataError(
            f"expected violations as booleans, found {other!r}; give returns < var, "
            "without the bars that have no forecast"
        )
    return np.asarray(hits, dtype=np.bool_)


def resampled_pvalue(extreme: Booleans) -> float:
    """Return the share of resamples that are as extreme; the sample found counts as one of them.

    So it is never 0, and right under the null for any number of resamples. Davison & Hinkley
    1997, "Bootstrap methods and their application", section 4.2.
    """
    return float((1 + extreme.sum()) / (1 + extreme.size))
