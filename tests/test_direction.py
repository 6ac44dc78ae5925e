import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.linear_model import BayesianRidge

from glow_bt.direction import DirectionReadout, forward_scaled_return
from glow_bt.errors import ConfigError, TooFewBarsError

WIDTH = 16


def market(seed, rows, slope=0.0, drift=0.0):
    """Latents and fat-tailed scaled returns of unit variance around drift + slope * z_3."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(rows, WIDTH))
    return z, drift + slope * z[:, 3] + rng.standard_t(4, rows) / np.sqrt(2)


def fitted(seed, rows=1000, held_out=300, horizon=1, **truth):
    z, y = market(seed, rows + held_out, **truth)
    return DirectionReadout.fit(z[:rows], y[:rows], z[rows:], y[rows:], horizon)


def readout(**changes):
    parts = {
        "coefficients": np.zeros(2),
        "intercept": 0.1,
        "covariance": np.eye(2),
        "intercept_variance": 0.01,
        "centre": np.zeros(2),
        "slope_belief": 1.0,
        "drift_belief": 1.0,
        "horizon": 1,
    }
    return DirectionReadout(**parts | changes)


def test_a_planted_slope_is_found_with_its_sign():
    fresh, _ = market(99, 500)
    for sign in (1.0, -1.0):
        direction = fitted(1, slope=0.3 * sign)(fresh)
        strong = np.abs(fresh[:, 3]) > 0.5
        assert (np.sign(direction) == sign * np.sign(fresh[:, 3]))[strong].mean() > 0.95
        assert np.abs(direction[strong]).mean() > 0.8


def test_a_planted_drift_is_found_with_its_sign():
    fresh, _ = market(99, 500)
    assert (fitted(2, drift=0.15)(fresh) > 0.9).mean() > 0.95
    assert (fitted(2, drift=-0.15)(fresh) < -0.9).mean() > 0.95


def test_on_noise_direction_is_near_0_and_takes_no_side():
    fresh, _ = market(99, 200)
    directions = np.array([fitted(seed)(fresh) for seed in range(60)])
    means = directions.mean(axis=1)
    # A flat prior on the drift alone would make |direction| uniform: 0.5 on average.
    assert np.abs(directions).mean() < 0.3
    assert np.median(np.abs(means)) < 0.05
    assert abs(means.mean()) < 3 * means.std() / np.sqrt(len(means))


def test_noise_in_the_slope_is_not_believed_where_held_out_bars_contradict():
    """A relation that turns round between training and validation counts for nothing."""
    z, y = market(3, 1000, slope=0.3)
    later_z, later_y = market(4, 300, slope=-0.3)
    model = DirectionReadout.fit(z, y, later_z, later_y, 1)
    assert model.slope_belief == 0.0
    assert np.ptp(np.sign(model(later_z))) == 0.0
    assert DirectionReadout.fit(z, y, z[:300], y[:300], 1).slope_belief > 0.9


def test_a_drift_is_believed_as_far_as_held_out_bars_have_it_too():
    z, y = market(3, 1000, drift=0.15)
    later_z, later_y = market(4, 300, drift=0.15)
    t = later_y.mean() / later_y.std(ddof=1) * np.sqrt(300)
    believed = DirectionReadout.fit(z, y, later_z, later_y, 1)
    assert believed.drift_belief == pytest.approx(1 - t**-2)
    assert DirectionReadout.fit(z, -y, later_z, -later_y, 1).drift_belief == pytest.approx(
        believed.drift_belief
    )
    turned = DirectionReadout.fit(z, y, later_z, -later_y, 1)
    assert turned.drift_belief == 0.0


def test_direction_is_the_probability_of_the_shrunk_mean():
    model = fitted(5, slope=0.2, drift=0.05)
    z, _ = market(6, 50)
    from_centre = z - model.centre
    mean = model.drift_belief * model.intercept + model.slope_belief * (
        from_centre @ model.coefficients
    )
    spread = [
        np.sqrt(model.intercept_variance + row @ model.covariance @ row) for row in from_centre
    ]
    np.testing.assert_allclose(model(z), 2 * norm.cdf(mean / spread) - 1, atol=1e-12)


def test_the_slope_is_a_bayesian_regression_and_the_drift_a_mean():
    z, y = market(7, 600, slope=0.2)
    model = DirectionReadout.fit(z[:500], y[:500], z[500:], y[500:], 1)
    ridge = BayesianRidge().fit(z[:500], y[:500])
    np.testing.assert_array_equal(model.coefficients, ridge.coef_)
    np.testing.assert_array_equal(model.covariance, ridge.sigma_)
    assert model.intercept == y[:500].mean()


def test_only_every_horizonth_row_counts():
    z, y = market(8, 900)
    whole = DirectionReadout.fit(z[:600], y[:600], z[600:], y[600:], 6)
    thinned = DirectionReadout.fit(z[:600:6], y[:600:6], z[600::6], y[600::6], 1)
    np.testing.assert_array_equal(whole.coefficients, thinned.coefficients)
    assert (whole.slope_belief, whole.drift_belief) == (thinned.slope_belief, thinned.drift_belief)
    others = y.copy()
    others[np.arange(900) % 6 != 0] = 1e6
    again = DirectionReadout.fit(z[:600], others[:600], z[600:], others[600:], 6)
    np.testing.assert_array_equal(again.coefficients, whole.coefficients)


def test_rows_without_a_forward_return_are_left_out():
    z, y = market(9, 400)
    y[290:300] = y[390:] = np.nan
    model = DirectionReadout.fit(z[:300], y[:300], z[300:], y[300:], 2)
    known = DirectionReadout.fit(z[:290], y[:290], z[300:390], y[300:390], 2)
    np.testing.assert_array_equal(model.coefficients, known.coefficients)


@given(st.integers(0, 10_000), st.floats(-1e6, 1e6))
def test_direction_is_between_minus_1_and_1_however_far_out(seed, scale):
    z, _ = market(seed, 20)
    direction = fitted(0, rows=60, held_out=20)(scale * z)
    assert np.isfinite(direction).all()
    assert np.abs(direction).max() <= 1.0


def test_prices_that_stand_still_have_no_direction():
    z, _ = market(10, 100)
    model = DirectionReadout.fit(z[:80], np.zeros(80), z[80:], np.zeros(20), 1)
    assert (model(z) == 0.0).all()


def test_prices_that_only_rise_by_the_same_step_point_up():
    z, _ = market(10, 100)
    model = DirectionReadout.fit(z[:80], np.full(80, 0.1), z[80:], np.full(20, 0.1), 1)
    assert (model(z) > 0.99).all()


@pytest.mark.parametrize(
    ("rows", "held_out", "needed"), [(294, 100, 295), (400, 24, 25)], ids=["train", "held out"]
)
def test_too_few_rows_and_the_number_that_suffices(rows, held_out, needed):
    z, y = market(11, 1000)

    def fit(rows, held_out):
        return DirectionReadout.fit(
            z[:rows], y[:rows], z[rows:][:held_out], y[rows:][:held_out], 6
        )

    with pytest.raises(TooFewBarsError, match="a direction readout 6 bars ahead") as error:
        fit(rows, held_out)
    assert error.value.needed == needed
    fit(max(rows, 295), max(held_out, 25))


@pytest.mark.parametrize(
    "wrong",
    [
        {"centre": np.zeros(3)},
        {"covariance": np.eye(3)},
        {"covariance": np.array([[1.0, 2.0], [2.0, 1.0]])},
        {"covariance": np.array([[1.0, 0.5], [0.0, 1.0]])},
        {"coefficients": np.array([0.0, np.nan])},
        {"intercept": np.inf},
        {"intercept_variance": 0.0},
        {"slope_belief": 1.5},
        {"drift_belief": np.nan},
        {"horizon": 0},
    ],
)
def test_parts_that_cannot_be_are_refused(wrong):
    assert readout()(np.zeros((1, 2)))[0] == pytest.approx(2 * norm.cdf(1.0) - 1)
    with pytest.raises(ConfigError, match="fit the readout again"):
        readout(**wrong)


def test_forward_returns_by_hand():
    close = np.array([100.0, 110.0, 99.0, 99.0, 120.0])
    volatility = np.array([0.1, 0.2, 0.1, 0.4, 0.5])
    result = forward_scaled_return(close, volatility, 2)
    expected = np.log([99 / 100, 99 / 110, 120 / 99]) / (volatility[:3] * np.sqrt(2))
    np.testing.assert_allclose(result[:3], expected, rtol=1e-13)
    assert np.isnan(result[3:]).all()


@given(st.integers(1, 12), st.integers(1, 12))
def test_forward_returns_know_nothing_of_what_comes_after_the_horizon(length, horizon):
    close = np.exp(np.random.default_rng(length).normal(0, 0.1, length))
    result = forward_scaled_return(close, np.ones(length), horizon)
    assert np.isnan(result[max(length - horizon, 0) :]).all()
    for t in range(length - horizon):
        changed = close.copy()
        changed[t + horizon + 1 :] *= 7.0
        assert forward_scaled_return(changed, np.ones(length), horizon)[t] == result[t]


@pytest.mark.parametrize("horizon", [0, -1])
def test_a_horizon_below_1_is_refused(horizon):
    with pytest.raises(ConfigError, match="horizon of at least 1 bar"):
        forward_scaled_return(np.ones(3), np.ones(3), horizon)
    with pytest.raises(ConfigError, match="horizon of at least 1 bar"):
        DirectionReadout.fit(*market(0, 100), *market(1, 100), horizon)
