import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import t as student_t

from glow_bt.errors import ConfigError, DataError, TooFewBarsError
from glow_bt.risk import fz0_loss, fz0_losses, quantile_loss, quantile_losses

RETURNS = arrays(np.float64, 20, elements=st.floats(-0.2, 0.2))


def test_quantile_loss_by_hand():
    # Returns above the quantile cost level x distance, those below (1 - level) x distance.
    assert quantile_loss([0.02, -0.05], [-0.03, -0.03], 0.1) == pytest.approx(
        (0.1 * 0.05 + 0.9 * 0.02) / 2
    )
    assert quantile_loss([0.0], 0.0, 0.01) == 0.0


@pytest.mark.parametrize("level", [0.01, 0.05, 0.95])
def test_the_true_quantile_has_the_lowest_loss(level):
    returns = np.random.default_rng(5).standard_t(4, 20_001)
    best = np.quantile(returns, level)
    for shift in (-0.5, -0.05, 0.05, 0.5):
        assert quantile_loss(returns, best, level) < quantile_loss(returns, best + shift, level)


def test_quantile_loss_refuses_what_it_cannot_score():
    with pytest.raises(ConfigError, match=r"level in \(0, 1\)"):
        quantile_loss([0.0], [0.0], 1.0)
    with pytest.raises(DataError, match="shapes"):
        quantile_loss([0.0, 0.1], [0.0], 0.05)
    with pytest.raises(DataError, match="finite"):
        quantile_loss([0.0, 0.1], [0.0, np.nan], 0.05)
    with pytest.raises(TooFewBarsError, match="quantile loss"):
        quantile_loss([], [], 0.05)


@given(RETURNS, st.floats(0.01, 0.1), st.floats(0.001, 0.49))
def test_an_upper_tail_costs_what_its_mirror_image_costs(returns, size, level):
    upper, lower = (
        quantile_losses(returns, size, 1 - level),
        quantile_losses(-returns, -size, level),
    )
    np.testing.assert_allclose(upper, lower, rtol=1e-9, atol=1e-15)
    assert quantile_loss(returns, size, 1 - level) == upper.mean()
    upper = fz0_losses(returns, size, 1.2 * size, 1 - level)
    lower = fz0_losses(-returns, -size, -1.2 * size, level)
    np.testing.assert_allclose(upper, lower, rtol=1e-9, atol=1e-12)
    assert fz0_loss(returns, size, 1.2 * size, 1 - level) == upper.mean()


def test_fz0_by_hand():
    """-1[r <= v] (v - r) / (p e) + v / e + ln(-e) - 1, multiplied out."""
    inside, beyond = fz0_losses([0.01, -0.05], -0.02, -0.04, 0.05)
    assert inside == pytest.approx(0.5 + np.log(0.04) - 1)
    assert beyond == pytest.approx(0.03 / (0.05 * 0.04) + 0.5 + np.log(0.04) - 1)


@pytest.mark.parametrize("level", [0.025, 0.95])
def test_true_quantile_and_shortfall_have_the_lowest_fz0_loss(level):
    """The expected loss of a Student t, by quadrature over equal probabilities."""
    returns = student_t.ppf((np.arange(400_000) + 0.5) / 400_000, 5)
    var = student_t.ppf(level, 5)
    cvar = returns[returns < var].mean() if level < 0.5 else returns[returns > var].mean()
    best = fz0_loss(returns, var, cvar, level)
    for factors in ((0.9, 1), (1.1, 1), (1, 0.9), (1, 1.1), (0.95, 0.95), (1.05, 1.05)):
        assert best < fz0_loss(returns, factors[0] * var, factors[1] * cvar, level)


@given(RETURNS, st.floats(0.1, 10))
def test_differences_of_fz0_do_not_change_with_the_scale(returns, factor):
    def difference(scale):
        forecasts = ((-0.03, -0.05), (-0.02, -0.04))
        first, second = (
            fz0_losses(scale * returns, scale * var, scale * cvar, 0.05) for var, cvar in forecasts
        )
        return first - second

    np.testing.assert_allclose(difference(factor), difference(1.0), rtol=1e-6, atol=1e-9)


def test_fz0_refuses_shortfalls_that_are_no_losses():
    with pytest.raises(DataError, match=r"below zero in a lower tail.* found 1 of 2"):
        fz0_losses([0.0, 0.1], -0.02, [-0.03, 0.0], 0.05)
    with pytest.raises(DataError, match="found 2 of 2 on the other side"):
        fz0_loss([0.0, 0.1], -0.02, -0.03, 0.95)
    with pytest.raises(DataError, match="finite"):
        fz0_losses([0.0, 0.1], -0.02, [-0.03, np.nan], 0.05)
    with pytest.raises(TooFewBarsError, match="FZ0 loss needs at least 1"):
        fz0_losses([], -0.02, -0.03, 0.05)
    with pytest.raises(ConfigError, match=r"level in \(0, 1\)"):
        fz0_losses([0.0], -0.02, -0.03, 0.0)
