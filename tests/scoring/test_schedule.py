"""Models that follow one another."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from glow_bt.errors import ConfigError, LookAheadError
from glow_bt.features import FeatureSpec
from glow_bt.scoring import SCORE_COLUMNS, ScheduledScorer, Scorer
from glow_bt.training import train
from tests.models import small_artifact, small_config, sp500_bars, unseen_bars, utc
from tests.scoring.samples import COUNT, WARM_UP, arrays, later_model


@pytest.fixture(scope="module")
def bars():
    return unseen_bars(COUNT)


@pytest.fixture(scope="module")
def later():
    return later_model()


def test_a_schedule_scores_each_bar_with_the_model_valid_then(later, bars):
    first, second = bars.index[WARM_UP + 30], bars.index[WARM_UP + 130]
    schedule = [(first, small_artifact()), (second, later)]
    scores = ScheduledScorer(schedule).score(bars)
    assert tuple(scores.columns) == SCORE_COLUMNS
    assert scores[: first - pd.Timedelta(1)].isna().all().all()
    for model, rows in (
        (small_artifact(), slice(WARM_UP + 30, WARM_UP + 130)),
        (later, slice(WARM_UP + 130, None)),
    ):
        alone = Scorer(model, allow_training_bars=True).score(bars)
        np.testing.assert_allclose(scores.iloc[rows], alone.iloc[rows], rtol=1e-12, atol=1e-14)
        others = (
            slice(WARM_UP + 30, WARM_UP + 130) if model is later else slice(WARM_UP + 130, None)
        )
        assert not np.allclose(scores["log_prob"].iloc[others], alone["log_prob"].iloc[others])


def test_a_schedule_scores_a_bar_alone_as_in_the_whole_history(later, bars):
    second = bars.index[WARM_UP + 120]
    scheduled = ScheduledScorer([(bars.index[WARM_UP + 5], small_artifact()), (second, later)])
    stamps, array = arrays(bars)
    whole = scheduled.score_arrays(stamps, array)
    for last in range(WARM_UP, len(bars), 5):
        window = slice(last - WARM_UP, last + 1)
        alone = scheduled.score_arrays(stamps[window], array[window])
        np.testing.assert_allclose(alone[-1], whole[last], rtol=1e-12, atol=1e-14)


def test_a_schedule_may_begin_before_between_or_after_the_bars(later, bars):
    start, end = bars.index[0], bars.index[-1]
    day = pd.Timedelta(days=1)
    both = ScheduledScorer(
        [(start - 9 * day, small_artifact()), (start - day, later)], allow_training_bars=True
    )
    alone = Scorer(later, allow_training_bars=True).score(bars)
    np.testing.assert_allclose(both.score(bars), alone, rtol=1e-12, atol=1e-14)
    none_yet = ScheduledScorer([(end + day, small_artifact())]).score(bars)
    assert none_yet.isna().all().all()
    unborn = ScheduledScorer([(end + day, small_artifact())]).value_at_risk(bars, [0.01])
    assert unborn.isna().all(axis=None)
    last_only = ScheduledScorer([(end, small_artifact())]).score(bars)
    assert last_only.notna().all(axis=1).tolist() == [False] * (len(bars) - 1) + [True]


def test_a_schedule_needs_the_longest_of_its_windows(bars):
    spec = FeatureSpec(long=139)
    other = train(
        sp500_bars(0, 760), small_config(max_epochs=1, fractions=(0.7, 0.3, 0.0)), spec=spec
    )
    valid = [bars.index[WARM_UP + 10], other.training.trained_until + pd.Timedelta(days=1)]
    scheduled = ScheduledScorer(list(zip(valid, [small_artifact(), other], strict=True)))
    assert scheduled.min_bars == spec.min_bars == WARM_UP + 21
    scores = scheduled.score(bars)
    assert scores.notna().all(axis=1).argmax() == spec.min_bars - 1
    assert scores.iloc[spec.min_bars - 1 :].notna().all().all()
    stamps, array = arrays(bars)
    window = slice(150 - spec.min_bars + 1, 151)
    alone = scheduled.score_arrays(stamps[window], array[window])[-1]
    np.testing.assert_allclose(alone, scores.iloc[150], rtol=1e-12, atol=1e-14)


def test_a_model_in_force_on_bars_of_its_training_is_refused(bars):
    until = small_artifact().training.trained_until
    with pytest.raises(LookAheadError, match=r"trained before its valid_from .*; move valid_from"):
        ScheduledScorer([(until, small_artifact())])
    ScheduledScorer([(until + pd.Timedelta(1), small_artifact())])
    ScheduledScorer([(until, small_artifact())], allow_training_bars=True)


def test_a_schedule_out_of_order_or_empty_is_refused(later):
    day = utc("2005-01-01")
    with pytest.raises(ConfigError, match="at least one model"):
        ScheduledScorer([])
    for second in (day, day - pd.Timedelta(days=1)):
        with pytest.raises(ConfigError, match="ascending order"):
            ScheduledScorer([(day, small_artifact()), (second, later)])


def test_stamps_of_a_schedule_without_zone_are_utc(bars):
    naive = bars.index[WARM_UP + 50].tz_localize(None)
    elsewhere = bars.index[WARM_UP + 50].tz_convert("Asia/Tokyo")
    for stamp in (naive, elsewhere):
        assert ScheduledScorer([(stamp, small_artifact())]).starts == [bars.index[WARM_UP + 50]]


def test_models_of_bars_of_different_intervals_make_no_schedule():
    artifact = small_artifact()
    hourly = replace(
        artifact,
        returns=replace(artifact.returns, bar_seconds=3600.0),
        training=replace(artifact.training, bar_seconds=3600.0),
    )
    starts = pd.date_range("2010-01-01", periods=2, tz="UTC")
    with pytest.raises(ConfigError, match=r"one interval, found intervals of \[3600.0, 86400.0\]"):
        ScheduledScorer([(starts[0], artifact), (starts[1], hourly)])
