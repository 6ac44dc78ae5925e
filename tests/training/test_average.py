import pytest
import torch

from glow_bt.flows import Glow
from glow_bt.training.average import WeightAverage


def started_glow(norm="actnorm"):
    flow = Glow(2, num_levels=1, num_steps=2, hidden_dim=8, norm=norm)
    flow.log_prob(torch.randn(64, 2))
    return flow


def moved(flow, size):
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += size


def weights_of(flow):
    return [parameter.detach().clone() for parameter in flow.parameters()]


def test_it_moves_by_the_ramp_and_then_by_the_decay():
    flow = started_glow()
    average = WeightAverage(flow, decay=0.5)
    expected = weights_of(flow)
    for n in range(30):
        moved(flow, 1.0)
        average.update(flow)
        decay = min(0.5, (1 + n) / (10 + n))
        pairs = zip(expected, weights_of(flow), strict=True)
        expected = [decay * old + (1 - decay) * new for old, new in pairs]
    assert average.num_steps == 30
    for found, value in zip(average.flow.parameters(), expected, strict=True):
        torch.testing.assert_close(found, value)


def test_without_decay_it_is_the_last_weights():
    flow = started_glow()
    average = WeightAverage(flow, decay=0.0)
    moved(flow, 3.0)
    average.update(flow)
    averaged = average.averaged(flow)
    for found, value in zip(averaged.parameters(), flow.parameters(), strict=True):
        assert torch.equal(found, value)


def test_it_is_a_copy_that_learns_nothing_by_itself():
    flow = started_glow()
    average = WeightAverage(flow, decay=0.9)
    before = weights_of(average.flow)
    moved(flow, 1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, average.flow.parameters(), strict=True))
    assert not average.flow.training
    assert not any(parameter.requires_grad for parameter in average.flow.parameters())


def test_running_moments_are_those_of_the_trained_flow():
    flow = started_glow("batchnorm")
    average = WeightAverage(flow, decay=0.9)
    flow.log_prob(5 + torch.randn(64, 2))
    averaged = average.averaged(flow)
    assert torch.equal(averaged.levels[0].norm.running_mean, flow.levels[0].norm.running_mean)
    assert averaged.levels[0].norm.running_mean.abs().max() > 0.1


@pytest.mark.parametrize("num_steps", [0, 7])
def test_a_restored_average_goes_on_where_it_was(num_steps):
    flow = started_glow()
    whole = WeightAverage(flow, decay=0.99)
    for _ in range(num_steps):
        moved(flow, 1.0)
        whole.update(flow)
    resumed = WeightAverage(started_glow(), decay=0.99)
    resumed.restore({k: v.clone() for k, v in whole.state().items()}, whole.num_steps)
    moved(flow, 1.0)
    for average in (whole, resumed):
        average.update(flow)
    for a, b in zip(whole.flow.parameters(), resumed.flow.parameters(), strict=True):
        assert torch.equal(a, b)
