import functools

import numpy as np
import pytest
import torch
from scipy.stats import chi2, norm

from glow_bt.errors import ConfigError, DataError, FlowError
from glow_bt.flows import Glow
from glow_bt.risk.stress import (
    LikelihoodBand,
    StressScenarios,
    likelihood_band,
    stress_result,
    stress_scenarios,
)

WIDTH, SPREAD = 3, 0.02
BAND = (0.001, 0.01)
LOG_PEAK = WIDTH * float(norm(scale=SPREAD).logpdf(0))


class Normal:
    """N(0, SPREAD^2 I) with the methods of a fused flow: everything has a closed form."""

    def encode(self, x, context=None):
        z = np.asarray(x) / SPREAD
        return z, norm(scale=SPREAD).logpdf(x).sum(axis=1)

    def inverse(self, z, context=None):
        return np.asarray(z) * SPREAD, np.full(len(z), WIDTH * np.log(SPREAD))

    def sample(self, n, context=None, seed=0):
        return SPREAD * np.random.default_rng(seed).standard_normal((n, WIDTH))


def exact_band(low=BAND[0], high=BAND[1]):
    """Radii of a normal are chi-squared: the least likely share lies outermost."""
    ends = LOG_PEAK - 0.5 * chi2(WIDTH).isf([low, high])
    return LikelihoodBand(low, high, *ends, 10**9)


@functools.cache
def fused(context_features=0):
    torch.manual_seed(0)
    flow = Glow(2, num_levels=1, num_steps=2, hidden_dim=8, context_features=context_features)
    context = torch.randn(64, context_features) if context_features else None
    flow.log_prob(torch.randn(64, 2), context)
    return flow.fused()


def test_a_band_is_that_of_the_models_own_likelihood():
    found = likelihood_band(Normal(), BAND, num_reference=400_000)
    exact = exact_band()
    assert found.log_prob_low == pytest.approx(exact.log_prob_low, abs=0.1)
    assert found.log_prob_high == pytest.approx(exact.log_prob_high, abs=0.03)


def test_an_end_of_0_or_1_is_no_end():
    found = likelihood_band(Normal(), (0, 0.01))
    assert found.log_prob_low == -np.inf
    assert likelihood_band(Normal(), (0.01, 1)).log_prob_high == np.inf


@pytest.mark.parametrize("inflation", [1.0, 1.7])
def test_draws_have_the_law_of_the_model_given_the_band(inflation):
    found = stress_scenarios(Normal(), 3000, exact_band(), inflation=inflation)
    assert len(found) >= 3000
    low, high = found.band.log_prob_low, found.band.log_prob_high
    assert (found.log_prob >= low).all()
    assert (found.log_prob <= high).all()
    # Given the band, the probability of a radius beyond is uniform between its ends.
    beyond = chi2(WIDTH).sf(np.square(found.draws / SPREAD).sum(axis=1))
    uniform = (beyond - BAND[0]) / (BAND[1] - BAND[0])
    error = 1 / np.sqrt(found.effective_size)
    assert found.importance @ uniform == pytest.approx(0.5, abs=4 * error * 12**-0.5)
    assert found.importance @ uniform**2 == pytest.approx(1 / 3, abs=4 * error * 0.3)
    directions = found.draws / np.linalg.norm(found.draws, axis=1, keepdims=True)
    np.testing.assert_allclose(found.importance @ directions, 0, atol=4 * error)


def test_inflation_finds_more_in_fewer_draws_and_says_what_they_are_worth():
    plain = stress_scenarios(Normal(), 2000, exact_band())
    wide = stress_scenarios(Normal(), 2000, exact_band(), inflation=2)
    assert wide.num_proposed < plain.num_proposed / 5
    assert plain.effective_size == pytest.approx(len(plain))
    assert 0.5 * len(wide) < wide.effective_size < len(wide)


@pytest.mark.parametrize("width", [0, 2])
@pytest.mark.parametrize("inflation", [1.0, 1.5])
def test_a_fused_glow_is_stressed_with_or_without_context(width, inflation):
    context = np.full(width, 0.5) if width else None
    flow = fused(width)
    found = stress_scenarios(flow, 100, context=context, inflation=inflation)
    rows = None if context is None else np.tile(context, (len(found), 1))
    np.testing.assert_allclose(flow.encode(found.draws, rows)[1], found.log_prob, atol=1e-6)
    assert found.band.holds(found.log_prob).all()
    # New draws of the model fall into the band as often as it says.
    rows = None if context is None else context[None]
    log_prob = flow.encode(
        flow.sample(50_000, rows, seed=9),
        None if rows is None else np.repeat(rows, 50_000, axis=0),
    )[1]
    assert found.band.holds(log_prob).mean() == pytest.approx(0.009, abs=0.002)


def test_importance_of_a_glow_gives_the_same_means_as_its_own_draws():
    band = likelihood_band(fused(), (0.001, 0.02))
    one = stress_scenarios(fused(), 4000, band)
    two = stress_scenarios(fused(), 4000, band, inflation=1.5)
    size = np.linalg.norm(one.draws, axis=1)
    error = size.std() / np.sqrt(min(one.effective_size, two.effective_size))
    other = two.importance @ np.linalg.norm(two.draws, axis=1)
    assert other == pytest.approx(size.mean(), abs=5 * error)


def test_the_same_seed_gives_the_same_scenarios():
    one, two, other = (stress_scenarios(Normal(), 50, exact_band(), seed=s) for s in (1, 1, 2))
    assert isinstance(one, StressScenarios)
    np.testing.assert_array_equal(one.draws, two.draws)
    assert not np.array_equal(one.draws[:5], other.draws[:5])


def test_too_few_found_is_an_error_that_says_how_many():
    with pytest.raises(DataError, match=r"expected 5000 scenarios.* found \d+ in 20000 draws"):
        stress_scenarios(Normal(), 5000, exact_band(), max_draws=20_000)


@pytest.mark.parametrize("band", [(0.1, 0.1), (0.2, 0.1), (-0.1, 0.5), (0.5, 1.1)])
def test_a_band_that_is_none_is_refused(band):
    with pytest.raises(ConfigError, match="two ascending probabilities"):
        stress_scenarios(Normal(), 10, band)


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(ConfigError, match="at least 100000 reference draws"):
        likelihood_band(Normal(), (0.0001, 0.01), num_reference=99_999)
    with pytest.raises(ConfigError, match="at least 1 scenario, found 0"):
        stress_scenarios(Normal(), 0, exact_band())
    with pytest.raises(ConfigError, match=r"inflation of 1 or more, found 0\.5"):
        stress_scenarios(Normal(), 10, exact_band(), inflation=0.5)
    with pytest.raises(FlowError, match="no context"):
        stress_scenarios(fused(), 10, context=[1.0])


def test_worst_mean_and_shortfall_are_those_of_the_portfolio():
    returns = np.linspace(-0.2, 0.19, 40)
    rows = np.log1p(np.column_stack([returns, np.zeros(40)]))
    found = stress_result(rows[::-1], [2.0, 1.0], 0.25)
    assert found.worst == pytest.approx(-0.4)
    assert found.worst_row == 39
    assert found.mean == pytest.approx(2 * returns.mean())
    assert found.shortfall == pytest.approx(2 * returns[:10].mean())
    assert found.num_scenarios == 40
    whole = stress_result(rows, [2.0, 1.0], 1.0)
    assert whole.shortfall == pytest.approx(whole.mean)


def test_importance_counts_in_mean_and_shortfall():
    rows = np.log1p(np.repeat([[-0.1], [0.1]], 30, axis=0))
    share = np.repeat([3.0, 1.0], 30)
    found = stress_result(rows, [1.0], 0.5, importance=share)
    assert found.mean == pytest.approx(-0.05)
    assert found.shortfall == pytest.approx(-0.1)
    deeper = stress_result(rows, [1.0], 0.9, importance=share)
    assert deeper.shortfall == pytest.approx((0.75 * -0.1 + 0.15 * 0.1) / 0.9)


def test_what_is_too_few_for_a_shortfall_is_refused():
    rows = np.zeros((99, 1))
    with pytest.raises(
        DataError, match=r"at least 100 scenarios for a shortfall at 0\.1, found 99"
    ):
        stress_result(rows, [1.0], 0.1)
    uneven = np.ones(400)
    uneven[0] = 400
    with pytest.raises(DataError, match="found 400 worth 4"):
        stress_result(np.zeros((400, 1)), [1.0], 0.1, importance=uneven)


@pytest.mark.parametrize(
    ("rows", "weights", "level", "message"),
    [
        (np.zeros((50, 2)), [1.0], 0.5, "expected 2 weights, one an asset, found 1"),
        (np.zeros((50, 1)), [np.nan], 0.5, "finite weights"),
        (np.full((50, 1), np.nan), [1.0], 0.5, "finite scenarios"),
        (np.zeros(50), [1.0], 0.5, r"shape \(S, N\)"),
        (np.zeros((50, 1)), [1.0], 0, r"inside \(0, 1\], found 0"),
        (np.zeros((50, 1)), [1.0], 1.5, r"inside \(0, 1\], found 1.5"),
    ],
)
def test_bad_input_is_refused(rows, weights, level, message):
    with pytest.raises((ConfigError, DataError), match=message):
        stress_result(rows, weights, level)


@pytest.mark.parametrize("importance", [np.ones(3), -np.ones(50), np.full(50, np.inf)])
def test_importance_weights_that_are_none_are_refused(importance):
    with pytest.raises(DataError, match="expected 50 importance weights"):
        stress_result(np.zeros((50, 1)), [1.0], 0.5, importance=importance)
    with pytest.raises(DataError, match="above 0, found none"):
        stress_result(np.zeros((50, 1)), [1.0], 0.5, importance=np.zeros(50))
