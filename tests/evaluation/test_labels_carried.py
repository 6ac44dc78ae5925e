"""Regime labels go from fold to fold, after all models are there."""

import functools
from dataclasses import replace

import numpy as np

from glow_bt.evaluation.unit_training import TrainedUnit
from glow_bt.evaluation.units import plan_units
from glow_bt.evaluation.walk_forward import divide_walk_forward, fold_models, train_units
from glow_bt.training import train
from tests.models import small_config, sp500_bars


@functools.cache
def planned():
    bars = sp500_bars(0, 1000)
    folds = divide_walk_forward(bars, small_config(), n_folds=2, test_fraction=0.3)
    units = plan_units(bars, folds, small_config())
    return bars, units, train_units(bars, units)


def test_labels_are_those_of_training_one_after_the_other():
    bars, units, trained = planned()
    models = fold_models(bars, units, trained)
    previous = None
    for unit, model in zip(units, models, strict=True):
        past = bars.iloc[unit.fold.train.start : unit.fold.validation.stop]
        previous = train(past, unit.config, previous=previous)
        for name in ("weights", "means", "scales"):
            found, expected = (getattr(a.regimes, name) for a in (model.artifact, previous))
            np.testing.assert_array_equal(found, expected)


def test_labels_follow_however_the_first_model_numbers_them():
    bars, units, (first, second) = planned()
    turned = np.array([2, 0, 1])
    other = replace(first.artifact, regimes=first.artifact.regimes.relabelled(turned))
    expected, found = (
        fold_models(bars, units, [TrainedUnit(artifact, {}), second])[1].artifact.regimes
        for artifact in (first.artifact, other)
    )
    np.testing.assert_array_equal(found.means, expected.means[turned])
