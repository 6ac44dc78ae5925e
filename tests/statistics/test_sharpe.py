import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.integrate import quad
from scipy.stats import norm

from glow_bt.errors import ConfigError, DataError, TooFewBarsError
from glow_bt.statistics import (
    SharpeMoments,
    deflated_sharpe_ratio,
    dependent_sharpe_error,
    expected_maximum_sharpe,
    minimum_track_record_length,
    probabilistic_sharpe_ratio,
    sharpe_influence,
    sharpe_standard_error,
)
from tests.statistics.processes import autoregressive


def annual(sharpe, periods, *moments, num_bars=1000):
    return SharpeMoments(sharpe / math.sqrt(periods), num_bars, *moments)


def test_moments_are_those_of_scipy():
    returns = np.random.default_rng(0).gamma(3, size=200) - 2.5
    found = SharpeMoments.of(returns)
    assert found.sharpe == pytest.approx(returns.mean() / returns.std(ddof=1))
    assert found.num_bars == 200
    assert found.skewness == pytest.approx(stats.skew(returns))
    assert found.kurtosis == pytest.approx(stats.kurtosis(returns, fisher=False))


@given(st.floats(1e-6, 1e6), st.floats(0.001, 0.999), st.integers(2, 50))
def test_moments_of_two_values_are_possible_ones(scale, share, count):
    """The extreme case: kurtosis = 1 + skewness^2 exactly, but for rounding."""
    values = np.zeros(count)
    values[: max(1, int(share * count))] = scale
    if np.ptp(values) > 0:
        assert sharpe_standard_error(SharpeMoments.of(values)) >= 0


def test_normal_returns_have_the_standard_error_of_lo():
    """Lo 2002: sqrt((1 + SR^2 / 2) / N)."""
    moments = SharpeMoments(1.5, 61)
    assert sharpe_standard_error(moments) == pytest.approx(math.sqrt((1 + 1.5**2 / 2) / 60))


def test_the_published_probabilistic_sharpe_ratio():
    """Bailey & Lopez de Prado 2012: 24 months, 0.982 if normal, 0.913 as it is."""
    normal = annual(1.585, 12, num_bars=24)
    skewed = annual(1.585, 12, -2.448, 10.164, num_bars=24)
    assert probabilistic_sharpe_ratio(normal) == pytest.approx(0.982, abs=5e-4)
    assert probabilistic_sharpe_ratio(skewed) == pytest.approx(0.913, abs=5e-4)
    assert probabilistic_sharpe_ratio(skewed, benchmark=skewed.sharpe) == 0.5


@pytest.mark.parametrize(
    ("periods", "moments", "years"),
    [(250, (), 2.73), (52, (), 2.83), (12, (), 3.24), (12, (-0.72, 5.78), 4.99)],
)
def test_the_published_track_record_lengths(periods, moments, years):
    """Bailey & Lopez de Prado 2012: years to tell an annual Sharpe ratio of 2 from 1."""
    bars = minimum_track_record_length(
        annual(2.0, periods, *moments), benchmark=1 / math.sqrt(periods)
    )
    assert bars / periods == pytest.approx(years, abs=5e-3)


def test_a_track_record_of_that_length_is_just_enough():
    for confidence in (0.9, 0.99):
        bars = minimum_track_record_length(annual(1.0, 252, -1.0, 8.0), confidence=confidence)
        low, high = (
            probabilistic_sharpe_ratio(annual(1.0, 252, -1.0, 8.0, num_bars=count))
            for count in (math.floor(bars), math.ceil(bars))
        )
        assert low <= confidence <= high
    assert minimum_track_record_length(annual(1.0, 252), benchmark=0.2) == math.inf


def test_the_published_deflated_sharpe_ratio():
    """Bailey & Lopez de Prado 2014, numerical example: 250 days a year, 5 years, 100 trials."""
    variance = 0.5 / 250
    moments = annual(2.5, 250, -3.0, 10.0, num_bars=1250)
    assert expected_maximum_sharpe(100, variance) == pytest.approx(0.1132, abs=5e-5)
    assert deflated_sharpe_ratio(
        moments, num_trials=100, sharpe_variance=variance
    ) == pytest.approx(0.9004, abs=5e-5)
    for trials, own in ((46, moments), (88, annual(2.5, 250, num_bars=1250))):
        assert deflated_sharpe_ratio(
            own, num_trials=trials, sharpe_variance=variance
        ) == pytest.approx(0.9505, abs=5e-5)


def test_one_trial_deflates_nothing():
    moments = annual(1.0, 252)
    assert deflated_sharpe_ratio(moments, num_trials=1, sharpe_variance=9) == (
        probabilistic_sharpe_ratio(moments)
    )


@pytest.mark.parametrize(("trials", "off"), [(2, -0.08), (5, 0.025), (10, 0.023), (100, 0.009)])
def test_the_expected_maximum_is_near_the_exact_mean(trials, off):
    exact = quad(lambda z: z * trials * norm.pdf(z) * norm.cdf(z) ** (trials - 1), -10, 12)[0]
    assert expected_maximum_sharpe(trials, 4.0) / (2 * exact) - 1 == pytest.approx(off, abs=2e-3)


def test_without_lags_the_error_of_dependent_returns_is_the_other_one():
    returns = np.random.default_rng(1).standard_t(5, 400) + 0.3
    assert dependent_sharpe_error(returns, lags=0) == pytest.approx(
        sharpe_standard_error(SharpeMoments.of(returns)), rel=5e-3
    )


def test_the_influence_of_a_bar_is_what_the_ratio_loses_without_it():
    """The jackknife, to first order."""
    returns = np.random.default_rng(2).standard_normal(500) + 0.5
    whole = returns.mean() / returns.std()
    without = np.array([np.delete(returns, bar) for bar in range(500)])
    jackknife = 499 * (whole - without.mean(axis=1) / without.std(axis=1))
    assert sharpe_influence(returns) == pytest.approx(jackknife, abs=0.05)
    assert sharpe_influence(returns).mean() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("sharpe", [0.1, 0.5])
def test_intervals_of_independent_returns_cover_the_ratio(sharpe):
    """Skewed ones, 1 minus an exponential number: 94.5 % of 1000 bars."""
    drawn = 1 - np.random.default_rng(3).standard_exponential((1000, 1000)) + sharpe
    moments = [SharpeMoments.of(returns) for returns in drawn]
    errors = np.array([sharpe_standard_error(own) for own in moments])
    off = np.array([own.sharpe for own in moments]) - sharpe
    covered = np.mean(np.abs(off) < 1.96 * errors)
    assert covered == pytest.approx(0.945, abs=3 * math.sqrt(0.95 * 0.05 / 1000))


def test_autocorrelation_needs_the_error_of_dependent_returns():
    drawn = autoregressive(np.random.default_rng(4), 1000, 1000, 0.2) + 0.1
    off = drawn.mean(axis=1) / drawn.std(axis=1) - 0.1
    dependent = np.array([dependent_sharpe_error(returns) for returns in drawn])
    independent = np.array([sharpe_standard_error(SharpeMoments.of(row)) for row in drawn])
    tolerance = 3 * math.sqrt(0.95 * 0.05 / 1000)
    assert np.mean(np.abs(off) < 1.96 * dependent) == pytest.approx(0.945, abs=tolerance)
    assert np.mean(np.abs(off) < 1.96 * independent) < 0.92


def test_the_best_of_many_without_skill_is_seldom_found_skilled():
    """The deflated ratio of the best of 50 is above 0.95 in at most 5 % of searches."""
    rng = np.random.default_rng(5)
    found = []
    for _ in range(400):
        returns = rng.standard_normal((250, 50))
        sharpes = returns.mean(axis=0) / returns.std(axis=0, ddof=1)
        best = SharpeMoments.of(returns[:, sharpes.argmax()])
        variance = float(sharpes.var(ddof=1))
        found.append(
            (
                deflated_sharpe_ratio(best, num_trials=50, sharpe_variance=variance),
                probabilistic_sharpe_ratio(best),
            )
        )
    deflated, plain = (np.array(found) > 0.95).mean(axis=0)
    assert deflated <= 0.05
    assert plain > 0.8


def test_what_has_no_sharpe_ratio():
    with pytest.raises(DataError, match=r"returns that vary, found 0\.001 at every one of 50"):
        SharpeMoments.of(np.full(50, 0.001))
    with pytest.raises(TooFewBarsError, match="a Sharpe ratio needs at least 2 bars, found 1"):
        SharpeMoments.of([0.1])
    with pytest.raises(DataError, match="finite returns"):
        sharpe_influence([0.1, np.nan, 0.2])
    with pytest.raises(ConfigError, match="lags from 0 to 2"):
        dependent_sharpe_error([0.1, 0.2, 0.4], lags=3)


def test_what_no_returns_can_have():
    for moments in ((0.1, 1), (math.nan, 50), (0.1, 50, 0.0, 0.0), (0.1, 50, -3.0, 5.0)):
        with pytest.raises(ConfigError, match="kurtosis is not the excess"):
            SharpeMoments(*moments)
    for trials, variance in ((0, 1.0), (math.inf, 1.0), (10, -0.1), (10, math.nan)):
        with pytest.raises(ConfigError, match="one trial or more and a variance of at least 0"):
            expected_maximum_sharpe(trials, variance)
    with pytest.raises(ConfigError, match=r"a confidence inside \(0, 1\), found 95"):
        minimum_track_record_length(annual(1.0, 252), confidence=95)
