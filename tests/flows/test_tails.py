import math

import numpy as np
import pytest
import torch

from glow_bt.errors import FlowError
from glow_bt.flows import TailLayer


def layer_of(left, right=None):
    """Return a layer of one feature with these tail indices."""
    layer = TailLayer(1).double().requires_grad_(False)
    indices = torch.tensor([[left], [left if right is None else right]], dtype=torch.float64)
    layer.log_excess.copy_((indices - layer.min_index).log())
    return layer


def column(values):
    return torch.tensor(values, dtype=torch.float64).reshape(-1, 1)


def test_the_slope_at_0_is_1_for_every_index_and_the_sides_join_smoothly():
    step = 1e-4
    for left, right in [(0.5, 50.0), (3.0, 1.0)]:
        z, log_det = layer_of(left, right)(column([-step, 0.0, step]))
        assert log_det[1] == 0
        slopes = z[:, 0].diff() / step
        torch.testing.assert_close(slopes, torch.ones(2).double(), rtol=0, atol=1e-7)


def affine_layer(context_features=0):
    """Return a layer of two features with every parameter away from where it starts."""
    layer = TailLayer(2, context_features, hidden_dim=8).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        layer.location.copy_(torch.tensor([3.0, -0.2]))
        layer.log_scale.copy_(torch.tensor([-1.5, 0.7]))
        layer.log_excess.copy_(torch.tensor([[0.3, 2.0], [1.0, -0.5]]))
        for parameter in layer.net.parameters() if layer.net else ():
            parameter.copy_(torch.randn(parameter.shape, generator=generator).double())
    return layer


def test_location_and_scale_come_before_the_tails():
    layer = affine_layer().requires_grad_(False)
    x = torch.tensor([[2.5, 1.7], [3.3, -40.0], [3.0, 1e9]], dtype=torch.float64)
    plain = TailLayer(2, affine=False).double()
    plain.log_excess = layer.log_excess
    expected, log_det = plain((x - layer.location) / layer.log_scale.exp())
    z, found = layer(x)
    torch.testing.assert_close(z, expected, rtol=1e-14, atol=0)
    torch.testing.assert_close(found, log_det - layer.log_scale.sum(), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("context_features", [0, 3])
def test_both_directions_agree_with_numerical_derivatives(context_features):
    layer = affine_layer(context_features)
    generator = torch.Generator().manual_seed(1)
    x = 3 * torch.randn(4, 2, generator=generator, dtype=torch.float64)
    context = torch.randn(4, context_features, generator=generator, dtype=torch.float64)
    given = (context.requires_grad_(),) if context_features else ()
    assert torch.autograd.gradcheck(layer, (x.requires_grad_(), *given))
    assert torch.autograd.gradcheck(layer.inverse, (x, *given))


@pytest.mark.parametrize("context_features", [0, 3])
def test_log_det_is_that_of_the_derivative_and_the_inverse_undoes(context_features):
    layer = affine_layer(context_features).requires_grad_(False)
    x = (20 * torch.randn(50, 2).double()).requires_grad_()
    context = torch.randn(50, context_features).double() if context_features else None
    z, log_det = layer(x, context)
    (slopes,) = torch.autograd.grad(z.sum(), x)  # a row and a feature by itself
    torch.testing.assert_close(log_det, slopes.log().sum(dim=1), rtol=1e-12, atol=1e-12)
    back, inverse_log_det = layer.inverse(z, context)
    torch.testing.assert_close(back, x, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(inverse_log_det, -log_det, rtol=1e-12, atol=1e-12)


def test_a_context_has_no_effect_at_the_start_and_gets_gradients():
    layer = TailLayer(2, 3).double()
    x, context = torch.randn(8, 2).double(), torch.randn(8, 3).double()
    z, log_det = layer(x, context)
    plain, plain_log_det = TailLayer(2).double()(x)
    assert torch.equal(z, plain)
    assert torch.equal(log_det, plain_log_det)
    log_det.sum().backward()
    last = list(layer.net.parameters())[-1]
    assert (last.grad != 0).all()


def test_what_a_context_moves_stays_within_bounds():
    layer = affine_layer(1).requires_grad_(False)
    for parameter in layer.net.parameters():
        parameter.mul_(1e3)
    context = torch.linspace(-9, 9, 101, dtype=torch.float64)[:, None]
    # Where z is 0, x is the location; there the slope is exp(-s).
    x, log_det = layer.inverse(torch.zeros(101, 2).double(), context)
    moved = ((x - layer.location) / layer.log_scale.exp()).abs().amax(dim=0)
    assert (moved > 0.4).all()
    assert (moved <= 0.5 + 1e-12).all()
    assert (log_det - layer.log_scale.sum()).abs().max() <= 2.0 + 1e-12


def test_indices_moved_by_a_context_stay_above_the_least_one_and_give_its_tail():
    layer = TailLayer(1, 1, min_index=1.2).double().requires_grad_(False)
    layer.log_excess.fill_(math.log(2.0 - 1.2))
    last = list(layer.net.parameters())[-1]
    for push, index in ((0.0, 2.0), (-1e3, 1.2 + 0.8 * math.exp(-0.5))):
        last[3] = push  # moves the right index
        z, _ = layer(column([1e40, 1e44]), torch.zeros(2, 1).double())
        slope = -z.square().diff(dim=0).item() / 2 / math.log(1e4)
        assert -slope == pytest.approx(index, rel=1e-6)


def test_an_untrained_layer_keeps_what_it_fitted():
    layer = TailLayer(2, trained=False)
    assert not [p for p in layer.parameters() if p.requires_grad]
    layer.fit(torch.randn(500, 2))
    assert not [p for p in layer.parameters() if p.requires_grad]
    assert layer.location.abs().max() > 0


def test_hills_estimator_finds_the_index_of_each_side_in_samples():
    z = column(np.random.default_rng(0).normal(size=1_000_000))
    x = layer_of(1.5, 4.0).inverse(z)[0].numpy()[:, 0]
    for side, index in ((-x, 1.5), (x, 4.0)):
        largest = np.sort(side)[-1001:]
        hill = 1 / np.log(largest[1:] / largest[0]).mean()
        assert index < hill < 1.3 * index  # the logarithm's root looks a little lighter


def test_fit_recovers_its_own_parameters():
    source = affine_layer().requires_grad_(False)
    z = torch.tensor(np.random.default_rng(1).normal(size=(20_000, 2)))
    layer = TailLayer(2).double()
    layer.fit(source.inverse(z)[0])
    scale = source.log_scale.exp()
    assert ((layer.location - source.location).abs() < 0.03 * scale).all()
    assert ((layer.log_scale - source.log_scale).abs() < 0.04).all()
    assert (layer.index / source.index).log().abs().max() < 0.2


def test_fit_without_affine_moves_the_indices_only():
    layer = TailLayer(1, affine=False).double()
    layer.fit(layer_of(1.5, 8.0).inverse(torch.randn(20_000, 1).double())[0])
    assert layer.location is None
    assert layer.log_scale is None
    assert layer.index.flatten().tolist() == [
        pytest.approx(1.5, rel=0.1),
        pytest.approx(8.0, rel=0.2),
    ]


def test_indices_stay_above_the_least_one():
    layer = TailLayer(2, min_index=1.2).double().requires_grad_(False)
    layer.fit(layer_of(0.3).inverse(torch.randn(2000, 1).double())[0].expand(-1, 2))
    assert (layer.index > 1.2).all()
    layer.log_excess.fill_(-50.0)
    assert (layer.index >= 1.2).all()


def test_everything_fitted_survives_saving():
    layer = affine_layer(3)
    copy = TailLayer(2, 3, hidden_dim=8).double()
    copy.load_state_dict(layer.state_dict())
    x, context = torch.randn(8, 2).double(), torch.randn(8, 3).double()
    assert torch.equal(layer(x, context)[0], copy(x, context)[0])


@pytest.mark.parametrize("min_index", [0.0, -1.0, 30.0, float("nan")])
def test_a_least_index_that_cannot_work_is_refused(min_index):
    with pytest.raises(FlowError, match="min_index above 0 and below 30, found"):
        TailLayer(1, min_index=min_index)


def test_a_context_without_location_and_scale_is_refused():
    with pytest.raises(FlowError, match="no context without the affine step, found"):
        TailLayer(1, 2, affine=False)
