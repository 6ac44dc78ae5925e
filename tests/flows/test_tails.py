import mpmath
import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import norm

from glow_bt.errors import FlowError
from glow_bt.flows import TailLayer

DTYPES = [torch.float32, torch.float64]
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-14}


def layer_of(left, right=None, dtype=torch.float64):
    """Return a layer of one feature with these tail indices."""
    layer = TailLayer(1).to(dtype).requires_grad_(False)
    indices = torch.tensor([[left], [left if right is None else right]], dtype=torch.float64)
    layer.log_excess.copy_((indices - layer.min_index).log())
    return layer


def exact_index(layer, x):
    """Return the index that holds on x's side, as the layer's rounding of it is."""
    return mpmath.mpf(layer.index[int(x >= 0), 0].item())


def exact_compress(x, a):
    """Return z and log dz/dx in 60 digits, from the definition and its derivative."""
    with mpmath.workdps(60):
        x = mpmath.mpf(x)
        w = mpmath.log1p(x * x / a)
        z = mpmath.sign(x) * mpmath.sqrt(a * w)
        slope = mpmath.mpf(1) if x == 0 else abs(x) / (mpmath.sqrt(a * w) * (1 + x * x / a))
        return z, mpmath.log(slope)


def exact_stretch(z, a):
    with mpmath.workdps(60):
        z = mpmath.mpf(z)
        x = mpmath.sign(z) * mpmath.sqrt(a * mpmath.expm1(z * z / a))
        return x, -exact_compress(x, a)[1]


def column(values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype).reshape(-1, 1)


def agrees(found, expected, relative, absolute=0.0):
    return abs(found - expected) <= absolute + relative * abs(expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("index", [0.3, 1.0, 3.0, 30.0])
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-19, 1e-8, 1e-3, 1.0, 50.0, 1e4])
def test_it_is_exact_from_nothing_to_far_beyond_50_sigma(dtype, index, size):
    layer = layer_of(index, dtype=dtype)
    for x in column([size, -size], dtype):
        z, log_det = layer(x[None])
        a = exact_index(layer, x.item())
        expected_z, expected_log_det = exact_compress(x.item(), a)
        assert agrees(z.item(), expected_z, TOLERANCE[dtype])
        assert agrees(log_det.item(), expected_log_det, TOLERANCE[dtype], TOLERANCE[dtype])


@given(
    x=st.floats(-1e6, 1e6),
    left=st.floats(0.11, 200),
    right=st.floats(0.11, 200),
)
@example(x=1e-160, left=1.0, right=1.0)  # its square is a denormal number
@example(x=-1e-162, left=0.3, right=1.0)
def test_compressing_agrees_with_60_digits(x, left, right):
    layer = layer_of(left, right)
    z, log_det = layer(column([x]))
    expected_z, expected_log_det = exact_compress(x, exact_index(layer, x))
    assert agrees(z.item(), expected_z, 1e-13)
    assert agrees(log_det.item(), expected_log_det, 1e-13, 1e-13)


@given(z=st.floats(-10, 10), left=st.floats(0.2, 200), right=st.floats(0.2, 200))
@example(z=1e-160, left=1.0, right=1.0)
def test_stretching_agrees_with_60_digits(z, left, right):
    layer = layer_of(left, right)
    x, log_det = layer.inverse(column([z]))
    a = exact_index(layer, z)
    expected_x, expected_log_det = exact_stretch(z, a)
    # exp(w) of a large w has w times the relative error of w.
    relative = 1e-13 * (1 + float(z * z / a))
    assert agrees(x.item(), expected_x, relative)
    assert agrees(log_det.item(), expected_log_det, 1e-13, 1e-13)


@given(x=st.floats(-1e30, 1e30), left=st.floats(0.3, 200), right=st.floats(0.3, 200))
def test_everything_comes_back(x, left, right):
    layer = layer_of(left, right)
    z, log_det = layer(column([x]))
    back, inverse_log_det = layer.inverse(z)
    assert agrees(back.item(), x, 1e-10)
    assert abs(log_det.item() + inverse_log_det.item()) < 1e-10
    assert z.item() * x >= 0


def test_the_slope_at_0_is_1_for_every_index_and_the_sides_join_smoothly():
    step = 1e-4
    for left, right in [(0.5, 50.0), (3.0, 1.0)]:
        z, log_det = layer_of(left, right)(column([-step, 0.0, step]))
        assert log_det[1] == 0
        slopes = z[:, 0].diff() / step
        torch.testing.assert_close(slopes, torch.ones(2).double(), rtol=0, atol=1e-7)


def test_it_increases_everywhere():
    x = torch.linspace(-100, 100, 4001, dtype=torch.float64)[:, None]
    z, log_det = layer_of(0.5, 5.0)(x)
    assert (z.diff(dim=0) > 0).all()
    assert torch.isfinite(log_det).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_are_finite_where_numbers_are_tiny_or_huge(dtype):
    layer = TailLayer(1).to(dtype)
    x = column([0.0, 1e-30, 1e-19, -1e-12, 1e-5, 50.0, -1e8], dtype).requires_grad_()
    z, log_det = layer(x)
    gradients = torch.autograd.grad(log_det.sum() + z.sum(), [x, layer.log_excess])
    assert all(torch.isfinite(g).all() for g in gradients)
    latents = column([0.0, 1e-30, 1e-19, -1e-12, 1e-5, 10.0, -30.0], dtype).requires_grad_()
    x, log_det = layer.inverse(latents)
    gradients = torch.autograd.grad(log_det.sum() + x.sum(), [latents, layer.log_excess])
    assert all(torch.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("index", [0.5, 2.0, 4.0])
def test_a_normal_latent_gives_a_tail_of_that_index(index):
    u = np.array([1e6, 1e8])
    z = layer_of(index)(column(u))[0].numpy()[:, 0]
    slope = np.diff(norm.logsf(z)) / np.diff(np.log(u))
    # The root of a logarithm, beside the power, adds 1 / (2 log u).
    assert slope[0] == pytest.approx(-index - 0.5 / np.log(1e7), abs=0.01)


def test_hills_estimator_finds_the_index_of_each_side_in_samples():
    z = column(np.random.default_rng(0).normal(size=1_000_000))
    x = layer_of(1.5, 4.0).inverse(z)[0].numpy()[:, 0]
    for side, index in ((-x, 1.5), (x, 4.0)):
        largest = np.sort(side)[-1001:]
        hill = 1 / np.log(largest[1:] / largest[0]).mean()
        assert index < hill < 1.3 * index  # the logarithm's root looks a little lighter


def test_fit_recovers_the_heavy_and_the_light_side_of_each_feature():
    z = torch.tensor(np.random.default_rng(1).normal(size=(20_000, 2)))
    source = TailLayer(2).double().requires_grad_(False)
    truth = torch.tensor([[1.5, 20.0], [8.0, 3.0]], dtype=torch.float64)
    source.log_excess.copy_((truth - source.min_index).log())
    layer = TailLayer(2).double()
    layer.fit(source.inverse(z)[0])
    ratio = layer.index / truth
    assert ((ratio > 0.7) & (ratio < 1.5)).all(), layer.index


def test_fit_without_affine_leaves_a_side_without_rows_near_gaussian():
    layer = TailLayer(1, affine=False).double()
    layer.fit(torch.rand(100, 1, dtype=torch.float64))
    assert layer.index[0, 0].item() == pytest.approx(30, rel=1e-2)
    assert layer.index[1, 0].item() > 30


def test_indices_stay_above_the_least_one():
    layer = TailLayer(2, min_index=1.2).double().requires_grad_(False)
    layer.fit(layer_of(0.3).inverse(torch.randn(2000, 1).double())[0].expand(-1, 2))
    assert (layer.index > 1.2).all()
    layer.log_excess.fill_(-50.0)
    assert (layer.index >= 1.2).all()


@pytest.mark.parametrize("min_index", [0.0, -1.0, 30.0, float("nan")])
def test_a_least_index_that_cannot_work_is_refused(min_index):
    with pytest.raises(FlowError, match="min_index above 0 and below 30, found"):
        TailLayer(1, min_index=min_index)
