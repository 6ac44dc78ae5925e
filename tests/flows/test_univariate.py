import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from glow_bt.errors import FlowError
from glow_bt.flows import UnivariateFlow

INDICES = [(1.21, 1.21), (1.21, 40.0), (1.5, 6.0), (3.0, 1.3), (4.0, 4.0), (90.0, 2.0)]
LEVELS = [1e-6, 0.01, 0.05, 0.5, 0.75, 0.99]


def flow_of(left, right, context_features=2):
    """Return a flow with these tail indices, and a location and scale that are not trivial."""
    flow = UnivariateFlow(context_features, hidden_dim=8).double().requires_grad_(False)
    generator = torch.Generator().manual_seed(3)
    for parameter in flow.net.parameters():
        parameter += 0.4 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    flow.location.fill_(0.2)
    flow.log_scale.fill_(-0.7)
    index = torch.tensor([[left], [right]], dtype=torch.float64)
    flow.tails.log_excess.copy_((index - flow.tails.min_index).log())
    return flow


def contexts(count):
    return torch.randn(count, 2, dtype=torch.float64)


def stretched(z, left, right):
    """Return what the latent z stands for under location 0 and scale 1."""
    index = left if z < 0 else right
    return math.copysign(math.sqrt(index * math.expm1(z * z / index)), z)


def standard_shortfall(p, left, right):
    """Return the mean of the quantiles below p by adaptive quadrature over the latent."""

    def integrand(z):
        return stretched(z, left, right) * norm.pdf(z)

    upper = norm.ppf(p)
    borders = sorted({min(upper, 0.0), upper, *(upper - np.array([0.5, 1, 2, 4, 8, 14, 22]))})
    return sum(quad(integrand, a, b, epsabs=0, epsrel=1e-12)[0] for a, b in pairwise(borders)) / p


@pytest.mark.parametrize(("left", "right"), INDICES)
@pytest.mark.parametrize("p", LEVELS)
def test_quantile_and_cdf_undo_each_other(left, right, p):
    flow, context = flow_of(left, right), contexts(20)
    y = flow.quantile(p, context)
    assert y.shape == (20,)
    np.testing.assert_allclose(flow.cdf(y[:, None], context), p, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("left", "right"), INDICES)
def test_the_quantile_is_the_normal_one_pushed_through_the_inverse(left, right):
    flow, context = flow_of(left, right), contexts(20)
    for p in LEVELS:
        z = torch.full((20, 1), norm.ppf(p), dtype=torch.float64)
        expected = flow.inverse(z, context)[0][:, 0]
        torch.testing.assert_close(flow.quantile(p, context), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("left", "right"), INDICES)
@pytest.mark.parametrize("p", LEVELS)
def test_expected_shortfall_is_the_mean_of_the_quantiles_below(left, right, p):
    flow, context = flow_of(left, right), contexts(5)
    expected = flow.location + flow.scale(context) * standard_shortfall(p, left, right)
    found = flow.expected_shortfall(p, context)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)
    assert (found < flow.quantile(p, context)).all()


@pytest.mark.parametrize(("left", "right"), [(1.3, 6.0), (4.0, 4.0)])
def test_expected_shortfall_is_the_mean_under_the_density(left, right):
    """From log_prob alone, without the inverse: (1/p) * integral of y p(y) up to the quantile."""
    flow, context = flow_of(left, right), contexts(1)
    t = torch.linspace(-40, 120, 8001, dtype=torch.float64)
    below = t.exp()
    y = flow.quantile(0.05, context) - below
    density = flow.log_prob(y[:, None], context.expand(len(y), -1)).exp()
    expected = torch.trapezoid(y * density * below, t) / 0.05
    torch.testing.assert_close(
        flow.expected_shortfall(0.05, context)[0], expected, rtol=1e-8, atol=0
    )


def test_quantile_and_shortfall_agree_with_a_million_samples():
    flow, context, p, count = flow_of(5.0, 8.0), contexts(1), 0.01, 1_000_000
    generator = torch.Generator().manual_seed(5)
    y = flow.sample(count, context, generator=generator)[:, 0].sort().values.numpy()
    quantile = flow.quantile(p, context)
    density = flow.log_prob(quantile[:, None], context).exp().item()
    error = (p * (1 - p) / count) ** 0.5 / density
    assert abs(np.quantile(y, p) - quantile.item()) < 4 * error
    tail = y[: int(p * count)]
    shortfall = flow.expected_shortfall(p, context).item()
    spread = tail.var() + (1 - p) * (quantile.item() - shortfall) ** 2
    assert abs(tail.mean() - shortfall) < 4 * (spread / len(tail)) ** 0.5


def test_location_and_scale_split_off():
    flow, context = flow_of(3.0, 5.0), contexts(20)
    z = torch.randn(20, 1, dtype=torch.float64)
    u, _ = flow.tails.inverse(z)
    y, _ = flow.inverse(z, context)
    torch.testing.assert_close(y[:, 0], flow.location + flow.scale(context) * u[:, 0])
    assert flow.standard_quantile(0.01) == pytest.approx(stretched(norm.ppf(0.01), 3.0, 5.0))
    spread = flow.scale(context) / flow.log_scale.exp()
    assert spread.log().abs().max() <= 1
    assert spread.max() > 1.5 * spread.min()


def test_without_context_there_is_one_density():
    flow = UnivariateFlow(0).double().requires_grad_(False)
    flow.log_scale.fill_(1.0)
    quantile = flow.quantile(0.05)
    assert quantile.shape == flow.expected_shortfall(0.05).shape == flow.scale().shape == (1,)
    assert flow.cdf(quantile[:, None]).item() == pytest.approx(0.05, abs=1e-12)


def test_a_float32_flow_gives_the_same_numbers_to_its_precision():
    flow, context = flow_of(2.0, 5.0), contexts(20)
    quantile, shortfall = flow.quantile(0.01, context), flow.expected_shortfall(0.01, context)
    flow.float()
    single = context.float()
    assert flow.quantile(0.01, single).dtype == torch.float32
    torch.testing.assert_close(flow.quantile(0.01, single).double(), quantile, rtol=1e-5, atol=0)
    found = flow.expected_shortfall(0.01, single).double()
    torch.testing.assert_close(found, shortfall, rtol=1e-5, atol=0)
    assert torch.isfinite(flow.quantile(1 - 1e-12, single)).all()


def test_asking_for_numbers_changes_nothing():
    flow = UnivariateFlow(2)
    before = {key: value.clone() for key, value in flow.state_dict().items()}
    assert not flow.expected_shortfall(0.01, torch.randn(3, 2)).requires_grad
    assert not flow.quantile(0.01, torch.randn(3, 2)).requires_grad
    assert flow.tails.log_excess.requires_grad
    assert all(torch.equal(flow.state_dict()[key], value) for key, value in before.items())


def test_initialize_finds_location_scale_and_tails():
    rng = np.random.default_rng(0)
    y = torch.tensor(0.3 + 2 * rng.standard_t(3, size=(20_000, 1)))
    flow = UnivariateFlow(0).double()
    before = flow.log_prob(y).mean()
    flow.initialize(y)
    assert flow.location.item() == pytest.approx(0.3, abs=0.05)
    assert (flow.tails.index < 5).all()
    assert flow.log_prob(y).mean() > before
    scale = flow.log_scale.exp().item()
    assert flow.quantile(0.75).item() - 0.3 == pytest.approx(0.674 * scale, rel=0.1)


def test_initialize_refuses_values_that_say_nothing_of_a_scale():
    flow = UnivariateFlow(0)
    with pytest.raises(FlowError, match="values that vary, found half of them equal"):
        flow.initialize(torch.zeros(100, 1))
    with pytest.raises(FlowError, match="finite values to start from"):
        flow.initialize(torch.tensor([[1.0], [float("nan")], [2.0]]))


@pytest.mark.parametrize("p", [0.0, 1.0, -0.1, 1.5, float("nan")])
@pytest.mark.parametrize("method", ["quantile", "expected_shortfall"])
def test_a_level_outside_0_to_1_is_refused(p, method):
    with pytest.raises(FlowError, match=r"probability inside \(0, 1\), found"):
        getattr(flow_of(3.0, 3.0), method)(p, contexts(2))


@pytest.mark.parametrize("method", ["quantile", "expected_shortfall"])
def test_a_missing_or_wrong_context_is_refused(method):
    ask = getattr(flow_of(3.0, 3.0), method)
    with pytest.raises(FlowError, match=r"context of shape \(N, 2\), found none"):
        ask(0.01)
    with pytest.raises(FlowError, match=r"contexts of shape \(N, 2\), found \(4, 3\)"):
        ask(0.01, torch.zeros(4, 3, dtype=torch.float64))
