import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2, norm

from glow_bt.errors import ConfigError, DataError, TooFewBarsError
from glow_bt.risk import dynamic_quantile_test


def drawn(rng, num_bars, level):
    """Normal returns of a moving volatility, and their true quantile."""
    volatility = 0.01 * np.exp(0.3 * rng.standard_normal(num_bars))
    return volatility * rng.standard_normal(num_bars), volatility * norm.ppf(level)


@given(st.integers(0, 2**32 - 1), st.integers(0, 5), st.sampled_from([0.05, 0.2, 0.4]))
def test_equal_to_a_regression_by_statsmodels(seed, lags, level):
    returns, quantile = drawn(np.random.default_rng(seed), 400, level)
    hits = (returns < quantile) - level
    lagged = [hits[lags - lag : 400 - lag] for lag in range(1, lags + 1)]
    regressors = np.column_stack([np.ones(400 - lags), *lagged, quantile[lags:]])
    slopes = sm.OLS(hits[lags:], regressors).fit().params
    expected = slopes @ (regressors.T @ regressors) @ slopes / (level * (1 - level))
    result = dynamic_quantile_test(returns, quantile, level, lags=lags)
    assert result.statistic == pytest.approx(expected, rel=1e-9)
    assert (result.degrees, result.num_bars) == (2 + lags, 400 - lags)
    assert result.pvalue == pytest.approx(chi2.sf(expected, 2 + lags), rel=1e-8)


def test_the_upper_tail_is_the_mirror_image():
    returns, quantile = drawn(np.random.default_rng(1), 500, 0.05)
    assert dynamic_quantile_test(-returns, -quantile, 0.95) == dynamic_quantile_test(
        returns, quantile, 0.05
    )


def test_a_constant_quantile_takes_one_degree_of_freedom():
    returns = np.random.default_rng(2).standard_normal(800)
    constant = dynamic_quantile_test(returns, norm.ppf(0.1), 0.1)
    assert constant.degrees == 5
    nearly = norm.ppf(0.1) * (1 + 1e-14 * np.arange(800))
    assert dynamic_quantile_test(returns, nearly, 0.1).degrees == 5
    hits = (returns < norm.ppf(0.1)) - 0.1
    lagged = np.column_stack([np.ones(796), *(hits[4 - lag : 800 - lag] for lag in range(1, 5))])
    fitted = sm.OLS(hits[4:], lagged).fit().fittedvalues
    assert constant.statistic == pytest.approx(fitted @ fitted / 0.09, rel=1e-9)


def test_no_violation_leaves_the_constant_and_the_quantile():
    quantile = -1.0 - 0.1 * np.arange(250) / 250
    result = dynamic_quantile_test(np.zeros(250), quantile, 0.01)
    assert result.degrees == 2
    # hit = -p at every bar lies in the span: |hit|^2 / (p (1 - p)).
    assert result.statistic == pytest.approx(246 * 0.01**2 / (0.01 * 0.99), rel=1e-9)
    assert dynamic_quantile_test(np.zeros(250), 0.0, 0.01).degrees == 1


@pytest.mark.parametrize(
    ("num_bars", "level", "size"), [(500, 0.05, 0.05), (1000, 0.8, 0.05), (1000, 0.01, 0.11)]
)
def test_size(num_bars, level, size):
    """Right forecasts are rejected as often as the docstring says."""
    rng = np.random.default_rng(3)
    rejected = np.mean(
        [
            dynamic_quantile_test(*drawn(rng, num_bars, level), level).pvalue < 0.05
            for _ in range(2000)
        ]
    )
    assert rejected == pytest.approx(size, abs=3 * np.sqrt(size * (1 - size) / 2000))


def test_clusters_and_a_quantile_of_the_wrong_shape_are_found():
    rng = np.random.default_rng(4)
    volatility = np.where(np.arange(4000) // 100 % 2, 0.02, 0.01)
    returns = volatility * rng.standard_normal(4000)
    for level in (0.05, 0.95):
        constant = np.quantile(returns, level)  # the right rate, in the wrong bars
        assert dynamic_quantile_test(returns, constant, level).pvalue < 1e-6
        steep = norm.ppf(level) * 0.013 * (volatility / 0.0135) ** 3
        assert dynamic_quantile_test(returns, steep, level, lags=0).pvalue < 1e-6
        right = norm.ppf(level) * volatility
        assert dynamic_quantile_test(returns, right, level).pvalue > 0.01


def test_what_cannot_be_tested():
    with pytest.raises(
        TooFewBarsError, match="dynamic quantile test needs at least 11 bars, found 10"
    ):
        dynamic_quantile_test(np.zeros(10), -0.1, 0.05)
    with pytest.raises(TooFewBarsError, match="at least 3 bars"):
        dynamic_quantile_test(np.zeros(2), -0.1, 0.05, lags=0)
    with pytest.raises(ConfigError, match="lags of 0 or more, found -1"):
        dynamic_quantile_test(np.zeros(20), -0.1, 0.05, lags=-1)
    with pytest.raises(ConfigError, match=r"level in \(0, 1\)"):
        dynamic_quantile_test(np.zeros(20), -0.1, 1.0)
    with pytest.raises(DataError, match="finite"):
        dynamic_quantile_test(np.full(20, np.nan), -0.1, 0.05)
