"""Bar by bar, across restarts, it says what the whole history says."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glow_bt.errors import ConfigError, LookAheadError, TooFewBarsError
from glow_bt.risk.recalibration import Recalibration
from glow_bt.scoring import ScheduledScorer, Scorer, ScoreStream, StreamState
from tests.models import sp500_bars, unseen_bars
from tests.scoring.samples import (
    FIRST_NEW,
    WARM_UP,
    arrays,
    later_model,
    model_of_two_horizons,
)

COUNT = 64
DAY_NS = 86_400_000_000_000


def scorers(horizon):
    """One model, and two after one another from bars 20 and 45 after the warm-up on."""
    options = {"horizon": horizon, "recalibrate": Recalibration(step=0.05)}
    index = unseen_bars(COUNT).index
    schedule = [
        (index[WARM_UP + 20], model_of_two_horizons()),
        (index[WARM_UP + 45], later_model()),
    ]
    return {
        "one model": Scorer(model_of_two_horizons(), **options),
        "schedule": ScheduledScorer(schedule, allow_training_bars=True, **options),
    }


def windows(scorer, bars):
    """The window of every bar that can be scored, in order of time."""
    stamps, array = arrays(bars)
    for stop in range(scorer.min_bars, len(bars) + 1):
        window = slice(stop - scorer.min_bars, stop)
        yield stamps[window], array[window]


def restarted(stream):
    saved = json.loads(json.dumps(stream.state.to_dict()))
    return ScoreStream(stream.scorer, StreamState.from_dict(saved))


@pytest.mark.parametrize("horizon", [1, 5])
@pytest.mark.parametrize("kind", ["one model", "schedule"])
def test_it_scores_as_the_whole_history_is_scored(kind, horizon):
    scorer, bars = scorers(horizon)[kind], unseen_bars(COUNT)
    stream = ScoreStream(scorer)
    found = [stream.score(*window) for window in windows(scorer, bars)]
    whole = scorer.score(bars).iloc[scorer.min_bars - 1 :]
    np.testing.assert_allclose(found, whole, rtol=1e-9, atol=1e-12)
    assert stream.state.stamp_ns == bars.index[-1].value
    np.testing.assert_allclose(
        stream.state.recalibration.offsets, scorer.recalibrated(bars).offsets, rtol=0, atol=1e-12
    )


@settings(max_examples=8)
@given(st.data())
def test_restarts_repeats_and_bars_that_form_change_nothing(data):
    """Whatever is done between: each bar counts once, as it is at its close."""
    horizon = data.draw(st.sampled_from([1, 5]))
    scorer, bars = scorers(horizon)["one model"], unseen_bars(COUNT)
    plain, stream = ScoreStream(scorer), ScoreStream(scorer)
    steps = list(windows(scorer, bars))
    for number, (stamps, array) in enumerate(steps):
        event = data.draw(st.sampled_from(["", "", "", "forms", "forms from shorter", "restart"]))
        if event.startswith("forms"):
            forming, forming_stamps = array.copy(), stamps.copy()
            forming[-1] *= [0.8] * 4 + [0.5]
            forming_stamps[-1] -= DAY_NS // 2 * event.endswith("shorter")
            stream.score(forming_stamps, forming)
        found = stream.score(stamps, array)
        np.testing.assert_array_equal(stream.score(stamps, array), found)
        np.testing.assert_array_equal(found, plain.score(stamps, array))
        if event == "restart":
            stream = restarted(stream)
            for old in steps[max(number - data.draw(st.integers(0, 20)), 0) : number + 1]:
                stream.score(*old)
        assert stream.state == plain.state


def test_a_bar_from_before_the_state_has_no_var_that_knows_what_came_after():
    scorer, bars = scorers(1)["one model"], unseen_bars(COUNT)
    steps = list(windows(scorer, bars))
    stream = ScoreStream(scorer)
    for step in steps[:40]:
        stream.score(*step)
    state = stream.state
    again = ScoreStream(scorer, state)
    before, plain = again.score(*steps[10]), ScoreStream(scorer).score(*steps[10])
    assert np.isnan(before[-2:]).all()
    assert np.isfinite(plain[-2:]).all()
    np.testing.assert_array_equal(before[:-2], plain[:-2])
    assert again.state == state
    np.testing.assert_array_equal(again.score(*steps[39]), stream.score(*steps[39]))
    np.testing.assert_array_equal(again.score(*steps[40]), stream.score(*steps[40]))


def test_the_first_new_bars_are_not_judged_by_forecasts_of_training_bars():
    scorer = scorers(5)["one model"]
    bars = sp500_bars(FIRST_NEW - (scorer.min_bars - 1), FIRST_NEW + 20)
    stream, start = ScoreStream(scorer), scorer.recalibration
    for number, window in enumerate(windows(scorer, bars)):
        stream.score(*window)
        assert (stream.state.recalibration == start) == (number < 5)


def test_more_bars_than_a_window_are_no_hindrance_and_fewer_are_refused():
    scorer, bars = scorers(1)["one model"], unseen_bars(COUNT)
    stamps, array = arrays(bars)
    score = ScoreStream(scorer).score(stamps, array)
    window = slice(len(bars) - scorer.min_bars, None)
    np.testing.assert_array_equal(score, ScoreStream(scorer).score(stamps[window], array[window]))
    with pytest.raises(TooFewBarsError, match="scoring a bar needs at least 122 bars, found 121"):
        ScoreStream(scorer).score(stamps[:121], array[:121])


def test_training_bars_are_refused():
    with pytest.raises(LookAheadError, match="expected bars after"):
        ScoreStream(scorers(1)["one model"]).score(*arrays(sp500_bars(0, 200)))


def test_a_scorer_that_does_not_recalibrate_needs_no_stream():
    with pytest.raises(ConfigError, match="a scorer that recalibrates, found recalibrate=False"):
        ScoreStream(Scorer(model_of_two_horizons()))


def test_a_state_survives_json_to_the_bit():
    for state in (
        StreamState(Recalibration()),
        StreamState(Recalibration(0.03, (0.01, 0.5), (0.1 + 0.2, -1 / 3)), 10**18 + 1),
    ):
        assert StreamState.from_dict(json.loads(json.dumps(state.to_dict()))) == state


@pytest.mark.parametrize("change", [{"more": 1}, {"stamp_ns": None, "x": 0}])
def test_another_state_is_refused(change):
    values = StreamState(Recalibration()).to_dict() | change
    with pytest.raises(ConfigError, match="the state of a stream, recalibration and stamp_ns"):
        StreamState.from_dict(values)
    with pytest.raises(ConfigError, match="expected the state of a stream"):
        StreamState.from_dict({"stamp_ns": 3})


@pytest.mark.parametrize("change", [{"stamp_ns": "noon"}, {"stamp_ns": 1.5}, {"horizon": None}])
def test_a_state_of_rubbish_is_refused(change):
    values = StreamState(Recalibration()).to_dict() | change
    with pytest.raises(ConfigError, match="whole nanoseconds and a horizon in whole bars, found"):
        StreamState.from_dict(values)


def test_a_state_of_another_horizon_is_refused():
    """What followed forecasts over 5 bars says nothing of those over one."""
    long = Scorer(model_of_two_horizons(), horizon=5, recalibrate=True)
    saved = ScoreStream(long).state
    assert saved.horizon == 5
    with pytest.raises(ConfigError, match="a stream over 1 bars, found one over 5; go on with"):
        ScoreStream(Scorer(model_of_two_horizons(), recalibrate=True), saved)
