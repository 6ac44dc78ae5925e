"""Shapes and location-scale distributions against arch, scipy and numerical integration."""

import numpy as np
import pytest
from arch.univariate import Normal, SkewStudent, StudentsT
from scipy import stats
from scipy.integrate import quad

from glow_bt.errors import ConfigError, DataError
from glow_bt.risk.distributions import (
    LocationScale,
    NormalShape,
    SkewStudentShape,
    StudentShape,
)

SHAPES = {
    "normal": (NormalShape(), Normal(), None),
    "t 2.1": (StudentShape(2.1), StudentsT(), [2.1]),
    "t 4": (StudentShape(4.0), StudentsT(), [4.0]),
    "t 80": (StudentShape(80.0), StudentsT(), [80.0]),
    "skew-t left": (SkewStudentShape(3.0, -0.3), SkewStudent(), [3.0, -0.3]),
    "skew-t right": (SkewStudentShape(6.0, 0.7), SkewStudent(), [6.0, 0.7]),
    "skew-t slight": (SkewStudentShape(2.44, -0.015), SkewStudent(), [2.44, -0.015]),
}
LEVELS = np.array([1e-6, 0.001, 0.01, 0.025, 0.05, 0.3, 0.49, 0.51, 0.7, 0.95, 0.99, 0.9999])
Z = np.array([-50.0, -8.0, -2.5, -1.0, -0.1, 0.0, 0.1, 0.3, 1.0, 2.5, 8.0, 50.0])
every_shape = pytest.mark.parametrize("name", SHAPES)


@every_shape
def test_quantiles_are_those_of_arch(name):
    shape, reference, parameters = SHAPES[name]
    np.testing.assert_allclose(shape.quantile(LEVELS), reference.ppf(LEVELS, parameters), 1e-8)


@every_shape
def test_the_cdf_is_that_of_arch_and_undoes_the_quantile(name):
    shape, reference, parameters = SHAPES[name]
    np.testing.assert_allclose(shape.cdf(Z), reference.cdf(Z, parameters), atol=1e-12)
    np.testing.assert_allclose(shape.cdf(shape.quantile(LEVELS)), LEVELS, rtol=1e-8)


@every_shape
def test_the_density_is_that_of_archs_likelihood(name):
    shape, reference, parameters = SHAPES[name]
    expected = reference.loglikelihood(parameters or [], Z, np.ones_like(Z), individual=True)
    np.testing.assert_allclose(shape.log_density(Z), expected, rtol=1e-12)


@every_shape
@pytest.mark.parametrize("level", [0.001, 0.01, 0.025, 0.05, 0.3, 0.49, 0.7, 0.99])
def test_lower_means_are_the_partial_moments_of_arch(name, level):
    shape, reference, parameters = SHAPES[name]
    cut = float(np.atleast_1d(reference.ppf(np.array([level]), parameters))[0])
    expected = reference.partial_moment(1, cut, parameters) / level
    assert shape.lower_mean(level) == pytest.approx(expected, rel=1e-8, abs=1e-10)


# Quadrature does not converge over a tail as heavy as 2.1 degrees of freedom.
@pytest.mark.parametrize("name", [name for name in SHAPES if name != "t 2.1"])
@pytest.mark.parametrize("level", [0.01, 0.05, 0.95, 0.99])
def test_shortfalls_of_both_tails_are_integrals_of_the_density(name, level):
    shape = SHAPES[name][0]
    distribution = LocationScale(np.array([0.002]), np.array([0.01]), shape)
    cut = float(distribution.quantile(level)[0])

    def integrand(ratio):
        r = cut / ratio  # maps the tail onto (0, 1]
        density = np.exp(distribution.log_prob(np.array([r]))[0])
        return r * density * abs(cut) / ratio**2

    integral, _ = quad(integrand, 0.0, 1.0, epsabs=1e-13, epsrel=1e-10, limit=200)
    found = distribution.shortfall(level)[0]
    assert found == pytest.approx(integral / min(level, 1 - level), rel=1e-6)


@every_shape
def test_a_mirrored_shape_is_the_shape_of_the_negative(name):
    shape = SHAPES[name][0]
    np.testing.assert_allclose(shape.mirrored().cdf(-Z), 1 - shape.cdf(Z), atol=1e-13)
    np.testing.assert_allclose(shape.mirrored().log_density(-Z), shape.log_density(Z))


@every_shape
def test_the_whole_mean_is_zero(name):
    assert SHAPES[name][0].lower_mean(1 - 1e-13) == pytest.approx(0, abs=1e-5)


def test_a_location_scale_moves_and_stretches_in_units_of_returns():
    mean, sigma = np.array([0.001, -0.002]), np.array([0.01, 0.03])
    distribution = LocationScale(mean, sigma, NormalShape())
    r = np.array([-0.02, 0.05])
    reference = stats.norm(mean, sigma)
    np.testing.assert_allclose(distribution.log_prob(r), reference.logpdf(r))
    np.testing.assert_allclose(distribution.cdf(r), reference.cdf(r))
    np.testing.assert_allclose(distribution.quantile(0.01), reference.ppf(0.01))
    upper = mean + sigma * stats.norm.pdf(stats.norm.ppf(0.99)) / 0.01
    np.testing.assert_allclose(distribution.shortfall(0.99), upper)


def test_everything_stays_finite_at_a_thousand_sigma():
    far = np.array([-1000.0, 1000.0])
    for shape, _, _ in SHAPES.values():
        assert np.isfinite(shape.log_density(far)).all()
        assert np.isfinite(shape.cdf(far)).all()


def test_samples_come_from_the_distribution_and_repeat_by_seed():
    shape = SkewStudentShape(5.0, -0.4)
    distribution = LocationScale(np.array([0.001, 0.0]), np.array([0.01, 0.02]), shape)
    draws = distribution.sample(20_000, seed=3).draws
    for row in range(2):
        standardised = (draws[row] - distribution.mean[row]) / distribution.sigma[row]
        assert stats.kstest(standardised, shape.cdf).pvalue > 0.01
    assert abs(np.corrcoef(draws)[0, 1]) < 0.03
    np.testing.assert_array_equal(draws, distribution.sample(20_000, seed=3).draws)


@pytest.mark.parametrize(("df", "skew"), [(2.0, 0.0), (np.nan, 0.0), (np.inf, 0.0), (5.0, 1.0)])
def test_a_shape_without_variance_is_refused(df, skew):
    with pytest.raises(ConfigError, match=r"more than 2 degrees of freedom and a skew in"):
        SkewStudentShape(df, skew)


def test_means_and_sigmas_that_cannot_be_are_refused():
    ones = np.ones(3)
    with pytest.raises(DataError, match=r"mean and sigma of shape \(N,\)"):
        LocationScale(ones, np.ones(2), NormalShape())
    with pytest.raises(DataError, match="finite means and sigmas"):
        LocationScale(ones * np.nan, ones, NormalShape())
    with pytest.raises(DataError, match=r"sigmas above 0, found 0\.0"):
        LocationScale(ones, ones * 0, NormalShape())
