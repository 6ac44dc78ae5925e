import numpy as np
import pytest
import torch

from glow_bt.errors import FlowError
from glow_bt.flows import FlowMatching


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def fit(flow, x, steps=400):
    flow.tails.fit(x)
    parameters = [p for p in flow.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=5e-3, fused=True)
    draws = generator()
    for _ in range(steps):
        optimizer.zero_grad()
        flow.objective(x, generator=draws).mean().backward()
        optimizer.step()
    return flow.eval().double().requires_grad_(False)


@pytest.fixture(scope="module")
def bimodal():
    """A flow of two clouds at (-2, 0) and (2, 1), and rows that it has not seen."""
    rng = np.random.default_rng(0)
    side = rng.integers(0, 2, size=(1500, 1))
    x = torch.tensor(rng.normal(size=(1500, 2)) * 0.5 + side * [[4.0, 1.0]] - [[2.0, 0.0]])
    torch.manual_seed(0)
    return fit(FlowMatching(2, hidden_dim=32), x[:1000].float()), x[1000:]


def log_density(x):
    centres = torch.tensor([[-2.0, 0.0], [2.0, 1.0]], dtype=torch.float64)
    squares = ((x[:, None] - centres) / 0.5).square().sum(dim=2)
    return torch.logsumexp(-0.5 * squares, dim=1) - np.log(2 * 2 * np.pi * 0.25)


def test_regression_alone_finds_the_density(bimodal):
    flow, unseen = bimodal
    gap = (log_density(unseen) - flow.log_prob(unseen)).mean()
    assert gap < 0.15  # a Gaussian of the same moments is 0.9 away


def test_samples_are_those_of_both_clouds(bimodal):
    flow, _ = bimodal
    x = flow.sample(2000, generator=generator(1))
    right = x[:, 0] > 0
    assert 0.4 < right.double().mean() < 0.6
    torch.testing.assert_close(
        x[right].mean(dim=0), torch.tensor([2.0, 1.0]).double(), rtol=0, atol=0.15
    )
    assert ((x[right].std(dim=0) - 0.5).abs() < 0.12).all()


def test_twice_the_steps_change_nothing_that_matters(bimodal):
    flow, unseen = bimodal
    z, log_det = flow(unseen)
    finer = FlowMatching(2, hidden_dim=32, solver_steps=16).double()
    finer.load_state_dict(flow.state_dict())
    finer_z, finer_log_det = finer(unseen)
    assert (z - finer_z).abs().max() < 1e-5
    assert (log_det - finer_log_det).abs().max() < 1e-5


def test_the_objective_is_the_squared_error_of_the_velocity():
    torch.manual_seed(0)
    flow = FlowMatching(3, hidden_dim=8, context_features=1, tails=False).double()
    x, context = torch.randn(6, 3).double(), torch.randn(6, 1).double()
    draws = generator()
    noise = torch.randn(6, 3, generator=draws, dtype=torch.float64)
    order = torch.randperm(6, generator=draws)
    time = (order + torch.rand(6, generator=draws, dtype=torch.float64)) / 6
    assert sorted((time * 6).long().tolist()) == list(range(6))
    found = flow.objective(x, context, generator())
    for i in range(6):
        at = (1 - time[i]) * noise[i] + time[i] * x[i]
        velocity, _ = flow._field(context[i : i + 1])(float(time[i]), at[None])
        expected = (velocity[0] - (x[i] - noise[i])).square().sum()
        torch.testing.assert_close(found[i], expected)


def test_the_objective_repeats_with_its_generator():
    flow = FlowMatching(2, hidden_dim=8)
    x = torch.randn(20, 2)
    assert torch.equal(
        flow.objective(x, None, generator(1)), flow.objective(x, None, generator(1))
    )
    assert not torch.equal(
        flow.objective(x, None, generator(1)), flow.objective(x, None, generator(2))
    )


def test_the_objective_leaves_the_tail_layer_as_fitted():
    flow = FlowMatching(2, hidden_dim=8)
    flow.objective(torch.randn(20, 2)).mean().backward()
    assert all(p.grad is None for p in flow.tails.parameters())
    assert all(p.grad.any() for p in flow.net.parameters())


def test_rows_that_it_cannot_take_are_refused_in_training_too():
    flow = FlowMatching(2, hidden_dim=8)
    with pytest.raises(FlowError, match="first row 1"):
        flow.objective(torch.tensor([[0.0, 0.0], [0.0, float("nan")]]))


@pytest.mark.parametrize("name", ["hidden_dim", "solver_steps"])
def test_sizes_below_1_are_refused(name):
    with pytest.raises(FlowError, match=f"{name} of at least 1, found 0"):
        FlowMatching(2, **{name: 0})
