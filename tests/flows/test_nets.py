import pytest
import torch

from glow_bt.flows.nets import bounded_log_scale, conditioner, soft_bound


@pytest.mark.parametrize("bound", [0.5, 4.0])
def test_a_soft_bound_is_the_identity_around_0_and_never_left(bound):
    x = torch.linspace(-1000, 1000, 2001, dtype=torch.float64)
    y = soft_bound(x, bound)
    assert (y.abs() <= bound).all()
    assert (y.diff() >= 0).all()
    small = torch.tensor([-1e-4, 0.0, 1e-4], dtype=torch.float64)
    torch.testing.assert_close(soft_bound(small, bound), small, rtol=1e-7, atol=0)


def test_log_scales_stay_within_one_half():
    raw = torch.tensor([-1e9, -0.3, 0.0, 0.3, 1e9])
    scales = bounded_log_scale(raw)
    assert scales[0] == -0.5
    assert scales[-1] == 0.5
    assert scales[2] == 0
    assert (scales.diff() > 0).all()


@pytest.mark.parametrize("in_features", [0, 3])
@pytest.mark.parametrize("hidden_layers", [0, 2])
def test_output_starts_at_0(in_features, hidden_layers):
    net = conditioner(in_features, 8, 5, hidden_layers)
    out = net(torch.randn(7, in_features))
    assert out.tolist() == [[0.0] * 5] * 7


def test_a_net_without_inputs_is_a_learned_constant():
    net = conditioner(0, 8, 2)
    (parameter,) = net.parameters()
    with torch.no_grad():
        parameter += torch.tensor([3.0, 4.0])
    assert net(torch.zeros(3, 0)).tolist() == [[3.0, 4.0]] * 3


def test_depth_is_as_asked():
    def linear_layers(hidden_layers):
        net = conditioner(3, 8, 5, hidden_layers)
        return [(m.in_features, m.out_features) for m in net if isinstance(m, torch.nn.Linear)]

    assert linear_layers(0) == [(3, 5)]
    assert linear_layers(2) == [(3, 8), (8, 8), (8, 5)]


def test_far_out_rows_give_bounded_and_almost_constant_outputs():
    net = conditioner(3, 8, 5, hidden_layers=0).double().requires_grad_(False)
    net[-1].weight += torch.randn(5, 3, dtype=torch.float64)
    direction = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)
    near, far, farther = (net(direction * scale) for scale in (1e-3, 1e3, 1e6))
    torch.testing.assert_close(near, 1e-3 * direction @ net[-1].weight.T, rtol=1e-6, atol=0)
    torch.testing.assert_close(far, farther, rtol=1e-5, atol=0)
    inner = farther @ torch.linalg.pinv(net[-1].weight).T
    assert inner.square().mean().sqrt().item() == pytest.approx(3.0)
