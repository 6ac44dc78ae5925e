import numpy as np
import pytest
import torch

from glow_bt.flows import InvertibleConv1x1, Reverse


def drifted(num_features, size=0.2):
    """Return matrices whose parameters have left the start, as training does."""
    mixing = InvertibleConv1x1(3, num_features).double().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for parameter in mixing.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter += size * noise / num_features**0.5
    return mixing


@pytest.mark.parametrize("num_features", [1, 2, 16, 64])
def test_it_starts_as_a_permutation(num_features):
    mixing = InvertibleConv1x1(3, num_features)
    weights = mixing.weights().detach()
    assert torch.equal(weights.sum(dim=1), torch.ones(3, num_features))
    assert torch.equal(weights.sum(dim=2), torch.ones(3, num_features))
    assert set(weights.unique().tolist()) <= {0.0, 1.0}
    assert mixing.condition_numbers() == [1.0] * 3
    assert mixing.log_det() == 0


def test_steps_start_apart():
    first, second, third = InvertibleConv1x1(3, 16).weights()
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)


def test_both_orientations_occur_and_are_kept():
    mixing = drifted(16)
    signs = np.linalg.slogdet(mixing.weights().numpy()).sign
    np.testing.assert_allclose(signs, np.linalg.slogdet(mixing.permutation.numpy()).sign)
    starts = InvertibleConv1x1(16, 5).weights().detach()
    assert set(torch.linalg.det(starts).tolist()) == {-1.0, 1.0}


def test_log_det_is_that_of_the_matrices():
    mixing = drifted(16)
    expected = np.linalg.slogdet(mixing.weights().numpy()).logabsdet.sum()
    assert mixing.log_det().item() == pytest.approx(expected, abs=1e-12)


def test_condition_numbers_are_those_of_the_matrices():
    mixing = drifted(8)
    expected = np.linalg.cond(mixing.weights().numpy())
    assert (expected > 1.5).all()
    assert mixing.condition_numbers() == pytest.approx(expected)


@pytest.mark.parametrize("mixing", [InvertibleConv1x1(3, 64), drifted(64).float(), Reverse(3, 64)])
def test_64_features_come_back_in_float32(mixing):
    x = 10 * torch.randn(256, 64)
    for step, weight in enumerate(mixing.weights()):
        back = mixing.solver()(x @ weight.T, step)
        assert (back - x).abs().max() < 1e-3


def test_what_lies_outside_the_triangles_does_not_count():
    mixing = drifted(5)
    weights = mixing.weights()
    mixing.lower += torch.ones(5, 5).triu()
    mixing.upper += torch.ones(5, 5).tril()
    assert torch.equal(mixing.weights(), weights)


def test_reverse_reverses_and_is_its_own_inverse():
    mixing = Reverse(2, 3)
    x = torch.arange(6.0).reshape(2, 3)
    for step, weight in enumerate(mixing.weights()):
        assert (x @ weight.T).tolist() == [[2, 1, 0], [5, 4, 3]]
        solve = mixing.solver()
        assert torch.equal(solve(solve(x, step), step), x)
    assert mixing.log_det() == 0
