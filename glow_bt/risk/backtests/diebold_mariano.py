"""Is one forecast's loss lower than another's by more than chance?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike
from scipy.stats import t as student_t

from glow_bt.errors import ConfigError, DataError
from glow_bt.risk.backtests.tails import equal_bars
from glow_bt.statistics import long_run_variance

__all__ = ["DieboldMarianoResult", "diebold_mariano_test"]

Floats = npt.NDArray[np.float64]

# Differences that vary by less than this share of their size vary by rounding alone.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class DieboldMarianoResult:
    """Outcome of `diebold_mariano_test`.

    Attributes:
        statistic: corrected mean difference over its standard error, t with N - 1 degrees of
            freedom under the null; below zero where the first forecast is better.
        pvalue: two-sided, of equal expected losses.
        first_better: one-sided p-value, small where the first forecast is better.
        second_better: one-sided p-value, small where the second forecast is better.
        difference: mean of the first losses minus the second ones.
        standard_error: of the difference, without the correction.
        horizon: bars that a forecast looks ahead.
        lags: autocovariances in the long-run variance.
        num_bars: number of losses.
    """

    statistic: float
    pvalue: float
    first_better: float
    second_better: float
    difference: float
    standard_error: float
    horizon: int
    lags: int
    num_bars: int


def diebold_mariano_test(
    losses: ArrayLike, other: ArrayLike, *, horizon: int = 1, lags: int | None = None
) -> DieboldMarianoResult:
    """Test whether two forecasts of the same bars have equal expected losses.

    d_t = losses_t - other_t; statistic = c mean(d) / sqrt(V / N), where V is the long-run
    variance with Bartlett weights (Newey & West 1987), gamma_0 + 2 sum_k (1 - k/(L+1)) gamma_k
    up to lag L, and c^2 = (N + 1 - 2h + h(h-1)/N) / N corrects small samples. Diebold & Mariano
    1995, Journal of Business & Economic Statistics 13(3); Harvey, Leybourne & Newbold 1997,
    International Journal of Forecasting 13(2), section 2. Where no loss differs at all the
    statistic is 0. With independent differences a nominal 5 % is 7 % with 50 bars and 5 to 6 %
    from 250 on.

    Args:
        losses: (N,) of the first forecast, lower is better, in time order.
        other: (N,) of the second forecast.
        horizon: bars h that a forecast looks ahead; its errors overlap for h - 1 bars.
        lags: L; unless given, 4 (N/100)^(2/9) rounded down (Newey & West 1994), and at least
            horizon - 1.

    Raises:
        ConfigError: on a horizon below 1 or lags below 0.
        DataError: if shapes differ, a loss is not finite, or all differ by the same amount.
        TooFewBarsError: if there are no more than twice the horizon or than the lags.
    """
    if horizon < 1 or (lags is not None and lags < 0):
        raise ConfigError(
            f"expected a horizon of at least 1 and lags of at least 0, found {horizon} and "
            f"{lags}; a forecast of the next bar has the horizon 1"
        )
    first, second = equal_bars(
        losses, other, min_bars=max(2 * horizon, lags or 0) + 1, purpose="the Diebold-Mariano test"
    )
    difference = first - second
    num_bars = difference.size
    if lags is None:
        lags = min(max(int(4 * (num_bars / 100) ** (2 / 9)), horizon - 1), num_bars - 1)
    mean = float(difference.mean())
    if difference.any() and np.ptp(difference) <= _ROUNDING * abs(mean):
        raise DataError(
            f"expected losses whose difference varies, found {mean:g} at every bar; "
            "no sample tells chance from such a difference"
        )
    standard_error = math.sqrt(long_run_variance(difference, lags) / num_bars)
    correction = math.sqrt(
        (num_bars + 1 - 2 * horizon + horizon * (horizon - 1) / num_bars) / num_bars
    )
    statistic = correction * mean / standard_error if standard_error else 0.0
    first_better, second_better = (
        float(student_t.cdf(sign * statistic, df=num_bars - 1)) for sign in (1, -1)
    )
    return DieboldMarianoResult(
        statistic=statistic,
        pvalue=min(2.0 * min(first_better, second_better), 1.0),
        first_better=first_better,
        second_better=second_better,
        difference=mean,
        standard_error=standard_error,
        horizon=horizon,
        lags=lags,
        num_bars=num_bars,
    )
