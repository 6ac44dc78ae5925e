import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest, multivariate_t

from glow_bt.errors import DataError
from glow_bt.risk.spherical import SphericalT


def draws(width, df, scale, size=4000, seed=0):
    law = multivariate_t(np.zeros(width), scale**2 * np.eye(width), df)
    return np.reshape(law.rvs(size, random_state=np.random.default_rng(seed)), (size, width))


@pytest.mark.parametrize("width", [1, 2, 10])
def test_a_spherical_t_becomes_normal(width):
    y, _ = SphericalT(4.0, 0.7).forward(draws(width, 4.0, 0.7))
    assert kstest(y.ravel(), "norm").pvalue > 0.01
    squares = np.square(y).sum(axis=1)
    assert kstest(squares, "chi2", args=(width,)).pvalue > 0.01


@pytest.mark.parametrize("width", [1, 3])
def test_the_density_is_scipys(width):
    x = draws(width, 5.0, 2.0, size=20)
    expected = multivariate_t(np.zeros(width), 4 * np.eye(width), 5.0).logpdf(x)
    np.testing.assert_allclose(SphericalT(5.0, 2.0).log_prob(x), expected)


@pytest.mark.parametrize("width", [1, 2, 5])
def test_the_log_det_is_that_of_the_jacobian(width):
    law, step = SphericalT(3.0, 1.3), 1e-6
    for x in draws(width, 3.0, 1.3, size=5):
        rows = x + step * np.concatenate([np.eye(width), -np.eye(width)])
        moved = law.forward(rows)[0]
        jacobian = (moved[:width] - moved[width:]) / (2 * step)
        found = law.forward(x[None])[1][0]
        assert found == pytest.approx(np.linalg.slogdet(jacobian)[1], abs=1e-7)


@given(st.integers(1, 12), st.floats(2.5, 60), st.floats(-9, 2), st.integers(0, 2**32 - 1))
def test_there_and_back_is_the_same_row_near_and_far(width, df, exponent, seed):
    x = 10.0**exponent * np.random.default_rng(seed).standard_normal((20, width))
    law = SphericalT(df, 0.8)
    y, log_det = law.forward(x)
    assert np.isfinite(log_det).all()
    reach = np.sqrt(np.square(y).sum(axis=1)) < 30  # beyond it probabilities are no numbers
    np.testing.assert_allclose(law.inverse(y)[reach], x[reach], rtol=1e-6)


def test_a_row_of_zeros_stays():
    law = SphericalT(4.0, 1.0)
    np.testing.assert_array_equal(law.forward(np.zeros((1, 3)))[0], 0)
    np.testing.assert_array_equal(law.inverse(np.zeros((1, 3))), 0)


@pytest.mark.parametrize(("width", "df", "scale"), [(1, 4.0, 0.5), (10, 6.0, 2.0)])
def test_the_fit_finds_what_data_were_drawn_from(width, df, scale):
    found = SphericalT.fit(draws(width, df, scale, size=8000))
    assert found.df == pytest.approx(df, rel=0.2)
    assert found.scale == pytest.approx(scale, rel=0.04)


def test_light_tails_get_many_degrees():
    assert SphericalT.fit(np.random.default_rng(0).standard_normal((4000, 3))).df > 30


@pytest.mark.parametrize("rows", [np.zeros((0, 2)), np.zeros(5), np.full((3, 2), np.nan)])
def test_rows_that_are_none_are_refused(rows):
    with pytest.raises(DataError, match="expected finite rows to fit radii to"):
        SphericalT.fit(rows)
