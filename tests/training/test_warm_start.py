"""Training that begins at an earlier model: what is taken over, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from glow_bt.artifact import fingerprint, load_artifact, save_artifact
from glow_bt.artifact.manifest import tensors_of
from glow_bt.errors import ConfigError, LookAheadError
from glow_bt.features import DEFAULT_SPEC, Scaler
from glow_bt.flows import make_flow
from glow_bt.training import train
from glow_bt.training.data import divide
from glow_bt.training.warm_start import check_start, state_flow_at
from tests.models import small_artifact, small_config, sp500_bars

# The training block ends after all that the small model has seen.
LATER = {"train_until": "2001-10-01", "validation_until": "2002-07-01"}
WARM = small_config(max_epochs=1, **LATER)


@pytest.fixture(scope="module")
def bars():
    return sp500_bars(0, 900)


@pytest.fixture(scope="module")
def warm(bars):
    return train(bars, WARM, start=small_artifact())


def refit(scaler):
    """A scaler of other numbers."""
    centre = tuple(np.asarray(scaler.centre) + 0.3 * np.asarray(scaler.scale))
    return Scaler(scaler.names, centre, tuple(np.linspace(0.5, 2.0, 16) * scaler.scale))


def test_the_start_is_the_models_density_of_raw_states_in_float32():
    model = small_artifact()
    scaler = refit(model.scaler)
    states = model.scaler.inverse(model.probe)
    flow = state_flow_at(model.state_flow, model.scaler, scaler)
    assert {tensor.dtype for tensor in flow.parameters()} == {torch.float32}
    with torch.no_grad():
        found = flow.double().eval().log_prob(torch.from_numpy(scaler.transform(states)))
    expected = model.read(model.probe).log_prob + model.scaler.log_det
    np.testing.assert_allclose(found.numpy() + scaler.log_det, expected, atol=1e-3)


def test_a_flow_without_tails_starts_at_the_same_numbers():
    flow = make_flow("glow", 16, tails=False, num_levels=1, num_steps=1).double()
    scaler = small_artifact().scaler
    found = state_flow_at(flow, scaler, refit(scaler)).state_dict()
    for name, tensor in flow.state_dict().items():
        assert torch.equal(found[name], tensor.to(found[name].dtype)), name


def test_only_the_state_flow_begins_elsewhere(bars, warm):
    cold = train(bars, WARM)
    found, expected = tensors_of(warm), tensors_of(cold)
    weights = "state_flow.levels.0.nets.net.1.weight"
    assert found[weights].ne(expected[weights]).any()
    for name, tensor in found.items():
        if name.startswith(("returns_", "probe.")):
            assert tensor.equal(expected[name]), name
    assert warm.scaler == cold.scaler
    assert warm.training.metrics["state_train_nll"] < cold.training.metrics["state_train_nll"]


def test_the_model_names_its_start_and_is_the_same_whatever_was_interrupted(bars, warm, tmp_path):
    def interrupt(flow, epoch, max_epochs, width):
        raise KeyboardInterrupt

    checkpoints = tmp_path / "checkpoints"
    with pytest.raises(KeyboardInterrupt):  # of a start of its own
        train(bars, WARM, progress=interrupt, checkpoint_dir=checkpoints)
    assert list(checkpoints.iterdir())
    save_artifact(small_artifact(), tmp_path / "model")
    start = load_artifact(tmp_path / "model")
    with pytest.raises(KeyboardInterrupt):
        train(bars, WARM, start=start, progress=interrupt, checkpoint_dir=checkpoints)
    again = train(bars, WARM, start=start, checkpoint_dir=checkpoints)
    assert again.training.parent == fingerprint(small_artifact())
    assert fingerprint(again) == fingerprint(warm)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"hidden_dim": 9}, r"is asked for, hidden_dim=9, found hidden_dim=8; give its"),
        ({"base": "mixture"}, r"is asked for, base='mixture'.*, found base='normal'"),
        ({"flow": "realnvp"}, r"permutation='reverse', found permutation="),
    ],
)
def test_a_start_of_another_state_flow_is_refused(bars, changes, told):
    with pytest.raises(ConfigError, match=told):
        train(bars, replace(WARM, **changes), start=small_artifact())


def test_a_start_of_other_features_or_bars_is_refused(bars):
    spec = replace(DEFAULT_SPEC, short=DEFAULT_SPEC.short + 1)
    with pytest.raises(ConfigError, match="start from with the features"):
        train(bars, WARM, spec=spec, start=small_artifact())
    record = replace(small_artifact().training, bar_seconds=3600.0)
    returns = replace(small_artifact().returns, bar_seconds=3600.0)
    hourly = replace(small_artifact(), training=record, returns=returns)
    with pytest.raises(ConfigError, match="of bars of 86400 seconds, found one of 3600"):
        train(bars, WARM, start=hourly)


def test_the_record_of_a_search_is_kept_and_comes_from_the_start_if_not_given(bars, warm):
    search = {"trials": 3, "bars_until": bars.index[300].isoformat()}
    record = replace(small_artifact().training, search=search)
    start = replace(small_artifact(), training=record)
    inherited = train(bars, WARM, start=start)
    assert inherited.training.search == search
    assert inherited.training.parent == fingerprint(start)
    given = train(bars, WARM, start=start, search={"trials": 9})
    assert given.training.search == {"trials": 9}
    for found in (inherited, given):
        assert all(map(torch.equal, tensors_of(found).values(), tensors_of(warm).values()))
    assert warm.training.search is None


def test_what_is_no_record_of_a_search_is_refused_before_anything_else(bars):
    with pytest.raises(ConfigError, match="a search with its number of trials"):
        train(bars.iloc[:1], WARM, search={})


def test_a_start_that_has_learnt_from_later_bars_is_refused(bars, warm):
    def check(start, config):
        check_start(start, config, DEFAULT_SPEC, bars, divide(bars, config, DEFAULT_SPEC))

    earlier = replace(WARM, train_until="2001-03-01", validation_until="2001-12-01")
    # By shares it is not on record where the validation of the small model began.
    with pytest.raises(LookAheadError, match="learnt from bars before 2001-03-01"):
        check(small_artifact(), earlier)
    with pytest.raises(LookAheadError, match=r"found one with bars until 2001-10-01"):
        check(warm, earlier)
    check(warm, replace(WARM, seed=1))
    record = warm.training
    adapted = replace(record, config={**record.config, "adapt": {"max_steps": 1}})
    with pytest.raises(LookAheadError, match="learnt from bars before 2001-10-01"):
        check(replace(warm, training=adapted), WARM)
