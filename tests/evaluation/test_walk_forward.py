"""Walk-forward training: every model knows its own past only."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from glow_bt.artifact import fingerprint
from glow_bt.artifact.manifest import manifest_of, tensors_of
from glow_bt.errors import ConfigError, ResultsError, TooFewBarsError
from glow_bt.evaluation import engines, unit_training
from glow_bt.evaluation.unit_store import UnitStore
from glow_bt.evaluation.unit_training import TrainedUnit, pack
from glow_bt.evaluation.units import plan_units
from glow_bt.evaluation.walk_forward import (
    divide_walk_forward,
    fold_models,
    train_units,
    train_walk_forward,
)
from glow_bt.scoring import Scorer
from tests.models import small_artifact, small_config, sp500_bars
from tests.short_training import serve

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
    monkeypatch.setattr(unit_training, "train", lambda *_, **__: models[0].artifact)
    monkeypatch.setattr(unit_training, "unit_scores", lambda *_: {})
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


def assert_same(found, expected):
    """Fail unless the models of two walk-forwards are equal to the last bit."""
    for model, whole in zip(found, expected, strict=True):
        assert (model.number, model.valid_from) == (whole.number, whole.valid_from)
        assert model.scores == whole.scores
        assert manifest_of(model.artifact) == manifest_of(whole.artifact)
        tensors = tensors_of(whole.artifact)
        for name, tensor in tensors_of(model.artifact).items():
            assert tensor.equal(tensors[name]), name


class Seen:
    """Notes what it is told, and may interrupt."""

    def __init__(self, stop_at=None):
        self.stop_at = stop_at
        self.begun, self.epochs, self.labels = [], [], []

    def begin(self, total, kept):
        self.begun.append((total, kept))

    def epoch(self, label, flow, epoch, max_epochs):
        self.epochs.append((label, flow, epoch.number))
        if self.epochs[-1] == self.stop_at:
            raise KeyboardInterrupt

    def done(self, label):
        self.labels.append(label)


def test_an_interrupted_call_goes_on_where_it_was(bars, tmp_path, models):
    def call(progress):
        return train_walk_forward(
            bars, small_config(), store=tmp_path / "store", progress=progress, **SETTINGS
        )

    with pytest.raises(KeyboardInterrupt):
        call(Seen(stop_at=("fold 2, seed 0", "return_1_2", 2)))
    kept = sorted(p.name for p in (tmp_path / "store").iterdir())
    assert [name.startswith(".") for name in kept] == [True, False]
    assert kept[0].endswith(".checkpoint")
    resumed = call(seen := Seen())
    assert seen.begun == [(2, 1)]
    assert seen.labels == ["fold 2, seed 0"]
    epochs = len(resumed[1].artifact.training.history["return_1_2"]["validation_nll"])
    assert seen.epochs == [
        ("fold 2, seed 0", "return_1_2", number) for number in range(3, epochs + 1)
    ]
    assert len(list((tmp_path / "store").iterdir())) == 2
    again = call(seen := Seen())
    assert seen.begun == [(2, 2)]
    assert seen.epochs == []
    assert_same(resumed, models)
    assert_same(again, models)


def test_a_unit_depends_on_no_other(bars, models):
    folds = divide_walk_forward(bars, small_config(), **SETTINGS)
    units = plan_units(bars, folds, small_config())
    (alone,) = train_units(bars, units[1:])
    assert alone.scores == models[1].scores
    found, expected = tensors_of(alone.artifact), tensors_of(models[1].artifact)
    for name, tensor in found.items():
        assert name.startswith("regimes.") or tensor.equal(expected[name]), name


@pytest.fixture(scope="module")
def warm(bars):
    return train_walk_forward(bars, small_config(), warm_start=True, **SETTINGS)


def test_a_warm_fold_starts_at_the_model_before_and_names_it(models, warm):
    assert_same(warm[:1], models[:1])
    assert warm[1].artifact.training.parent == fingerprint(warm[0].artifact)
    assert warm[1].scores["validation_nll"] != models[1].scores["validation_nll"]
    found, cold = tensors_of(warm[1].artifact), tensors_of(models[1].artifact)
    for name, tensor in found.items():
        if name.startswith("returns_"):
            assert tensor.equal(cold[name]), name  # its members begin anew


def test_warm_folds_of_two_processes_are_the_same_to_the_last_bit(bars, warm, monkeypatch):
    monkeypatch.setattr(engines, "_serve", serve)
    found = train_walk_forward(
        bars,
        small_config(),
        warm_start=True,
        engine=engines.Engine(jobs=2),
        progress=(seen := Seen()),
        **SETTINGS,
    )
    assert_same(found, warm)
    assert seen.labels == ["fold 1, seed 0", "fold 2, seed 0"]


def test_an_interrupted_warm_call_goes_on_where_it_was(bars, tmp_path, warm):
    folds = divide_walk_forward(bars, small_config(), **SETTINGS)
    first, second = plan_units(bars, folds, small_config(), warm_start=True)
    UnitStore(tmp_path).save(first, pack(TrainedUnit(warm[0].artifact, warm[0].scores)))

    def call(progress):
        return train_units(bars, [first, second], store=tmp_path, progress=progress)

    with pytest.raises(KeyboardInterrupt):
        call(Seen(stop_at=("fold 2, seed 0", "state", 2)))
    trained = call(seen := Seen())
    assert seen.begun == [(2, 1)]
    assert seen.epochs[0] == ("fold 2, seed 0", "state", 3)
    assert_same(fold_models(bars, [first, second], trained), warm)


def test_a_cold_unit_is_never_taken_for_a_warm_one(bars, tmp_path, monkeypatch):
    folds = divide_walk_forward(bars, small_config(), **SETTINGS)
    cold, warm = (
        plan_units(bars, folds, small_config(), warm_start=warm_start)
        for warm_start in (False, True)
    )
    other = plan_units(bars, folds, small_config(clip_norm=4.9), warm_start=True)
    assert cold[0].key == warm[0].key
    assert len({unit.key for unit in (*cold, *warm, *other)}) == 5
    artifact = small_artifact()
    monkeypatch.setattr(unit_training, "train", lambda *_, **__: artifact)
    monkeypatch.setattr(unit_training, "unit_scores", lambda *_: {})
    train_units(bars, cold, store=tmp_path)
    with pytest.raises(ResultsError, match=r"another config \(started at another model, or anew"):
        train_units(bars, warm, store=tmp_path, train_missing=False)
    train_units(bars, warm, store=tmp_path, progress=(seen := Seen()))
    assert (seen.begun, seen.labels) == ([(2, 1)], ["fold 2, seed 0"])


def test_units_and_folds_out_of_order_are_refused_where_they_start_at_one_another(bars):
    folds = divide_walk_forward(bars, small_config(), **SETTINGS)
    _, second = plan_units(bars, folds, small_config(), warm_start=True)
    with pytest.raises(ConfigError, match="that fold 2, seed 0 starts at before it"):
        train_units(bars, [second])
    with pytest.raises(ConfigError, match="training blocks that end one after the other"):
        plan_units(bars, folds[::-1], small_config(), warm_start=True)


def test_several_symbols_are_trained_each_on_its_own_bars(bars, monkeypatch):
    artifact = small_artifact()
    monkeypatch.setattr(unit_training, "train", lambda *_, **__: artifact)
    monkeypatch.setattr(
        unit_training, "unit_scores", lambda _, own, __: {"close": own.close.iloc[-1]}
    )
    histories, units = {"one": bars, "other": bars.iloc[:-10]}, []
    for symbol, own in histories.items():
        folds = divide_walk_forward(own, small_config(), **SETTINGS)
        units += plan_units(own, folds, small_config(), symbol=symbol)
    trained = train_units(histories, units, progress=(seen := Seen()))
    for unit, result in zip(units, trained, strict=True):
        last = histories[unit.symbol].close.iloc[unit.fold.test.stop - 1]
        assert result.scores == {"close": last}
    assert seen.labels[0] == "one fold 1, seed 0"
    assert seen.labels[-1] == "other fold 2, seed 0"


def test_units_may_be_taken_from_the_store_only(bars, tmp_path, models):
    folds = divide_walk_forward(bars, small_config(), **SETTINGS)
    first, second = plan_units(bars, folds, small_config())
    train_units(bars, [first], store=tmp_path)
    train_units(bars, [first], store=tmp_path, train_missing=False)
    with pytest.raises(ResultsError, match=r"expected fold 2, seed 0 in .*, found none"):
        train_units(bars, [first, second], store=tmp_path, train_missing=False)
    (changed,) = plan_units(bars, folds[:1], small_config(clip_norm=4.9))
    told = r"results of another config \(clip_norm: 5.0, asked for 4.9\)"
    with pytest.raises(ResultsError, match=told):
        train_units(bars, [changed], store=tmp_path, train_missing=False)
    assert [path.name for path in tmp_path.iterdir()] == [first.key]


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
