"""Tests of value-at-risk forecasts: is the violation rate right, do violations cluster?

A violation at bar t is r_{t+1} < VaR_t. Under a right forecast at level p the violations are
independent draws with probability p. `kupiec_test` looks at the rate, `christoffersen_test`
at the order, `conditional_coverage_test` at both. All are likelihood-ratio tests whose
p-values come from the limiting chi-squared distribution; with few expected violations (below
about five) the statistic takes so few values that the true size can stray far from the
nominal one: Kupiec's test at a nominal 5 % rejects a right forecast 9.5 % of the time with
250 bars at the 1 % level.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import xlog1py, xlogy
from scipy.stats import chi2

from glow_bt.errors import ConfigError, DataError, TooFewBarsError

__all__ = [
    "ChristoffersenResult",
    "ConditionalCoverageResult",
    "KupiecResult",
    "christoffersen_test",
    "conditional_coverage_test",
    "kupiec_test",
    "quantile_loss",
]


@dataclass(frozen=True)
class KupiecResult:
    """Outcome of `kupiec_test`.

    Attributes:
        statistic: likelihood ratio, chi-squared with 1 degree of freedom under the null.
        pvalue: probability of a statistic at least this large under the null.
        level: the tail probability that was claimed.
        num_bars: number of forecasts.
        num_violations: how many of them were violated.
    """

    statistic: float
    pvalue: float
    level: float
    num_bars: int
    num_violations: int

    @property
    def expected_violations(self) -> float:
        """Violations that a right forecast has on average."""
        return self.level * self.num_bars

    @property
    def violation_rate(self) -> float:
        """Share of forecasts that were violated."""
        return self.num_violations / self.num_bars


@dataclass(frozen=True)
class ChristoffersenResult:
    """Outcome of `christoffersen_test`.

    Attributes:
        statistic: likelihood ratio, chi-squared with 1 degree of freedom under the null.
        pvalue: probability of a statistic at least this large under the null.
        n00: bars without a violation after a bar without one.
        n01: bars with a violation after a bar without one.
        n10: bars without a violation after a bar with one.
        n11: bars with a violation after a bar with one.
    """

    statistic: float
    pvalue: float
    n00: int
    n01: int
    n10: int
    n11: int


@dataclass(frozen=True)
class ConditionalCoverageResult:
    """Outcome of `conditional_coverage_test`.

    Attributes:
        statistic: sum of both likelihood ratios, chi-squared with 2 degrees of freedom.
        pvalue: probability of a statistic at least this large under the null.
        coverage: the unconditional part.
        independence: the part about clustering.
    """

    statistic: float
    pvalue: float
    coverage: KupiecResult
    independence: ChristoffersenResult


def kupiec_test(violations: ArrayLike, level: float) -> KupiecResult:
    """Test whether violations come at the claimed rate (proportion of failures).

    LR = 2 ln [ (x/N)^x (1 - x/N)^(N-x) / (p^x (1-p)^(N-x)) ], with x violations in N bars
    and 0^0 = 1, so that no violation and nothing but violations have exact values too.
    Kupiec 1995, "Techniques for verifying the accuracy of risk measurement models",
    Journal of Derivatives 3(2).

    Args:
        violations: (N,) booleans, one a forecast.
        level: claimed probability p of a violation, in (0, 0.5].

    Raises:
        ConfigError: if the level is outside (0, 0.5].
        DataError: if violations are not a row of booleans.
        TooFewBarsError: if there is none.
    """
    _check_level(level)
    hits = _as_hits(violations, min_bars=1, purpose="the Kupiec test")
    num_bars, num_violations = hits.size, int(hits.sum())
    statistic = _likelihood_ratio(
        _bernoulli_log_likelihood(num_violations, num_bars, num_violations / num_bars),
        _bernoulli_log_likelihood(num_violations, num_bars, level),
    )
    return KupiecResult(
        statistic=statistic,
        pvalue=float(chi2.sf(statistic, df=1)),
        level=float(level),
        num_bars=num_bars,
        num_violations=num_violations,
    )


def christoffersen_test(violations: ArrayLike, level: float | None = None) -> ChristoffersenResult:
    """Test whether violations are independent of the violation one bar before.

    A first-order Markov chain with P(violation | none before) = pi_01 and
    P(violation | one before) = pi_11 is compared with the chain that has pi_01 = pi_11.
    Without a violation, or with nothing else, both fit equally well: the statistic is 0.
    Christoffersen 1998, "Evaluating interval forecasts", International Economic Review
    39(4), section 3.2.

    Args:
        violations: (N,) booleans in time order, one a forecast.
        level: claimed probability of a violation. Independence does not depend on it; it is
            checked, so that every test can be called alike. Rate and order together are
            `conditional_coverage_test`.

    Raises:
        ConfigError: if a level is given that is outside (0, 0.5].
        DataError: if violations are not a row of booleans.
        TooFewBarsError: if there are fewer than two.
    """
    if level is not None:
        _check_level(level)
    hits = _as_hits(violations, min_bars=2, purpose="the Christoffersen test")
    before, after = hits[:-1], hits[1:]
    n01, n11 = int((~before & after).sum()), int((before & after).sum())
    after_none, after_one = int((~before).sum()), int(before.sum())
    num_pairs = hits.size - 1
    chain = sum(
        _bernoulli_log_likelihood(count, total, count / total)
        for count, total in ((n01, after_none), (n11, after_one))
        if total
    )
    independent = _bernoulli_log_likelihood(n01 + n11, num_pairs, (n01 + n11) / num_pairs)
    statistic = _likelihood_ratio(chain, independent)
    return ChristoffersenResult(
        statistic=statistic,
        pvalue=float(chi2.sf(statistic, df=1)),
        n00=after_none - n01,
        n01=n01,
        n10=after_one - n11,
        n11=n11,
    )


def conditional_coverage_test(violations: ArrayLike, level: float) -> ConditionalCoverageResult:
    """Test rate and independence of violations at once.

    LR_cc = LR_uc + LR_ind, chi-squared with 2 degrees of freedom. Christoffersen 1998,
    section 3.3; as usual LR_uc counts the first bar too, which has no bar before it.

    Args:
        violations: (N,) booleans in time order, one a forecast.
        level: claimed probability of a violation, in (0, 0.5].

    Raises:
        ConfigError: if the level is outside (0, 0.5].
        DataError: if violations are not a row of booleans.
        TooFewBarsError: if there are fewer than two.
    """
    coverage = kupiec_test(violations, level)
    independence = christoffersen_test(violations)
    statistic = coverage.statistic + independence.statistic
    return ConditionalCoverageResult(
        statistic=statistic,
        pvalue=float(chi2.sf(statistic, df=2)),
        coverage=coverage,
        independence=independence,
    )


def quantile_loss(returns: ArrayLike, quantile: ArrayLike, level: float) -> float:
    """Return the mean quantile (pinball, tick) loss of quantile forecasts.

    mean of (level - 1[r < q]) (r - q): lower is better, and in expectation lowest for the
    true quantile. Koenker & Bassett 1978, "Regression quantiles", Econometrica 46(1).

    Args:
        returns: (N,) returns that came true.
        quantile: (N,) forecasts of their quantile, or one for all.
        level: probability below the quantile, in (0, 1); upper tails are above 0.5.

    Returns:
        The loss in the units of the returns.

    Raises:
        ConfigError: if the level is outside (0, 1).
        DataError: if shapes differ or a value is not finite.
        TooFewBarsError: if there is no return.
    """
    if not 0.0 < level < 1.0:
        raise ConfigError(f"expected a level in (0, 1), found {level}; 0.01 is the 1 % quantile")
    realised = np.asarray(returns, dtype=np.float64)
    forecast = np.asarray(quantile, dtype=np.float64)
    if realised.ndim != 1 or forecast.shape not in {(), realised.shape}:
        raise DataError(
            "expected returns (N,) and a quantile for each, found shapes "
            f"{realised.shape} and {forecast.shape}"
        )
    if not realised.size:
        raise TooFewBarsError(1, 0, "the quantile loss")
    if not (np.isfinite(realised).all() and np.isfinite(forecast).all()):
        raise DataError(
            "expected finite returns and quantiles, found NaN or infinity; "
            "leave out bars without a forecast"
        )
    excess = realised - forecast
    return float(np.mean((level - (excess < 0.0)) * excess))


def _check_level(level: float) -> None:
    if not 0.0 < level <= 0.5:
        raise ConfigError(
            f"expected a level in (0, 0.5], found {level}; "
            "give the probability of a violation, 0.01 for a 99 % VaR"
        )


def _as_hits(violations: ArrayLike, *, min_bars: int, purpose: str) -> NDArray[np.bool_]:
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


def _bernoulli_log_likelihood(successes: int, trials: int, probability: float) -> float:
    """ln(p^x (1-p)^(n-x)) with 0 ln 0 = 0."""
    failures = trials - successes
    return float(xlogy(successes, probability) + xlog1py(failures, -probability))


def _likelihood_ratio(alternative: float, null: float) -> float:
    # Equal likelihoods may differ by a rounding error below zero.
    return max(2.0 * (alternative - null), 0.0)
