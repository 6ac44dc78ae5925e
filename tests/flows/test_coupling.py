import pytest
import torch

from glow_bt.flows import AdditiveCoupling, AffineCoupling, ConditionalAffine
from glow_bt.flows.nets import bounded_log_scale


def moved(layer):
    """Give the layer parameters that do something."""
    layer = layer.double().requires_grad_(False)
    for parameter in layer.parameters():
        parameter += 0.5 * torch.randn_like(parameter)
    return layer


@pytest.mark.parametrize("coupling", [AffineCoupling, AdditiveCoupling])
@pytest.mark.parametrize("num_features", [1, 2, 5])
def test_it_starts_as_the_identity(coupling, num_features):
    x = torch.randn(6, num_features)
    z, log_det = coupling(num_features, hidden_dim=8)(x)
    assert torch.equal(z, x)
    assert torch.equal(log_det, torch.zeros(6))


@pytest.mark.parametrize("coupling", [AffineCoupling, AdditiveCoupling])
def test_the_first_half_passes_and_moves_the_second(coupling):
    layer = moved(coupling(5, hidden_dim=8))
    x = torch.randn(6, 5, dtype=torch.float64)
    z, _ = layer(x)
    assert torch.equal(z[:, :2], x[:, :2])
    assert not torch.isclose(z[:, 2:], x[:, 2:]).any()
    other = x.clone()
    other[:, :2] += 1
    assert not torch.isclose(layer(other)[0][:, 2:], z[:, 2:]).any()


@pytest.mark.parametrize("coupling", [AffineCoupling, AdditiveCoupling])
@pytest.mark.parametrize("num_features", [1, 5])
def test_the_context_moves_what_is_changed(coupling, num_features):
    layer = moved(coupling(num_features, hidden_dim=8, context_features=3))
    x = torch.randn(6, num_features, dtype=torch.float64)
    context = torch.randn(6, 3, dtype=torch.float64)
    z, _ = layer(x, context)
    other, _ = layer(x, context + 1)
    half = num_features // 2
    assert torch.equal(other[:, :half], z[:, :half])
    assert not torch.isclose(other[:, half:], z[:, half:]).any()


def test_an_affine_coupling_is_its_formula():
    layer = moved(AffineCoupling(5, hidden_dim=8))
    x = torch.randn(6, 5, dtype=torch.float64)
    raw, shift = layer.affine.net(x[:, :2]).split(3, dim=1)
    log_scale = bounded_log_scale(raw)
    z, log_det = layer(x)
    torch.testing.assert_close(z[:, 2:], x[:, 2:] * log_scale.exp() + shift)
    torch.testing.assert_close(log_det, log_scale.sum(dim=1))


def test_an_additive_coupling_keeps_volumes():
    layer = moved(AdditiveCoupling(5, hidden_dim=8))
    x = torch.randn(6, 5, dtype=torch.float64)
    z, log_det = layer(x)
    torch.testing.assert_close(z[:, 2:], x[:, 2:] + layer.net(x[:, :2]))
    assert torch.equal(log_det, torch.zeros(6).double())


def test_an_affine_map_without_condition_is_one_for_all_rows():
    affine = moved(ConditionalAffine(2, 0, hidden_dim=8))
    y = torch.randn(6, 2, dtype=torch.float64)
    z, log_det = affine(y, y[:, :0])
    slope = (z[1:] - z[0]) / (y[1:] - y[0])
    torch.testing.assert_close(slope, slope[:1].expand(5, -1))
    torch.testing.assert_close(log_det, slope[0].log().sum().expand(6))
