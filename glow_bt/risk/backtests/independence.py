"""Do violations cluster? Christoffersen's tests of order, and of order and rate at once.

Both are likelihood-ratio tests whose p-values come from the limiting chi-squared distribution,
which needs violations that follow violations. With few of them expected the statistic takes few
values: at a nominal 5 %, 1,000 bars have `christoffersen_test` reject a right forecast 2 % of the
time at the 1 % level, 8 % at the 5 % level and 5 % at the 10 % level.
"""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import ArrayLike
from scipy.stats import chi2

from glow_bt.risk.backtests.coverage import (
    KupiecResult,
    bernoulli_log_likelihood,
    kupiec_test,
    likelihood_ratio,
)
from glow_bt.risk.backtests.tails import check_violation_level, hits_of

__all__ = [
    "ChristoffersenResult",
    "ConditionalCoverageResult",
    "christoffersen_test",
    "conditional_coverage_test",
]


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
        check_violation_level(level)
    hits = hits_of(violations, min_bars=2, purpose="the Christoffersen test")
    before, after = hits[:-1], hits[1:]
    n01, n11 = int((~before & after).sum()), int((before & after).sum())
    after_none, after_one = int((~before).sum()), int(before.sum())
    num_pairs = hits.size - 1
    chain = sum(
        bernoulli_log_likelihood(count, total, count / total)
        for count, total in ((n01, after_none), (n11, after_one))
        if total
    )
    independent = bernoulli_log_likelihood(n01 + n11, num_pairs, (n01 + n11) / num_pairs)
    statistic = likelihood_ratio(chain, independent)
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
