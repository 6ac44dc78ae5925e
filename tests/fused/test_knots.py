import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glow_bt.flows.spline import (
    NUM_KNOT_PARAMETERS,
    spline_forward,
    spline_inverse,
    spline_knots,
)
from glow_bt.fused.knots import KnotSpline

PLACES = np.unique([*np.linspace(-6, 6, 241), *(-4.0, 4.0, np.nextafter(4, 0), 1e9, -1e9)])


def raw_of(seed, size=0.7):
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(NUM_KNOT_PARAMETERS, generator=generator, dtype=torch.float64)


def spline_of(raw):
    return KnotSpline(*(knots.numpy() for knots in spline_knots(raw)))


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_spline_of_the_flows(seed):
    raw = raw_of(seed)
    y, log_slope = spline_of(raw).forward(PLACES)
    expected = spline_forward(torch.tensor(PLACES), raw[None])
    np.testing.assert_allclose(y, expected[0], rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(log_slope, expected[1], rtol=1e-12, atol=1e-12)
    x = spline_of(raw).inverse(PLACES)
    expected = spline_inverse(torch.tensor(PLACES), raw[None])[0]
    np.testing.assert_allclose(x, expected, rtol=1e-13, atol=1e-13)


@given(st.integers(0, 10**6), st.floats(0, 3))
def test_it_ascends_and_comes_back(seed, size):
    spline = spline_of(raw_of(seed, size))
    y, _ = spline.forward(PLACES)
    assert (np.diff(y) >= 0).all()
    assert len(np.unique(y)) >= len(y) - 1  # two places are neighbours in float64
    np.testing.assert_allclose(spline.inverse(y), PLACES, rtol=1e-9, atol=1e-10)


def test_the_log_slope_is_that_of_the_derivative():
    spline, x, step = spline_of(raw_of(1)), np.linspace(-5, 5, 99), 1e-5
    slope = (spline.forward(x + step)[0] - spline.forward(x - step)[0]) / (2 * step)
    np.testing.assert_allclose(spline.forward(x)[1], np.log(slope), atol=1e-7)


def test_parameters_of_0_are_the_identity():
    spline = spline_of(torch.zeros(NUM_KNOT_PARAMETERS, dtype=torch.float64))
    y, log_slope = spline.forward(PLACES)
    np.testing.assert_allclose(y, PLACES, rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(log_slope, 0, atol=1e-13)
    np.testing.assert_allclose(spline.inverse(PLACES), PLACES, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 2), (2, 3, 4)])
def test_numbers_of_any_shape_go_through_and_stay_as_they_were(shape):
    spline = spline_of(raw_of(2))
    x = np.random.default_rng(0).normal(0, 3, shape)
    before = np.array(x)
    y, log_slope = spline.forward(x)
    assert y.shape == log_slope.shape == spline.inverse(y).shape == shape
    np.testing.assert_allclose(spline.inverse(y), x, atol=1e-12)
    np.testing.assert_array_equal(x, before)
