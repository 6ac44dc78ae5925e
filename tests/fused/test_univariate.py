"""The frozen one-dimensional density against its module."""

import pickle

import numpy as np
import pytest
import torch

from glow_bt.errors import FlowError
from glow_bt.flows.freeze import freeze_univariate
from glow_bt.fused import FusedUnivariate
from tests.contracts.registry import build, draw_rows

NAMES = ["univariate", "univariate-context"]


def settled(name):
    """Return the flow of that name with weights of ordinary size, in float64."""
    torch.manual_seed(0)
    flow = build(name).double().eval().requires_grad_(False)
    for parameter in flow.parameters():
        parameter += 0.2 * torch.randn_like(parameter)
    return flow


@pytest.fixture(params=NAMES)
def pair(request):
    flow = settled(request.param)
    return flow, FusedUnivariate(freeze_univariate(flow), flow.context_features)


def test_it_is_its_module(pair):
    flow, fused = pair
    y, context = draw_rows(flow, 100, seed=1)
    given = None if context is None else context.numpy()
    np.testing.assert_allclose(fused.scale(given), flow.scale(context), rtol=1e-12)
    # torch's normal distribution function is exact to 1e-16 of 1 only.
    below = flow.cdf(y, context)
    np.testing.assert_allclose(fused.cdf(y.numpy(), given), below, rtol=1e-11, atol=1e-15)
    z, log_prob = fused.encode(y.numpy(), given)
    np.testing.assert_allclose(z, flow(y, context)[0], rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(log_prob, flow.log_prob(y, context), rtol=1e-12)
    for p in (1e-6, 0.01, 0.5, 0.95):
        expected = flow.quantile(p, context)
        np.testing.assert_allclose(fused.quantile(p, given), expected, rtol=1e-11, atol=1e-13)


def test_a_quantile_is_the_inverse_of_the_cdf(pair):
    flow, fused = pair
    _, context = draw_rows(flow, 20, seed=2)
    given = None if context is None else context.numpy()
    quantiles = fused.quantile(0.05, given)
    np.testing.assert_allclose(fused.cdf(quantiles[:, None], given), 0.05, rtol=1e-10)


@pytest.mark.parametrize("p", [0.0, 1.0, -0.1, np.nan])
def test_levels_outside_of_0_and_1_are_refused(pair, p):
    flow, fused = pair
    _, context = draw_rows(flow, 2, seed=2)
    with pytest.raises(FlowError, match="probability inside"):
        fused.quantile(p, None if context is None else context.numpy())


def test_rubbish_is_refused():
    flow = settled("univariate-context")
    fused = FusedUnivariate(freeze_univariate(flow), flow.context_features)
    for context in (None, np.zeros((4, 2)), np.zeros(3), [["a", "b", "c"]], 1.0):
        with pytest.raises(FlowError, match="context"):
            fused.scale(context)
    with pytest.raises(FlowError, match="finite contexts, found 1"):
        fused.scale([[0.0, np.nan, 0.0]])


def test_a_copy_is_the_flow(pair):
    flow, fused = pair
    _, context = draw_rows(flow, 5, seed=2)
    given = None if context is None else context.numpy()
    copy = pickle.loads(pickle.dumps(fused))  # noqa: S301
    np.testing.assert_array_equal(copy.scale(given), fused.scale(given))
