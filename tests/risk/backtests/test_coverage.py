from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binom, chi2

from glow_bt.errors import ConfigError, DataError, TooFewBarsError
from glow_bt.risk import (
    binomial_test,
    christoffersen_test,
    conditional_coverage_test,
    kupiec_test,
)

# Kupiec 1995, table of non-rejection regions at 95 % test confidence (reprinted in Jorion,
# "Value at Risk", chapter on back-testing): lower < violations < upper. The table leaves out
# the lower bound of its first cell, where one violation is the fewest.
KUPIEC_REGIONS = {
    0.01: {255: (0, 7), 510: (1, 11), 1000: (4, 17)},
    0.025: {255: (2, 12), 510: (6, 21), 1000: (15, 36)},
    0.05: {255: (6, 21), 510: (16, 36), 1000: (37, 65)},
    0.075: {255: (11, 28), 510: (27, 51), 1000: (59, 92)},
    0.10: {255: (16, 36), 510: (38, 65), 1000: (81, 120)},
}


def violations_with(count, num_bars):
    return np.arange(num_bars) < count


def jorion_1998():
    """J.P. Morgan in 1998: 252 pairs of days, 218 / 14 / 14 / 6 (Jorion, same chapter)."""
    runs = [[0] * 219]
    for run in range(14):
        runs += [[1, 1] if run < 6 else [1], [0]]
    return np.concatenate(runs).astype(bool)


@pytest.mark.parametrize("level", KUPIEC_REGIONS)
def test_kupiec_has_the_published_acceptance_regions(level):
    for num_bars, (lower, upper) in KUPIEC_REGIONS[level].items():
        accepted = [
            count
            for count in range(num_bars + 1)
            if kupiec_test(violations_with(count, num_bars), level).pvalue > 0.05
        ]
        assert accepted == list(range(lower + 1, upper))


def test_jorions_worked_example():
    twenty_of_252 = kupiec_test(violations_with(20, 252), 0.05)
    assert twenty_of_252.statistic == pytest.approx(3.91, abs=0.005)
    assert twenty_of_252.expected_violations == pytest.approx(12.6)
    assert twenty_of_252.violation_rate == pytest.approx(20 / 252)
    chain = christoffersen_test(jorion_1998())
    assert (chain.n00, chain.n01, chain.n10, chain.n11) == (218, 14, 14, 6)
    assert chain.statistic == pytest.approx(9.53, abs=0.005)
    # The published 13.44 counts 252 days; the chain above has one more, its first.
    both = conditional_coverage_test(jorion_1998(), 0.05)
    assert both.statistic == pytest.approx(13.44, abs=0.1)
    assert both.pvalue == pytest.approx(np.exp(-both.statistic / 2), rel=1e-12)


def markov_log_likelihood(hits, after_none, after_one):
    """The chain's likelihood multiplied out bar by bar, 0^0 = 1."""
    likelihood = 0.0
    for before, now in pairwise(hits):
        probability = after_one if before else after_none
        likelihood += np.log(probability if now else 1.0 - probability)
    return likelihood


@settings(deadline=None)
@given(arrays(np.bool_, st.integers(2, 60)), st.floats(0.005, 0.5))
def test_equal_to_likelihoods_multiplied_out_bar_by_bar(hits, level):
    rate = hits.mean()
    expected = 2 * (
        sum(np.log(rate if hit else 1 - rate) for hit in hits)
        - sum(np.log(level if hit else 1 - level) for hit in hits)
    )
    coverage = kupiec_test(hits, level)
    assert coverage.statistic == pytest.approx(expected, abs=1e-9)
    assert coverage.pvalue == pytest.approx(chi2.sf(coverage.statistic, 1), abs=1e-12)

    before, now = hits[:-1], hits[1:]
    after_none = now[~before].mean() if (~before).any() else 0.5
    after_one = now[before].mean() if before.any() else 0.5
    expected = 2 * (
        markov_log_likelihood(hits, after_none, after_one)
        - markov_log_likelihood(hits, now.mean(), now.mean())
    )
    chain = christoffersen_test(hits)
    assert chain.statistic == pytest.approx(expected, abs=1e-9)
    assert chain.n00 + chain.n01 + chain.n10 + chain.n11 == hits.size - 1
    both = conditional_coverage_test(hits, level)
    assert both.statistic == coverage.statistic + chain.statistic


def test_no_violation_and_nothing_else():
    none, every = np.zeros(250, dtype=bool), np.ones(250, dtype=bool)
    assert kupiec_test(none, 0.01).statistic == pytest.approx(-2 * 250 * np.log(0.99))
    assert kupiec_test(every, 0.01).statistic == pytest.approx(-2 * 250 * np.log(0.01))
    for hits in (none, every):
        independence = christoffersen_test(hits)
        assert (independence.statistic, independence.pvalue) == (0.0, 1.0)


def test_rate_equal_to_the_level_is_a_perfect_fit():
    result = kupiec_test(violations_with(10, 1000), 0.01)
    assert (result.statistic, result.pvalue) == (0.0, 1.0)


def test_a_violation_in_the_last_bar_alone():
    result = christoffersen_test([False, False, False, True])
    assert (result.n00, result.n01, result.n10, result.n11) == (2, 1, 0, 0)
    assert result.statistic == 0.0


def exact_size(num_bars, level):
    counts = np.arange(num_bars + 1)
    rejected = [kupiec_test(violations_with(n, num_bars), level).pvalue < 0.05 for n in counts]
    return binom.pmf(counts, num_bars, level)[rejected].sum()


@pytest.mark.parametrize(("num_bars", "level"), [(1000, 0.05), (1000, 0.01)])
def test_size_is_near_the_nominal_one(num_bars, level):
    """With enough expected violations 5 % of right forecasts are rejected, in theory and drawn."""
    rng = np.random.default_rng(7)
    paths = rng.random((2000, num_bars)) < level
    standard_error = np.sqrt(0.05 * 0.95 / len(paths))
    size = exact_size(num_bars, level)
    assert size == pytest.approx(0.05, abs=0.006)
    rejected = np.mean([kupiec_test(path, level).pvalue < 0.05 for path in paths])
    assert rejected == pytest.approx(size, abs=3 * standard_error)


def test_size_strays_when_few_violations_are_expected():
    """The figure that the module's docstring warns with."""
    assert exact_size(250, 0.01) == pytest.approx(0.095, abs=0.0005)


@pytest.mark.parametrize("test", [christoffersen_test, conditional_coverage_test])
def test_size_of_the_tests_of_order(test):
    rng = np.random.default_rng(11)
    paths = rng.random((2000, 1000)) < 0.1
    rejected = np.mean([test(path, 0.1).pvalue < 0.05 for path in paths])
    assert rejected == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / len(paths)))


@pytest.mark.parametrize(
    ("num_bars", "level", "size"), [(1000, 0.01, 0.02), (1000, 0.05, 0.08), (1000, 0.1, 0.05)]
)
def test_size_of_the_test_of_order_that_its_docstring_states(num_bars, level, size):
    paths = np.random.default_rng(12).random((2000, num_bars)) < level
    rejected = np.mean([christoffersen_test(path).pvalue < 0.05 for path in paths])
    assert rejected == pytest.approx(size, abs=0.012)


@settings(deadline=None)
@given(st.integers(1, 400), st.floats(0.002, 0.5), st.data())
def test_binomial_test_adds_up_the_counts_no_more_likely(num_bars, level, data):
    count = data.draw(st.integers(0, num_bars))
    result = binomial_test(violations_with(count, num_bars), level)
    mass = binom.pmf(np.arange(num_bars + 1), num_bars, level)
    assert result.statistic == count
    assert result.pvalue == pytest.approx(mass[mass <= mass[count] * (1 + 1e-7)].sum(), rel=1e-9)
    assert result.too_few == pytest.approx(mass[: count + 1].sum(), rel=1e-9)
    assert result.too_many == pytest.approx(mass[count:].sum(), rel=1e-9)


def exact_binomial_size(num_bars, level):
    counts = np.arange(num_bars + 1)
    rejected = [binomial_test(violations_with(n, num_bars), level).pvalue < 0.05 for n in counts]
    return binom.pmf(counts, num_bars, level)[rejected].sum()


def test_binomial_test_never_rejects_more_often_than_it_says():
    for num_bars, level in ((10, 0.05), (250, 0.025), (300, 0.01)):
        assert exact_binomial_size(num_bars, level) <= 0.05
    assert exact_binomial_size(250, 0.01) == pytest.approx(0.041, abs=0.0005)  # the docstring's
    counts, times = np.unique(
        np.random.default_rng(13).binomial(500, 0.05, 2000), return_counts=True
    )
    pvalues = [binomial_test(violations_with(count, 500), 0.05).pvalue for count in counts]
    rejected = times[np.array(pvalues) < 0.05].sum() / 2000
    size = exact_binomial_size(500, 0.05)
    assert rejected == pytest.approx(size, abs=3 * np.sqrt(0.05 * 0.95 / 2000))


def test_binomial_test_finds_wrong_rates_on_both_sides():
    twice, half = (violations_with(n, 2000) for n in (100, 25))
    assert binomial_test(twice, 0.025).pvalue < 1e-6
    assert binomial_test(twice, 0.025).too_many < 1e-6
    assert binomial_test(half, 0.025).pvalue < 1e-3
    assert binomial_test(half, 0.025).too_few < 1e-3


def test_clustered_violations_are_found():
    rng = np.random.default_rng(3)
    hits = np.zeros(2000, dtype=bool)
    for t in range(1, hits.size):
        hits[t] = rng.random() < (0.35 if hits[t - 1] else 0.035)
    assert kupiec_test(hits, hits.mean()).pvalue > 0.99
    assert christoffersen_test(hits).pvalue < 1e-6
    assert conditional_coverage_test(hits, hits.mean()).pvalue < 1e-6


def test_zeros_and_ones_are_booleans_too():
    hits = violations_with(4, 100)
    assert kupiec_test(hits.astype(float), 0.05) == kupiec_test(hits, 0.05)
    assert christoffersen_test(hits.tolist(), 0.05) == christoffersen_test(hits)


@pytest.mark.parametrize("level", [0.0, -0.1, 0.51, 1.0, float("nan")])
def test_level_outside_its_range(level):
    for test in (kupiec_test, binomial_test, christoffersen_test, conditional_coverage_test):
        with pytest.raises(ConfigError, match=r"level in \(0, 0\.5\], found"):
            test(violations_with(2, 50), level)


@pytest.mark.parametrize("values", [[0.0, 0.5], [0.0, np.nan], [0.01, -0.02], [0, 2]])
def test_values_that_are_no_booleans(values):
    with pytest.raises(DataError, match="expected violations as booleans, found"):
        kupiec_test(values, 0.05)
    with pytest.raises(DataError, match="booleans"):
        christoffersen_test(values)


def test_shape_and_length():
    with pytest.raises(DataError, match=r"shape \(N,\), found \(2, 2\)"):
        kupiec_test(np.zeros((2, 2), dtype=bool), 0.05)
    with pytest.raises(TooFewBarsError, match="Kupiec test needs at least 1 bars, found 0"):
        kupiec_test([], 0.05)
    with pytest.raises(TooFewBarsError, match="binomial test needs at least 1 bars, found 0"):
        binomial_test([], 0.05)
    with pytest.raises(TooFewBarsError, match="Christoffersen test needs at least 2"):
        christoffersen_test([True])
    with pytest.raises(TooFewBarsError, match="at least 2 bars, found 1"):
        conditional_coverage_test([False], 0.05)
