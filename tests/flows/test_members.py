import pytest
import torch

from glow_bt.flows.members import CONTEXT_BOUND, MemberNets
from glow_bt.flows.nets import StackedLinear


def settled(num_members=3, in_features=4, size=0.5):
    nets = MemberNets(num_members, in_features, 6, 3).double().requires_grad_(False)
    for parameter in nets.parameters():
        parameter += size * torch.randn_like(parameter)
    return nets


def test_every_output_starts_at_0_and_gradients_reach_all_that_can_move_then():
    nets = MemberNets(2, 4, 6, 3)
    out = nets(torch.randn(7, 4))
    assert out.shape == (2, 7, 3)
    assert torch.equal(out, torch.zeros(2, 7, 3))
    out.square().mean().add(out.sum()).backward()
    for layer in (nets.layers[-1], nets.line):
        assert layer.weight.grad.abs().min() > 0


def test_each_member_is_its_own_network_beside_a_line():
    nets = settled()
    c = torch.randn(5, 4, dtype=torch.float64)
    found = nets(c)
    for k in range(3):
        hidden = c
        for layer in nets.layers[:-1]:
            hidden = hidden @ layer.weight[k] + layer.bias[k]
            hidden = hidden * hidden.sigmoid()
        expected = hidden @ nets.layers[-1].weight[k] + nets.layers[-1].bias[k]
        expected[:, :1] += c @ nets.line.weight[k] + nets.line.bias[k]
        torch.testing.assert_close(found[k], expected, rtol=1e-13, atol=1e-13)


def test_what_lies_beyond_the_bound_says_no_more_than_the_bound():
    nets = settled()
    c = 100 * torch.randn(50, 4, dtype=torch.float64)
    assert torch.equal(nets(c), nets(c.clamp(-CONTEXT_BOUND, CONTEXT_BOUND)))
    inside = c.clamp(-CONTEXT_BOUND, CONTEXT_BOUND) / 2
    assert not torch.isclose(nets(inside), nets(c)).all(dim=2).any()


def test_without_context_nothing_is_said_and_nothing_learned():
    nets = MemberNets(3, 0, 6, 2)
    assert not list(nets.parameters())
    out = nets(torch.zeros(5, 0, dtype=torch.float64))
    assert out.dtype is torch.float64
    assert torch.equal(out, torch.zeros(3, 5, 2, dtype=torch.float64))


@pytest.mark.parametrize("count", [0, 1])
def test_few_rows_are_rows_too(count):
    assert settled()(torch.zeros(count, 4, dtype=torch.float64)).shape == (3, count, 3)


def test_stacked_linear_maps_are_linear_maps_and_start_as_they_do():
    stack = StackedLinear(3, 4, 2)
    x = torch.randn(3, 5, 4)
    for k in range(3):
        torch.testing.assert_close(stack(x)[k], x[k] @ stack.weight[k] + stack.bias[k])
    many = StackedLinear(50, 16, 20).requires_grad_(False)
    for parameter in many.parameters():
        assert 0.24 < parameter.abs().max() <= 0.25
        assert parameter.std() == pytest.approx(0.25 / 3**0.5, rel=0.05)
