"""Scores of a unit: validation by who left a bar out, test on the test span alone."""

import math

import numpy as np
import pytest

from glow_bt.evaluation.unit_scores import SCORED_LEVELS, unit_scores
from glow_bt.folds import Fold
from glow_bt.risk import quantile_loss
from glow_bt.scoring import Scorer
from glow_bt.training.data import divide
from tests.models import SMALL_BARS, SMALL_CONFIG, small_artifact, sp500_bars


@pytest.fixture(scope="module")
def fold():
    artifact = small_artifact()
    return divide(sp500_bars(0, SMALL_BARS), SMALL_CONFIG, artifact.spec)


def test_validation_scores_are_the_trainers_own(fold):
    artifact = small_artifact()
    scores = unit_scores(artifact, sp500_bars(0, SMALL_BARS), fold)
    metrics = artifact.training.metrics
    assert scores["validation_nll"] == metrics["state_validation_nll"]
    assert scores["validation_return_nll"] == metrics["return_validation_nll"]


def test_test_scores_are_what_the_trainer_measured_on_its_test_block(fold):
    artifact = small_artifact()
    scores = unit_scores(artifact, sp500_bars(0, SMALL_BARS), fold)
    metrics = artifact.training.metrics
    assert scores["test_nll"] == pytest.approx(metrics["state_test_nll"], rel=1e-9)
    assert scores["test_return_nll"] == pytest.approx(metrics["return_test_nll"], rel=1e-9)


def test_losses_of_the_test_span_are_those_of_the_var_that_a_strategy_is_told(fold):
    artifact, bars = small_artifact(), sp500_bars(0, SMALL_BARS)
    scores = unit_scores(artifact, bars, fold)
    realised = np.diff(np.log(bars["close"].to_numpy()[fold.test.start :]))
    for level in SCORED_LEVELS:
        scorer = Scorer(artifact, var_level=level)
        var = scorer.score(bars.iloc[fold.test.start - artifact.min_bars + 1 :])["var"]
        told = var.to_numpy()[artifact.min_bars - 1 : -1]
        expected = quantile_loss(realised, told, level)
        assert scores[f"test_loss_{level}"] == pytest.approx(expected, rel=1e-9)


def test_validation_losses_come_of_the_members_that_left_a_bar_out(fold):
    """Shown on the last bar of validation, which the last member left out."""
    artifact, bars = small_artifact(), sp500_bars(0, SMALL_BARS)
    stop = fold.validation.stop
    last = Fold(fold.train, range(stop - 2, stop), fold.test)
    rows = artifact.returns.contexts(*artifact.returns.inputs(bars.iloc[:stop]))
    member = artifact.returns.fused(1).members(rows.values[-2:-1])[-1]
    realised = math.log(bars["close"].iloc[stop - 1] / bars["close"].iloc[stop - 2])
    quantile = member.quantile(0.05) * rows.volatility[-2]
    found = unit_scores(artifact, bars, last)["validation_loss_0.05"]
    assert found == pytest.approx(quantile_loss([realised], quantile, 0.05), rel=1e-9)


def test_a_test_span_of_one_bar_has_a_density_and_no_return(fold):
    artifact = small_artifact()
    one = Fold(fold.train, fold.validation, range(fold.test.start, fold.test.start + 1))
    scores = unit_scores(artifact, sp500_bars(0, SMALL_BARS), one)
    assert math.isfinite(scores["test_nll"])
    assert not any(name.startswith(("test_return", "test_loss")) for name in scores)
