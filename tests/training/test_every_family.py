"""From bars to scores with each family of flows."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from glow_bt.artifact import load_artifact, save_artifact
from glow_bt.artifact.manifest import manifest_of, tensors_of
from glow_bt.errors import ConfigError, MissingExtraError
from glow_bt.flows import tails_of
from glow_bt.scoring import Scorer
from glow_bt.training import TrainConfig, train
from tests.models import (
    EACH_FAMILY,
    SMALL_BARS,
    ZUKO_FAMILIES,
    needs_zuko,
    small_config,
    sp500_bars,
    unseen_bars,
)

QUICK = {"max_epochs": 1, "num_levels": None, "num_steps": None}


@pytest.mark.parametrize("family", EACH_FAMILY)
def test_bars_become_a_model_that_scores_the_same_after_loading(family, tmp_path):
    artifact = train(sp500_bars(0, SMALL_BARS), small_config(flow=family, **QUICK))
    assert tails_of(artifact.state_flow) is not None
    metrics = artifact.training.metrics
    assert all(np.isfinite(value) for value in metrics.values())
    assert ("max_condition_number" in metrics) == (family in {"glow", "realnvp", "nice"})
    save_artifact(artifact, tmp_path / "model")
    loaded = load_artifact(tmp_path / "model")
    assert manifest_of(loaded) == manifest_of(artifact)
    bars = unseen_bars(60)
    mine, theirs = Scorer(artifact).score(bars), Scorer(loaded).score(bars)
    pd.testing.assert_frame_equal(mine, theirs, check_exact=True)
    assert np.isfinite(theirs["log_prob"].iloc[-60:]).all()
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text())
    name = "glow" if family in {"realnvp", "nice"} else family
    assert manifest["state_flow"]["family"] == name
    assert manifest["training"]["config"]["flow"] == family
    assert ("zuko" in manifest["training"]["versions"]) == (family in ZUKO_FAMILIES)
    objective = "loss" if family == "flow_matching" else "nll"
    assert set(artifact.training.history["state"]) == {
        f"train_{objective}",
        f"validation_{objective}",
    }


@needs_zuko
@pytest.mark.parametrize("family", ["maf", "nsf"])
def test_a_mixture_base_gives_the_regimes_of_any_family_that_has_one(family):
    config = small_config(flow=family, base="mixture", regime_method="base", **QUICK)
    artifact = train(sp500_bars(0, SMALL_BARS), config)
    assert artifact.state_flow.prior.means.shape == (config.num_regimes, 16)
    assert artifact.regimes.num_regimes == config.num_regimes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flow": "flow_matching", "base": "normal"}, "no base with flow 'flow_matching'"),
        ({"flow": "maf", "num_levels": 3}, "no num_levels with flow 'maf', found num_levels=3"),
        ({"flow": "cnf", "coupling": "affine", "norm": "actnorm"}, "no coupling or norm with"),
        ({"flow": "nsf", "regime_method": "base"}, "base 'mixture' with regime_method 'base'"),
    ],
)
def test_settings_that_the_family_has_not_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**settings)


def test_without_zuko_training_and_loading_say_what_to_install(tmp_path, monkeypatch):
    pytest.importorskip("zuko", reason="needs zuko: pip install 'glow-bt[flows]'")
    config = small_config(flow="maf", **QUICK)
    bars = sp500_bars(0, SMALL_BARS)
    save_artifact(train(bars, config), tmp_path / "model")
    monkeypatch.setitem(sys.modules, "zuko", None)
    for use in (lambda: train(bars, config), lambda: load_artifact(tmp_path / "model")):
        with pytest.raises(MissingExtraError, match=r"pip install 'glow-bt\[flows\]'"):
            use()


def test_flow_matching_measures_its_likelihood_exactly():
    bars = sp500_bars(0, SMALL_BARS)
    artifact = train(bars, small_config(flow="flow_matching", **QUICK))
    flow, x = artifact.state_flow, torch.from_numpy(artifact.probe)
    z, _ = flow(x)
    jacobians = [torch.func.jacrev(lambda row: flow(row[None])[0][0])(row) for row in x[:3]]
    expected = torch.stack([torch.linalg.slogdet(jacobian)[1] for jacobian in jacobians])
    density = artifact.read(artifact.probe).log_prob[:3]
    np.testing.assert_allclose(density, (flow.prior.log_prob(z[:3]) + expected), atol=1e-6)


class StopError(Exception):
    """Ends a training early."""


def stop_after(epochs):
    def stop(flow, epoch, max_epochs, num_features):
        if flow == "state" and epoch.number == epochs:
            raise StopError

    return stop


@pytest.mark.parametrize(
    "family", [pytest.param("nsf", marks=needs_zuko), "flow_matching", "realnvp"]
)
def test_an_interrupted_training_goes_on_to_the_same_model(family, tmp_path):
    bars = sp500_bars(0, SMALL_BARS)
    settings = QUICK | {"max_epochs": 3}
    config = small_config(flow=family, **settings)
    with pytest.raises(StopError):
        train(bars, config, progress=stop_after(2), checkpoint_dir=tmp_path)
    resumed = train(bars, config, checkpoint_dir=tmp_path)
    whole = train(bars, config)
    assert manifest_of(resumed) == manifest_of(whole)
    expected = tensors_of(whole)
    for name, tensor in tensors_of(resumed).items():
        assert torch.equal(tensor, expected[name]), name
