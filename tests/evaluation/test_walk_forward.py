"""Walk-forward training: every model knows its own past only."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from glow_bt.artifact import load_artifact
from glow_bt.errors import ConfigError, TooFewBarsError
from glow_bt.evaluation.walk_forward import train_walk_forward
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


def test_models_are_saved_fold_by_fold(bars, tmp_path, models):
    train_walk_forward(bars, small_config(), models_dir=tmp_path / "models", **SETTINGS)
    assert sorted(p.name for p in (tmp_path / "models").iterdir()) == ["fold_1", "fold_2"]
    span = bars.iloc[800:]
    saved = Scorer(load_artifact(tmp_path / "models" / "fold_1")).score(span)
    pd.testing.assert_frame_equal(saved, Scorer(models[0].artifact).score(span), check_exact=True)


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
