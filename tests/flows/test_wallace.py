import mpmath
import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import norm
from scipy.stats import t as student_t

from glow_bt.flows.wallace import compress, stretch

DTYPES = [torch.float32, torch.float64]
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-14}
SIZES = [0.0, 1e-300, 1e-37, 1e-19, 1e-8, 1e-3, 1.0, 50.0, 1e8, 1e12, 1e20, 1e30, 1e300]
INDEX = st.floats(0.1, 1e4)


def exact_compress(t, a):
    """Return z and log dz/dt in 60 digits, from the definition and its derivative."""
    with mpmath.workdps(60):
        t, a = mpmath.mpf(t), mpmath.mpf(a)
        w = mpmath.log1p(t * t / a)
        z = mpmath.sign(t) * mpmath.sqrt(a * w)
        slope = mpmath.mpf(1) if t == 0 else abs(t) / (mpmath.sqrt(a * w) * (1 + t * t / a))
        return z, mpmath.log(slope)


def exact_stretch(z, a):
    with mpmath.workdps(60):
        z, a = mpmath.mpf(z), mpmath.mpf(a)
        t = mpmath.sign(z) * mpmath.sqrt(a * mpmath.expm1(z * z / a))
        return t, -exact_compress(t, a)[1]


def scalar(value, dtype=torch.float64):
    return torch.tensor(value, dtype=dtype)


def agrees(found, expected, relative, absolute=0.0):
    return abs(found.item() - expected) <= absolute + relative * abs(expected)


@pytest.mark.parametrize(
    ("dtype", "size"),
    [(dtype, size) for dtype in DTYPES for size in SIZES if size < torch.finfo(dtype).max],
)
@pytest.mark.parametrize("index", [0.3, 1.0, 3.0, 30.0])
def test_compressing_is_exact_from_nothing_to_far_beyond_50_sigma(dtype, index, size):
    a = scalar(index, dtype)
    for t in (scalar(size, dtype), scalar(-size, dtype)):
        z, log_slope = compress(t, a)
        expected_z, expected_log_slope = exact_compress(t.item(), a.item())
        assert agrees(z, expected_z, TOLERANCE[dtype])
        assert agrees(log_slope, expected_log_slope, TOLERANCE[dtype], TOLERANCE[dtype])


@given(t=st.floats(-1e306, 1e306), a=INDEX)
@example(t=1e-160, a=1.0)  # its square is a denormal number
@example(t=-1e-162, a=0.3)
@example(t=1e8, a=1.0)  # where the formula changes
def test_compressing_agrees_with_60_digits(t, a):
    z, log_slope = compress(scalar(t), scalar(a))
    expected_z, expected_log_slope = exact_compress(t, a)
    assert agrees(z, expected_z, 1e-13)
    assert agrees(log_slope, expected_log_slope, 1e-13, 1e-13)


@given(z=st.floats(-10, 10), a=st.floats(0.2, 1e4))
@example(z=1e-160, a=1.0)
@example(z=1e-7, a=0.3)
def test_stretching_agrees_with_60_digits(z, a):
    t, log_slope = stretch(scalar(z), scalar(a))
    expected_t, expected_log_slope = exact_stretch(z, a)
    # exp(w) of a large w has w times the relative error of w.
    assert agrees(t, expected_t, 1e-13 * (1 + z * z / a))
    assert agrees(log_slope, expected_log_slope, 1e-13, 1e-13)


@given(t=st.floats(-1e300, 1e300), a=INDEX)
def test_everything_comes_back(t, a):
    z, log_slope = compress(scalar(t), scalar(a))
    back, inverse_log_slope = stretch(z, scalar(a))
    w = (z.square() / a).item()
    assert agrees(back, t, 2e-15 * (1 + w))
    assert abs(log_slope + inverse_log_slope).item() < 2e-15 * (1 + w)
    assert z.item() * t >= 0


@pytest.mark.parametrize("index", [0.5, 5.0, 500.0])
def test_it_increases_everywhere(index):
    far = torch.logspace(2, 30, 500, dtype=torch.float64)
    t = torch.cat([-far.flip(0), torch.linspace(-99, 99, 4001).double(), far])
    z, log_slope = compress(t, scalar(index))
    assert (z.diff() > 0).all()
    assert torch.isfinite(log_slope).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("index", [0.3, 30.0])
@pytest.mark.parametrize(
    ("direction", "values"),
    [
        (compress, [0.0, 1e-30, 1e-19, -1e-12, 1e-5, 50.0, -1e8, 1e12, -1e30]),
        (stretch, [0.0, 1e-30, 1e-19, -1e-12, 1e-5, 4.0, -6.0]),
    ],
)
def test_gradients_are_finite_where_numbers_are_tiny_or_huge(dtype, index, direction, values):
    x = scalar(values, dtype).requires_grad_()
    a = scalar(index, dtype).requires_grad_()
    gradients = torch.autograd.grad(sum(part.sum() for part in direction(x, a)), [x, a])
    assert all(torch.isfinite(g).all() for g in gradients)


def test_derivatives_agree_with_numerical_ones():
    x = scalar([-3.0, -0.7, 0.2, 1.0, 2.5]).requires_grad_()
    a = scalar([0.4, 1.0, 2.0, 5.0, 30.0]).requires_grad_()
    assert torch.autograd.gradcheck(compress, (x, a))
    assert torch.autograd.gradcheck(stretch, (x, a))


@pytest.mark.parametrize("index", [0.5, 2.0, 4.0])
def test_a_normal_latent_gives_a_tail_of_that_index(index):
    u = np.array([1e6, 1e8])
    z = compress(torch.from_numpy(u), scalar(index))[0].numpy()
    slope = np.diff(norm.logsf(z)) / np.diff(np.log(u))
    # The root of a logarithm, beside the power, adds 1 / (2 log u).
    assert slope[0] == pytest.approx(-index - 0.5 / np.log(1e7), abs=0.01)


@pytest.mark.parametrize(("df", "most"), [(3, 0.12), (10, 0.03), (100, 0.003)])
def test_it_is_close_to_the_exact_transform_of_students_t(df, most):
    t = np.linspace(-8, 8, 101)
    exact = norm.ppf(student_t.cdf(t, df))
    factor = (8 * df + 1) / (8 * df + 3)  # Wallace's, which a scale makes up for
    z = factor * compress(torch.from_numpy(t), scalar(float(df)))[0].numpy()
    assert np.abs(z - exact).max() < most
