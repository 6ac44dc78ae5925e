import json

import numpy as np
import pytest
import torch

from glow_bt.artifact.path_folder import load_paths, save_paths
from glow_bt.errors import ArtifactError
from tests.path_models import known_model


def test_a_loaded_model_draws_the_same_paths(tmp_path):
    model = known_model(0.8)
    save_paths(model, tmp_path / "paths")
    state = torch.random.get_rng_state()
    loaded = load_paths(tmp_path / "paths")
    assert torch.equal(torch.random.get_rng_state(), state)
    start = 0.01 * np.resize([1.0, -1.0], 30)
    np.testing.assert_array_equal(
        loaded.simulate(5, 20, start=start, seed=1).returns,
        model.simulate(5, 20, start=start, seed=1).returns,
    )
    assert loaded.trained_until == model.trained_until
    assert loaded.max_volatility == model.max_volatility


def test_a_folder_is_replaced_only_when_asked(tmp_path):
    model = known_model(0.8)
    save_paths(model, tmp_path / "paths")
    with pytest.raises(ArtifactError, match="expected a new path model folder"):
        save_paths(model, tmp_path / "paths")
    save_paths(known_model(0.5), tmp_path / "paths", overwrite=True)
    scale = load_paths(tmp_path / "paths").returns.flows[1].log_scale
    np.testing.assert_allclose(scale.exp().item(), 0.5)


def test_missing_foreign_and_damaged_folders_are_told_apart(tmp_path):
    with pytest.raises(ArtifactError, match=r"found no manifest\.json"):
        load_paths(tmp_path)
    folder = tmp_path / "paths"
    save_paths(known_model(0.8), folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    for broken, told in (
        ({"path_schema_version": 9}, "schema version 1, found 9"),
        ({"max_volatility": "high"}, "found a damaged one"),
        ({"model_sha256": "0"}, "the one that the manifest has the hash of"),
    ):
        (folder / "manifest.json").write_text(json.dumps(manifest | broken))
        with pytest.raises(ArtifactError, match=told):
            load_paths(folder)
    (folder / "manifest.json").write_text("[]")
    with pytest.raises(ArtifactError, match="found None"):
        load_paths(folder)
