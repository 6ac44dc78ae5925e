"""A store of units: what is kept, what is refused, what is left alone."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from glow_bt.artifact.manifest import manifest_of
from glow_bt.errors import ArtifactError, ResultsError
from glow_bt.evaluation import units as module
from glow_bt.evaluation.unit_store import UnitStore
from glow_bt.evaluation.unit_training import TrainedUnit, pack
from glow_bt.evaluation.units import Unit, code_sha256, plan_units
from glow_bt.features import DEFAULT_SPEC
from glow_bt.folds import walk_forward_folds
from tests.models import small_artifact, small_config, sp500_bars

SCORES = {"validation_nll": 1.5}


def some_units(bars=None, config=None, spec=DEFAULT_SPEC):
    bars = sp500_bars(0, 1000) if bars is None else bars
    folds = walk_forward_folds(len(bars), 2, purge=62, test_fraction=0.3)
    return plan_units(bars, folds, config or small_config(), spec)


@pytest.fixture(scope="module")
def packed():
    return pack(TrainedUnit(small_artifact(), SCORES))


def test_a_unit_comes_back_as_it_was_kept(tmp_path, packed):
    first, second = some_units()
    store = UnitStore(tmp_path / "store")
    assert store.load(first) is None
    store.save(first, packed)
    kept = UnitStore(tmp_path / "store").load(first)
    assert kept.scores == SCORES
    assert manifest_of(kept.artifact) == manifest_of(small_artifact())
    assert store.load(second) is None
    assert [path.name for path in (tmp_path / "store").iterdir()] == [first.key]


def test_a_key_is_that_of_all_that_decides_on_the_result(monkeypatch):
    first, second = some_units()
    later = sp500_bars(0, 1000)
    later.iloc[-1, 4] += 1.0  # a bar of the second test span
    assert [unit.key for unit in some_units(later)] == [first.key, some_units(later)[1].key]
    keys = {first.key, second.key, some_units(later)[1].key}
    keys.add(some_units(config=small_config(clip_norm=4.9))[0].key)
    keys.add(some_units(config=small_config(seed=1))[0].key)
    keys.add(some_units(spec=replace(DEFAULT_SPEC, short=DEFAULT_SPEC.short + 1))[0].key)
    monkeypatch.setattr(module, "code_sha256", lambda: "other")
    keys.add(some_units()[0].key)
    monkeypatch.setattr(module, "library_versions", lambda flow: {"torch": "0"})
    keys.add(some_units()[0].key)
    assert len(keys) == 8


def test_names_are_no_part_of_a_key():
    first, _ = some_units()
    assert Unit(7, first.fold, first.config, first.spec, first.bars_sha256, "BTC").key == first.key
    assert len(code_sha256()) == 64


def test_results_of_another_config_are_named_and_left_alone(tmp_path, packed):
    (first, _), (other, _) = some_units(), some_units(config=small_config(max_epochs=4))
    store = UnitStore(tmp_path)
    store.save(other, packed)
    (tmp_path / other.key).rename(tmp_path / first.key)
    before = (tmp_path / first.key / "unit.json").read_bytes()
    with pytest.raises(
        ResultsError, match=r"results of another config \(max_epochs: 4, asked for 3\)"
    ):
        store.load(first)
    assert (tmp_path / first.key / "unit.json").read_bytes() == before


def test_units_of_others_stay_when_ones_own_are_discarded(tmp_path, packed):
    mine, others = some_units(), some_units(config=small_config(seed=1))
    store = UnitStore(tmp_path / "store")
    for unit in (mine[0], others[1]):
        store.save(unit, packed)
    store.checkpoints(mine[1]).mkdir()
    assert store.others(mine) == [store.folder / others[1].key]
    store.discard(mine)
    assert [path.name for path in store.folder.iterdir()] == [others[1].key]
    store.discard(others)
    assert not store.folder.exists()
    store.discard(others)
    assert store.others(mine) == []


@pytest.mark.parametrize("what", ["cut", "empty", "list", "version", "missing"])
def test_a_damaged_unit_is_named_and_left_alone(tmp_path, packed, what):
    first, _ = some_units()
    store = UnitStore(tmp_path)
    store.save(first, packed)
    file = tmp_path / first.key / "unit.json"
    facts = json.loads(file.read_text())
    damaged = {
        "cut": file.read_text()[:-20],
        "empty": "",
        "list": "[]",
        "version": json.dumps(facts | {"schema_version": 0}),
        "missing": json.dumps({**facts, "inputs": None}),
    }[what]
    file.write_text(damaged)
    with pytest.raises(ResultsError, match=f"{first.key}, found it damaged .*; remove"):
        store.load(first)
    assert file.read_text() == damaged


def test_a_damaged_model_is_refused(tmp_path, packed):
    first, _ = some_units()
    UnitStore(tmp_path).save(first, packed)
    model = tmp_path / first.key / "model" / "model.safetensors"
    content = np.frombuffer(model.read_bytes(), np.uint8).copy()
    content[-1] ^= 1
    model.write_bytes(content.tobytes())
    with pytest.raises(ArtifactError, match="damaged"):
        UnitStore(tmp_path).load(first)


def test_a_folder_of_something_else_is_no_store(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text("{}")
    with pytest.raises(ResultsError, match=r"or an empty one, found .*run with manifest.json"):
        UnitStore(tmp_path / "run")
    with pytest.raises(ResultsError, match="found a file"):
        UnitStore(tmp_path / "run" / "manifest.json")


def test_a_store_that_cannot_be_written_says_so(tmp_path, packed):
    store = UnitStore(tmp_path / "store")
    (tmp_path / "store").write_text("in the way")
    with pytest.raises(ResultsError, match="expected to keep fold 1, seed 0 in"):
        store.save(some_units()[0], packed)
