import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import norm
from scipy.stats import t as student_t

from glow_bt.errors import FlowError
from glow_bt.flows import TailLayer
from glow_bt.flows.tail_fit import fit_margins


def fit(x, min_index=0.1, *, affine=True):
    return fit_margins(torch.as_tensor(x), min_index, affine=affine)


def index_of(margins, min_index=0.1):
    return (min_index + margins.log_excess.exp()).numpy()


def students(nu, n=20_000, width=4, seed=0):
    return np.random.default_rng(seed).standard_t(nu, size=(n, width))


def log_likelihood(x, location, log_scale, left, right):
    """Return the sum over values x (N,), written from the definition."""
    u = (x - location) * np.exp(-log_scale)
    a = np.where(u < 0, left, right)
    w = np.log1p(u**2 / a)
    return np.sum(norm.logpdf(np.sqrt(a * w)) + 0.5 * np.log(u**2 / (a * w)) - w - log_scale)


@pytest.mark.parametrize("nu", [0.5, 1.0, 3.0])
def test_no_other_optimiser_finds_a_likelier_place(nu):
    x = students(nu, n=2000, width=1)
    margins = fit(x)
    found = (margins.location, margins.log_scale, *(0.1 + margins.log_excess.exp()))
    best = minimize(
        lambda p: -log_likelihood(x[:, 0], p[0], p[1], *(0.1 + np.exp(p[2:]))),
        [0, 0, 0, 0],
        method="Nelder-Mead",
        options={"maxiter": 4000, "xatol": 1e-6, "fatol": 1e-6},
    )
    # The prior, worth a row a parameter, may cost a little of 4,000 to 7,000 nats.
    assert log_likelihood(x[:, 0], *(float(v) for v in found)) > -best.fun - 0.2


@pytest.mark.parametrize(("nu", "index"), [(0.5, 0.36), (1, 0.79), (2, 1.73), (4, 3.65)])
def test_the_index_of_students_t_is_found_a_little_below_nu_on_both_sides(nu, index):
    found = index_of(fit(students(nu)))
    assert np.abs(np.log(found / index)).max() < 0.12
    assert np.abs(np.log(found / nu)).max() < 0.4


@pytest.mark.parametrize("nu", [0.5, 1.0, 2.0, 30.0])
def test_held_out_students_are_as_likely_as_under_their_own_density(nu):
    layer = TailLayer(4).double().requires_grad_(False)
    layer.fit(torch.tensor(students(nu, n=2000)))
    x = students(nu, seed=1)
    z, log_det = layer(torch.tensor(x))
    gap = student_t.logpdf(x, nu).sum(axis=1) - norm.logpdf(z).sum(axis=1) - log_det.numpy()
    assert abs(gap.mean() / 4) < 0.008


def test_left_and_right_are_found_apart():
    rng = np.random.default_rng(2)
    heavy, light = np.abs(rng.standard_t(1.5, 20_000)), np.abs(rng.normal(size=20_000))
    x = np.where(rng.random(20_000) < 0.5, -heavy, light)
    left, right = index_of(fit(np.stack([x, -x], axis=1)))
    assert left[0] < 1.6
    assert right[0] > 10
    assert left[1] == pytest.approx(right[0], rel=1e-3)
    assert right[1] == pytest.approx(left[0], rel=1e-3)


@pytest.mark.parametrize(("factor", "shift"), [(1e-9, 0.0), (1e9, 1e10), (1.0, -50.0)])
def test_units_move_location_and_scale_and_nothing_else(factor, shift):
    x = students(1.0, n=2000)
    plain, moved = fit(x), fit(factor * x + shift)
    torch.testing.assert_close(moved.log_excess, plain.log_excess, rtol=0, atol=1e-4)
    torch.testing.assert_close(
        moved.log_scale, plain.log_scale + math.log(factor), rtol=0, atol=1e-4
    )
    torch.testing.assert_close(
        (moved.location - shift) / factor, plain.location, rtol=0, atol=1e-4
    )


def test_each_feature_is_fitted_by_itself():
    x = np.concatenate([students(0.5, 2000, 1), students(30.0, 2000, 1)], axis=1)
    both, second = fit(x), fit(x[:, 1:])
    torch.testing.assert_close(both.log_excess[:, 1:], second.log_excess, rtol=0, atol=1e-2)


@pytest.mark.parametrize(
    "x",
    [
        np.full((50, 1), 7.0),
        np.array([[3.0]]),
        np.array([[1.0], [2.0]]),
        np.repeat([[0.0], [1.0], [1e20]], 40, axis=0)[:100],
        np.where(np.arange(100) < 90, 0.0, np.arange(100.0))[:, None],
        np.random.default_rng(0).standard_t(0.1, size=(500, 1)),
        np.random.default_rng(0).uniform(size=(500, 1)),
    ],
    ids=["constant", "one", "two", "steps", "atom", "very heavy", "uniform"],
)
def test_awkward_features_get_finite_settings(x):
    layer = TailLayer(1).double().requires_grad_(False)
    layer.fit(torch.tensor(x))
    assert all(torch.isfinite(value).all() for value in layer.state_dict().values())
    z, log_det = layer(torch.tensor(x))
    assert torch.isfinite(z).all()
    assert torch.isfinite(log_det).all()


def test_long_histories_are_thinned_evenly():
    x = students(2.0, n=60_000, width=1)
    assert torch.equal(fit(x).log_excess, fit(x[::3]).log_excess)


def test_float32_rows_are_fitted_in_float64():
    x = students(0.5, n=2000).astype(np.float32)
    torch.testing.assert_close(fit(x), fit(x.astype(np.float64)))


def test_a_least_index_holds():
    assert (index_of(fit(students(0.5), min_index=1.2), 1.2) > 1.2).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_named(bad):
    x = students(2.0, n=10, width=2)
    x[4, 1] = bad
    with pytest.raises(FlowError, match=r"finite rows to fit tails to, found row 4: \["):
        fit(x)


def test_no_rows_are_refused():
    with pytest.raises(FlowError, match="expected rows to fit tails to, found none"):
        fit(np.empty((0, 3)))
