import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import nn

from glow_bt.flows.ode import integrate, time_features, velocity_field

MATRIX = torch.tensor([[-0.5, 2.0, 0.0], [-2.0, 0.3, 0.4], [0.1, 0.0, 1.2]], dtype=torch.float64)


def rows(count=5, width=3, seed=0):
    return torch.tensor(np.random.default_rng(seed).normal(size=(count, width)))


def linear_field(time, x):
    """dx/dt = (1 + t) A x, solved by x exp((t + t^2/2) A)."""
    rate = 1 + time
    return rate * x @ MATRIX.T, (rate * MATRIX.trace()).expand(len(x))


def network(width=3, contexts=2, hidden=7):
    torch.manual_seed(0)
    layers = [
        nn.Linear(4 + width + contexts, hidden),
        nn.Linear(hidden, hidden + 1),
        nn.Linear(hidden + 1, width),
    ]
    return [(2 * layer.weight.detach().double(), layer.bias.detach().double()) for layer in layers]


def velocity(layers, time, x, context):
    """The same network as a plain sequence of layers."""
    now = [f(k * math.pi * time) for f in (math.cos, math.sin) for k in (1, 2)]
    h = torch.cat([torch.tensor(now, dtype=torch.float64), x, context])
    for weight, bias in layers[:-1]:
        h = weight @ h + bias
        h = h / (1 + torch.exp(-h))
    return layers[-1][0] @ h + layers[-1][1]


def test_a_linear_equation_is_solved_by_the_matrix_exponential():
    x = rows()
    found, log_det = integrate(linear_field, x, 0.0, 1.0, 8)
    torch.testing.assert_close(found, x @ torch.matrix_exp(1.5 * MATRIX).T, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(log_det, (1.5 * MATRIX.trace()).expand(5), rtol=1e-12, atol=1e-12)


def test_the_order_is_8():
    x, exact = rows(), rows() @ torch.matrix_exp(1.5 * MATRIX).T
    errors = [(integrate(linear_field, x, 0.0, 1.0, n)[0] - exact).abs().max() for n in (1, 2, 4)]
    orders = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert min(orders) > 7


def test_going_back_undoes_going_forth():
    x = rows()
    there, change = integrate(linear_field, x, 0.2, 0.9, 6)
    back, change_back = integrate(linear_field, there, 0.9, 0.2, 6)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-9)
    torch.testing.assert_close(change + change_back, torch.zeros(5).double(), rtol=0, atol=1e-12)


def test_a_networks_field_is_solved_as_scipy_solves_it():
    layers, x, context = network(), rows(), rows(width=2, seed=1)
    found, _ = integrate(velocity_field(layers, 3, context), x, 1.0, 0.0, 8)
    for i in range(len(x)):
        solution = solve_ivp(
            lambda t, h, i=i: velocity(layers, t, torch.tensor(h), context[i]).numpy(),
            (1.0, 0.0),
            x[i].numpy(),
            rtol=1e-10,
            atol=1e-12,
        )
        np.testing.assert_allclose(found[i], solution.y[:, -1], atol=1e-8)


@pytest.mark.parametrize("time", [0.0, 0.37, 1.0])
def test_the_divergence_is_the_trace_of_the_jacobian(time):
    layers, x, context = network(), rows(), rows(width=2, seed=1)
    found, divergence = velocity_field(layers, 3, context)(time, x)
    for i in range(len(x)):
        torch.testing.assert_close(found[i], velocity(layers, time, x[i], context[i]))
        jacobian = torch.func.jacrev(lambda h, i=i: velocity(layers, time, h, context[i]))(x[i])
        torch.testing.assert_close(divergence[i], jacobian.trace(), rtol=1e-12, atol=1e-12)


def test_times_have_cosines_and_sines():
    found = time_features(torch.tensor([[0.0], [0.5], [1.0]]), 2)
    expected = [[1, 1, 0, 0], [0, -1, 1, 0], [-1, 1, 0, 0]]
    torch.testing.assert_close(found, torch.tensor(expected).float(), rtol=0, atol=1e-6)
