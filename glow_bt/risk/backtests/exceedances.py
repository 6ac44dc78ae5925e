"""Is the mean beyond the quantile right? Exceedance residuals after McNeil and Frey."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from glow_bt.errors import ConfigError, DataError, TooFewBarsError
from glow_bt.risk.backtests.tails import check_level, equal_bars, lower_tail, resampled_pvalue

__all__ = ["McNeilFreyResult", "mcneil_frey_test"]

Floats = npt.NDArray[np.float64]

_MIN_VIOLATIONS = 5
# Residuals resampled at once.
_BLOCK = 2**20


@dataclass(frozen=True)
class McNeilFreyResult:
    """Outcome of `mcneil_frey_test`.

    Attributes:
        statistic: mean residual over its standard error; above zero where losses beyond the
            quantile are larger than the shortfall said.
        pvalue: one-sided, small where the shortfall is too small a loss.
        too_cautious: one-sided, small where the shortfall is too large a loss.
        mean_residual: mean of shortfall minus return over the violations (mirrored for an upper
            tail), in units of the scale.
        num_violations: how many there are.
        num_bars: number of forecasts.
    """

    statistic: float
    pvalue: float
    too_cautious: float
    mean_residual: float
    num_violations: int
    num_bars: int


def mcneil_frey_test(
    returns: ArrayLike,
    quantile: ArrayLike,
    shortfall: ArrayLike,
    level: float,
    *,
    scale: ArrayLike | None = None,
    resamples: int = 5000,
    seed: int = 0,
) -> McNeilFreyResult:
    """Test whether returns beyond the quantile have the forecast mean, by bootstrap.

    Residuals e_t = (ES_t - r_t) / scale_t over the violations have mean zero under a right
    forecast and are independent with one distribution if scale is the forecast's standard
    deviation. t = mean(e) / (sd(e) / sqrt(M)) is compared with its values over resamples of the
    centred residuals (Efron & Tibshirani 1993, section 16.4), against a mean above zero: losses
    worse than the shortfall. McNeil & Frey 2000, "Estimation of tail-related risk measures for
    heteroscedastic financial time series", Journal of Empirical Finance 7, section 3.4.

    With few violations the test is careful, because residuals are skewed: at a nominal 5 % it
    rejects a right normal forecast 2 % of the time with 5 or 10 violations and 5 % from 25 on; a
    right Student t of 4 degrees 1 %, 3 % and 4 %. `too_cautious` strays the other way: 6 to 12 %
    with 5 violations, 6 to 8 % with 50.

    Args:
        returns: (N,) returns that came true.
        quantile: (N,) forecasts of their quantile, or one for all.
        shortfall: (N,) forecasts of the mean return beyond it, or one for all.
        level: probability below the quantile, in (0, 1); upper tails are above 0.5.
        scale: (N,) positive forecasts of the returns' scale; without it residuals are compared
            as they are, and bars of high volatility count most.
        resamples: bootstrap samples.
        seed: of the resampling; equal input and seed give an equal p-value.

    Raises:
        ConfigError: if the level is outside (0, 1), or resamples are below 1.
        DataError: if shapes differ, a value is not finite, a scale is not positive, or all
            residuals are equal.
        TooFewBarsError: if fewer than five returns are beyond the quantile; it names the bars in
            which five are expected.
    """
    check_level(level)
    if resamples < 1:
        raise ConfigError(f"expected at least one resample, found {resamples}; 5000 is usual")
    *bars, unit = equal_bars(
        returns,
        quantile,
        shortfall,
        1.0 if scale is None else scale,
        min_bars=1,
        purpose="the McNeil-Frey test",
    )
    if not (unit > 0.0).all():
        raise DataError(f"expected positive scales, found {unit.min()}; give standard deviations")
    probability, (realised, var, cvar) = lower_tail(level, *bars)
    beyond = realised < var
    residuals = ((cvar - realised) / unit)[beyond]
    if residuals.size < _MIN_VIOLATIONS:
        missing = math.ceil((_MIN_VIOLATIONS - residuals.size) / probability)
        raise TooFewBarsError(
            realised.size + missing,
            realised.size,
            f"the McNeil-Frey test with {residuals.size} of {_MIN_VIOLATIONS} violations",
        )
    if np.ptp(residuals) == 0.0:
        raise DataError(
            f"expected residuals that differ, found {residuals[0]:g} at every violation; "
            "no sample tells chance from such a mean"
        )
    statistic = float(_t_statistics(residuals[None])[0])
    resampled = _resampled(residuals, resamples, np.random.default_rng(seed))
    return McNeilFreyResult(
        statistic=statistic,
        pvalue=resampled_pvalue(resampled >= statistic),
        too_cautious=resampled_pvalue(resampled <= statistic),
        mean_residual=float(residuals.mean()),
        num_violations=residuals.size,
        num_bars=realised.size,
    )


def _resampled(residuals: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    centred = residuals - residuals.mean()
    rows = max(_BLOCK // residuals.size, 1)
    return np.concatenate(
        [
            _t_statistics(
                centred[
                    rng.integers(centred.size, size=(min(rows, resamples - done), centred.size))
                ]
            )
            for done in range(0, resamples, rows)
        ]
    )


def _t_statistics(samples: Floats) -> Floats:
    """Return mean over standard error of each row; infinite for a row of equal values."""
    mean = samples.mean(axis=1)
    error = samples.std(axis=1, ddof=1) / math.sqrt(samples.shape[1])
    return np.asarray(np.divide(mean, error, out=np.copysign(np.inf, mean), where=error > 0.0))
