import math
import pickle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from glow_bt.errors import FlowError
from glow_bt.fused import SkewedTails
from tests.flows.univariate_samples import INDICES, tails_of

LEVELS = [1e-6, 0.01, 0.05, 0.3, 0.5, 0.7, 0.95, 0.99, 1 - 1e-6]


def many(count=200, seed=0):
    rng = np.random.default_rng(seed)
    one = tails_of(3.0, 5.0)
    left, right = 1.2 + rng.lognormal(0.5, 1.5, (2, count))
    return SkewedTails(rng.lognormal(0, 1, count), left, right, 0.2, one.spline)


def shortfall_by_quadrature(own, p):
    """Return the mean of the quantiles beyond that of p, by adaptive quadrature."""
    sign = 1 if p > 0.5 else -1
    start = abs(norm.ppf(p))
    kinks = sign * own.kinks
    borders = sorted({start, *kinks[kinks > start], *(start + np.array([1, 2, 4, 8, 14, 22, 32]))})

    def integrand(z):
        return own.at_latent(np.array([sign * z]))[0, 0] * norm.pdf(z)

    parts = [quad(integrand, a, b, epsabs=0, epsrel=1e-11)[0] for a, b in pairwise(borders)]
    return math.fsum(parts) / min(p, 1 - p)


@pytest.mark.parametrize(("left", "right"), INDICES)
@pytest.mark.parametrize("p", LEVELS)
def test_quantile_and_cdf_undo_each_other(left, right, p):
    own = tails_of(left, right)
    np.testing.assert_allclose(own.cdf(own.quantile(p)), p, rtol=1e-9, atol=0)
    np.testing.assert_allclose(own.latent(own.quantile(p)), norm.ppf(p), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("left", "right"), INDICES)
@pytest.mark.parametrize("p", LEVELS)
def test_shortfall_is_the_mean_of_the_quantiles_beyond(left, right, p):
    own = tails_of(left, right)
    expected = shortfall_by_quadrature(own, p)
    assert own.shortfall(p)[0] == pytest.approx(expected, rel=1e-6)
    outside = own.shortfall(p)[0] - own.quantile(p)[0]
    assert outside > 0 if p > 0.5 else outside < 0


def test_both_shortfalls_at_the_median_together_are_the_mean():
    own, z = tails_of(3.0, 4.0), np.linspace(-30, 30, 200_001)
    mean = np.trapezoid(own.at_latent(z)[0] * norm.pdf(z), z)
    both = own.shortfall(0.5)[0] + own.shortfall(np.nextafter(0.5, 1))[0]
    assert both / 2 == pytest.approx(mean, rel=1e-6)


def test_quantiles_and_shortfalls_agree_with_a_million_draws():
    own, count = tails_of(3.5, 6.0), 1_000_000
    y = own.at_latent(np.random.default_rng(0).standard_normal(count))[0]
    for p in (0.01, 0.05, 0.975):
        quantile, shortfall = own.quantile(p), own.shortfall(p)[0]
        error = (p * (1 - p) / count) ** 0.5 / math.exp(own.log_prob(quantile)[0])
        assert abs(np.quantile(y, p) - quantile[0]) < 5 * error
        tail = y[y > np.quantile(y, p)] if p > 0.5 else y[y < np.quantile(y, p)]
        share = min(p, 1 - p)
        spread = tail.var() + (1 - share) * (quantile[0] - shortfall) ** 2
        assert abs(tail.mean() - shortfall) < 5 * (spread / (share * count)) ** 0.5


@pytest.mark.parametrize(("left", "right"), INDICES)
def test_the_density_integrates_to_1_and_is_the_slope_of_the_cdf(left, right):
    own = tails_of(left, right, scale=0.02)
    t = np.linspace(-45, 40, 40_001)
    centre = own.quantile(0.5)
    mass = sum(
        np.trapezoid(np.exp(own.log_prob(centre + sign * np.exp(t)) + t), t) for sign in (-1, 1)
    )
    assert mass == pytest.approx(1, abs=1e-6)
    y = 0.02 * np.linspace(-7, 7, 51)
    step = 1e-6
    slope = (own.cdf(y + step) - own.cdf(y - step)) / (2 * step)
    np.testing.assert_allclose(np.exp(own.log_prob(y)), slope, rtol=1e-4)


@given(
    st.floats(-6, -2),
    st.floats(1.2, 1e6),
    st.floats(1.2, 1e6),
    st.floats(-8, 3),
    st.booleans(),
)
def test_every_figure_is_finite_at_any_level_scale_and_index(power, left, right, size, upper):
    p = 1 - 10**power if upper else 10**power
    own = tails_of(left, right, 10**size)
    y = own.quantile(p)
    figures = [y, own.shortfall(p), own.cdf(y), own.latent(y), own.log_prob(y)]
    assert np.isfinite(figures).all()
    assert own.cdf(y)[0] == pytest.approx(p, rel=1e-6)


def test_returns_of_any_size_have_a_density_and_nothing_overflows():
    own = tails_of(1.2, 1.2, 1e-8)
    y = np.array([0.0, 1e-300, -1e-9, 1e-3, -10.0, 700.0])
    assert np.isfinite(own.log_prob(y)).all()
    assert ((own.cdf(y) > 0) & (own.cdf(y) < 1)).all()
    np.testing.assert_allclose(own.at_latent(own.latent(y))[0], y, rtol=1e-8, atol=1e-22)


def test_a_light_tail_is_normal():
    own = tails_of(1e12, 1e12, size=0.0)
    for p in LEVELS:
        q = norm.ppf(p)
        sign = 1 if p > 0.5 else -1
        assert own.quantile(p)[0] == pytest.approx(0.2 + q, rel=1e-9)
        mean = 0.2 + sign * norm.pdf(q) / min(p, 1 - p)
        assert own.shortfall(p)[0] == pytest.approx(mean, rel=1e-9)


def test_a_distribution_is_the_same_in_any_company():
    own = many(5000)
    y = own.quantile(0.3)
    for i in (0, 1, 2047, 2048, 4999):
        alone, row = own.rows(slice(i, i + 1)), slice(i, i + 1)
        for p in (0.01, 0.9):
            np.testing.assert_array_equal(alone.quantile(p), own.quantile(p)[row])
            np.testing.assert_allclose(alone.shortfall(p), own.shortfall(p)[row], rtol=1e-12)
        np.testing.assert_array_equal(alone.log_prob(y[row]), own.log_prob(y)[row])
    chosen = np.arange(5000) % 7 == 0
    np.testing.assert_array_equal(own.rows(chosen).quantile(0.1), own.quantile(0.1)[chosen])


def test_none_at_all_give_no_figures():
    none = many().rows(slice(0, 0))
    assert len(none) == 0
    assert none.quantile(0.1).shape == none.shortfall(0.1).shape == (0,)
    assert none.log_prob(np.empty(0)).shape == (0,)


def test_scaling_is_of_the_variable():
    own, factor = many(), np.linspace(0.1, 9, 200)
    scaled, y = own.scaled(factor), own.quantile(0.7)
    for p in (0.01, 0.95):
        np.testing.assert_allclose(scaled.quantile(p), factor * own.quantile(p), rtol=1e-13)
        np.testing.assert_allclose(scaled.shortfall(p), factor * own.shortfall(p), rtol=1e-12)
    expected = own.log_prob(y) - np.log(factor)
    np.testing.assert_allclose(scaled.log_prob(factor * y), expected, rtol=1e-12, atol=1e-12)


def test_latents_of_all_rows_and_of_each_are_the_same():
    own, z = many(), np.linspace(-9, 9, 31)
    expected = own.at_latent(np.tile(z, (200, 1)))
    np.testing.assert_allclose(own.at_latent(z), expected, rtol=1e-14, atol=1e-15)
    assert (np.diff(expected, axis=1) > 0).all()


@pytest.mark.parametrize("p", [0.0, 1.0, -0.1, 2.0, np.nan])
def test_levels_outside_of_0_and_1_are_refused(p):
    for ask in (many().quantile, many().shortfall):
        with pytest.raises(FlowError, match=r"probability inside \(0, 1\), found"):
            ask(p)


def test_a_copy_is_the_distribution():
    own = many()
    copy = pickle.loads(pickle.dumps(own))  # noqa: S301
    np.testing.assert_array_equal(copy.shortfall(0.01), own.shortfall(0.01))
