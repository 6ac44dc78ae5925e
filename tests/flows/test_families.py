import pytest
import torch

from glow_bt.errors import FlowError
from glow_bt.flows import (
    Glow,
    TailLayer,
    UnivariateFlow,
    describe_flow,
    family_settings,
    make_flow,
    tails_of,
)
from tests.models import EACH_FAMILY

SMALL = {"hidden_dim": 8}


@pytest.mark.parametrize("family", EACH_FAMILY)
@pytest.mark.parametrize("contexts", [0, 2])
def test_what_is_described_can_be_built_again(family, contexts):
    flow = make_flow(family, 5, contexts, **SMALL)
    assert (flow.num_features, flow.context_features) == (5, contexts)
    again = make_flow(**describe_flow(flow))
    assert describe_flow(again) == describe_flow(flow)
    again.load_state_dict(flow.state_dict())
    assert describe_flow(flow)["hidden_dim"] == 8


@pytest.mark.parametrize("family", EACH_FAMILY)
def test_every_setting_that_a_family_declares_is_taken(family):
    described = describe_flow(make_flow(family, 4, **SMALL))
    kept = {name: described[name] for name in family_settings(family)}
    assert describe_flow(make_flow(family, 4, **kept)) == described
    assert "num_features" not in kept


@pytest.mark.parametrize("family", EACH_FAMILY)
def test_settings_that_a_family_has_not_are_refused(family):
    with pytest.raises(FlowError, match=rf"settings of flow '{family}' among .*found kernel"):
        make_flow(family, 4, kernel=3)


@pytest.mark.parametrize(
    ("family", "setting"),
    [
        *(("maf", "num_levels"), ("nsf", "coupling"), ("cnf", "num_steps")),
        ("flow_matching", "base"),
        ("nice", "coupling"),
        ("realnvp", "permutation"),
    ],
)
def test_no_setting_is_ignored(family, setting):
    assert setting not in family_settings(family)
    with pytest.raises(FlowError, match=f"found {setting}; leave it out"):
        make_flow(family, 4, **{setting: 2})


@pytest.mark.parametrize("family", ["planar", "", "Glow"])
def test_an_unknown_family_is_refused_with_those_that_there_are(family):
    with pytest.raises(
        FlowError, match="flow among glow, realnvp, nice, maf, iaf, nsf, cnf, flow"
    ):
        make_flow(family, 4)


def test_nice_and_realnvp_are_settings_of_glow():
    for family, coupling in (("nice", "additive"), ("realnvp", "affine")):
        flow = make_flow(family, 4, **SMALL)
        assert isinstance(flow, Glow)
        described = describe_flow(flow)
        assert described["family"] == "glow"
        assert described["coupling"] == coupling
        assert described["permutation"] == "reverse"


def test_a_flow_of_no_family_cannot_be_described():
    with pytest.raises(FlowError, match=r"families glow, .* found a UnivariateFlow"):
        describe_flow(UnivariateFlow(0))


@pytest.mark.parametrize("family", EACH_FAMILY)
def test_tails_are_a_setting_of_every_family(family):
    assert isinstance(tails_of(make_flow(family, 3, **SMALL)), TailLayer)
    assert tails_of(make_flow(family, 3, tails=False, **SMALL)) is None


@pytest.mark.parametrize("family", EACH_FAMILY)
def test_training_of_any_family_brings_its_objective_down(family):
    torch.manual_seed(0)
    flow = make_flow(family, 3, tails=False, **SMALL)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 3, generator=generator)
    x[:, 2] = x[:, 0].square() + 0.1 * x[:, 2]
    optimizer = torch.optim.Adam([p for p in flow.parameters() if p.requires_grad], lr=2e-2)
    losses = []
    for _ in range(25):
        loss = flow.objective(x, None, generator).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.2
