"""Is the rate of violations right? Kupiec's likelihood ratio and the exact binomial test.

Under a right forecast the violations are independent draws with the claimed probability. The
p-value of `kupiec_test` comes from the limiting chi-squared distribution; with few expected
violations (below about five) the statistic takes so few values that the true size can stray far
from the nominal one: at a nominal 5 % it rejects a right forecast 9.5 % of the time with 250
bars at the 1 % level. `binomial_test` counts exactly and never rejects more often than it says.
"""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import ArrayLike
from scipy.special import xlog1py, xlogy
from scipy.stats import binomtest, chi2

from glow_bt.risk.backtests.tails import check_violation_level, hits_of

__all__ = [
    "BinomialResult",
    "KupiecResult",
    "bernoulli_log_likelihood",
    "binomial_test",
    "kupiec_test",
    "likelihood_ratio",
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
class BinomialResult:
    """Outcome of `binomial_test`.

    Attributes:
        statistic: number of violations, binomial under the null.
        pvalue: probability of a number of violations that is no more likely than this one.
        level: the tail probability that was claimed.
        num_bars: number of forecasts.
        too_few: one-sided p-value, probability of so few violations or fewer.
        too_many: one-sided p-value, probability of so many violations or more.
    """

    statistic: int
    pvalue: float
    level: float
    num_bars: int
    too_few: float
    too_many: float


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
    check_violation_level(level)
    hits = hits_of(violations, min_bars=1, purpose="the Kupiec test")
    num_bars, num_violations = hits.size, int(hits.sum())
    statistic = likelihood_ratio(
        bernoulli_log_likelihood(num_violations, num_bars, num_violations / num_bars),
        bernoulli_log_likelihood(num_violations, num_bars, level),
    )
    return KupiecResult(
        statistic=statistic,
        pvalue=float(chi2.sf(statistic, df=1)),
        level=float(level),
        num_bars=num_bars,
        num_violations=num_violations,
    )


def binomial_test(violations: ArrayLike, level: float) -> BinomialResult:
    """Test exactly whether violations come at the claimed rate, on both sides.

    The p-value adds up the binomial probabilities that are no larger than that of the number
    found (Clopper & Pearson's counts, ordered by likelihood). Counts are discrete, so that the
    size is at most the nominal one: with 250 bars at the 1 % level, a nominal 5 % is 4.1 %.

    Args:
        violations: (N,) booleans, one a forecast.
        level: claimed probability p of a violation, in (0, 0.5].

    Raises:
        ConfigError: if the level is outside (0, 0.5].
        DataError: if violations are not a row of booleans.
        TooFewBarsError: if there is none.
    """
    check_violation_level(level)
    hits = hits_of(violations, min_bars=1, purpose="the binomial test")
    count = int(hits.sum())

    def pvalue(alternative: str) -> float:
        return float(binomtest(count, hits.size, level, alternative).pvalue)

    return BinomialResult(
        statistic=count,
        pvalue=pvalue("two-sided"),
        level=float(level),
        num_bars=hits.size,
        too_few=pvalue("less"),
        too_many=pvalue("greater"),
    )


def bernoulli_log_likelihood(successes: int, trials: int, probability: float) -> float:
    """Return ln(p^x (1-p)^(n-x)) with 0 ln 0 = 0."""
    failures = trials - successes
    return float(xlogy(successes, probability) + xlog1py(failures, -probability))


def likelihood_ratio(alternative: float, null: float) -> float:
    """Return 2 (ln L1 - ln L0); equal likelihoods may differ by a rounding error below zero."""
    return max(2.0 * (alternative - null), 0.0)
