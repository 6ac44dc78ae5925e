"""Can violations be foretold from what was known? The dynamic quantile test.

Its p-values come from the limiting chi-squared distribution; see `dynamic_quantile_test` for
its size in small samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike
from scipy.stats import chi2

from glow_bt.errors import ConfigError
from glow_bt.risk.backtests.tails import check_level, equal_bars, lower_tail

__all__ = ["DynamicQuantileResult", "dynamic_quantile_test"]

Floats = npt.NDArray[np.float64]

# Directions of the regressors whose singular value is below this share of the largest are none.
_RANK_TOLERANCE = 1e-8


@dataclass(frozen=True)
class DynamicQuantileResult:
    """Outcome of `dynamic_quantile_test`.

    Attributes:
        statistic: Wald statistic, chi-squared with `degrees` of freedom under the null.
        pvalue: probability of a statistic at least this large under the null.
        degrees: rank of the regressors: 2 + lags, fewer where some say the same.
        lags: lagged violations among the regressors.
        num_bars: bars regressed, those after the first `lags`.
    """

    statistic: float
    pvalue: float
    degrees: int
    lags: int
    num_bars: int


def dynamic_quantile_test(
    returns: ArrayLike, quantile: ArrayLike, level: float, *, lags: int = 4
) -> DynamicQuantileResult:
    """Test whether past violations or the quantile itself foretell violations.

    hit_t = 1[violation at t] - p is regressed on X_t = (1, hit_(t-1), ..., hit_(t-lags), VaR_t),
    all of which are known before t; DQ = hit' X (X'X)^-1 X' hit / (p (1 - p)), chi-squared with
    as many degrees of freedom as X has columns. Engle & Manganelli 2004, "CAViaR", Journal of
    Business & Economic Statistics 22(4), section 5, the out-of-sample statistic. Regressors that
    say the same (a constant VaR, no violation at all) are no error: X (X'X)^-1 X' is the
    projection on what they span, and the degrees of freedom are its rank.

    The limit needs some 50 expected violations: at a nominal 5 % a right forecast is rejected
    5 to 6 % of the time from 500 bars at the 5 % level and from 2,000 at 2.5 % on, but at the
    1 % level 11 % of the time with 1,000 bars and still 7 % with 10,000.

    Args:
        returns: (N,) returns that came true, in time order.
        quantile: (N,) forecasts of their quantile, or one for all.
        level: probability below the quantile, in (0, 1); upper tails are above 0.5.
        lags: lagged violations to look at, 0 or more.

    Raises:
        ConfigError: if the level is outside (0, 1) or lags are below 0.
        DataError: if shapes differ or a value is not finite.
        TooFewBarsError: if there are no more bars than regressors after the first lags.
    """
    check_level(level)
    if lags < 0:
        raise ConfigError(f"expected lags of 0 or more, found {lags}; 4 is usual")
    bars = equal_bars(
        returns, quantile, min_bars=2 * lags + 3, purpose="the dynamic quantile test"
    )
    probability, (realised, var) = lower_tail(level, *bars)
    hits = np.asarray((realised < var) - probability, dtype=np.float64)
    projected, degrees = _projection(_regressors(hits, var, lags), hits[lags:])
    statistic = projected / (probability * (1.0 - probability))
    return DynamicQuantileResult(
        statistic=statistic,
        pvalue=float(chi2.sf(statistic, df=degrees)),
        degrees=degrees,
        lags=lags,
        num_bars=hits.size - lags,
    )


def _regressors(hits: Floats, var: Floats, lags: int) -> Floats:
    lagged = [hits[lags - lag : hits.size - lag] for lag in range(1, lags + 1)]
    return np.column_stack([np.ones(hits.size - lags), *lagged, var[lags:]])


def _projection(regressors: Floats, values: Floats) -> tuple[float, int]:
    """Return the squared length of values projected on the regressors' span, and its rank."""
    lengths = np.linalg.norm(regressors, axis=0)
    scaled = regressors / np.where(lengths > 0.0, lengths, 1.0)
    directions, sizes, _ = np.linalg.svd(scaled, full_matrices=False)
    spanned = sizes > _RANK_TOLERANCE * sizes[0]
    return float(np.sum((directions[:, spanned].T @ values) ** 2)), int(spanned.sum())
