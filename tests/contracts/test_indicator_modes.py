"""One law: an indicator says the same in every mode in which Backtrader can run it."""

import functools
import itertools
import json

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from glow_bt.bt.feed import ArrayFeed
from glow_bt.scoring import ScheduledScorer, Scorer, StreamState
from glow_bt.training import TrainConfig, train
from tests.bt.market import (
    WINDOW,
    LineProbe,
    WindowScorer,
    cerebro_over,
    random_bars,
    run_strategy,
    scores_of,
    trained_model,
)

MODES = [
    pytest.param(
        {"preload": preload, "runonce": runonce, "exactbars": exactbars},
        id=f"{preload=} {runonce=} {exactbars=}",
    )
    for preload, runonce in itertools.product([True, False], repeat=2)
    for exactbars in (0, 1, -1, -2)
]
BARS = random_bars(120)
FOUR_HOURS = {"timeframe": bt.TimeFrame.Minutes, "compression": 240, "boundoff": 60}


def aggregated(bars, rule="4h"):
    """What a 4-hour feed has to say: whole bars, stamped with their last hour."""
    grouped = bars.resample(rule)
    frame = grouped.agg(
        {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    )
    return frame.set_axis(grouped["close"].apply(lambda hours: hours.index[-1]))


def check(table, expected):
    """Every bar's values as computed directly, and no bar twice or missing."""
    known = expected.dropna()
    assert table.index.tolist() == known.index.tolist()
    np.testing.assert_allclose(table.to_numpy(), known.to_numpy(), rtol=0, atol=1e-9)


def direct(bars):
    return pd.DataFrame(scores_of(bars), index=bars.index)


@pytest.mark.parametrize("mode", MODES)
def test_plain_feed(mode):
    scorer = WindowScorer()
    strategy = run_strategy(cerebro_over(BARS, **mode), LineProbe, model=scorer)
    check(strategy.table(), direct(BARS))
    assert strategy.num_prenext == WINDOW - 1
    at_once = mode == {"preload": True, "runonce": True, "exactbars": 0}
    assert scorer.num_calls == (1 if at_once else len(BARS) - WINDOW + 1)


@pytest.mark.parametrize("mode", MODES)
def test_resampled_feed(mode):
    cerebro = cerebro_over(BARS, **mode)
    cerebro.resampledata(cerebro.datas[0], **FOUR_HOURS)
    scorer = WindowScorer()
    table = run_strategy(cerebro, LineProbe, model=scorer, on=1).table()
    check(table[~table.index.duplicated()], direct(aggregated(BARS)))
    # Asked again at every hour, it says the same from memory.
    assert len(table) > 80
    assert scorer.num_calls == 24
    assert (table.groupby(level=0).nunique() == 1).all(axis=None)


@pytest.mark.parametrize("mode", MODES)
def test_replayed_feed(mode):
    """While a bar forms its scores follow it; once formed they are the whole bar's."""
    cerebro = bt.Cerebro(stdstats=False, **mode)
    cerebro.replaydata(ArrayFeed(dataname=BARS), **FOUR_HOURS)
    table = run_strategy(cerebro, LineProbe, model=WindowScorer()).table()
    formed = direct(aggregated(BARS)).dropna()
    check(table.loc[formed.index], formed)
    forming = BARS.index[BARS.index >= formed.index[0].floor("4h")]
    assert table.index.tolist() == forming.tolist()
    for stamp in forming[:8]:
        check(table.loc[[stamp]], direct(aggregated(BARS[:stamp])).iloc[-1:])


def test_resampled_clone_keeps_runonce():
    cerebro = bt.Cerebro(stdstats=False)
    fast = ArrayFeed(dataname=BARS)
    cerebro.adddata(fast)
    slow = fast.clone()
    slow.resample(**FOUR_HOURS)
    cerebro.adddata(slow)
    scorer = WindowScorer()
    table = run_strategy(cerebro, LineProbe, model=scorer, on=1).table()
    check(table[~table.index.duplicated()], direct(aggregated(BARS)))
    assert scorer.num_calls == 1


def test_live_feed():
    class LiveFeed(ArrayFeed):
        def islive(self):
            return True

    cerebro = bt.Cerebro(stdstats=False)
    cerebro.adddata(LiveFeed(dataname=BARS))
    check(run_strategy(cerebro, LineProbe, model=WindowScorer()).table(), direct(BARS))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("num_bars", [1, WINDOW - 1, WINDOW])
def test_too_few_bars_leave_the_strategy_in_prenext(mode, num_bars):
    bars = BARS[:num_bars]
    strategy = run_strategy(cerebro_over(bars, **mode), LineProbe, model=WindowScorer())
    assert len(strategy.seen) == max(num_bars - WINDOW + 1, 0)
    assert strategy.num_prenext == min(num_bars, WINDOW - 1)


@pytest.mark.parametrize("mode", MODES)
def test_other_indicators_can_build_on_its_lines(mode):
    class Chained(LineProbe):
        def __init__(self):
            super().__init__()
            self.average = bt.indicators.SMA(self.glow.lines.var, period=5)
            self.averages = []

        def next(self):
            self.averages.append(self.average[0])

    strategy = run_strategy(cerebro_over(BARS, **mode), Chained, model=WindowScorer())
    expected = direct(BARS)[5].rolling(5).mean().dropna()
    np.testing.assert_allclose(strategy.averages, expected, rtol=0, atol=1e-9)


RISK = [
    pytest.param({"horizon": horizon, "recalibrate": recalibrate}, id=f"{horizon=} {recalibrate=}")
    for horizon, recalibrate in itertools.product([1, 5], [False, True])
]
MODEL_BARS = 160


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("risk", RISK)
def test_a_trained_model(mode, risk):
    artifact, bars = trained_model()
    bars = bars[:MODEL_BARS]
    cerebro = cerebro_over(bars, **mode)
    table = run_strategy(cerebro, LineProbe, model=artifact, glow=risk).table()
    check(table, Scorer(artifact, **risk).score(bars))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("recalibrate", [False, True])
def test_a_schedule_of_trained_models(mode, recalibrate):
    artifact, bars = trained_model()
    bars = bars[:MODEL_BARS]
    schedule = [(bars.index[130], artifact), (bars.index[145], artifact)]
    glow = {"recalibrate": recalibrate}
    table = run_strategy(cerebro_over(bars, **mode), LineProbe, model=schedule, glow=glow).table()
    assert table.loc[: bars.index[129]].isna().all(axis=None)
    check(table.dropna(), ScheduledScorer(schedule, **glow).score(bars))


@functools.cache
def hourly_and_four_hourly():
    """A model of 4-hour bars, and the hours that such bars after its training are made of."""
    bars = random_bars(4 * 680, seed=3)
    settings = trained_model()[0].training.config
    model = train(aggregated(bars[: 4 * 540]), TrainConfig(**settings))
    return model, bars[4 * 540 :]


@pytest.mark.parametrize("mode", MODES)
def test_a_bar_that_is_replayed_is_recalibrated_on_once(mode):
    """Each of its hours is a later stamp of the same bar; only the last one's close counts."""
    artifact, bars = hourly_and_four_hourly()
    glow = {"recalibrate": True, "horizon": 5}
    cerebro = bt.Cerebro(stdstats=False, **mode)
    cerebro.replaydata(ArrayFeed(dataname=bars), **FOUR_HOURS)
    strategy = run_strategy(cerebro, LineProbe, model=artifact, glow=glow)
    scorer, formed = Scorer(artifact, **glow), aggregated(bars)
    expected = scorer.score(formed).dropna()
    check(strategy.table().loc[expected.index], expected)
    assert strategy.glow.stream_state.recalibration == scorer.recalibrated(formed)


@pytest.mark.parametrize("mode", MODES)
def test_a_resampled_feed_is_recalibrated_on_once_a_bar(mode):
    artifact, bars = hourly_and_four_hourly()
    cerebro = cerebro_over(bars, **mode)
    cerebro.resampledata(cerebro.datas[0], **FOUR_HOURS)
    glow = {"recalibrate": True}
    table = run_strategy(cerebro, LineProbe, model=artifact, on=1, glow=glow).table()
    expected = Scorer(artifact, **glow).score(aggregated(bars))
    check(table[~table.index.duplicated()], expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("horizon", [1, 5])
def test_a_restart_goes_on_from_the_state_whatever_the_mode(mode, horizon):
    """The second run is fed its warm-up again, which must not count again."""
    artifact, bars = trained_model()
    bars, stop = bars[:MODEL_BARS], 142
    glow = {"recalibrate": True, "horizon": horizon}
    whole = Scorer(artifact, **glow).score(bars)
    first = run_strategy(
        cerebro_over(bars[:stop], runonce=False), LineProbe, model=artifact, glow=glow
    )
    saved = json.loads(json.dumps(first.glow.stream_state.to_dict()))
    glow = {"horizon": horizon, "state": StreamState.from_dict(saved)}
    again = bars[stop - 130 :]
    second = run_strategy(cerebro_over(again, **mode), LineProbe, model=artifact, glow=glow)
    check(second.table().loc[bars.index[stop] :], whole.iloc[stop:])
    last = Scorer(artifact, recalibrate=True, horizon=horizon).recalibrated(bars)
    assert second.glow.stream_state.recalibration == last
