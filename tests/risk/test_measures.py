"""Exact and sampled measures of risk, and whether Monte-Carlo errors tell the truth."""

import functools

import numpy as np
import pytest
from scipy import stats

from glow_bt.errors import ConfigError, DataError
from glow_bt.risk.distributions import (
    LocationScale,
    NormalShape,
    SkewStudentShape,
    StudentShape,
)
from glow_bt.risk.measures import (
    expected_shortfall,
    relative_returns,
    tail_probability,
    value_at_risk,
)
from glow_bt.risk.scenarios import Scenarios

SHAPES = {
    "normal": NormalShape(),
    "t": StudentShape(4.0),
    "skew-t": SkewStudentShape(5.0, -0.3),
}
LEVELS = (0.01, 0.025, 0.05, 0.95, 0.975, 0.99)
MEASURES = {"VaR": value_at_risk, "ES": expected_shortfall}


def of(shape, count=1):
    return LocationScale(np.full(count, 0.0005), np.full(count, 0.01), shape)


@functools.cache
def sampled(shape, count, num_scenarios, seed):
    return of(SHAPES[shape], count).sample(num_scenarios, seed)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("shape", SHAPES)
def test_sampled_figures_lie_within_three_errors_of_exact_ones(shape, measure, level):
    exact = MEASURES[measure](of(SHAPES[shape]), level)
    found = MEASURES[measure](sampled(shape, 1, 200_000, seed=1), level)
    assert exact.standard_error[0] == 0
    assert 0 < found.standard_error[0] < 0.02 * abs(exact.value[0])
    assert abs(found.value - exact.value)[0] < 3 * found.standard_error[0]


@pytest.mark.parametrize("level", [0.01, 0.05, 0.975])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_errors_of_var_cover_the_truth_at_the_stated_rate(shape, level):
    distribution = of(SHAPES[shape], count=1000)
    found = value_at_risk(sampled(shape, 1000, 2000, seed=5), level)
    score = (found.value - distribution.quantile(level)) / found.standard_error
    assert np.mean(abs(score) < 1.96) == pytest.approx(0.95, abs=0.02)
    assert np.mean(abs(score) < 1) == pytest.approx(0.683, abs=0.05)


@pytest.mark.parametrize("level", [0.025, 0.05, 0.95])
@pytest.mark.parametrize("shape", ["normal", "skew-t"])
def test_the_errors_of_the_shortfall_cover_the_truth_at_the_stated_rate(shape, level):
    distribution = of(SHAPES[shape], count=1000)
    found = expected_shortfall(sampled(shape, 1000, 4000, seed=6), level)
    score = (found.value - distribution.shortfall(level)) / found.standard_error
    assert np.mean(abs(score) < 1.96) == pytest.approx(0.95, abs=0.03)
    assert np.mean(abs(score) < 1) == pytest.approx(0.683, abs=0.05)


def test_the_errors_of_a_tail_probability_cover_the_truth_at_the_stated_rate():
    distribution = of(NormalShape(), count=2000)
    exact = tail_probability(distribution, -0.02)
    np.testing.assert_allclose(exact.value, stats.norm.cdf(-2.05))
    assert not exact.standard_error.any()
    found = tail_probability(distribution.sample(3000, seed=7), -0.02)
    score = (found.value - exact.value) / found.standard_error
    assert np.mean(abs(score) < 1.96) == pytest.approx(0.95, abs=0.02)


def test_a_tail_probability_counts_what_is_strictly_below():
    scenarios = Scenarios(np.array([[-2.0, -1.0, -1.0, 0.0], [1.0, 2.0, 3.0, 4.0]]))
    np.testing.assert_array_equal(tail_probability(scenarios, [-1.0, 9.0]).value, [0.25, 1.0])
    assert (tail_probability(scenarios, -9.0).standard_error > 0).all()


def test_figures_and_errors_do_not_depend_on_other_rows():
    scenarios = of(StudentShape(3.0), count=300).sample(1000)
    for measure in MEASURES.values():
        together, alone = measure(scenarios, 0.05), measure(Scenarios(scenarios.draws[-1:]), 0.05)
        assert together.value[-1] == alone.value[0]
        assert together.standard_error[-1] == alone.standard_error[0]


def test_gains_are_treated_as_losses_are():
    draws = np.random.default_rng(0).standard_t(4, (3, 777))
    for measure in MEASURES.values():
        lower, upper = measure(Scenarios(draws), 0.03), measure(Scenarios(-draws), 0.97)
        np.testing.assert_allclose(lower.value, -upper.value)
        np.testing.assert_allclose(lower.standard_error, upper.standard_error)


def test_equal_scenarios_have_no_error():
    flat = Scenarios(np.zeros((2, 1000)))
    for measure in MEASURES.values():
        assert not measure(flat, 0.01).value.any()
        assert not measure(flat, 0.01).standard_error.any()


def test_relative_returns_go_through_a_quantile_but_not_through_a_mean():
    scenarios = of(NormalShape()).sample(1000)
    relative = Scenarios(relative_returns(scenarios.draws))
    var, es = value_at_risk(scenarios, 0.05).value, expected_shortfall(scenarios, 0.05).value
    np.testing.assert_allclose(value_at_risk(relative, 0.05).value, relative_returns(var))
    assert expected_shortfall(relative, 0.05).value > relative_returns(es)
    assert relative_returns(np.log([1.1])) == pytest.approx([0.1])


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0, -0.1, 2.0, np.nan])
@pytest.mark.parametrize("measure", MEASURES)
def test_a_level_that_is_none_is_refused(measure, level):
    with pytest.raises(ConfigError, match=r"a level inside \(0, 1\) other than 0\.5"):
        MEASURES[measure](of(NormalShape()), level)


@pytest.mark.parametrize("measure", MEASURES)
def test_too_few_scenarios_are_refused_with_the_number_needed(measure):
    for level in (0.01, 0.99):
        with pytest.raises(ConfigError, match=r"1000 scenarios or more .* found 999"):
            MEASURES[measure](Scenarios(np.zeros((1, 999))), level)
        MEASURES[measure](Scenarios(np.zeros((1, 1000))), level)


@pytest.mark.parametrize("below", [np.nan, np.inf, [0.0, 0.0, 0.0], [[0.0]], [0.0, np.nan]])
def test_a_threshold_that_is_none_is_refused(below):
    with pytest.raises(DataError, match="a finite log return for all 2 distributions"):
        tail_probability(of(NormalShape(), count=2), below)
