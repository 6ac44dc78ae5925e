import numpy as np
import pytest
from arch import arch_model
from scipy.stats import multivariate_normal, norm

from glow_bt.errors import ConfigError, DataError, TooFewBarsError
from glow_bt.risk.covariance import (
    CovarianceForecast,
    dcc_covariance,
    ewma_covariance,
    static_covariance,
)

FORECASTS = {
    "static": static_covariance,
    "ewma": ewma_covariance,
    "dcc": dcc_covariance,
    "dcc of garch": lambda returns, start: dcc_covariance(returns, start, volatility="garch"),
}
each_forecast = pytest.mark.parametrize("forecast", FORECASTS.values(), ids=FORECASTS)


def returns(num_rows=200, width=3, seed=0):
    rng = np.random.default_rng(seed)
    mixing = np.eye(width) + 0.5
    return 0.01 * rng.standard_normal((num_rows, width)) @ mixing


MEAN = np.array([[0.001, -0.002]])
COVARIANCE = np.array([[[4e-4, 1e-4], [1e-4, 9e-4]]])
WEIGHTS = np.array([0.7, -0.4])


def test_portfolio_forecasts_are_those_of_a_normal():
    true = np.array([[-0.05, 0.01]])
    found = CovarianceForecast(MEAN, COVARIANCE).forecasts(WEIGHTS, true, (0.01, 0.95))
    mean, spread = MEAN[0] @ WEIGHTS, np.sqrt(WEIGHTS @ COVARIANCE[0] @ WEIGHTS)
    expected = norm(mean, spread)
    total = true[0] @ WEIGHTS
    assert found.returns[0] == pytest.approx(total)
    assert found.quantile(0.01)[0] == pytest.approx(expected.ppf(0.01))
    assert found.quantile(0.95)[0] == pytest.approx(expected.ppf(0.95))
    assert found.log_prob[0] == pytest.approx(expected.logpdf(total))
    assert found.pit[0] == pytest.approx(expected.cdf(total))
    below = mean - spread * norm.pdf(norm.ppf(0.01)) / 0.01
    above = mean + spread * norm.pdf(norm.ppf(0.95)) / 0.05
    assert found.shortfall(0.01)[0] == pytest.approx(below)
    assert found.shortfall(0.95)[0] == pytest.approx(above)


def test_the_joint_density_is_scipys():
    rows = np.array([[-0.05, 0.01]])
    found = CovarianceForecast(MEAN, COVARIANCE).log_prob(rows)
    expected = multivariate_normal(MEAN[0], COVARIANCE[0]).logpdf(rows[0])
    assert found[0] == pytest.approx(expected)


def test_parts_add_up_to_the_whole():
    model = CovarianceForecast(MEAN, COVARIANCE)
    forecasts = model.forecasts(WEIGHTS, np.zeros((1, 2)), (0.025,))
    parts = model.component_var(WEIGHTS, 0.025), model.component_cvar(WEIGHTS, 0.025)
    assert parts[0].sum() == pytest.approx(forecasts.quantile(0.025)[0])
    assert parts[1].sum() == pytest.approx(forecasts.shortfall(0.025)[0])


def test_the_static_covariance_is_that_of_the_rows_before():
    rows = returns()
    found = static_covariance(rows, 100, refit=30)
    assert len(found) == 100
    for row, past in ((0, 100), (29, 100), (30, 130), (99, 190)):
        np.testing.assert_allclose(found.mean[row], rows[:past].mean(axis=0))
        np.testing.assert_allclose(found.covariance[row], np.cov(rows[:past].T, ddof=0))


def test_ewma_is_the_weighted_sum_of_past_products():
    rows, start, decay = returns(), 100, 0.9
    found = ewma_covariance(rows, start, decay=decay)
    row = 150
    ages = np.arange(row - 1, -1, -1)
    weights = (1 - decay) * decay**ages
    first = rows[:start].T @ rows[:start] / start
    expected = np.einsum("t,ti,tj->ij", weights, rows[:row], rows[:row]) + decay**row * first
    np.testing.assert_allclose(found.covariance[row - start], expected)
    assert not found.mean.any()


def test_dcc_has_the_volatilities_of_ewma_and_correlations_of_standardised_returns():
    rows, start = returns(), 100
    found = dcc_covariance(rows, start, decay=0.9, correlation_decay=0.95)
    spread = np.sqrt(np.diagonal(found.covariance, axis1=1, axis2=2))
    one_by_one = [ewma_covariance(own[:, None], start, decay=0.9).covariance for own in rows.T]
    np.testing.assert_allclose(spread**2, np.column_stack([c[:, 0, 0] for c in one_by_one]))
    # Returns of one scale, always: the correlations are those of the returns' own EWMA.
    slow = dcc_covariance(rows, start, decay=1 - 1e-12, correlation_decay=0.95)
    joint = ewma_covariance(rows, start, decay=0.95).covariance
    scale = np.sqrt(np.diagonal(joint, axis1=1, axis2=2))
    correlation = joint / (scale[:, :, None] * scale[:, None, :])
    spread = np.sqrt(np.diagonal(slow.covariance, axis1=1, axis2=2))
    np.testing.assert_allclose(
        slow.covariance / (spread[:, :, None] * spread[:, None, :]), correlation, rtol=1e-6
    )


def test_garch_volatilities_are_those_of_arch():
    rng = np.random.default_rng(1)
    shocks, variance = rng.standard_normal(600), np.empty(600)
    variance[0] = 1.0
    for t in range(1, 600):
        variance[t] = 0.05 + (0.1 * shocks[t - 1] ** 2 + 0.85) * variance[t - 1]
    rows = 0.01 * (shocks * np.sqrt(variance))[:, None]
    found = dcc_covariance(rows, 500, volatility="garch").covariance[:, 0, 0]
    model = arch_model(100 * rows[:, 0], mean="Zero", rescale=False)
    fitted = model.fit(disp="off", last_obs=500)
    expected = fitted.forecast(horizon=1, start=499).variance.to_numpy()[:-1, 0] / 1e4
    np.testing.assert_allclose(found, expected, rtol=1e-3)


@each_forecast
def test_no_forecast_knows_its_own_row_or_later_ones(forecast):
    rows = returns()
    before = forecast(rows, 120)
    changed = rows.copy()
    changed[150:] *= -7
    after = forecast(changed, 120)
    np.testing.assert_array_equal(after.mean[:31], before.mean[:31])
    np.testing.assert_array_equal(after.covariance[:31], before.covariance[:31])
    cut = forecast(rows[:151], 120)
    np.testing.assert_array_equal(cut.covariance, before.covariance[:31])


@each_forecast
def test_covariances_are_positive_definite_for_one_asset_and_several(forecast):
    for width in (1, 4):
        found = forecast(returns(width=width), 150)
        assert found.covariance.shape == (50, width, width)
        assert (np.linalg.eigvalsh(found.covariance) > 0).all()


@each_forecast
def test_what_is_no_history_is_refused(forecast):
    with pytest.raises(TooFewBarsError, match="needs at least 20 bars, found 19"):
        forecast(returns(), 19)
    with pytest.raises(TooFewBarsError, match="needs at least 31 bars, found 30"):
        forecast(returns(width=30), 30)
    with pytest.raises(ConfigError, match="before the end of 200 rows of returns, found 200"):
        forecast(returns(), 200)
    bad = returns()
    bad[5, 1] = np.inf
    with pytest.raises(DataError, match="expected finite returns, found row 5"):
        forecast(bad, 100)
    with pytest.raises(DataError, match=r"shape \(T, N\).*found \(200,\)"):
        forecast(bad[:, 0], 100)
    bad[:, 1] = 0
    with pytest.raises(DataError, match="found asset 1 without any move"):
        forecast(bad, 100)


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(ConfigError, match=r"decay inside \(0, 1\), found 1"):
        ewma_covariance(returns(), 100, decay=1)
    with pytest.raises(ConfigError, match="correlation_decay inside"):
        dcc_covariance(returns(), 100, correlation_decay=0)
    with pytest.raises(ConfigError, match="'ewma' or 'garch', found 'arch'"):
        dcc_covariance(returns(), 100, volatility="arch")
    with pytest.raises(ConfigError, match="refit of at least 1 row, found 0"):
        static_covariance(returns(), 100, refit=0)


def test_returns_and_weights_belong_to_the_assets():
    model = CovarianceForecast(MEAN, COVARIANCE)
    with pytest.raises(DataError, match=r"shape \(1, 2\), as forecast, found \(2, 2\)"):
        model.log_prob(np.zeros((2, 2)))
    with pytest.raises(DataError, match="expected 2 weights, one an asset, found 3"):
        model.component_var(np.ones(3), 0.05)
    with pytest.raises(ConfigError, match=r"inside \(0, 0.5\), found 0.9"):
        model.component_var(WEIGHTS, 0.9)
