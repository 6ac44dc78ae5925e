import ast
import hashlib
import json
import math
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import norm

import glow_bt
from glow_bt.artifact import fingerprint, load_artifact, save_artifact
from glow_bt.artifact.manifest import manifest_of, tensors_of
from glow_bt.errors import ArtifactError
from glow_bt.flows import UnivariateFlow, make_flow
from glow_bt.flows.tails import TailLayer
from glow_bt.likelihood import LikelihoodFilter
from glow_bt.scoring import Scorer
from tests.models import small_artifact, sp500_bars, unseen_bars
from tests.scoring.samples import model_of_funding, model_of_two_horizons

ROOT = Path(__file__).parents[1]
REMEDY = r"(train again|train the model again|copy the folder again or train again|glow-bt train)"
FILES = ("manifest.json", "model.safetensors")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifact") / "model"
    save_artifact(small_artifact(), folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "model"))


def refused(folder, found=""):
    """Loading raises ArtifactError and nothing else; its one line says what to do."""
    with pytest.raises(ArtifactError) as error:
        load_artifact(folder)
    told = str(error.value)
    assert re.search(REMEDY, told)
    assert re.search(found, told)
    assert told.startswith("expected ")
    assert "\n" not in told
    return told


def rewrite(folder, change_manifest=None, change_tensors=None):
    """Change what a folder holds as its author could: with all hashes right again."""
    if change_tensors is not None:
        tensors = load_file(folder / "model.safetensors")
        change_tensors(tensors)
        save_file(tensors, folder / "model.safetensors")
    manifest = json.loads((folder / "manifest.json").read_text())
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    manifest["model_sha256"] = digest
    if change_manifest is not None:
        change_manifest(manifest)
    manifest["manifest_sha256"] = ""
    blank = json.dumps(manifest, indent=2) + "\n"
    seal = hashlib.sha256(blank.encode()).hexdigest()
    text = blank.replace('"manifest_sha256": ""', f'"manifest_sha256": "{seal}"')
    (folder / "manifest.json").write_text(text)


def test_a_loaded_model_scores_as_the_trainers_does_to_the_bit(saved):
    bars = unseen_bars(300)
    mine, loaded = Scorer(small_artifact()), Scorer(load_artifact(saved))
    pd.testing.assert_frame_equal(mine.score(bars), loaded.score(bars), check_exact=True)
    pd.testing.assert_frame_equal(mine.latents(bars), loaded.latents(bars), check_exact=True)


def test_everything_comes_back(saved):
    artifact, loaded = small_artifact(), load_artifact(saved)
    assert manifest_of(loaded) == manifest_of(artifact)
    expected = tensors_of(artifact)
    assert {n: t.dtype for n, t in tensors_of(loaded).items()} == {
        name: tensor.dtype for name, tensor in expected.items()
    }
    assert all(torch.equal(t, expected[name]) for name, t in tensors_of(loaded).items())
    record = replace(loaded.training, config=artifact.training.config)
    assert record == artifact.training
    assert not any(p.requires_grad for p in loaded.state_flow.parameters())
    assert not loaded.state_flow.training


def test_a_copy_of_a_copy_is_the_same_file_for_file(saved, tmp_path):
    save_artifact(load_artifact(saved), tmp_path / "copy")
    for name in FILES:
        assert (tmp_path / "copy" / name).read_bytes() == (saved / name).read_bytes()


def test_the_folder_holds_two_files_and_the_manifest_can_be_read_by_people(saved):
    assert sorted(file.name for file in saved.iterdir()) == sorted(FILES)
    manifest = json.loads((saved / "manifest.json").read_text())
    assert manifest["schema_version"] == 3
    assert manifest["spec"]["names"] == list(small_artifact().spec.names)
    assert manifest["likelihood"]["low"] == small_artifact().likelihood.low
    assert manifest["likelihood"]["how"].startswith("two-sided quantiles")
    assert set(manifest["tail_index"]["state"]) == set(small_artifact().spec.names)
    assert {h: len(pair) for h, pair in manifest["tail_index"]["returns"].items()} == {"1": 2}
    assert manifest["returns"]["spec"]["names"] == list(small_artifact().returns.spec.names)
    assert manifest["state_flow"]["family"] == "glow"
    assert manifest["state_flow"]["num_features"] == 16
    record = manifest["training"]
    assert record["parent"] is None
    assert record["trained_until"] == small_artifact().training.trained_until.isoformat()
    assert {"data_sha256", "seed", "versions", "metrics", "config", "n_bars"} <= record.keys()


def test_loading_leaves_torchs_random_state_alone(saved):
    before = torch.get_rng_state()
    load_artifact(saved)
    assert torch.equal(torch.get_rng_state(), before)


def test_measurements_that_are_not_finite_are_kept_as_nothing(tmp_path):
    artifact = small_artifact()
    record = replace(
        artifact.training,
        metrics={"a": math.inf, "b": 1.0},
        history={"state": {"train_nll": [math.nan, 2.0]}},
    )
    save_artifact(replace(artifact, training=record), tmp_path / "model")
    loaded = load_artifact(tmp_path / "model").training
    assert repr(loaded.metrics) == "{'a': nan, 'b': 1.0}"
    assert repr(loaded.history) == "{'state': {'train_nll': [nan, 2.0]}}"
    assert loaded.config["train_until"] is None


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_byte_anywhere_is_found(folder, name):
    file = folder / name
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    places = np.append(np.linspace(0, len(whole) - 1, 40), rng.integers(0, len(whole), 20))
    for place, mask in zip(
        places.astype(int), rng.choice([0x01, 0x20, 0x41, 0xFF], 60), strict=True
    ):
        flipped = bytearray(whole)
        flipped[place] ^= int(mask)
        file.write_bytes(flipped)
        refused(folder)
    file.write_bytes(whole)
    load_artifact(folder)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_file_cut_short_is_found(folder, name, share):
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: int(share * len(whole))])
    refused(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_found(folder, name):
    (folder / name).unlink()
    assert str(folder) in refused(folder)


@pytest.mark.parametrize("path", ["", "nowhere", "\0", "x" * 300])
def test_a_folder_that_is_none_is_refused(tmp_path, path):
    refused(tmp_path / path, "expected a model folder with manifest.json and model.safetensors")


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "model").write_text("hello")
    refused(tmp_path / "model", "found none at")


def test_a_folder_in_place_of_a_file_is_refused(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    refused(folder, "IsADirectoryError")
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").mkdir()
    refused(folder, r"found none at .* \(Is a directory\)")


def every_key(values, path=()):
    for key, value in values.items():
        yield (*path, key)
        if isinstance(value, dict) and (*path, key) not in {("training", "config")}:
            yield from every_key(value, (*path, key))


# Read by people only, or free in what they hold.
UNREAD = {"fingerprint", "tail_index", "low", "high", "how", "metrics", "versions", "history"}


def read_keys(saved):
    manifest = json.loads((saved / "manifest.json").read_text())
    return [
        path
        for path in every_key(manifest)
        if not UNREAD & {*path[:-1], *({path[-1]} - {"metrics", "versions", "history"})}
    ]


def test_every_missing_or_mistyped_entry_is_found_though_the_hashes_are_right(saved, tmp_path):
    paths = read_keys(saved)
    assert ("scaler", "centre") in paths
    assert ("training", "trained_until") in paths
    for number, path in enumerate(paths):
        copy = Path(shutil.copytree(saved, tmp_path / str(number)))

        def remove(manifest, path=path):
            for key in path[:-1]:
                manifest = manifest[key]
            del manifest[path[-1]]

        if path[0] != "manifest_sha256":
            rewrite(copy, remove)
            refused(copy)


@pytest.mark.parametrize("value", [None, [], "x", {}, -1, True, 1e400])
@pytest.mark.parametrize(
    "path",
    [
        ("spec",),
        ("scaler",),
        ("scaler", "scale"),
        ("state_flow",),
        ("state_flow", "family"),
        ("state_flow", "num_features"),
        ("returns",),
        ("returns", "bar_seconds"),
        ("returns", "spec"),
        ("returns", "spec", "window"),
        ("returns", "spec", "half_lives"),
        ("returns", "spec", "names"),
        ("returns", "scaler"),
        ("returns", "scaler", "scale"),
        ("returns", "flows"),
        ("returns", "flows", "1"),
        ("returns", "flows", "1", "num_members"),
        ("likelihood",),
        ("likelihood", "false_alarm_rate"),
        ("direction",),
        ("direction", "intercept_variance"),
        ("training",),
        ("training", "trained_until"),
    ],
)
def test_entries_of_another_kind_are_found_though_the_hashes_are_right(folder, path, value):
    def change(manifest):
        for key in path[:-1]:
            manifest = manifest[key]
        manifest[path[-1]] = value

    rewrite(folder, change)
    refused(folder)


@pytest.mark.parametrize("version", [0, 1, 2, 4, "3", None])
def test_another_schema_is_refused_before_anything_else(folder, version):
    rewrite(folder, lambda manifest: manifest.update(schema_version=version))
    (folder / "model.safetensors").unlink()
    refused(folder, "expected schema version 3, found .*train the model again with this version")


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "3", "{", '{"schema_version": NaN}', "[" * 10**5]
)
def test_a_manifest_that_is_no_json_object_is_refused(folder, text):
    (folder / "manifest.json").write_text(text)
    refused(folder)


def test_an_edited_manifest_is_refused(folder):
    text = (folder / "manifest.json").read_text()
    edited = text.replace('"false_alarm_rate": 0.05', '"false_alarm_rate": 0.5')
    assert edited.count('"false_alarm_rate": 0.5,') == text.count('"false_alarm_rate": 0.05,')
    (folder / "manifest.json").write_text(edited)
    refused(folder, "found a damaged or edited one")


def test_tensors_of_another_model_are_refused(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["state_flow.levels.0.norm.bias"] += 1e-9
    save_file(tensors, folder / "model.safetensors")
    refused(folder, "has the hash of, found another or a damaged one")


def test_another_feature_spec_is_refused(folder):
    def rename(manifest):
        manifest["spec"]["names"][3] = "momentum_99"

    rewrite(folder, rename)
    assert "damaged" not in refused(folder, "this version's market state, found .*momentum_99")


def test_features_of_another_version_are_refused(folder):
    rewrite(folder, lambda manifest: manifest["spec"].update(version=0))
    assert "damaged" not in refused(folder, "found one of version 0")


def test_a_scaler_of_other_features_is_refused(folder):
    def swap(manifest):
        names = manifest["scaler"]["names"]
        names[0], names[1] = names[1], names[0]

    rewrite(folder, swap)
    refused(folder, "expected a scaler of the features")


def test_a_moved_scale_or_threshold_passes_no_hash(folder):
    rewrite(folder, lambda manifest: manifest["scaler"]["scale"].pop())
    refused(folder)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    "name",
    [
        "state_flow.levels.0.mixing.lower",
        "returns_1.net.layers.1.weight",
        "direction.coefficients",
        "regimes.means",
        "likelihood.quantiles",
        "probe.states",
        "probe.scores",
        "probe.contexts",
        "probe.quantiles",
    ],
)
def test_numbers_that_are_not_finite_are_found_though_the_hashes_are_right(folder, name, value):
    rewrite(folder, change_tensors=lambda tensors: tensors[name].view(-1)[0].fill_(value))
    refused(folder, f"expected finite numbers, found others in {name}")


def test_every_missing_tensor_is_found_though_the_hashes_are_right(saved, tmp_path):
    for number, name in enumerate(load_file(saved / "model.safetensors")):
        copy = Path(shutil.copytree(saved, tmp_path / str(number)))
        rewrite(copy, change_tensors=lambda tensors, name=name: tensors.pop(name))
        refused(copy)


def swappable(saved):
    """Pairs of tensors of one shape and type, of which each is in one pair at least."""
    tensors = load_file(saved / "model.safetensors")
    names = [n for n, t in tensors.items() if t.numel() > 0 and t.is_floating_point()]
    pairs = []
    for i, first in enumerate(names):
        same = [
            second
            for second in names[i + 1 :]
            if tensors[second].shape == tensors[first].shape
            and not torch.allclose(tensors[second], tensors[first])
        ]
        pairs += [(first, second) for second in same[:2]]
    return pairs


def test_swapped_tensors_are_found_though_the_hashes_are_right(saved, tmp_path):
    pairs = swappable(saved)
    prefixes = {name.split(".")[0] for pair in pairs for name in pair}
    assert {"state_flow", "returns_1", "direction", "regimes"} <= prefixes
    for number, (first, second) in enumerate(pairs):
        copy = Path(shutil.copytree(saved, tmp_path / str(number)))

        def swap(tensors, first=first, second=second):
            tensors[first], tensors[second] = tensors[second], tensors[first]

        rewrite(copy, change_tensors=swap)
        refused(copy)


@pytest.mark.parametrize(
    "name",
    [
        "state_flow.levels.0.nets.net.1.weight",
        "state_flow.tails.log_excess",
        "returns_1.location",
        "returns_1.log_excess",
        "returns_1.knots",
        "returns_1.net.layers.2.bias",
        "returns_1.net.line.weight",
        "direction.coefficients",
        "direction.covariance",
        "regimes.means",
    ],
)
def test_moved_weights_are_found_though_the_hashes_are_right(folder, name):
    def move(tensors):
        tensors[name] = tensors[name] * 1.5 + 0.5

    rewrite(folder, change_tensors=move)
    refused(folder)


def test_an_untrained_layer_is_found_though_the_hashes_are_right(folder):
    name = "state_flow.levels.0.norm.initialized"
    rewrite(folder, change_tensors=lambda tensors: tensors[name].fill_(False))
    refused(folder, "FlowError: expected an ActNorm that has seen a training batch")


def test_scores_for_another_number_of_probes_are_found(folder):
    def cut(tensors):
        tensors["probe.scores"] = tensors["probe.scores"][:-1].clone()

    rewrite(folder, change_tensors=cut)
    refused(folder, r"scores of shape \(19, 3\) for \(20, 3\) probe states")


def test_quantiles_for_another_number_of_contexts_or_horizons_are_found(saved, tmp_path):
    def fewer(tensors):
        tensors["probe.quantiles"] = tensors["probe.quantiles"][:-1].clone()

    def more(tensors):
        tensors["probe.quantiles"] = tensors["probe.quantiles"].repeat(1, 2)

    for number, change in enumerate((fewer, more)):
        copy = Path(shutil.copytree(saved, tmp_path / str(number)))
        rewrite(copy, change_tensors=change)
        refused(copy, r"quantiles of shape \(.*\) for \(\d+, 2\) probe states")


def test_probe_quantiles_are_those_of_the_flow_in_both_tails(saved):
    tensors, artifact = load_file(saved / "model.safetensors"), small_artifact()
    flow, contexts = artifact.returns.flows[1], tensors["probe.contexts"]
    for column, level in enumerate((0.01, 0.99)):
        z = torch.full((len(contexts), 1), norm.ppf(level), dtype=torch.float64)
        expected = flow.inverse(z, contexts)[0][:, 0]
        np.testing.assert_allclose(tensors["probe.quantiles"][:, column], expected, rtol=1e-9)


def test_a_model_of_several_horizons_comes_back(tmp_path):
    model, bars = model_of_two_horizons(), unseen_bars(100)
    save_artifact(model, tmp_path / "model")
    loaded = load_artifact(tmp_path / "model")
    assert loaded.returns.horizons == (1, 5)
    assert fingerprint(loaded) == fingerprint(model)
    assert len(load_file(tmp_path / "model" / "model.safetensors")["probe.quantiles"].T) == 4
    for horizon in (1, 5):
        mine, theirs = (Scorer(own, horizon=horizon).score(bars) for own in (model, loaded))
        pd.testing.assert_frame_equal(mine, theirs, check_exact=True)
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text())
    assert (
        set(manifest["returns"]["flows"]) == set(manifest["tail_index"]["returns"]) == {"1", "5"}
    )


def test_horizons_that_change_places_are_found_though_the_hashes_are_right(tmp_path):
    save_artifact(model_of_two_horizons(), tmp_path / "model")

    def swap(tensors):
        for name in [name for name in tensors if name.startswith("returns_1.")]:
            other = name.replace("returns_1.", "returns_5.")
            tensors[name], tensors[other] = tensors[other], tensors[name]

    rewrite(tmp_path / "model", change_tensors=swap)
    refused(tmp_path / "model", "the quantiles of the probe states")


def test_a_model_that_knows_funding_comes_back(tmp_path):
    save_artifact(model_of_funding(), tmp_path / "model")
    loaded = load_artifact(tmp_path / "model")
    assert loaded.returns.spec.columns[-1] == "funding_rate"
    assert fingerprint(loaded) == fingerprint(model_of_funding())


def test_parts_for_another_number_of_features_do_not_make_an_artifact():
    artifact = small_artifact()
    with pytest.raises(
        ArtifactError, match=r"for the 16 features of the spec, found {'probe': 3}"
    ):
        replace(artifact, probe=artifact.probe[:, :3])


def test_parts_of_returns_that_do_not_belong_together_do_not_make_an_artifact():
    artifact = small_artifact()
    with pytest.raises(ArtifactError, match=r"expected probe contexts of 22 numbers, found 16"):
        replace(artifact, return_probe=artifact.probe)
    with pytest.raises(ArtifactError, match=r"bars of 86400 seconds, as recorded, found 3600"):
        replace(artifact, returns=replace(artifact.returns, bar_seconds=3600.0))


@pytest.mark.parametrize("until", ["2000-01-01", "1990-01-01T00:00Z"])
def test_a_training_interval_without_zone_or_length_is_refused(until):
    with pytest.raises(ArtifactError, match="expected a training interval in UTC"):
        replace(small_artifact().training, trained_until=pd.Timestamp(until))


@pytest.mark.parametrize("parent", ["", "model", "0" * 63, "G" * 64, 3])
def test_a_parent_that_is_no_hash_is_refused(parent):
    with pytest.raises(ArtifactError, match=r"the parent's fingerprint .* or none, found"):
        replace(small_artifact().training, parent=parent)


def test_the_parent_of_an_adapted_model_comes_back(tmp_path):
    record = replace(small_artifact().training, parent="0123456789abcdef" * 4)
    save_artifact(replace(small_artifact(), training=record), tmp_path / "model")
    assert load_artifact(tmp_path / "model").training.parent == record.parent


def test_the_record_of_a_search_comes_back(tmp_path):
    search = {"trials": 7, "pbo": None, "bars_until": "2000-01-03T00:00:00+00:00"}
    record = replace(small_artifact().training, search=search)
    save_artifact(replace(small_artifact(), training=record), tmp_path / "model")
    assert load_artifact(tmp_path / "model").training.search == search
    rewrite(tmp_path / "model", lambda m: m["training"]["search"].pop("trials"))
    refused(tmp_path / "model", "the record of a search with its number of trials")


def test_a_model_without_a_search_is_as_it_was_before_there_were_such_records(saved):
    assert load_artifact(saved).training.search is None
    assert "search" not in json.loads((saved / "manifest.json").read_text())["training"]


def test_a_folder_that_exists_is_refused_and_left_as_it_is(folder):
    before = {file: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(ArtifactError, match=r"expected a new model folder.*ask to overwrite it"):
        save_artifact(small_artifact(), folder)
    assert {file: file.read_bytes() for file in folder.iterdir()} == before


def test_a_model_folder_is_overwritten_when_asked(folder):
    (folder / "notes.txt").write_text("mine")
    changed = replace(small_artifact(), probe=small_artifact().probe[:5].copy())
    save_artifact(changed, folder, overwrite=True)
    assert len(load_artifact(folder).probe) == 5
    assert sorted(file.name for file in folder.parent.iterdir()) == ["model"]
    assert sorted(file.name for file in folder.iterdir()) == sorted(FILES)


@pytest.mark.parametrize("kind", ["folder", "file", "results"])
def test_nothing_but_a_model_folder_is_ever_overwritten(tmp_path, kind):
    target = tmp_path / "thesis"
    if kind == "folder":
        target.mkdir()
        (target / "chapter1.txt").write_text("years of work")
    elif kind == "results":
        target.mkdir()
        (target / "manifest.json").write_text('{"schema_version": 1, "command": "demo"}')
    else:
        target.write_text("years of work")
    with pytest.raises(ArtifactError, match="expected a model folder to overwrite"):
        save_artifact(small_artifact(), target, overwrite=True)
    assert target.exists()
    assert [file.name for file in tmp_path.iterdir()] == ["thesis"]


def test_numbers_that_are_not_finite_are_not_saved(tmp_path):
    artifact = small_artifact()
    probe = artifact.probe.copy()
    probe[0, 0] = np.nan
    with pytest.raises(ArtifactError, match=r"found others in probe.states"):
        save_artifact(replace(artifact, probe=probe), tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match=r"found a file, .*choose another place"):
        save_artifact(small_artifact(), tmp_path / "file" / "model")


@pytest.mark.parametrize("path", [".", "..", "below/.."])
def test_the_working_folder_is_refused(tmp_path, monkeypatch, path):
    (tmp_path / "work" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    with pytest.raises(ArtifactError, match="found the working folder"):
        save_artifact(small_artifact(), path, overwrite=True)


def test_a_link_to_a_model_folder_stays_one(folder, tmp_path):
    (tmp_path / "latest").symlink_to(folder)
    save_artifact(small_artifact(), tmp_path / "latest", overwrite=True)
    assert (tmp_path / "latest").is_symlink()
    load_artifact(folder)


def test_a_limit_on_file_sizes_is_told_in_one_line(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
        with pytest.raises(ArtifactError, match=r"cannot be: .*choose another place") as error:
            save_artifact(small_artifact(), tmp_path / "model")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("failing", ["save_file", "_sealed", "_sha256"])
def test_a_save_that_fails_leaves_what_was_there(
    tmp_path, folder, monkeypatch, overwrite, failing
):
    def fail(*args):
        raise OSError("disk full")

    target = folder if overwrite else tmp_path / "other"
    monkeypatch.setattr(f"glow_bt.artifact.folder.{failing}", fail)
    with pytest.raises(ArtifactError, match="disk full"):
        save_artifact(small_artifact(), target, overwrite=overwrite)
    monkeypatch.undo()
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
    load_artifact(folder)


def test_an_overwrite_that_fails_at_its_last_step_keeps_both_models(folder, monkeypatch):
    rename = Path.rename

    def fail_on_new(self, target):
        if self.suffix == ".tmp":
            raise OSError("device gone")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_on_new)
    with pytest.raises(ArtifactError, match="device gone"):
        save_artifact(small_artifact(), folder, overwrite=True)
    monkeypatch.undo()
    load_artifact(folder)
    (new,) = folder.parent.glob(".model.*.tmp")
    load_artifact(new)


KILLED = """
import os, signal, sys
from pathlib import Path
import glow_bt.artifact.folder as folder

source, target, stage = sys.argv[1:]
artifact = folder.load_artifact(source)

def kill(*args):
    os.kill(os.getpid(), signal.SIGKILL)

if stage == "rename":
    Path.rename = kill
else:
    setattr(folder, stage, kill)
folder.save_artifact(artifact, target)
"""


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["_sealed", "rename"])
def test_a_killed_save_leaves_no_folder_under_the_final_name(saved, tmp_path, stage):
    target = tmp_path / "new"
    command = [sys.executable, "-c", KILLED, str(saved), str(target), stage]
    assert subprocess.run(command, cwd=ROOT).returncode == -signal.SIGKILL
    assert not target.exists()
    assert [file.suffix for file in tmp_path.iterdir()] == [".tmp"]
    save_artifact(small_artifact(), target)
    load_artifact(target)


def test_what_a_killed_save_of_the_same_process_number_left_is_no_hindrance(tmp_path):
    left = tmp_path / f".model.{os.getpid()}.tmp"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    save_artifact(small_artifact(), tmp_path / "model")
    load_artifact(tmp_path / "model")
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_no_module_imports_what_can_run_code_from_a_file():
    forbidden = {
        "pickle",
        "cPickle",
        "dill",
        "cloudpickle",
        "joblib.numpy_pickle",
        "marshal",
        "shelve",
    }
    for file in Path(glow_bt.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = set()
            if isinstance(node, ast.Import):
                names = {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {node.module or ""}
            assert not names & forbidden, file
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                called = f"{node.value.id}.{node.attr}"
                assert called not in {"torch.load", "torch.save", "joblib.load"}, file


def test_regimes_of_latents_are_those_of_the_reading():
    artifact = small_artifact()
    reading = artifact.read(artifact.probe)
    np.testing.assert_array_equal(artifact.regime_of(reading.latents), reading.regime)
    assert sp500_bars(0, 1).index[0] == artifact.training.trained_from


def test_the_fingerprint_of_a_saved_model_is_that_of_the_model_in_memory(saved):
    found = fingerprint(small_artifact())
    assert re.fullmatch("[0-9a-f]{64}", found)
    assert fingerprint(load_artifact(saved)) == found
    assert json.loads((saved / "manifest.json").read_text())["fingerprint"] == found


def moved_by_one_bit(artifact, name):
    flow = deepcopy(artifact.state_flow)
    flat = dict(flow.named_parameters())[name].view(-1)
    flat[0] = torch.nextafter(flat[0], flat.new_tensor(torch.inf))
    return replace(artifact, state_flow=flow)


def of_returns(artifact, **changes):
    return replace(artifact, returns=replace(artifact.returns, **changes))


def changes_of_returns(returns):
    """Each number of the scaler's and each parameter of the flow moved by one bit, and specs."""
    up = np.nextafter(returns.scaler.centre[3], np.inf)
    centre = (*returns.scaler.centre[:3], up, *returns.scaler.centre[4:])
    yield {"scaler": replace(returns.scaler, centre=centre)}
    yield {"spec": replace(returns.spec, window=119)}
    yield {"spec": replace(returns.spec, variance_margin=0.003)}
    for name, _ in returns.flows[1].named_parameters():
        flow = deepcopy(returns.flows[1])
        flat = dict(flow.named_parameters())[name].view(-1)
        flat[0] = torch.nextafter(flat[0], flat.new_tensor(torch.inf))
        yield {"flows": {1: flow}}


def test_whatever_differs_in_a_model_its_fingerprint_differs():
    artifact = small_artifact()
    direction, scaler, record = artifact.direction, artifact.scaler, artifact.training
    others = [
        replace(artifact, probe=artifact.probe[1:]),
        replace(artifact, probe=artifact.probe.reshape(-1, 16)[::-1].copy()),
        replace(artifact, direction=replace(direction, intercept=direction.intercept + 1e-15)),
        replace(artifact, scaler=replace(scaler, centre=scaler.centre[::-1])),
        replace(artifact, likelihood=replace(artifact.likelihood, false_alarm_rate=0.06)),
        replace(artifact, regimes=artifact.regimes.relabelled(np.array([1, 0, 2]))),
        replace(artifact, training=replace(record, seed=1)),
        replace(artifact, training=replace(record, parent="0" * 64)),
        replace(artifact, training=replace(record, search={"trials": 2})),
        replace(artifact, training=replace(record, search={"trials": 3})),
        replace(artifact, training=replace(record, metrics={**record.metrics, "a": 1.0})),
        replace(artifact, return_probe=artifact.return_probe[1:]),
        replace(artifact, returns=model_of_two_horizons().returns),
        *(of_returns(artifact, **change) for change in changes_of_returns(artifact.returns)),
        *(moved_by_one_bit(artifact, name) for name, _ in artifact.state_flow.named_parameters()),
    ]
    assert len({fingerprint(other) for other in [artifact, *others]}) == len(others) + 1


def test_a_fingerprint_does_not_hang_on_what_a_machine_works_out_anew(monkeypatch):
    artifact = small_artifact()
    expected = fingerprint(artifact)
    monkeypatch.setattr(TailLayer, "index", property(lambda self: self.log_excess))
    monkeypatch.setattr(LikelihoodFilter, "low", 0.0)
    assert fingerprint(artifact) == expected


def test_a_setting_of_the_return_flow_that_falls_back_on_its_default_is_found(tmp_path):
    artifact, flow = small_artifact(), UnivariateFlow(22, 8).double().requires_grad_(False)
    returns = replace(artifact.returns, flows={1: flow})
    save_artifact(replace(artifact, returns=returns), tmp_path / "model")
    load_artifact(tmp_path / "model")
    rewrite(tmp_path / "model", lambda m: m["returns"]["flows"]["1"].pop("num_members"))
    refused(tmp_path / "model", "settings of returns_1 are")


def test_a_state_flow_without_tails_has_no_tail_index():
    flow = make_flow("glow", 16, num_levels=1, num_steps=1, hidden_dim=4, tails=False).double()
    manifest = manifest_of(replace(small_artifact(), state_flow=flow))
    assert set(manifest["tail_index"]) == {"returns"}
