import sys

import pytest
import torch

from glow_bt.errors import FlowError, MissingExtraError
from glow_bt.flows import CNF, IAF, MAF, NSF, make_flow

zuko = pytest.importorskip("zuko", reason="pip install 'glow-bt[flows]'")
NAMES = ("maf", "iaf", "nsf", "cnf")


def built(kind, width=3, **settings):
    torch.manual_seed(0)
    flow = kind(width, hidden_dim=16, context_features=2, **settings).double().eval()
    for parameter in flow.parameters():  # fresh flows are close to the identity
        parameter.data.mul_(2.0)
    return flow.requires_grad_(False)


def rows(count=6, width=3):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, width, generator=generator, dtype=torch.float64)
    return x, torch.randn(count, 2, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("kind", [MAF, NSF])
def test_the_density_is_that_of_zukos_own_flow(kind):
    flow = built(kind, tails=False)
    x, context = rows()
    base = zuko.distributions.DiagNormal(torch.zeros(3).double(), torch.ones(3).double())
    expected = zuko.distributions.NormalizingFlow(flow.net(context), base).log_prob(x)
    torch.testing.assert_close(flow.log_prob(x, context), expected, rtol=0, atol=1e-12)


def test_an_inverse_flow_is_the_forward_one_the_other_way_round():
    forth, back = built(MAF, tails=False), built(IAF, tails=False)
    x, context = rows()
    for there, here in ((forth, back.inverse), (forth.inverse, back)):
        torch.testing.assert_close(there(x, context), here(x, context), rtol=0, atol=1e-12)


def test_the_data_of_an_inverse_flow_depend_on_earlier_latents_only():
    flow = built(IAF, num_steps=1, tails=False)
    z, context = rows(1)
    jacobian = torch.func.jacrev(lambda row: flow.inverse(row[None], context)[0][0])(z[0])
    assert torch.equal(jacobian, jacobian.tril())
    assert jacobian.tril(-1).any()


def test_a_continuous_flow_is_solved_as_zuko_solves_it():
    flow = built(CNF, tails=False)
    x, context = rows()
    network = flow.net
    for i in range(len(x)):
        transform = zuko.transforms.FreeFormJacobianTransform(
            lambda t, h, i=i: network.f(t, h, context[i : i + 1]),
            torch.zeros(()).double(),
            torch.ones(()).double(),
            atol=1e-10,
            rtol=1e-10,
        )
        z, log_det = flow(x[i : i + 1], context[i : i + 1])
        expected_z, expected_log_det = transform.call_and_ladj(x[i : i + 1])
        # zuko keeps its multiples of pi in float32.
        torch.testing.assert_close(z, expected_z, rtol=0, atol=1e-6)
        torch.testing.assert_close(log_det, expected_log_det, rtol=0, atol=1e-5)


def test_half_the_steps_are_enough_to_train_a_continuous_flow_on():
    flow = built(CNF)
    x, context = rows(200)
    gap = flow.objective(x, context) + flow.log_prob(x, context)
    assert 0 < gap.abs().max() < 1e-4


@pytest.mark.parametrize("family", NAMES)
def test_without_tails_there_is_no_tail_layer(family):
    assert make_flow(family, 3, tails=False).tails is None
    assert make_flow(family, 3, 2).tails.context_features == 2


@pytest.mark.parametrize("family", NAMES)
def test_without_zuko_it_says_what_to_install(family, monkeypatch):
    monkeypatch.setitem(sys.modules, "zuko", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'glow-bt\[flows\]'"):
        make_flow(family, 3)


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        ("maf", {"num_steps": 0}, "num_steps of at least 1, found 0"),
        ("iaf", {"hidden_dim": 0}, "hidden_dim of at least 1, found 0"),
        ("nsf", {"num_bins": 0}, "num_bins of at least 1, found 0"),
        ("cnf", {"solver_steps": 0}, "solver_steps of at least 1, found 0"),
        ("maf", {"base": "cauchy"}, "base 'normal', 'student_t' or 'mixture', found 'cauchy'"),
    ],
)
def test_settings_that_cannot_work_are_refused(family, settings, message):
    with pytest.raises(FlowError, match=message):
        make_flow(family, 3, **settings)
