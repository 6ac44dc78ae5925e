import pytest
import torch

from glow_bt.flows import ConditionalAffine, GlowLevel
from glow_bt.flows.coupling import COUPLINGS
from glow_bt.flows.nets import StackedNet, bounded_log_scale
from glow_bt.flows.spline import NUM_KNOT_PARAMETERS, spline_forward


def moved(layer):
    """Give the layer parameters that do something."""
    layer = layer.double().requires_grad_(False)
    for parameter in layer.parameters():
        parameter += 0.5 * torch.randn_like(parameter)
    return layer


def one_coupling(name, num_features, context_features=0):
    """Return a level of one step that does nothing but couple."""
    level = GlowLevel(num_features, 1, 8, context_features, coupling=name, permutation="reverse")
    level.norm.initialized.fill_(True)
    for parameter in level.nets.parameters():
        parameter.data += 0.5 * torch.randn_like(parameter)
    return level.double().requires_grad_(False)


def rows(count, width):
    return torch.randn(count, width, dtype=torch.float64)


@pytest.mark.parametrize("name", COUPLINGS)
@pytest.mark.parametrize("num_features", [1, 2, 5])
def test_it_starts_as_the_identity(name, num_features):
    coupling = COUPLINGS[name]
    x = 3 * rows(60, num_features)
    z, log_det = coupling.forward(
        x, x.new_zeros(60, num_features * coupling.parameters_per_feature)
    )
    torch.testing.assert_close(z, x, rtol=0, atol=1e-14)
    torch.testing.assert_close(log_det, torch.zeros(60).double(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", COUPLINGS)
def test_the_first_half_passes_and_moves_the_second(name):
    level = one_coupling(name, 5)
    x = rows(6, 5)
    z, _ = level(x)
    swapped = x.flip(1)
    assert torch.equal(z[:, :2], swapped[:, :2])
    assert not torch.isclose(z[:, 2:], swapped[:, 2:]).any()
    x[:, -2:] += 1
    assert not torch.isclose(level(x)[0][:, 2:], z[:, 2:]).any()


@pytest.mark.parametrize("name", COUPLINGS)
@pytest.mark.parametrize("num_features", [1, 5])
def test_the_context_moves_what_is_changed(name, num_features):
    level = one_coupling(name, num_features, context_features=3)
    x, context = rows(6, num_features), rows(6, 3)
    z, _ = level(x, context)
    other, _ = level(x, context + 1)
    half = num_features // 2
    assert torch.equal(other[:, :half], z[:, :half])
    assert not torch.isclose(other[:, half:], z[:, half:]).any()


def test_an_affine_coupling_is_its_formula():
    x, raw = rows(6, 3), rows(6, 6)
    log_scale = bounded_log_scale(raw[:, :3])
    z, log_det = COUPLINGS["affine"].forward(x, raw)
    torch.testing.assert_close(z, x * log_scale.exp() + raw[:, 3:])
    torch.testing.assert_close(log_det, log_scale.sum(dim=1))


def test_an_additive_coupling_keeps_volumes():
    x, raw = rows(6, 3), rows(6, 3)
    z, log_det = COUPLINGS["additive"].forward(x, raw)
    torch.testing.assert_close(z, x + raw)
    assert torch.equal(log_det, torch.zeros(6).double())


def test_a_spline_coupling_bends_each_feature_by_its_own_knots():
    x, raw = rows(6, 2), rows(6, 2 * COUPLINGS["spline"].parameters_per_feature)
    z, log_det = COUPLINGS["spline"].forward(x, raw)
    expected_log_det = bounded_log_scale(raw[:, :2]).sum(dim=1)
    for feature in range(2):
        start = 4 + feature * NUM_KNOT_PARAMETERS
        bent, log_slope = spline_forward(
            x[:, feature], raw[:, start : start + NUM_KNOT_PARAMETERS]
        )
        scale = bounded_log_scale(raw[:, feature]).exp()
        torch.testing.assert_close(z[:, feature], bent * scale + raw[:, 2 + feature])
        expected_log_det += log_slope
    torch.testing.assert_close(log_det, expected_log_det)


def test_an_affine_map_without_condition_is_one_for_all_rows():
    affine = moved(ConditionalAffine(2, 0))
    y = rows(6, 2)
    z, log_det = affine(y, y[:, :0])
    slope = (z[1:] - z[0]) / (y[1:] - y[0])
    torch.testing.assert_close(slope, slope[:1].expand(5, -1))
    torch.testing.assert_close(log_det, slope[0].log().sum().expand(6))


def test_stacked_networks_do_not_share():
    nets = moved(StackedNet(3, 4, 8, 2))
    condition = rows(5, 4)
    before = [StackedNet.apply_one(net, condition) for net in nets.unbind()]
    nets.net[1].weight[1] += 1
    after = [StackedNet.apply_one(net, condition) for net in nets.unbind()]
    assert torch.equal(before[0], after[0])
    assert not torch.isclose(before[1], after[1]).any()
    assert torch.equal(before[2], after[2])
