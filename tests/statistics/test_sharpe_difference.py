import math

import numpy as np
import pytest
from scipy.stats import norm

from glow_bt.errors import ConfigError, DataError, TooFewBarsError
from glow_bt.statistics import sharpe_difference_test
from tests.statistics.processes import garch


def correlated(first, second):
    """Two series of equal Sharpe ratios, 0.1, correlated by 0.5."""
    return first + 0.1, 0.5 * first + math.sqrt(0.75) * second + 0.1


def by_the_paper(returns, other, *, block_length, draws, seed):
    """Ledoit & Wolf's section 3.2.2 draw by draw, gradient and covariances written out."""
    values = np.column_stack([returns, other])
    num_bars = len(values)
    blocks = num_bars // block_length

    def moments(rows):
        return np.concatenate([rows.mean(axis=0), (rows**2).mean(axis=0)])

    def ratios(at):
        a, b, c, d = at
        return a / math.sqrt(c - a**2) - b / math.sqrt(d - b**2)

    def gradient(at):
        a, b, c, d = at
        first, second = (c - a**2) ** 1.5, (d - b**2) ** 1.5
        return np.array([c / first, -d / second, -a / (2 * first), b / (2 * second)])

    rng = np.random.default_rng(seed)
    studentised = []
    for _ in range(draws):
        starts = rng.integers(num_bars, size=blocks)
        drawn = values[((starts[:, None] + np.arange(block_length)) % num_bars).ravel()]
        at = moments(drawn)
        deviations = np.hstack([drawn, drawn**2]) - at
        zeta = deviations.reshape(blocks, block_length, 4).sum(axis=1) / math.sqrt(block_length)
        psi = zeta.T @ zeta / blocks
        slope = gradient(at)
        error = math.sqrt(slope @ psi @ slope / (blocks * block_length))
        studentised.append(abs(ratios(at) - ratios(moments(values))) / error)
    return np.array(studentised), abs(ratios(moments(values)))


def test_the_bootstrap_is_that_of_the_paper():
    rng = np.random.default_rng(0)
    returns, other = correlated(*rng.standard_t(6, size=(2, 103)))
    settings = {"block_length": 4, "draws": 300, "seed": 9}
    found = sharpe_difference_test(0.01 * returns, 0.03 * other + 0.003, **settings)
    studentised, size = by_the_paper(0.01 * returns, 0.03 * other + 0.003, **settings)
    reached = np.count_nonzero(studentised >= size / found.standard_error)
    assert found.pvalue == (1 + reached) / 301
    assert 0.02 < found.pvalue < 0.98


def test_the_hac_pvalue_is_of_a_normal():
    returns, other = np.random.default_rng(1).standard_normal((2, 400))
    returns = returns + 0.1
    found = sharpe_difference_test(returns, other, lags=0, draws=20)
    first, second = (own.mean() / own.std() for own in (returns, other))
    # Independent accounts without autocorrelation: the two variances of Mertens add up.
    spread = sum(
        1 - ratio * np.mean(z**3) + (np.mean(z**4) - 1) / 4 * ratio**2
        for ratio, z in (
            (first, (returns - returns.mean()) / returns.std()),
            (second, (other - other.mean()) / other.std()),
        )
    )
    assert found.standard_error == pytest.approx(math.sqrt(spread / 400), rel=0.1)
    assert found.difference == pytest.approx(first - second, rel=2e-3)
    assert found.hac_pvalue == pytest.approx(
        2 * norm.sf(abs(first - second) / found.standard_error), rel=1e-9
    )
    swapped = sharpe_difference_test(other, returns, lags=0, draws=20)
    assert (swapped.difference, swapped.hac_pvalue) == (-found.difference, found.hac_pvalue)


@pytest.mark.parametrize("process", ["normal", "garch"])
def test_size(process):
    """A nominal 5 % is 5 to 6 % with 250 bars."""
    rng = np.random.default_rng(2)
    drawn = rng.standard_normal((800, 250)) if process == "normal" else garch(rng, 800, 250)
    found = [
        sharpe_difference_test(*correlated(*pair), draws=199, seed=seed).pvalue
        for seed, pair in enumerate(drawn.reshape(400, 2, 250))
    ]
    assert np.mean(np.array(found) < 0.05) == pytest.approx(
        0.055, abs=3 * math.sqrt(0.05 * 0.95 / 400)
    )


def test_a_large_difference_is_told():
    rng = np.random.default_rng(3)
    found = sharpe_difference_test(rng.standard_normal(1000) + 0.5, rng.standard_normal(1000))
    assert found.difference == pytest.approx(0.5, abs=0.2)
    assert found.pvalue == 1 / 2001
    assert (found.num_bars, found.draws) == (1000, 2000)


def test_leverage_is_no_difference():
    returns = 0.01 * np.random.default_rng(4).standard_normal(200)
    found = sharpe_difference_test(returns, 3 * returns)
    assert found.difference == pytest.approx(0, abs=1e-12)
    assert (found.pvalue, found.hac_pvalue) == (1.0, 1.0)


def test_blocks_are_as_long_as_given_and_a_seed_repeats():
    returns, other = np.random.default_rng(5).standard_normal((2, 200))
    found = sharpe_difference_test(returns, other, block_length=5, draws=500)
    assert found.block_length == 5
    assert found == sharpe_difference_test(returns, other, block_length=5, draws=500)
    assert found != sharpe_difference_test(returns, other, block_length=5, draws=500, seed=1)


def test_what_cannot_be_compared():
    returns = np.random.default_rng(6).standard_normal(100)
    with pytest.raises(DataError, match="same bars, found 100 and 99"):
        sharpe_difference_test(returns, returns[1:])
    with pytest.raises(DataError, match="returns that vary"):
        sharpe_difference_test(returns, np.ones(100))
    with pytest.raises(DataError, match="finite returns"):
        sharpe_difference_test(returns, np.where(returns > 1, np.nan, returns))
    with pytest.raises(ConfigError, match="at least 20 draws, found 1"):
        sharpe_difference_test(returns, 2 * returns, draws=1)
    with pytest.raises(ConfigError, match=r"whole number of bars in a block, found 2\.5"):
        sharpe_difference_test(returns, 2 * returns, block_length=2.5)
    with pytest.raises(ConfigError, match="lags from 0 to 99"):
        sharpe_difference_test(returns, 2 * returns, lags=100)
    with pytest.raises(TooFewBarsError, match="two Sharpe ratios needs at least 120 bars"):
        sharpe_difference_test(returns, 2 * returns, block_length=30)
    with pytest.raises(TooFewBarsError, match="at least 20 bars, found 10"):
        sharpe_difference_test(returns[:10], returns[10:20])
