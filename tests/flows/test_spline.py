import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import BPoly

from glow_bt.flows.spline import (
    HALF_WIDTH,
    NUM_BINS,
    NUM_KNOT_PARAMETERS,
    spline_forward,
    spline_inverse,
)

sizes = st.floats(0.0, 20.0)
seeds = st.integers(0, 2**31)


def parameters(count, size=2.0, seed=0):
    return size * torch.tensor(
        np.random.default_rng(seed).normal(size=(count, NUM_KNOT_PARAMETERS))
    )


def one_spline(count, size=2.0, seed=0):
    return parameters(1, size, seed).expand(count, -1)


def test_parameters_of_zero_give_the_identity():
    x = torch.linspace(-6, 6, 200, dtype=torch.float64)
    y, log_slope = spline_forward(x, one_spline(200, size=0.0))
    torch.testing.assert_close(y, x, rtol=0, atol=1e-14)
    torch.testing.assert_close(log_slope, torch.zeros(200).double(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("direction", [spline_forward, spline_inverse])
def test_outside_it_is_the_identity_whatever_the_parameters(direction):
    x = torch.tensor([-1e30, -50.0, -HALF_WIDTH, HALF_WIDTH, 4.5, 1e30], dtype=torch.float64)
    y, log_slope = direction(x, one_spline(6, size=10.0))
    assert torch.equal(y, x)
    assert torch.equal(log_slope, torch.zeros(6).double())


@given(sizes, seeds)
def test_it_comes_back_and_is_increasing(size, seed):
    x = torch.linspace(-4.2, 4.2, 400, dtype=torch.float64)
    raw = one_spline(400, size, seed)
    y, log_slope = spline_forward(x, raw)
    back, inverse_log_slope = spline_inverse(y, raw)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-9)
    torch.testing.assert_close(inverse_log_slope, -log_slope, rtol=0, atol=1e-6)
    assert (y.diff() > 0).all()


@given(sizes, seeds)
def test_log_slope_is_that_of_autograd(size, seed):
    x = torch.linspace(-4.2, 4.2, 101, dtype=torch.float64).requires_grad_()
    y, log_slope = spline_forward(x, one_spline(101, size, seed))
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(log_slope.detach(), slope.log(), rtol=0, atol=1e-9)


def test_it_has_no_steps_or_kinks():
    raw = one_spline(20_001)
    x = torch.linspace(-4.1, 4.1, 20_001, dtype=torch.float64)
    y, log_slope = spline_forward(x, raw)
    assert y.diff().max() < 0.02
    assert log_slope.diff().abs().max() < 0.05


def test_each_bin_is_the_quotient_of_two_quadratics_with_the_knots_slopes():
    """Gregory & Delbourgo's form, written as a ratio of two Bernstein polynomials."""
    raw = parameters(1, seed=3)
    widths, heights, _ = (t[0].numpy() for t in raw.split([NUM_BINS, NUM_BINS, NUM_BINS - 1], 1))
    share = [np.exp(w) / np.exp(w).sum() * (1 - 0.03 * NUM_BINS) + 0.03 for w in (widths, heights)]
    knots = [np.concatenate([[0], 8 * s.cumsum()]) - 4 for s in share]
    at_knots = torch.tensor(knots[0][1:-1])
    y, log_slope = spline_forward(at_knots, raw.expand(NUM_BINS - 1, -1))
    np.testing.assert_allclose(y, knots[1][1:-1], atol=1e-12)
    slopes = np.concatenate([[1.0], log_slope.exp(), [1.0]])
    for k in range(NUM_BINS):
        rise = (knots[1][k + 1] - knots[1][k]) / (knots[0][k + 1] - knots[0][k])
        middle = (slopes[k] * knots[1][k + 1] + slopes[k + 1] * knots[1][k]) / (2 * rise)
        weight = (slopes[k] + slopes[k + 1]) / (2 * rise)
        ends = knots[0][k : k + 2]
        top = BPoly([[knots[1][k]], [middle], [knots[1][k + 1]]], ends)
        bottom = BPoly([[1.0], [weight], [1.0]], ends)
        x = np.linspace(*ends, 50)[1:-1]
        found, _ = spline_forward(torch.tensor(x), raw.expand(48, -1))
        np.testing.assert_allclose(found, top(x) / bottom(x), atol=1e-12)


def test_gradients_reach_values_and_parameters():
    x = torch.tensor([-5.0, -3.9, -0.3, 0.2, 1.7, 3.9, 9.0], dtype=torch.float64)
    raw = parameters(7)
    for direction in (spline_forward, spline_inverse):
        assert torch.autograd.gradcheck(direction, (x.requires_grad_(), raw.requires_grad_()))


def test_it_is_as_exact_as_float32_allows():
    x = torch.linspace(-4.2, 4.2, 1000)
    raw = one_spline(1000, size=3.0).float()
    y, _ = spline_forward(x, raw)
    exact, _ = spline_forward(x.double(), raw.double())
    torch.testing.assert_close(y.double(), exact, rtol=0, atol=1e-5)
    back, _ = spline_inverse(y, raw)
    assert (back - x).abs().max() < 1e-3
