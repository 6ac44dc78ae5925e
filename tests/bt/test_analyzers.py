import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from glow_bt.bt import BybitPerpetual, GlowRecorder
from glow_bt.bt.analyzers import BarRecorder
from glow_bt.scoring import SCORE_COLUMNS
from tests.bt.market import (
    WINDOW,
    LineProbe,
    WindowScorer,
    cerebro_over,
    random_bars,
    run_strategy,
    scores_of,
)

BARS = random_bars(200)
COLUMNS = ["close", "exposure", "equity", *SCORE_COLUMNS]


class HalfLong(LineProbe):
    def next(self):
        super().next()
        if len(self) == 20:
            self.buy(size=50.0)


class Bare(bt.Strategy):
    pass


def analysed(analyzer, strategy=HalfLong, bars=BARS, replay=False, **params):
    cerebro = cerebro_over([] if replay else bars)
    if replay:
        feed = cerebro_over(bars).datas[0]
        cerebro.replaydata(feed, timeframe=bt.TimeFrame.Minutes, compression=240, boundoff=60)
    cerebro.broker.setcash(10_000.0)
    cerebro.broker.addcommissioninfo(BybitPerpetual())
    cerebro.addanalyzer(analyzer, _name="it")
    if issubclass(strategy, LineProbe):
        params.setdefault("model", WindowScorer())
    return run_strategy(cerebro, strategy, **params).analyzers.it


def test_states_are_one_row_a_bar_from_the_first_next():
    frame = analysed(GlowRecorder).frame()
    assert list(frame.columns) == COLUMNS
    assert frame.index.equals(BARS.index[WINDOW - 1 :])
    assert frame.index.name == "timestamp"
    assert (frame["close"] == BARS["close"].iloc[WINDOW - 1 :]).all()
    np.testing.assert_array_equal(frame[list(SCORE_COLUMNS)], scores_of(BARS)[WINDOW - 1 :])


def test_exposure_is_position_value_over_equity_at_the_close():
    frame = analysed(GlowRecorder).frame()
    paid = BARS["open"].iloc[20] * 50.0
    equity = 10_000.0 + 50.0 * BARS["close"].iloc[20:] - paid * (1 + 0.00055)
    assert (frame["exposure"].iloc[: 20 - WINDOW + 1] == 0.0).all()
    held = frame.loc[equity.index]
    np.testing.assert_allclose(held["equity"], equity, rtol=1e-13)
    np.testing.assert_allclose(held["exposure"], 50.0 * held["close"] / equity, rtol=1e-13)


def test_a_strategy_without_a_model_has_no_scores():
    frame = analysed(GlowRecorder, Bare).frame()
    assert len(frame) == len(BARS)
    assert frame[list(SCORE_COLUMNS)].isna().all(axis=None)
    assert (frame["equity"] == 10_000.0).all()


def test_no_bars_after_the_warm_up_is_an_empty_frame():
    frame = analysed(GlowRecorder, bars=BARS[: WINDOW - 1]).frame()
    assert list(frame.columns) == COLUMNS
    assert len(frame) == 0
    assert frame.index.name == "timestamp"


def test_analysis_is_the_frame_by_column():
    recorder = analysed(GlowRecorder)
    pd.testing.assert_frame_equal(
        pd.DataFrame(recorder.get_analysis()).set_index("timestamp"), recorder.frame()
    )


def test_a_forming_bar_is_recorded_once():
    whole = BARS.resample("4h").agg(
        {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    )
    frame = analysed(GlowRecorder, replay=True).frame()
    np.testing.assert_array_equal(frame["close"], whole["close"].iloc[WINDOW - 1 :])
    stamped = whole.set_axis(whole.index + pd.Timedelta(hours=3))
    np.testing.assert_allclose(
        frame[list(SCORE_COLUMNS)], scores_of(stamped)[WINDOW - 1 :], rtol=0, atol=1e-9
    )


def test_a_recorder_of_one_s_own_names_columns_and_reads_a_row():
    class Ranges(BarRecorder):
        columns = ("range",)

        def row(self):
            return (self.data.high[0] - self.data.low[0],)

    recorder = analysed(Ranges, Bare)
    frame = recorder.frame()
    assert recorder.get_analysis()["range"] == frame["range"].tolist()
    assert frame["range"].equals((BARS["high"] - BARS["low"]).rename("range"))
    with pytest.raises(NotImplementedError):
        analysed(BarRecorder, Bare)
