"""What every layer and every flow has to obey, whatever is inside."""

import importlib
import inspect
import pkgutil
from copy import deepcopy

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import glow_bt.flows
from glow_bt.flows import BatchNorm, Bijection, NormalPrior
from tests.contracts.registry import (
    FLOWS,
    LAYERS,
    NAMES,
    build,
    draw_rows,
    first_context,
    fitted,
    tolerance,
)

FRESH = {name: build(name) for name in NAMES}
WITH_PARAMETERS = [name for name in NAMES if any(True for _ in FRESH[name].parameters())]
WITH_NORMAL_PRIOR = [name for name in NAMES if isinstance(FRESH[name].prior, NormalPrior)]
OF_ONE_FEATURE = [name for name in NAMES if FRESH[name].num_features == 1]
OF_TWO_FEATURES = [name for name in NAMES if FRESH[name].num_features == 2]


def concrete_bijections():
    """Return every class of glow_bt.flows that is a bijection and no mere base of some."""
    found = set()
    for module in pkgutil.iter_modules(glow_bt.flows.__path__, "glow_bt.flows."):
        for member in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(member) and issubclass(member, Bijection):
                found.add(member)
    return {member for member in found if not inspect.isabstract(member)}


def row_of(context, i):
    return None if context is None else context[i : i + 1]


def jacobian_of_row(transform, row, context):
    """Return d output / d row, (D, D), for one row alone."""
    return torch.autograd.functional.jacobian(
        lambda r: transform(r[None], context)[0][0], row, vectorize=True
    )


def far_rows(flow, dtype):
    """Return rows at 10 sigma: normal ones, and corners of the box of that size."""
    rng = np.random.default_rng(3)
    shape = (512, flow.num_features)
    rows = np.concatenate([10 * rng.normal(size=shape), rng.choice([-10.0, 10.0], size=shape)])
    _, context = draw_rows(flow, len(rows), seed=4, dtype=dtype)
    return torch.tensor(rows, dtype=dtype), context


def test_every_bijection_is_in_the_registry():
    pytest.importorskip("zuko", reason="needs zuko: pip install 'glow-bt[flows]'")
    flows = {type(FRESH[name]) for name in FLOWS}
    layers = {type(FRESH[name].layer) for name in LAYERS}
    assert concrete_bijections() == flows | layers


@pytest.mark.parametrize("name", WITH_PARAMETERS)
def test_what_is_tested_is_not_where_training_starts(name):
    fresh = dict(FRESH[name].named_parameters())
    for key, parameter in fitted(name).named_parameters():
        assert not torch.equal(parameter.float(), fresh[key]), key


@pytest.mark.parametrize("name", NAMES)
def test_log_det_is_that_of_the_jacobian_of_each_row(name):
    flow = fitted(name)
    x, context = draw_rows(flow, 6, seed=2)
    x[-1] *= 10  # one row far out
    z, log_det = flow(x, context)
    back, inverse_log_det = flow.inverse(z, context)
    allowed = tolerance(name)
    torch.testing.assert_close(back, x, rtol=0, atol=allowed.round_trip)
    for i in range(len(x)):
        c = row_of(context, i)
        _, expected = torch.linalg.slogdet(jacobian_of_row(flow, x[i], c))
        assert abs(log_det[i] - expected) < allowed.log_det
        _, expected = torch.linalg.slogdet(jacobian_of_row(flow.inverse, z[i], c))
        assert abs(inverse_log_det[i] - expected) < allowed.log_det


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [0, 1, 7])
def test_there_is_one_log_det_and_one_density_a_row(name, count):
    flow = fitted(name)
    x, context = draw_rows(flow, count, seed=2)
    z, log_det = flow(x, context)
    back, inverse_log_det = flow.inverse(z, context)
    assert z.shape == back.shape == x.shape
    assert log_det.shape == inverse_log_det.shape == flow.log_prob(x, context).shape == (count,)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_has_the_same_density_in_any_company(name):
    flow = fitted(name)
    x, context = draw_rows(flow, 512, seed=2)
    together = flow.log_prob(x, context)
    order = torch.tensor(np.random.default_rng(0).permutation(512))
    shuffled = flow.log_prob(x[order], None if context is None else context[order])
    torch.testing.assert_close(shuffled, together[order], rtol=0, atol=1e-10)
    for i in range(0, 512, 32):
        alone = flow.log_prob(x[i : i + 1], row_of(context, i))
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_rows_at_10_sigma_come_back(name, dtype):
    flow = fitted(name, dtype)
    allowed = tolerance(name).far_round_trip if dtype is torch.float64 else 1e-3
    x, context = far_rows(flow, dtype)
    z, log_det = flow(x, context)
    back, inverse_log_det = flow.inverse(z, context)
    assert (back - x).abs().max() < allowed
    assert (log_det + inverse_log_det).abs().max() < allowed
    assert torch.isfinite(flow.log_prob(x, context)).all()


@pytest.mark.parametrize("name", NAMES)
def test_latents_come_back(name):
    flow = fitted(name)
    _, context = draw_rows(flow, 512, seed=4)
    rng = np.random.default_rng(5)
    z = torch.tensor(3 * rng.normal(size=(512, flow.num_features)))
    x, _ = flow.inverse(z, context)
    back, _ = flow(x, context)
    assert (back - z).abs().max() < 1e-6


# In training a batch norm reads each batch anew, and its running averages move.
CONSTANT_IN_TRAINING = [
    name for name in NAMES if not any(isinstance(m, BatchNorm) for m in FRESH[name].modules())
]


@pytest.mark.parametrize(
    ("name", "training"),
    [(name, False) for name in NAMES] + [(name, True) for name in CONSTANT_IN_TRAINING],
)
def test_a_loaded_flow_gives_the_same_density_to_the_bit(name, training, tmp_path):
    flow = fitted(name)
    save_file(flow.state_dict(), tmp_path / "flow.safetensors")
    other = build(name, seed=99).double().train(training)
    other.load_state_dict(load_file(tmp_path / "flow.safetensors"))
    x, context = draw_rows(flow, 64, seed=2)
    x = 5 * x + 3  # rows from which an ActNorm would start quite differently
    with torch.no_grad():
        assert torch.equal(other.log_prob(x, context), flow.log_prob(x, context))
    for key, value in flow.state_dict().items():
        assert torch.equal(other.state_dict()[key], value)


@pytest.mark.parametrize("name", WITH_PARAMETERS)
def test_gradients_reach_every_parameter(name):
    flow = deepcopy(fitted(name)).requires_grad_(True)
    x, context = draw_rows(flow, 512, seed=2)
    flow.log_prob(x, context).mean().backward()
    for key, parameter in flow.named_parameters():
        assert torch.isfinite(parameter.grad).all(), key
        assert parameter.grad.any(), key


@pytest.mark.parametrize("name", NAMES)
def test_a_flow_can_be_copied_and_converted(name):
    flow = fitted(name)
    x, context = draw_rows(flow, 64, seed=2)
    expected = flow.log_prob(x, context)
    copy = deepcopy(flow)
    assert torch.equal(copy.log_prob(x, context), expected)
    copy.float()
    single = copy.log_prob(x.float(), None if context is None else context.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, rtol=0, atol=1e-3)
    for parameter in copy.parameters():
        parameter.zero_()
    assert torch.equal(flow.log_prob(x, context), expected)


@pytest.mark.parametrize("name", NAMES)
def test_samples_repeat_with_their_generator(name):
    flow = fitted(name)
    context = first_context(flow)

    def draw(seed):
        return flow.sample(50, context, generator=torch.Generator().manual_seed(seed))

    assert draw(1).shape == (50, flow.num_features)
    assert torch.isfinite(draw(1)).all()
    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


@pytest.mark.parametrize("name", WITH_NORMAL_PRIOR)
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_latents_of_samples_are_normal_with_the_temperature_as_deviation(name, temperature):
    flow = fitted(name)
    context = first_context(flow)
    generator = torch.Generator().manual_seed(6)
    x = flow.sample(4000, context, temperature, generator)
    z, _ = flow(x, None if context is None else context.expand(4000, -1))
    z = z / temperature
    assert (z.mean(dim=0).abs() * 4000**0.5).max() < 5
    assert ((z.std(dim=0) - 1).abs() * 8000**0.5).max() < 5
    assert (z.T.corrcoef() - torch.eye(flow.num_features)).abs().max() * 4000**0.5 < 5


def grid_density(flow, half_width, count):
    """Return edges (M + 1,) of cells along each axis, spaced like a sinh, and their mass.

    Midpoint rule in t with x = sinh(t): mass (M,) for one feature, (M, M) for two.
    """
    step = 2 * half_width / count
    t = step * (torch.arange(count, dtype=torch.float64) + 0.5) - half_width
    places = torch.cartesian_prod(*[t] * flow.num_features).reshape(-1, flow.num_features)
    log_volume = (places.cosh() * step).log().sum(dim=1)
    context = first_context(flow)
    log_density = [
        flow.log_prob(rows, None if context is None else context.expand(len(rows), -1))
        for rows in places.sinh().split(20_000)
    ]
    mass = (torch.cat(log_density) + log_volume).exp().reshape([count] * flow.num_features)
    return np.sinh(np.linspace(-half_width, half_width, count + 1)), mass.numpy()


@pytest.mark.parametrize("name", OF_ONE_FEATURE)
def test_the_density_of_one_feature_integrates_to_1_and_is_that_of_the_samples(name):
    flow = fitted(name)
    edges, mass = grid_density(flow, half_width=30, count=30_001)
    assert abs(mass.sum() - 1) < tolerance(name).integral
    draws = flow.sample(10_000, first_context(flow), generator=torch.Generator().manual_seed(7))
    levels = np.interp(np.sort(draws[:, 0]), edges, np.append(0, mass.cumsum()))
    uniform = (np.arange(10_000) + 0.5) / 10_000
    # Kolmogorov-Smirnov: exceeded once in a thousand.
    assert np.abs(levels - uniform).max() < 1.95 / 10_000**0.5


@pytest.mark.parametrize("name", OF_TWO_FEATURES)
def test_the_density_of_two_features_integrates_to_1_and_is_that_of_the_samples(name):
    flow = fitted(name)
    edges, mass = grid_density(flow, half_width=9, count=360)
    assert abs(mass.sum() - 1) < 1e-3
    draws = flow.sample(20_000, first_context(flow), generator=torch.Generator().manual_seed(7))
    cuts = [0, 150, 170, 180, 190, 210, 360]
    expected = np.add.reduceat(np.add.reduceat(mass, cuts[:-1], axis=0), cuts[:-1], axis=1)
    found, _, _ = np.histogram2d(*draws.numpy().T, bins=[edges[cuts]] * 2)
    error = (expected * (1 - expected) / 20_000) ** 0.5
    assert (np.abs(found / 20_000 - expected) < 4 * error + 1e-3).all()
