import math

import numpy as np
import pytest
from arch.bootstrap import SPA

from glow_bt.errors import ConfigError, DataError, TooFewBarsError
from glow_bt.statistics import superiority_test
from tests.statistics.processes import autoregressive

PVALUES = ("reality_check", "lower", "pvalue", "upper")


@pytest.fixture(scope="module")
def tried():
    """Gains of a benchmark and six strategies, some better, some worse, which depend on time."""
    gains = autoregressive(np.random.default_rng(0), 7, 250, 0.3).T.copy()
    return gains[:, 0], gains[:, 1:] + np.array([0.1, 0.05, 0.0, -0.1, -0.5, -0.5])


def test_the_reality_check_is_that_of_arch(tried):
    benchmark, strategies = tried
    found = superiority_test(benchmark, strategies, draws=4000, block_length=6)
    # arch takes losses, and does not divide by standard errors.
    theirs = SPA(-benchmark, -strategies, block_size=6, reps=4000, studentize=False, seed=1)
    theirs.compute()
    expected = float(theirs.pvalues["upper"])
    assert 0.1 < expected < 0.9
    error = math.sqrt(2 * expected * (1 - expected) / 4000)
    assert found.reality_check == pytest.approx(expected, abs=3 * error)


def test_standard_errors_are_those_of_the_bootstrap(tried):
    benchmark, strategies = tried
    found = superiority_test(benchmark, strategies, draws=20, block_length=6)
    theirs = SPA(-benchmark, -strategies, block_size=6, reps=20, seed=1)
    theirs.compute()
    errors = found.mean_differences / found.t_statistics
    assert errors == pytest.approx(np.sqrt(theirs._loss_diff_var / 250), rel=1e-9)


def test_of_one_strategy_it_is_a_one_sided_test_of_the_mean():
    rng = np.random.default_rng(1)
    difference = rng.standard_normal((500, 1)) + 0.05
    found = superiority_test(np.zeros(500), difference, draws=5000, block_length=1)
    expected = math.erfc(float(found.t_statistics[0]) / math.sqrt(2)) / 2
    for name in PVALUES:
        assert getattr(found, name) == pytest.approx(expected, abs=0.02)
    assert found.statistic == pytest.approx(
        difference.mean() / difference.std() * math.sqrt(500), rel=1e-9
    )


@pytest.mark.parametrize("worse", [0, 8])
def test_size(worse):
    """Ten strategies; those that are far worse make White's test timid, not Hansen's."""
    rng = np.random.default_rng(2)
    drawn = rng.standard_normal((300, 250, 11))
    drawn[:, :, 1 : 1 + worse] -= 0.5
    found = [superiority_test(own[:, 0], own[:, 1:], draws=199, block_length=1) for own in drawn]
    rejected = {name: np.mean([getattr(own, name) < 0.05 for own in found]) for name in PVALUES}
    tolerance = 3 * math.sqrt(0.05 * 0.95 / 300)
    assert rejected["pvalue"] == pytest.approx(0.05, abs=tolerance)
    if worse:
        assert rejected["reality_check"] < 0.03
        assert rejected["upper"] < 0.03
    else:
        assert rejected["reality_check"] == pytest.approx(0.05, abs=tolerance)


def test_a_better_strategy_is_found_and_the_three_are_in_order(tried):
    benchmark, strategies = tried
    found = superiority_test(benchmark, strategies, draws=500)
    assert found.lower <= found.pvalue <= found.upper
    assert found.block_length > 1
    better = strategies.copy()
    better[:, 3] += 1.0
    found = superiority_test(benchmark, better, draws=500)
    assert found.best == 3
    assert found.pvalue == found.reality_check == 1 / 501
    assert found.statistic == found.t_statistics[3] > 3


def test_nothing_better_than_the_benchmark_is_no_news():
    rng = np.random.default_rng(3)
    found = superiority_test(np.zeros(100), rng.standard_normal((100, 4)) - 2.0, draws=50)
    assert (found.statistic, found.pvalue, found.lower, found.upper) == (0.0, 1.0, 1.0, 1.0)


def test_copies_of_the_benchmark_do_not_count(tried):
    benchmark, strategies = tried
    with_copy = np.column_stack([benchmark, strategies])
    found = superiority_test(benchmark, with_copy, draws=100, block_length=3)
    alone = superiority_test(benchmark, strategies, draws=100, block_length=3)
    assert math.isnan(found.t_statistics[0])
    assert found.best == alone.best + 1
    assert [getattr(found, name) for name in PVALUES] == [getattr(alone, name) for name in PVALUES]


def test_what_cannot_be_compared(tried):
    benchmark, strategies = tried
    with pytest.raises(
        DataError, match="difference from the benchmark varies, found none among 2"
    ):
        superiority_test(benchmark, np.column_stack([benchmark, benchmark]))
    with pytest.raises(DataError, match="benchmark's 250 bars, found 249"):
        superiority_test(benchmark, strategies[1:])
    with pytest.raises(DataError, match=r"gains of shape \(N, K\)"):
        superiority_test(benchmark, benchmark)
    with pytest.raises(DataError, match="finite benchmark gains"):
        superiority_test(np.where(benchmark > 1, np.inf, benchmark), strategies)
    with pytest.raises(ConfigError, match="at least 20 draws"):
        superiority_test(benchmark, strategies, draws=0)
    with pytest.raises(TooFewBarsError, match="superiority needs at least 20 bars, found 19"):
        superiority_test(benchmark[:19], strategies[:19])
