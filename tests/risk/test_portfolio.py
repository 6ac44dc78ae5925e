import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_t, norm

from glow_bt.errors import ConfigError, DataError
from glow_bt.risk.portfolio import PortfolioRisk, portfolio_risk, portfolio_scenarios

MEAN = np.array([0.001, -0.002, 0.0])
SPREAD = np.array([0.01, 0.02, 0.03])
CORRELATION = np.array([[1.0, 0.6, 0.2], [0.6, 1.0, -0.3], [0.2, -0.3, 1.0]])
COVARIANCE = np.outer(SPREAD, SPREAD) * CORRELATION
WEIGHTS = np.array([0.5, -0.3, 0.4])
LEVEL = 0.05


def normal_scenarios(num_bars, size, seed=0):
    """Log returns whose simple returns are normal, so that closed forms hold exactly."""
    rng = np.random.default_rng(seed)
    return np.log1p(rng.multivariate_normal(MEAN, COVARIANCE, size=(num_bars, size)))


def closed_forms(weights, level):
    """VaR, CVaR and both marginals of a normal portfolio."""
    spread = np.sqrt(weights @ COVARIANCE @ weights)
    z = norm.ppf(level)
    pull = COVARIANCE @ weights / spread
    below = -norm.pdf(z) / level
    return (
        weights @ MEAN + z * spread,
        weights @ MEAN + below * spread,
        MEAN + z * pull,
        MEAN + below * pull,
    )


@pytest.fixture(scope="module")
def many():
    """500 independent banks of 2,000 scenarios of the same market."""
    return portfolio_risk(normal_scenarios(500, 2000), WEIGHTS, LEVEL)


@pytest.mark.parametrize(
    ("name", "which"),
    [("var", 0), ("cvar", 1), ("marginal_var", 2), ("marginal_cvar", 3)],
)
def test_a_normal_portfolio_has_its_closed_forms_within_the_stated_errors(many, name, which):
    expected = closed_forms(WEIGHTS, LEVEL)[which]
    found = getattr(many, name)
    score = (found.value - expected) / found.standard_error
    # Of 500 banks 95 % lie within 1.96 errors; 4 deviations of that share are 4 %.
    assert (np.abs((np.abs(score) < 1.96).mean(axis=0) - 0.95) < 0.04).all()
    assert (np.abs(score.std(axis=0) - 1) < 0.15).all()
    assert (np.abs(score.mean(axis=0)) < 0.3).all()


def test_more_scenarios_come_closer_to_the_closed_forms():
    risk = portfolio_risk(normal_scenarios(1, 400_000), WEIGHTS, 0.01)
    var, cvar, marginal_var, marginal_cvar = closed_forms(WEIGHTS, 0.01)
    assert risk.var.value[0] == pytest.approx(var, rel=0.01)
    assert risk.cvar.value[0] == pytest.approx(cvar, rel=0.01)
    np.testing.assert_allclose(risk.marginal_var.value[0], marginal_var, atol=0.0015)
    np.testing.assert_allclose(risk.marginal_cvar.value[0], marginal_cvar, atol=0.0015)
    alone = np.abs(WEIGHTS) * SPREAD
    total = (WEIGHTS * MEAN + norm.ppf(0.01) * alone).sum()
    assert risk.var_diversification[0] == pytest.approx(1 - var / total, abs=0.01)


def test_the_marginal_var_is_the_derivative_of_the_var():
    scenarios = normal_scenarios(1, 400_000)
    risk = portfolio_risk(scenarios, WEIGHTS, LEVEL)
    for asset in range(3):
        step = np.zeros(3)
        step[asset] = 0.02
        up, down = (portfolio_risk(scenarios, WEIGHTS + s, LEVEL) for s in (step, -step))
        slope_var = (up.var.value[0] - down.var.value[0]) / 0.04
        slope_cvar = (up.cvar.value[0] - down.cvar.value[0]) / 0.04
        assert risk.marginal_var.value[0, asset] == pytest.approx(slope_var, abs=1.5e-3)
        assert risk.marginal_cvar.value[0, asset] == pytest.approx(slope_cvar, abs=1e-4)


finite = st.floats(-3, 3).filter(lambda x: x == 0 or abs(x) > 1e-6)


@given(
    st.lists(finite, min_size=2, max_size=5),
    st.sampled_from([0.01, 0.033, 0.25, 0.49]),
    st.integers(0, 2**32 - 1),
)
def test_parts_add_up_exactly_for_any_weights_and_heavy_tails(weights, level, seed):
    rng = np.random.default_rng(seed)
    moves = 0.01 * multivariate_t(np.zeros(len(weights)), df=3).rvs(1500, random_state=rng)
    risk = portfolio_risk(moves, weights, level)
    scale = np.abs(risk.weights) @ np.abs(np.expm1(moves)).max(axis=0) + 1e-300
    assert abs(risk.component_var.sum() - risk.var.value[0]) <= 1e-10 * scale
    assert abs(risk.component_cvar.sum() - risk.cvar.value[0]) <= 1e-10 * scale
    assert risk.cvar.value[0] <= risk.var.value[0]
    # Subadditive: the whole is never worse than its parts.
    assert risk.cvar.value[0] >= risk.stand_alone_cvar.sum() - 1e-12


def test_risk_grows_with_the_weights_and_margins_do_not():
    scenarios = normal_scenarios(2, 1000)
    one, two = (portfolio_risk(scenarios, k * WEIGHTS, LEVEL) for k in (1, 2))
    np.testing.assert_allclose(two.var.value, 2 * one.var.value)
    np.testing.assert_allclose(two.cvar.standard_error, 2 * one.cvar.standard_error)
    np.testing.assert_allclose(two.marginal_var.value, one.marginal_var.value)
    np.testing.assert_allclose(two.marginal_cvar.value, one.marginal_cvar.value)
    np.testing.assert_allclose(two.cvar_diversification, one.cvar_diversification)


def test_one_asset_alone_has_no_benefit():
    risk = portfolio_risk(normal_scenarios(3, 1000), [0.0, 1.0, 0.0], LEVEL)
    np.testing.assert_allclose(risk.var_diversification, 0, atol=1e-12)
    np.testing.assert_allclose(risk.cvar_diversification, 0, atol=1e-12)
    np.testing.assert_allclose(risk.component_var[:, [0, 2]], 0)


def test_a_perfect_hedge_leaves_no_risk():
    one = normal_scenarios(1, 1000)[0, :, :1]
    risk = portfolio_risk(np.hstack([one, one]), [1.0, -1.0], LEVEL)
    assert risk.var.value[0] == 0
    assert risk.cvar.value[0] == 0
    assert risk.var_diversification[0] == 1


def test_without_positions_there_is_no_benefit_to_speak_of():
    risk = portfolio_risk(normal_scenarios(1, 1000), np.zeros(3), LEVEL)
    assert risk.var.value[0] == 0
    assert np.isnan(risk.var_diversification[0])


def test_portfolio_returns_are_simple_returns():
    scenarios = portfolio_scenarios(np.log([[1.1, 0.8], [1.0, 1.2]]), [0.5, -1.0])
    np.testing.assert_allclose(scenarios.draws, [[0.25, -0.2]])


def test_the_tail_probability_is_the_share_below():
    scenarios = portfolio_scenarios(normal_scenarios(1, 100_000), WEIGHTS)
    spread = np.sqrt(WEIGHTS @ COVARIANCE @ WEIGHTS)
    expected = norm.cdf((-0.02 - WEIGHTS @ MEAN) / spread)
    found = scenarios.share(np.array([-0.02]), strict=False)[0]
    assert found == pytest.approx(expected, abs=4 * np.sqrt(expected / 100_000))


def test_fields_belong_to_the_bars():
    risk = portfolio_risk(normal_scenarios(4, 300), WEIGHTS, LEVEL)
    assert isinstance(risk, PortfolioRisk)
    assert (
        risk.var.value.shape
        == risk.cvar.standard_error.shape
        == risk.var_diversification.shape
        == (4,)
    )
    assert risk.component_var.shape == risk.marginal_cvar.standard_error.shape == (4, 3)
    one = portfolio_risk(normal_scenarios(4, 300)[2], WEIGHTS, LEVEL)
    assert one.var.value[0] == risk.var.value[2]


@pytest.mark.parametrize("level", [0, 0.5, 0.95, -0.1, float("nan")])
def test_a_level_of_no_lower_tail_is_refused(level):
    with pytest.raises(ConfigError, match=r"inside \(0, 0.5\), found"):
        portfolio_risk(normal_scenarios(1, 300), WEIGHTS, level)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([0.5, 0.5], "expected 3 weights, one an asset, found 2"),
        (np.ones((3, 1)), r"expected 3 weights.* found an array of shape \(3, 1\)"),
        ([0.5, np.nan, 0.5], "expected finite weights, found nan for asset 1"),
        ([0.5, 0.1, -np.inf], "expected finite weights, found -inf for asset 2"),
    ],
)
def test_weights_that_do_not_match_the_assets_are_refused(weights, message):
    with pytest.raises(DataError, match=message):
        portfolio_risk(normal_scenarios(1, 300), weights, LEVEL)


def test_scenarios_that_are_none_are_refused():
    with pytest.raises(DataError, match=r"\(T, S, N\) or \(S, N\), found \(3,\)"):
        portfolio_risk(np.zeros(3), [1.0], LEVEL)
    bad = normal_scenarios(1, 300)
    bad[0, 7, 1] = np.nan
    with pytest.raises(DataError, match="expected finite scenarios"):
        portfolio_scenarios(bad, WEIGHTS)


def test_too_few_scenarios_for_a_level_are_refused():
    with pytest.raises(ConfigError, match="scenarios"):
        portfolio_risk(normal_scenarios(1, 999), WEIGHTS, 0.01)
    portfolio_risk(normal_scenarios(1, 1000), WEIGHTS, 0.01)
