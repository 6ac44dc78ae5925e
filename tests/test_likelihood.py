import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from glow_bt.errors import ConfigError, TooFewBarsError
from glow_bt.likelihood import LikelihoodFilter

HELD_OUT = -np.random.default_rng(0).gamma(3.0, 4.0, 2000)


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_the_stated_share_of_bars_is_a_false_alarm_half_on_each_side(rate):
    fitted = LikelihoodFilter.fit(HELD_OUT, rate)
    again = -np.random.default_rng(1).gamma(3.0, 4.0, 40_000)
    below, above = (again < fitted.low).mean(), (again > fitted.high).mean()
    # Thresholds from 2,000 values: two standard errors of a quantile at this rate.
    tolerance = 2.5 * np.sqrt(rate / 2 / 2000)
    assert below == pytest.approx(rate / 2, abs=tolerance)
    assert above == pytest.approx(rate / 2, abs=tolerance)
    assert (~fitted.contains(again)).mean() == pytest.approx(below + above, abs=1e-12)


def test_thresholds_are_quantiles_of_held_out_values():
    fitted = LikelihoodFilter.fit(HELD_OUT, 0.1)
    assert fitted.low == pytest.approx(np.quantile(HELD_OUT, 0.05), rel=1e-3)
    assert fitted.high == pytest.approx(np.quantile(HELD_OUT, 0.95), rel=1e-3)
    assert fitted.contains(np.array([fitted.low, fitted.high])).all()
    assert not fitted.contains(np.array([fitted.low - 1e-9, fitted.high + 1e-9])).any()


def test_confidence_is_the_rank_among_held_out_values():
    fitted = LikelihoodFilter.fit(HELD_OUT)
    values = np.quantile(HELD_OUT, [0.0, 0.03, 0.5, 0.97, 1.0])
    ranks = stats.percentileofscore(HELD_OUT, values) / 100
    np.testing.assert_allclose(fitted.confidence(values), ranks, atol=1e-3)
    assert fitted.confidence(np.array([-1e9, 1e9])).tolist() == [0.0, 1.0]


@given(st.lists(st.integers(-9999, 9999), min_size=50, max_size=200), st.floats(0.01, 0.99))
def test_confidence_rises_with_likelihood_and_stays_in_bounds(hundredths, rate):
    held_out = np.array(hundredths) / 100
    fitted = LikelihoodFilter.fit(held_out, rate)
    confidence = fitted.confidence(np.sort(held_out))
    assert (np.diff(confidence) >= 0).all()
    assert confidence.min() >= 0.0
    assert confidence.max() <= 1.0
    assert min(held_out) <= fitted.low <= fitted.high <= max(held_out)


def test_uniform_ranks_on_new_draws_of_the_same_market():
    fitted = LikelihoodFilter.fit(HELD_OUT)
    again = -np.random.default_rng(2).gamma(3.0, 4.0, 500)
    assert stats.kstest(fitted.confidence(again), "uniform").pvalue > 0.01


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, float("nan")])
def test_a_rate_outside_0_and_1_is_refused(rate):
    with pytest.raises(ConfigError, match="false_alarm_rate inside"):
        LikelihoodFilter.fit(HELD_OUT, rate)


@pytest.mark.parametrize(
    "table",
    [np.array([2.0, 1.0]), np.array([0.0, np.nan]), np.array([0.0]), np.zeros((2, 2))],
)
def test_a_table_that_cannot_be_is_refused(table):
    with pytest.raises(ConfigError, match="ascending order"):
        LikelihoodFilter(table, 0.05)


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(ConfigError, match="fit the filter again on finite ones"):
        LikelihoodFilter.fit(np.append(HELD_OUT, np.nan))


def test_too_few_held_out_values():
    with pytest.raises(
        TooFewBarsError, match="likelihood filter needs at least 50 bars, found 49"
    ):
        LikelihoodFilter.fit(HELD_OUT[:49])
