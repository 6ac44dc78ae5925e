"""Is the whole distribution right? Tests that the PIT is uniform on (0, 1).

Under a right forecast the probability integral transforms u_t = F_t(r_t) are independent
uniform draws. Kolmogorov-Smirnov looks for the largest gap between their distribution and the
uniform one, Anderson-Darling weighs gaps in the tails up. Neither looks at their order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike
from scipy.special import binom
from scipy.stats import kstest

from glow_bt.errors import DataError, TooFewBarsError

__all__ = [
    "AndersonDarlingResult",
    "KolmogorovSmirnovResult",
    "anderson_darling_cdf",
    "anderson_darling_test",
    "kolmogorov_smirnov_test",
]

Floats = npt.NDArray[np.float64]

_MIN_BARS = 5  # the correction for short samples is no good below
# The limit law of A^2 is 0 below and 1 above, to double precision.
_FIRST, _LAST = 0.03, 30.0
_TERMS = np.arange(10.0)
# Gauss-Legendre on [0, 7], beyond which e^(-v^2) is nothing.
_NODES, _WEIGHTS = (np.polynomial.legendre.leggauss(200) + np.array([[1.0], [0.0]])) * 3.5


@dataclass(frozen=True)
class KolmogorovSmirnovResult:
    """Outcome of `kolmogorov_smirnov_test`.

    Attributes:
        statistic: largest distance between the empirical distribution and the uniform one.
        pvalue: probability of a distance at least this large under the null.
        location: PIT where it is largest.
        above: whether the empirical distribution is above there: too many PITs below it.
        num_bars: number of forecasts.
    """

    statistic: float
    pvalue: float
    location: float
    above: bool
    num_bars: int


@dataclass(frozen=True)
class AndersonDarlingResult:
    """Outcome of `anderson_darling_test`.

    Attributes:
        statistic: A^2; infinite where a PIT is 0 or 1.
        pvalue: probability of a statistic at least this large under the null.
        num_bars: number of forecasts.
    """

    statistic: float
    pvalue: float
    num_bars: int


def kolmogorov_smirnov_test(pit: ArrayLike) -> KolmogorovSmirnovResult:
    """Test whether PITs are uniform by their largest distance from it, on both sides.

    D = sup |F_N(u) - u|; exact p-values up to 10,000 bars, the limit law beyond (scipy).

    Args:
        pit: (N,) probabilities that the forecasts gave to at most what came true.

    Raises:
        DataError: if it is not a row of probabilities.
        TooFewBarsError: if there is none.
    """
    values = _probabilities(pit, min_bars=1, purpose="the Kolmogorov-Smirnov test")
    outcome = kstest(values, "uniform")
    return KolmogorovSmirnovResult(
        statistic=float(outcome.statistic),
        pvalue=float(outcome.pvalue),
        location=float(outcome.statistic_location),
        above=bool(outcome.statistic_sign > 0),
        num_bars=values.size,
    )


def anderson_darling_test(pit: ArrayLike) -> AndersonDarlingResult:
    """Test whether PITs are uniform, with weight on the tails.

    A^2 = -N - (1/N) sum_i (2i - 1) (ln u_(i) + ln(1 - u_(N+1-i))), i from 1, for a fully
    specified distribution (nothing was fitted to these bars). Anderson & Darling 1954, Journal
    of the American Statistical Association 49(268). A PIT of exactly 0 or 1, a return that the
    forecast held for impossible, makes it infinite and the p-value 0.

    Args:
        pit: (N,) probabilities that the forecasts gave to at most what came true.

    Raises:
        DataError: if it is not a row of probabilities.
        TooFewBarsError: if there are fewer than five.
    """
    values = np.sort(_probabilities(pit, min_bars=_MIN_BARS, purpose="the Anderson-Darling test"))
    count = values.size
    if values[0] == 0.0 or values[-1] == 1.0:
        return AndersonDarlingResult(np.inf, 0.0, count)
    weights = 2.0 * np.arange(1, count + 1) - 1.0
    statistic = -count - float(np.mean(weights * (np.log(values) + np.log1p(-values[::-1]))))
    pvalue = 1.0 - anderson_darling_cdf(statistic, count)
    return AndersonDarlingResult(statistic, pvalue, count)


def anderson_darling_cdf(statistic: float, num_bars: int) -> float:
    """Return P(A^2 < statistic) for N uniform draws.

    The limit law is the series of Anderson & Darling 1954, section 4, the correction for N the
    one that Marsaglia & Marsaglia 2004 fitted to simulations, "Evaluating the Anderson-Darling
    distribution", Journal of Statistical Software 9(2). It is wrong by up to 6e-4 / N in the far
    tail, so that smaller p-values say no more than that.

    Args:
        statistic: A^2, at least 0.
        num_bars: N, at least 5.
    """
    limit = _limit_cdf(statistic)
    return min(max(limit + _finite_sample(limit, num_bars), 0.0), 1.0)


def _limit_cdf(z: float) -> float:
    """sqrt(2 pi)/z sum_j C(-1/2, j) (4j+1) e^(-r_j) int_0^inf e^(z/(8(w^2+1)) - r_j w^2) dw.

    r_j = (4j+1)^2 pi^2 / (8z). The integrals are taken over v = sqrt(r_j) w.
    """
    if z < _FIRST:
        return 0.0
    if z > _LAST:
        return 1.0
    rates = (4.0 * _TERMS + 1.0) ** 2 * np.pi**2 / (8.0 * z)
    bell = np.exp(z / (8.0 * (_NODES**2 / rates[:, None] + 1.0)) - _NODES**2)
    integrals = bell @ _WEIGHTS / np.sqrt(rates)
    terms = binom(-0.5, _TERMS) * (4.0 * _TERMS + 1.0) * np.exp(-rates) * integrals
    return float(np.sqrt(2.0 * np.pi) / z * terms.sum())


def _polynomial(x: float, *coefficients: float) -> float:
    """Coefficients from the constant upwards."""
    return float(np.polynomial.polynomial.polyval(x, coefficients))


def _finite_sample(limit: float, count: int) -> float:
    """What the cdf of `count` draws is above its limit, by the value of the limit."""
    if limit > 0.8:
        top = (-130.2137, 745.2337, -1705.091, 1950.646, -1116.360, 255.7844)
        return _polynomial(limit, *top) / count
    knee = 0.01265 + 0.1757 / count
    if limit < knee:
        t = limit / knee
        bottom = np.sqrt(t) * (1.0 - t) * (49.0 * t - 102.0)
        return float(bottom * (0.0037 / count**2 + 0.00078 / count + 0.00006) / count)
    t = (limit - knee) / (0.8 - knee)
    middle = _polynomial(t, -0.00022633, 6.54034, -14.6538, 14.458, -8.259, 1.91864)
    return middle * (0.04213 + 0.01365 / count) / count


def _probabilities(pit: ArrayLike, *, min_bars: int, purpose: str) -> Floats:
    values = np.asarray(pit, dtype=np.float64)
    if values.ndim != 1:
        raise DataError(f"expected a PIT of shape (N,), found {values.shape}; one row a model")
    if values.size < min_bars:
        raise TooFewBarsError(min_bars, values.size, purpose)
    outside = ~((values >= 0.0) & (values <= 1.0))
    if outside.any():
        raise DataError(
            f"expected a PIT inside [0, 1], found {values[outside][0]}; "
            "leave out bars without a forecast"
        )
    return values
