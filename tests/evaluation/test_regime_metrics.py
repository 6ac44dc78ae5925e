"""Regimes of a study: what follows them, and whether refits name the same bars."""

import numpy as np
import pandas as pd
import pytest

from glow_bt.evaluation.regime_metrics import regime_metrics
from glow_bt.evaluation.study import unseen_span
from glow_bt.evaluation.walk_forward import FoldModel
from glow_bt.scoring import Scorer
from glow_bt.training import train
from tests.models import small_artifact, small_config, sp500_bars

BARS = sp500_bars(0, 800)


@pytest.fixture(scope="module")
def span():
    return unseen_span(BARS, small_artifact())


@pytest.fixture(scope="module")
def states(span):
    scores = Scorer(small_artifact()).score(span).dropna()
    return scores.assign(close=span["close"].loc[scores.index])


def test_rows_say_what_follows_each_regime(states, span):
    found = regime_metrics(states, span, small_artifact())
    following = states["close"].pct_change().shift(-1)
    assert sum(row["bars"] for row in found["rows"]) == len(states)
    for row, leads in zip(found["rows"], found["transitions"], strict=True):
        own = states["regime"] == row["regime"]
        assert row["share"] == pytest.approx(own.mean())
        assert row["mean_return"] == pytest.approx(following[own].mean())
        assert row["volatility"] == pytest.approx(following[own].std())
        assert sum(leads) == pytest.approx(1.0)
    assert found["stability"] is None


def test_bars_far_apart_are_no_neighbours(states, span):
    later = states.copy()
    at = 50
    later.index = states.index.where(
        np.arange(len(states)) < at, states.index + pd.Timedelta(days=30)
    )
    before, after = (regime_metrics(own, span, small_artifact()) for own in (states, later))
    spells = [sum(row["spells"] for row in found["rows"]) for found in (before, after)]
    same = states["regime"].iloc[at - 1] == states["regime"].iloc[at]
    assert spells[1] - spells[0] == int(same)


def folds_of(*artifacts):
    bounds = [560, 650, 800]
    return [
        FoldModel(i + 1, BARS.index[bounds[i]], BARS.index[bounds[i + 1] - 1], artifact)
        for i, artifact in enumerate(artifacts)
    ]


def test_one_model_fitted_twice_is_stable_and_another_one_less_so(states, span):
    first = small_artifact()
    twice = regime_metrics(states, span, folds_of(first, first))["stability"]
    assert twice["mean_adjusted_rand"] == 1.0
    assert twice["bars"] == len(states)
    other = train(BARS.iloc[100:], small_config(seed=4, num_regimes=2))
    found = regime_metrics(states, span, folds_of(first, other))["stability"]
    assert -0.5 < found["mean_adjusted_rand"] < 1.0
    assert found["adjusted_rand"][0] == [1.0, found["mean_adjusted_rand"]]


def test_one_fold_has_nothing_to_be_compared_with(states, span):
    assert regime_metrics(states, span, folds_of(small_artifact()))["stability"] is None


def test_no_regime_at_all_is_said_by_nothing(states, span):
    assert regime_metrics(states.assign(regime=np.nan), span, small_artifact()) is None
