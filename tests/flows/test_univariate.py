import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from glow_bt.errors import FlowError
from glow_bt.flows import UnivariateFlow
from glow_bt.flows.spline import spline_inverse
from glow_bt.flows.univariate import LOG_INDEX_BOUND, LOG_SCALE_BOUND, MIN_INDEX
from tests.flows.univariate_samples import INDICES, contexts_of, settled

LEVELS = [1e-6, 0.01, 0.05, 0.5, 0.75, 0.99, 1 - 1e-6]


def bounded(x, bound):
    return bound * math.tanh(x / bound)


def by_the_book(flow, z, context):
    """Return y of one latent and one context (C,), number by number."""
    moves = [0.0, 0.0, 0.0]
    if flow.context_features:
        moves = flow.net(context[None]).mean(dim=0)[0].tolist()
    scale = math.exp(flow.log_scale.mean().item() + bounded(moves[0], LOG_SCALE_BOUND))
    v = spline_inverse(torch.tensor([[z]], dtype=torch.float64), flow.knots.mean(dim=0))[0].item()
    side = 0 if v < 0 else 1
    start = flow.log_excess[:, side].mean().item()
    index = MIN_INDEX + math.exp(start + bounded(moves[1 + side], LOG_INDEX_BOUND))
    tail = math.copysign(math.sqrt(index * math.expm1(v * v / index)), v)
    return scale * (flow.location.mean().item() + tail)


def shortfall_by_trapezoids(flow, p, context):
    """Return the mean of the quantiles below p, over a fine grid of latents."""
    z = torch.linspace(-38, norm.ppf(p), 200_001, dtype=torch.float64)
    y, _ = flow.inverse(z[:, None], context.expand(len(z), -1))
    density = (-0.5 * z.square()).exp() / (2 * math.pi) ** 0.5
    return torch.trapezoid(y[:, 0] * density, z).item() / p


@pytest.mark.parametrize("num_members", [1, 3])
@pytest.mark.parametrize("context_features", [0, 2])
def test_the_inverse_is_its_formula_number_by_number(context_features, num_members):
    flow = settled(context_features, num_members)
    z = torch.linspace(-6, 6, 25, dtype=torch.float64)[:, None]
    context = contexts_of(flow, 25)
    found = flow.inverse(z, context)[0][:, 0].tolist()
    for i, value in enumerate(z[:, 0].tolist()):
        row = None if context is None else context[i]
        assert found[i] == pytest.approx(by_the_book(flow, value, row), rel=1e-12, abs=1e-13)


def test_a_fresh_flow_has_no_body_of_its_own_and_no_context():
    flow = UnivariateFlow(3, 8).double().requires_grad_(False)
    y = torch.linspace(-9, 9, 41, dtype=torch.float64)[:, None]
    z, log_det = flow(y, contexts_of(flow, 41))
    index = flow.index[0]
    expected = y.sign() * (index * (y.square() / index).log1p()).sqrt()
    torch.testing.assert_close(z, expected, rtol=1e-13, atol=1e-13)
    slope = (y / expected / (1 + y.square() / index)).nan_to_num(1.0)[:, 0]
    torch.testing.assert_close(log_det, slope.log(), rtol=1e-12, atol=1e-12)
    assert torch.equal(flow.scale(contexts_of(flow, 41)), torch.ones(41, dtype=torch.float64))
    torch.testing.assert_close(flow.index, torch.full((2,), 4.0, dtype=torch.float64))


@pytest.mark.parametrize(("left", "right"), INDICES)
@pytest.mark.parametrize("num_members", [1, 3])
def test_quantile_and_cdf_undo_each_other(left, right, num_members):
    flow = settled(2, num_members, left=left, right=right)
    context = contexts_of(flow, 20)
    quantiles = torch.stack([flow.quantile(p, context) for p in LEVELS])
    assert quantiles.shape == (len(LEVELS), 20)
    assert (quantiles.diff(dim=0) > 0).all()
    for p, quantile in zip(LEVELS, quantiles, strict=True):
        np.testing.assert_allclose(flow.cdf(quantile[:, None], context), p, rtol=1e-9, atol=0)


@pytest.mark.parametrize(("left", "right"), INDICES)
def test_the_quantile_is_the_normal_one_pushed_through_the_inverse(left, right):
    flow = settled(2, left=left, right=right)
    context = contexts_of(flow, 20)
    for p in LEVELS:
        z = torch.full((20, 1), norm.ppf(p), dtype=torch.float64)
        expected = flow.inverse(z, context)[0][:, 0]
        torch.testing.assert_close(flow.quantile(p, context), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("left", "right"), INDICES)
def test_expected_shortfall_is_the_mean_of_the_quantiles_below(left, right):
    flow = settled(2, left=left, right=right)
    context = contexts_of(flow, 1)
    for p in (1e-6, 0.01, 0.5, 0.75):
        found = flow.expected_shortfall(p, context).item()
        expected = shortfall_by_trapezoids(flow, p, context)
        assert found == pytest.approx(expected, rel=5e-5)  # kinks of the spline
        assert found < flow.quantile(p, context).item()


@pytest.mark.parametrize(("left", "right"), INDICES)
@pytest.mark.parametrize("context_features", [0, 2])
def test_the_density_integrates_to_1_and_has_the_shortfall_as_mean(left, right, context_features):
    """From log_prob alone, without the inverse, by trapezoids in a logarithm of y."""
    flow = settled(context_features, left=left, right=right)
    context = contexts_of(flow, 1)
    t = torch.linspace(-40, 40, 40_001, dtype=torch.float64)
    centre = flow.quantile(0.5, context)

    def integral(start, sign, power):
        y = start + sign * t.exp()
        given = None if context is None else context.expand(len(y), -1)
        density = flow.log_prob(y[:, None], given).exp()
        return torch.trapezoid(y**power * density * t.exp(), t)

    assert integral(centre, 1, 0) + integral(centre, -1, 0) == pytest.approx(1, abs=1e-6)
    quantile = flow.quantile(0.05, context)
    # What lies beyond exp(40) is the more the heavier the tail: exp(-0.2 * 40) at index 1.2.
    if left > 1.3:
        mean = (integral(quantile, -1, 1) / 0.05).item()
        assert flow.expected_shortfall(0.05, context).item() == pytest.approx(mean, rel=5e-5)


def test_quantile_and_shortfall_agree_with_a_million_samples():
    flow, p, count = settled(2, 3, left=5.0, right=8.0), 0.01, 1_000_000
    context = contexts_of(flow, 1)
    generator = torch.Generator().manual_seed(5)
    y = flow.sample(count, context, generator=generator)[:, 0].sort().values.numpy()
    quantile = flow.quantile(p, context)
    density = flow.log_prob(quantile[:, None], context).exp().item()
    error = (p * (1 - p) / count) ** 0.5 / density
    assert abs(np.quantile(y, p) - quantile.item()) < 5 * error
    tail = y[: int(p * count)]
    shortfall = flow.expected_shortfall(p, context).item()
    spread = tail.var() + (1 - p) * (quantile.item() - shortfall) ** 2
    assert abs(tail.mean() - shortfall) < 5 * (spread / len(tail)) ** 0.5


def test_a_context_moves_scale_and_tails_within_bounds_and_nothing_else():
    flow = settled(2, size=20.0)
    context = 50 * contexts_of(flow, 200)
    start = flow.log_scale.mean().exp()
    moved = (flow.scale(context) / start).log().abs()
    assert 1.4 < moved.max() <= LOG_SCALE_BOUND * (1 + 1e-12)
    # Far out a quantile is scale times a power with the index: two of them give the index.
    far, farther = (flow.inverse(torch.full((200, 1), z).double(), context)[0] for z in (20, 25))
    index = (25**2 - 20**2) / (2 * (farther / far).log())
    excess = (index - MIN_INDEX).log() - flow.log_excess[:, 1].mean()
    assert excess.abs().max() <= LOG_INDEX_BOUND * 1.02
    median = flow.inverse(torch.zeros(200, 1).double(), context)[0][:, 0] / flow.scale(context)
    v = spline_inverse(torch.zeros(1, 1).double(), flow.knots)[0]
    side = flow.location.mean() + v[0, 0]
    assert (median.sign() == side.sign()).all()


@pytest.mark.parametrize("num_members", [1, 3])
def test_a_context_far_out_says_what_one_at_the_bound_says(num_members):
    flow = settled(2, num_members)
    far = torch.tensor([[9.0, -700.0], [4.1, -0.5]], dtype=torch.float64)
    near = torch.tensor([[4.0, -4.0], [4.0, -0.5]], dtype=torch.float64)
    assert torch.equal(flow.scale(far), flow.scale(near))
    assert torch.equal(flow.quantile(0.01, far), flow.quantile(0.01, near))


def test_without_context_there_is_one_density():
    flow = settled(0, 2)
    quantile = flow.quantile(0.05)
    assert quantile.shape == flow.expected_shortfall(0.05).shape == flow.scale().shape == (1,)
    assert flow.cdf(quantile[:, None]).item() == pytest.approx(0.05, abs=1e-12)


@pytest.mark.parametrize("context_features", [0, 2])
def test_averaged_members_that_are_equal_are_that_member(context_features):
    flow = settled(context_features)
    y = torch.linspace(-9, 9, 50, dtype=torch.float64)[:, None]
    context = contexts_of(flow, 50)
    expected = flow.log_prob(y, context)
    assert torch.equal(UnivariateFlow.averaged([flow]).log_prob(y, context), expected)
    three = UnivariateFlow.averaged([flow, flow, flow])
    assert three.config["num_members"] == 3
    assert not three.training
    torch.testing.assert_close(three.log_prob(y, context), expected, rtol=1e-13, atol=1e-13)


def test_averaging_is_of_what_members_say_and_of_members_of_members():
    flows = [settled(2, seed=seed) for seed in range(3)]
    context = contexts_of(flows[0], 5)
    together = UnivariateFlow.averaged(flows)
    nested = UnivariateFlow.averaged([UnivariateFlow.averaged(flows[:2]), flows[2]])
    assert all(
        torch.equal(value, nested.state_dict()[name])
        for name, value in together.state_dict().items()
    )
    said = torch.stack([flow.net(context)[0] for flow in flows]).mean(dim=0)
    torch.testing.assert_close(together.net(context).mean(dim=0), said, rtol=1e-13, atol=1e-15)
    location = sum(flow.location.item() for flow in flows) / 3
    assert together.location.mean().item() == pytest.approx(location, rel=1e-13)


def test_averaging_keeps_the_type_and_the_callers_random_numbers():
    flows = [settled(2, seed=seed).float() for seed in range(2)]
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    assert UnivariateFlow.averaged(flows).prior.dtype is torch.float32
    assert torch.equal(torch.rand(3), expected)


def test_members_that_do_not_fit_together_are_refused():
    with pytest.raises(FlowError, match=r"members of one context_features.*\(0, 8\), \(2, 8\)"):
        UnivariateFlow.averaged([settled(2), settled(0)])
    with pytest.raises(FlowError, match=r"members of one .*found \[\]"):
        UnivariateFlow.averaged([])


def test_a_float32_flow_gives_the_same_numbers_to_its_precision():
    flow = settled(2, 2, left=2.0)
    context = contexts_of(flow, 20)
    quantile, shortfall = flow.quantile(0.01, context), flow.expected_shortfall(0.01, context)
    flow.float()
    single = context.float()
    assert flow.quantile(0.01, single).dtype == torch.float32
    torch.testing.assert_close(flow.quantile(0.01, single).double(), quantile, rtol=1e-4, atol=0)
    found = flow.expected_shortfall(0.01, single).double()
    torch.testing.assert_close(found, shortfall, rtol=1e-4, atol=0)
    assert torch.isfinite(flow.quantile(1 - 1e-12, single)).all()


def test_training_stays_in_float32_and_learns_the_scale_of_a_context():
    rng = np.random.default_rng(0)
    context = torch.tensor(rng.normal(size=(2048, 1)), dtype=torch.float32)
    y = torch.tensor(rng.standard_t(5, size=(2048, 1)), dtype=torch.float32)
    y = y * (0.8 * context).exp()
    flow = UnivariateFlow(1, 8, num_members=2)
    flow.initialize(y)
    optimizer = torch.optim.Adam(flow.parameters(), lr=0.02)
    for _ in range(150):
        loss = flow.objective(y, context).mean()
        assert loss.dtype is torch.float32
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(parameter.dtype is torch.float32 for parameter in flow.parameters())
    low, high = flow.scale(torch.tensor([[-1.0], [1.0]])).log().tolist()
    assert (high - low) / 2 == pytest.approx(0.8, abs=0.1)


def test_asking_for_numbers_changes_nothing():
    flow = UnivariateFlow(2)
    before = {key: value.clone() for key, value in flow.state_dict().items()}
    assert not flow.expected_shortfall(0.01, torch.randn(3, 2)).requires_grad
    assert not flow.quantile(0.01, torch.randn(3, 2)).requires_grad
    assert not flow.scale(torch.randn(3, 2)).requires_grad
    assert flow.log_excess.requires_grad
    assert all(torch.equal(flow.state_dict()[key], value) for key, value in before.items())


def test_initialize_finds_location_scale_and_tails_of_every_member():
    rng = np.random.default_rng(0)
    y = torch.tensor(0.3 + 2 * rng.standard_t(3, size=(20_000, 1)))
    flow = UnivariateFlow(0, num_members=2).double()
    before = flow.log_prob(y).mean()
    flow.initialize(y)
    scale = flow.log_scale.exp()
    assert (scale == scale[0]).all()
    assert ((flow.location * scale - 0.3).abs() < 0.05).all()
    assert (flow.index < 5).all()
    assert flow.log_prob(y).mean() > before + 0.3
    assert flow.quantile(0.75).item() - 0.3 == pytest.approx(0.674 * scale[0].item(), rel=0.1)


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
        getattr(settled(), method)(p, contexts_of(settled(), 2))


def test_a_missing_or_wrong_context_is_refused():
    flow = settled()
    for ask in (flow.scale, lambda c=None: flow.quantile(0.01, c)):
        with pytest.raises(FlowError, match=r"context of shape \(N, 2\), found none"):
            ask()
        with pytest.raises(FlowError, match=r"contexts of shape \(N, 2\), found \(4, 3\)"):
            ask(torch.zeros(4, 3, dtype=torch.float64))
        with pytest.raises(FlowError, match=r"finite contexts, found 1.* first row 0"):
            ask(torch.tensor([[np.nan, 0.0]]).double())
    with pytest.raises(FlowError, match="expected no context"):
        settled(0).scale(torch.zeros(4, 2, dtype=torch.float64))


@pytest.mark.parametrize("sizes", [{"hidden_dim": 0}, {"num_members": 0}])
def test_sizes_below_1_are_refused(sizes):
    (name,) = sizes
    with pytest.raises(FlowError, match=f"{name} of at least 1"):
        UnivariateFlow(2, **sizes)
