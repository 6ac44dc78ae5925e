import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import lfilter
from scipy.stats import t as student_t

from glow_bt.errors import ConfigError, DataError, TooFewBarsError
from glow_bt.risk import diebold_mariano_test


@given(st.integers(0, 2**32 - 1), st.integers(0, 12))
def test_the_standard_error_is_that_of_statsmodels(seed, lags):
    first, second = np.random.default_rng(seed).gamma(2, size=(2, 120))
    fit = sm.OLS(first - second, np.ones(120)).fit(
        cov_type="HAC", cov_kwds={"maxlags": lags, "use_correction": False}
    )
    result = diebold_mariano_test(first, second, lags=lags)
    assert result.difference == pytest.approx(fit.params[0], rel=1e-9)
    assert result.standard_error == pytest.approx(fit.bse[0], rel=1e-9)
    assert result.statistic == pytest.approx(np.sqrt(119 / 120) * fit.tvalues[0], rel=1e-9)
    assert result.pvalue == pytest.approx(2 * student_t.sf(abs(result.statistic), 119), rel=1e-9)


def test_without_lags_it_is_the_paired_t_test():
    """Horizon 1: the correction turns the variance over N into the one over N - 1."""
    first, second = np.random.default_rng(0).gamma(2, size=(2, 30))
    difference = first - second
    expected = difference.mean() / (difference.std(ddof=1) / np.sqrt(30))
    result = diebold_mariano_test(first, second, lags=0)
    assert result.statistic == pytest.approx(expected, rel=1e-12)


def test_longer_horizons_are_corrected_and_have_more_lags():
    first, second = np.random.default_rng(1).gamma(2, size=(2, 60))
    next_bar, fifth = (diebold_mariano_test(first, second, horizon=h, lags=6) for h in (1, 5))
    factor = np.sqrt((60 + 1 - 10 + 5 * 4 / 60) / 60)  # Harvey, Leybourne & Newbold, eq. 9
    assert fifth.statistic / next_bar.statistic == pytest.approx(factor / np.sqrt(59 / 60))
    assert diebold_mariano_test(first, second).lags == 3  # 4 0.6^(2/9) = 3.57
    assert diebold_mariano_test(first, second, horizon=12).lags == 11


def test_both_sides():
    rng = np.random.default_rng(2)
    losses = rng.gamma(2, size=500)
    worse = losses + 0.3 + rng.normal(0, 0.5, 500)
    result = diebold_mariano_test(losses, worse)
    swapped = diebold_mariano_test(worse, losses)
    assert result.statistic < 0
    assert result.statistic == -swapped.statistic
    assert result.first_better == swapped.second_better < 1e-3
    assert result.first_better + result.second_better == pytest.approx(1)
    assert result.pvalue == swapped.pvalue == pytest.approx(2 * result.first_better)


def test_equal_forecasts_are_equally_good():
    losses = np.random.default_rng(3).gamma(2, size=50)
    result = diebold_mariano_test(losses, losses)
    assert (result.statistic, result.pvalue, result.first_better) == (0.0, 1.0, 0.5)


@pytest.mark.parametrize("persistence", [0.0, 0.2])
def test_size(persistence):
    """5 % on both sides and on one, with the lags that are taken by themselves."""
    rng = np.random.default_rng(4)
    drawn = lfilter([1.0], [1.0, -persistence], rng.standard_normal((2000, 1100)))[:, 100:]
    results = [diebold_mariano_test(row, np.zeros(1000)) for row in drawn]
    for pvalues in (
        [result.pvalue for result in results],
        [result.first_better for result in results],
        [result.second_better for result in results],
    ):
        rejected = np.mean(np.array(pvalues) < 0.05)
        assert rejected == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / 2000))


def test_what_cannot_be_compared():
    with pytest.raises(DataError, match=r"whose difference varies, found 0\.5 at every bar"):
        diebold_mariano_test(np.arange(20.0) + 0.5, np.arange(20.0))
    with pytest.raises(ConfigError, match="horizon of at least 1 and lags of at least 0, found 0"):
        diebold_mariano_test(np.ones(9), np.zeros(9), horizon=0)
    with pytest.raises(ConfigError, match="and -1"):
        diebold_mariano_test(np.ones(9), np.zeros(9), lags=-1)
    with pytest.raises(
        TooFewBarsError, match="Diebold-Mariano test needs at least 9 bars, found 8"
    ):
        diebold_mariano_test(np.ones(8), np.zeros(8), horizon=4)
    with pytest.raises(TooFewBarsError, match="at least 11 bars, found 8"):
        diebold_mariano_test(np.ones(8), np.zeros(8), lags=10)
    with pytest.raises(DataError, match="finite"):
        diebold_mariano_test([1.0, np.nan, 2.0], np.zeros(3))
