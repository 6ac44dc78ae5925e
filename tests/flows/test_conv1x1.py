import numpy as np
import pytest
import torch

from glow_bt.flows import InvertibleConv1x1, Reverse


def drifted(num_features, size=0.2):
    """Return a layer whose parameters have left the start, as training does."""
    layer = InvertibleConv1x1(num_features).double().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for parameter in layer.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter += size * noise / num_features**0.5
    return layer


@pytest.mark.parametrize("num_features", [1, 2, 16, 64])
def test_it_starts_orthogonal(num_features):
    layer = InvertibleConv1x1(num_features)
    weight = layer.weight().detach()
    torch.testing.assert_close(weight @ weight.T, torch.eye(num_features), rtol=0, atol=1e-5)
    assert layer.condition_number() == pytest.approx(1, abs=1e-4)
    assert layer.log_s.sum().item() == pytest.approx(0, abs=1e-5)


def test_both_signs_of_the_diagonal_occur_and_are_kept():
    signs = torch.cat([InvertibleConv1x1(16).sign for _ in range(4)])
    assert set(signs.tolist()) == {-1.0, 1.0}
    layer = drifted(16)
    sign = np.linalg.slogdet(layer.weight().numpy()).sign
    assert sign == pytest.approx(
        layer.sign.prod().item() * np.linalg.slogdet(layer.permutation.numpy()).sign
    )


def test_log_det_is_that_of_the_matrix():
    layer = drifted(16)
    x = torch.randn(3, 16, dtype=torch.float64)
    z, log_det = layer(x)
    expected = np.linalg.slogdet(layer.weight().numpy()).logabsdet
    np.testing.assert_allclose(log_det, np.full(3, expected), rtol=0, atol=1e-12)
    np.testing.assert_allclose(z, x.numpy() @ layer.weight().numpy().T, rtol=0, atol=1e-13)


def test_the_condition_number_is_that_of_the_matrix():
    layer = drifted(8)
    expected = np.linalg.cond(layer.weight().numpy())
    assert expected > 1.5
    assert layer.condition_number() == pytest.approx(expected)


@pytest.mark.parametrize("layer", [InvertibleConv1x1(64), drifted(64).float()])
def test_64_features_come_back_in_float32(layer):
    x = 10 * torch.randn(256, 64)
    z, _ = layer(x)
    back, _ = layer.inverse(z)
    assert (back - x).abs().max() < 1e-3


def test_what_lies_outside_the_triangles_does_not_count():
    layer = drifted(5)
    weight = layer.weight()
    layer.lower += torch.ones(5, 5).triu()
    layer.upper += torch.ones(5, 5).tril()
    assert torch.equal(layer.weight(), weight)


def test_reverse_reverses_and_is_its_own_inverse():
    x = torch.arange(6.0).reshape(2, 3)
    z, log_det = Reverse(3)(x)
    assert z.tolist() == [[2, 1, 0], [5, 4, 3]]
    assert log_det.tolist() == [0, 0]
    assert torch.equal(Reverse(3).inverse(z)[0], x)
