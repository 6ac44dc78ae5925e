"""One law: an indicator says the same in every mode in which Backtrader can run it."""

import itertools

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from glow_bt.bt.feed import ArrayFeed
from glow_bt.scoring import Scorer
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


@pytest.mark.parametrize("mode", MODES)
def test_a_trained_model(mode):
    artifact, bars = trained_model()
    bars = bars[:120]
    table = run_strategy(cerebro_over(bars, **mode), LineProbe, model=artifact).table()
    check(table, Scorer(artifact).score(bars))


def test_a_schedule_of_trained_models():
    artifact, bars = trained_model()
    schedule = [(bars.index[70], artifact), (bars.index[100], artifact)]
    tables = [
        run_strategy(cerebro_over(bars[:120], runonce=runonce), LineProbe, model=schedule).table()
        for runonce in (True, False)
    ]
    for table in tables:
        assert table.iloc[: 70 - 61].isna().all(axis=None)
        check(table.dropna(), Scorer(artifact).score(bars[:120]).iloc[70:])
