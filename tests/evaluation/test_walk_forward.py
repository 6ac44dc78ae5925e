"""Walk-forward training: every model knows its own past only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from glow_bt.artifact import load_artifact, save_artifact
from glow_bt.artifact.manifest import manifest_of, tensors_of
from glow_bt.errors import ArtifactError, ConfigError, TooFewBarsError
from glow_bt.evaluation import walk_forward as module
from glow_bt.evaluation.walk_forward import divide_walk_forward, train_walk_forward
from glow_bt.features import DEFAULT_SPEC
from glow_bt.scoring import Scorer
from tests.models import small_config, sp500_bars

SETTINGS = {"n_folds": 2, "test_fraction": 0.3, "validation_fraction": 0.2}


@pytest.fixture(scope="module")
def bars():
    return sp500_bars(0, 1000)


@pytest.fixture(scope="module")
def models(bars):
    return train_walk_forward(bars, small_config(), **SETTINGS)


def test_test_spans_follow_one_another_to_the_last_bar(bars, models):
    assert [model.number for model in models] == [1, 2]
    assert models[0].valid_from == bars.index[700]
    position = bars.index.get_loc(models[0].valid_until)
    assert models[1].valid_from == bars.index[position + 1]
    assert models[1].valid_until == bars.index[-1]


def test_a_purge_lies_between_training_and_test(bars, models):
    for model in models:
        record = model.artifact.training
        last, first = (bars.index.get_loc(s) for s in (record.trained_until, model.valid_from))
        assert first - last > model.artifact.spec.min_bars
        assert record.trained_from == bars.index[0]
        assert "state_test_nll" not in record.metrics


def test_a_model_does_not_change_when_its_test_bars_do(bars, models):
    changed = bars.copy()
    later = slice(700, None)
    changed.iloc[later, :4] *= np.linspace(1.0, 3.0, 300)[:, None]
    first = train_walk_forward(changed, small_config(), **SETTINGS)[0].artifact
    span = bars.iloc[639:760]
    pd.testing.assert_frame_equal(
        Scorer(first).score(span), Scorer(models[0].artifact).score(span), check_exact=True
    )


def test_a_rolling_window_keeps_its_length(bars):
    models = train_walk_forward(bars, small_config(), expanding=False, **SETTINGS)
    lengths = [model.artifact.training.n_bars for model in models]
    assert lengths[0] == lengths[1]
    assert models[1].artifact.training.trained_from > bars.index[0]


def test_spans_of_the_calendar_begin_with_its_periods(bars, models, monkeypatch):
    monkeypatch.setattr(module, "train", lambda *_, **__: models[0].artifact)
    config = small_config(max_epochs=1)
    divided = {"test_every": "6MS", "test_fraction": 0.3}
    folds = divide_walk_forward(bars, config, **divided)
    first, second = train_walk_forward(bars, config, **divided)
    spans = [bars.index[fold.test.start] for fold in folds]
    assert spans == [first.valid_from, second.valid_from]
    assert [(stamp.month, stamp.day) for stamp in spans] == [(1, 2), (7, 1)]
    assert first.valid_until == bars.index[bars.index < second.valid_from][-1]
    assert second.valid_until == bars.index[-1]


def test_a_longer_purge_is_kept_and_a_shorter_one_refused(bars):
    purged = divide_walk_forward(bars, small_config(purge=90), **SETTINGS)
    assert {fold.test.start - fold.validation.stop for fold in purged} == {90}
    with pytest.raises(ConfigError, match=r"purge of at least 62 bars, .* found 61; raise"):
        train_walk_forward(bars, small_config(purge=61), **SETTINGS)


def test_models_are_saved_fold_by_fold(bars, tmp_path, models):
    train_walk_forward(bars, small_config(), models_dir=tmp_path / "models", **SETTINGS)
    assert sorted(p.name for p in (tmp_path / "models").iterdir()) == ["fold_1", "fold_2"]
    span = bars.iloc[800:]
    saved = Scorer(load_artifact(tmp_path / "models" / "fold_1")).score(span)
    pd.testing.assert_frame_equal(saved, Scorer(models[0].artifact).score(span), check_exact=True)


def test_an_interrupted_call_goes_on_where_it_was(bars, tmp_path, models):
    class StopError(Exception):
        pass

    seen = []

    def note(fold, stop_at=None):
        def progress(flow, epoch, max_epochs, num_features):
            seen.append((fold, flow, epoch.number))
            if (flow, epoch.number) == stop_at:
                raise StopError

        return progress

    def call(*progress):
        seen.clear()
        return train_walk_forward(
            bars, small_config(), models_dir=tmp_path / "models", progress=progress, **SETTINGS
        )

    with pytest.raises(StopError):
        call(note(1), note(2, stop_at=("return_1_2", 2)))
    names = sorted(p.name for p in (tmp_path / "models").iterdir())
    assert names == ["fold_1", "fold_2.checkpoint"]
    resumed = call(note(1), note(2))
    epochs = len(resumed[1].artifact.training.history["return_1_2"]["validation_nll"])
    assert seen == [(2, "return_1_2", number) for number in range(3, epochs + 1)]
    assert sorted(p.name for p in (tmp_path / "models").iterdir()) == ["fold_1", "fold_2"]
    again = call(note(1), note(2))
    assert seen == []
    for found in (resumed, again):
        for model, whole in zip(found, models, strict=True):
            assert (model.number, model.valid_from) == (whole.number, whole.valid_from)
            assert manifest_of(model.artifact) == manifest_of(whole.artifact)
            expected = tensors_of(whole.artifact)
            for name, tensor in tensors_of(model.artifact).items():
                assert tensor.equal(expected[name]), name


def test_a_killed_call_that_left_an_empty_checkpoint_is_cleaned_up(bars, tmp_path):
    train_walk_forward(bars, small_config(), models_dir=tmp_path / "models", **SETTINGS)
    (tmp_path / "models" / "fold_1.checkpoint").mkdir()
    train_walk_forward(bars, small_config(), models_dir=tmp_path / "models", **SETTINGS)
    assert sorted(p.name for p in (tmp_path / "models").iterdir()) == ["fold_1", "fold_2"]


@pytest.mark.parametrize(
    ("change", "found"),
    [("bars", "other bars;"), ("settings", "other settings;"), ("seed", "other settings;")],
)
def test_models_of_something_else_are_neither_used_nor_replaced(
    bars, tmp_path, models, change, found
):
    save_artifact(models[0].artifact, tmp_path / "fold_1")
    config, changed = small_config(), bars.copy()
    if change == "bars":
        changed.iloc[100, -1] += 1.0
    else:
        config = small_config(**{"settings": {"clip_norm": 4.9}, "seed": {"seed": 1}}[change])
    before = (tmp_path / "fold_1" / "manifest.json").read_bytes()
    with pytest.raises(ArtifactError, match=found):
        train_walk_forward(changed, config, models_dir=tmp_path, **SETTINGS)
    assert (tmp_path / "fold_1" / "manifest.json").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["fold_1"]


def test_models_of_other_features_are_not_used(bars, tmp_path, models):
    save_artifact(models[0].artifact, tmp_path / "fold_1")
    spec = replace(DEFAULT_SPEC, short=DEFAULT_SPEC.short + 1)
    with pytest.raises(ArtifactError, match="other features"):
        train_walk_forward(bars, small_config(), spec=spec, models_dir=tmp_path, **SETTINGS)


def test_too_few_bars_for_the_folds_says_how_many_suffice():
    short = sp500_bars(0, 500)
    with pytest.raises(TooFewBarsError, match="folds") as error:
        train_walk_forward(short, small_config(max_epochs=1), n_folds=2, test_fraction=0.5)
    enough = sp500_bars(0, error.value.needed)
    train_walk_forward(enough, small_config(max_epochs=1), n_folds=2, test_fraction=0.5)


@pytest.mark.parametrize(
    "wrong", [{"n_folds": 0}, {"test_fraction": 1.5}, {"validation_fraction": 0.0}]
)
def test_settings_that_cannot_work_are_refused(bars, wrong):
    with pytest.raises(ConfigError, match="expected"):
        train_walk_forward(bars, small_config(), **wrong)
