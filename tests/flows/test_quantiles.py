from copy import deepcopy

import numpy as np
import pytest
import torch
from scipy import stats

from glow_bt.errors import FlowError
from glow_bt.flows import Glow, UnivariateFlow
from tests.contracts.registry import draw_rows, fitted

NAMES = [
    "glow-1",
    "glow-1-context",
    "glow-1-spline",
    "glow-1-student_t",
    "glow-1-mixture",
    "univariate-context",
]
LEVELS = [1e-4, 0.01, 0.05, 0.5, 0.9]


def contexts_of(flow, count):
    return draw_rows(flow, count, seed=8)[1]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("p", LEVELS)
def test_quantile_and_cdf_undo_each_other(name, p):
    flow = fitted(name)
    context = contexts_of(flow, 20)
    x = flow.quantile(p, context)
    assert x.shape == (20,) if flow.context_features else (1,)
    np.testing.assert_allclose(flow.cdf(x[:, None], context), p, rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_the_cdf_is_the_integral_of_the_density(name):
    flow = fitted(name)
    context = contexts_of(flow, 1)
    low, high = (flow.quantile(p, context).item() for p in (0.01, 0.9))
    x = torch.linspace(low, high, 100_001, dtype=torch.float64)[:, None]
    expanded = None if context is None else context.expand(len(x), -1)
    mass = torch.trapezoid(flow.log_prob(x, expanded).exp(), x[:, 0])
    assert mass.item() == pytest.approx(0.89, abs=1e-7)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("p", [0.01, 0.5])
def test_shortfall_is_the_mean_of_a_million_samples_below_the_quantile(name, p):
    flow = fitted(name)
    context = contexts_of(flow, 1)
    generator = torch.Generator().manual_seed(4)
    x = flow.sample(1_000_000, context, generator=generator)[:, 0].numpy()
    quantile = flow.quantile(p, context).item()
    shortfall = flow.expected_shortfall(p, context).item()
    tail = x[x <= quantile]
    assert abs(len(tail) / 1e6 - p) < 4 * (p * (1 - p) / 1e6) ** 0.5
    assert abs(tail.mean() - shortfall) < 5 * tail.std() / len(tail) ** 0.5
    assert shortfall < quantile


def test_many_contexts_are_each_their_own():
    flow = fitted("glow-1-context")
    context = contexts_of(flow, 900)  # more than one chunk
    shortfall = flow.expected_shortfall(0.05, context)
    for i in (0, 450, 899):
        alone = flow.expected_shortfall(0.05, context[i : i + 1])
        torch.testing.assert_close(shortfall[i : i + 1], alone, rtol=1e-12, atol=0)
    assert shortfall.std() > 0.1


@pytest.mark.parametrize("index", [0.8, 1.0])
def test_a_tail_without_a_mean_has_no_finite_shortfall(index):
    flow = Glow(1, 1, 1, 4).double()
    flow.log_prob(torch.randn(100, 1, dtype=torch.float64))
    with torch.no_grad():
        flow.levels[0].norm.log_scale.zero_()
        flow.tails.log_excess.fill_(np.log(index - flow.tails.min_index))
    assert flow.expected_shortfall(0.05).item() == -np.inf
    assert np.isfinite(flow.quantile(0.05).item())


def test_a_float32_flow_gives_the_same_numbers_to_its_precision():
    double, single = fitted("glow-1-context"), fitted("glow-1-context", torch.float32)
    context = contexts_of(double, 5)
    for ask in ("quantile", "expected_shortfall"):
        found = getattr(single, ask)(0.01, context.float())
        assert found.dtype == torch.float32
        expected = getattr(double, ask)(0.01, context)
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=0)


def test_the_shortfall_of_a_normal_is_its_closed_form():
    flow = UnivariateFlow(0).double()
    with torch.no_grad():
        flow.log_excess.fill_(np.log(1e12))  # the identity
    for p in [1e-40, *LEVELS]:
        expected = -stats.norm.pdf(stats.norm.ppf(p)) / p
        assert flow.expected_shortfall(p).item() == pytest.approx(expected, rel=1e-9)


def test_a_probability_is_never_nan_without_a_word():
    flow = deepcopy(fitted("glow-1"))
    flow.tails.log_excess.fill_(-2.0)
    x = torch.tensor([[0.0], [1e300], [1.7e308]], dtype=torch.float64)
    assert flow.cdf(x[:2])[1] == 1.0
    with pytest.raises(
        FlowError, match=r"a probability of every row, found NaN for 1, first row 2"
    ):
        flow.cdf(x)


def test_rubbish_is_refused():
    flow = fitted("glow-1-context")
    with pytest.raises(FlowError, match=r"context of shape \(N, 3\), found none"):
        flow.quantile(0.01)
    with pytest.raises(FlowError, match=r"contexts of shape \(N, 3\), found \(2, 4\)"):
        flow.expected_shortfall(0.01, torch.zeros(2, 4, dtype=torch.float64))
    with pytest.raises(FlowError, match=r"probability inside \(0, 1\), found 1"):
        flow.quantile(1.0, torch.zeros(2, 3, dtype=torch.float64))
    wide = fitted("glow-2")
    for ask in (wide.quantile, wide.expected_shortfall):
        with pytest.raises(FlowError, match="one feature to have quantiles, found one of 2"):
            ask(0.01)
    with pytest.raises(FlowError, match="draw scenarios"):
        wide.cdf(torch.zeros(1, 2, dtype=torch.float64))
