"""The model's density of the next return beside GARCH's, on the same test spans."""

import numpy as np
import pytest

from glow_bt.evaluation.density_metrics import density_metrics
from glow_bt.evaluation.walk_forward import FoldModel
from glow_bt.risk import BASELINES, diebold_mariano_test
from glow_bt.scoring import Scorer
from glow_bt.training import train
from tests.models import small_artifact, small_config, sp500_bars
from tests.scoring.samples import model_of_two_horizons

BARS = sp500_bars(0, 800)
FIRST = 560
RETURNS = np.diff(np.log(BARS["close"].to_numpy()))


@pytest.fixture(scope="module")
def found():
    return density_metrics(BARS, BARS.index[FIRST], small_artifact())


def test_losses_are_those_of_both_models_on_every_unseen_return(found):
    artifact = small_artifact()
    span = BARS.iloc[FIRST - artifact.min_bars + 1 :]
    told = Scorer(artifact).distribution(span)
    own = told.rows(slice(0, len(RETURNS) - FIRST)).log_prob(RETURNS[FIRST:])
    garch = BASELINES["garch_t"].forecast(
        RETURNS, fit=range(FIRST), first=FIRST, stop=len(RETURNS), levels=(0.01,)
    )
    assert found["n"] == len(own) == 239
    assert found["model_nll"] == pytest.approx(-own.mean())
    assert found["baseline_nll"] == pytest.approx(-garch.log_prob.mean())
    test = diebold_mariano_test(-own, -garch.log_prob)
    assert found["pvalue"] == pytest.approx(test.pvalue)
    assert found["difference"] == pytest.approx(found["model_nll"] - found["baseline_nll"])


def test_each_fold_is_judged_by_its_own_model_and_a_garch_of_its_own_past(found):
    first = small_artifact()
    second = train(BARS.iloc[100:740], small_config(seed=2), previous=first)
    border = 700
    assert second.training.trained_until < BARS.index[border]
    folds = [
        FoldModel(1, BARS.index[FIRST], BARS.index[border - 1], first),
        FoldModel(2, BARS.index[border], BARS.index[-1], second),
    ]
    whole = density_metrics(BARS, BARS.index[FIRST], folds)
    cut = BARS.iloc[: border + 1]
    before = density_metrics(cut, BARS.index[FIRST], small_artifact())
    after = density_metrics(BARS, BARS.index[border], second)
    assert whole["n"] == before["n"] + after["n"] == found["n"]
    for key in ("model_nll", "baseline_nll"):
        parts = before["n"] * before[key] + after["n"] * after[key]
        assert whole["n"] * whole[key] == pytest.approx(parts)
    assert whole["model_nll"] != found["model_nll"]


def test_the_recalibrated_density_is_another_one(found):
    corrected = density_metrics(BARS, BARS.index[FIRST], small_artifact(), recalibrate=True)
    assert corrected["n"] == found["n"]
    assert corrected["baseline_nll"] == found["baseline_nll"]
    assert corrected["model_nll"] != found["model_nll"]


def test_a_model_of_two_horizons_is_compared_at_the_next_bar():
    assert density_metrics(BARS, BARS.index[FIRST], model_of_two_horizons())["n"] == 239


def test_what_cannot_be_compared_says_why():
    artifact = small_artifact()
    still = BARS.copy()
    still.iloc[: FIRST + 1, :4] = 100.0
    assert "vary" in density_metrics(still, BARS.index[FIRST], artifact)["skipped"]
    few = BARS.iloc[: FIRST + 5]
    assert "too few" in density_metrics(few, BARS.index[FIRST], artifact)["skipped"]
