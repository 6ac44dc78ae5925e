import pytest
import torch

from glow_bt.errors import FlowError
from glow_bt.flows import Split


@pytest.mark.parametrize(("width", "num_latent"), [(2, 1), (3, 1), (5, 2), (8, 4), (33, 16)])
def test_half_of_the_features_leave_rounded_down(width, num_latent):
    assert Split(width).num_latent == num_latent


def test_one_feature_cannot_be_split():
    with pytest.raises(FlowError, match="at least 2 features to split, found 1"):
        Split(1)


def test_it_starts_with_a_standard_normal_prior():
    x = torch.randn(6, 5)
    z, log_det = Split(5)(x)
    assert torch.equal(z, x)
    assert torch.equal(log_det, torch.zeros(6))


@pytest.mark.parametrize("context_features", [0, 2])
def test_what_leaves_is_standardised_by_what_stays(context_features):
    split = Split(5, context_features).double().requires_grad_(False)
    for parameter in split.parameters():
        parameter += torch.randn_like(parameter)
    x = torch.randn(6, 5, dtype=torch.float64)
    context = torch.randn(6, 2, dtype=torch.float64) if context_features else None
    z, log_det = split(x, context)
    assert torch.equal(z[:, 2:], x[:, 2:])
    # For one row, z is an affine function of what leaves, whose slope is 1 / sigma.
    shifted = x.clone()
    shifted[:, :2] += 1
    slope = split(shifted, context)[0][:, :2] - z[:, :2]
    torch.testing.assert_close(log_det, slope.log().sum(dim=1))
    assert not torch.isclose(slope[0], slope[1]).any()
    assert torch.equal(split(shifted, context)[1], log_det)
