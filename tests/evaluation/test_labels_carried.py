"""Regime labels go from fold to fold: each fold's training is told of the model before it."""

from dataclasses import replace

from glow_bt.evaluation import walk_forward
from glow_bt.evaluation.walk_forward import train_walk_forward
from tests.models import small_artifact, small_config, sp500_bars


def test_each_fold_is_given_the_model_of_the_one_before(monkeypatch):
    given, returned = [], []

    def record(bars, config, *, previous=None, **others):
        given.append(previous)
        returned.append(replace(small_artifact()))
        return returned[-1]

    monkeypatch.setattr(walk_forward, "train", record)
    models = train_walk_forward(sp500_bars(0, 1500), small_config(), n_folds=3, test_fraction=0.3)
    assert [model.artifact for model in models] == returned
    assert len(given) == 3
    assert given[0] is None
    assert given[1] is returned[0]
    assert given[2] is returned[1]
