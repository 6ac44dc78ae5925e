"""From bars to orders: what is said and done up to a bar knows nothing of the bars after it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from glow_bt.evaluation.backtest import run_backtest
from glow_bt.policy import PolicyParams, ScoreAverage, target_exposure
from glow_bt.scoring import SCORE_COLUMNS, ScheduledScorer, Scorer
from strategies.glow_strategy import GlowStrategy
from tests.bt.market import LineProbe, cerebro_over, run_strategy
from tests.contracts.test_no_lookahead import assert_no_lookahead
from tests.models import small_artifact, unseen_bars

COUNT = 160
WARM_UP = 120
BORDER = WARM_UP + 70
# The first scored bar and its neighbour, the last bar of the schedule's first model and the
# first of its second, and the last bar that has a future.
CUTS = (WARM_UP, WARM_UP + 1, BORDER - 1, BORDER, WARM_UP + COUNT - 2)
# A matrix product of fewer rows may round otherwise. With as many rows nothing may move at all.
ROUNDING = 1e-9
POLICY = {"risk_budget": 0.01, "dead_band": 0.0, "half_life": 3.0}


class PeekingScorer:
    """Says of each bar what the model says two bars later.

    One bar would not show in the fills: those of a bar are of orders placed at the bar before.
    """

    def __init__(self, scorer):
        self.scorer = scorer
        self.min_bars = scorer.min_bars

    def score_arrays(self, stamps_ns, bars):
        scores = self.scorer.score_arrays(stamps_ns, bars)
        scores[self.min_bars - 1 : -2] = scores[self.min_bars + 1 :].copy()
        return scores


class PeekingStrategy(GlowStrategy):
    """Takes its direction from where the next bar will close."""

    def target_exposure(self, data, current):
        if len(data) >= data.buflen():
            return current
        target = abs(super().target_exposure(data, current))
        return target if data.close[1] > data.close[0] else -target


def second_artifact():
    """A model that differs from the first in all that it says."""
    first = small_artifact()
    direction = replace(first.direction, slope_belief=0.9, drift_belief=0.1)
    likelihood = replace(first.likelihood, false_alarm_rate=0.3)
    return replace(first, direction=direction, likelihood=likelihood)


@pytest.fixture(scope="module")
def bars():
    return unseen_bars(COUNT)


@pytest.fixture(params=["one model", "schedule", "recalibrated", "recalibrated schedule"])
def scorer(request, bars):
    recalibrate = "recalibrated" in request.param
    if "schedule" not in request.param:
        return Scorer(small_artifact(), recalibrate=recalibrate)
    models = [small_artifact(), second_artifact()]
    starts = bars.index[[WARM_UP, BORDER]]
    return ScheduledScorer(list(zip(starts, models, strict=True)), recalibrate=recalibrate)


def scores(bars, scorer):
    columns = bars[["open", "high", "low", "close", "volume"]].to_numpy()
    table = scorer.score_arrays(bars.index.as_unit("ns").asi8, columns)
    return pd.DataFrame(table, bars.index, list(SCORE_COLUMNS))


def lines(bars, scorer):
    table = run_strategy(cerebro_over(bars), LineProbe, model=scorer).table()
    return table.reindex(bars.index)


def targets(bars, scorer):
    params = PolicyParams(**POLICY)
    average = ScoreAverage(params)
    decided = ["confidence", "in_distribution", "var"]
    said = scores(bars, scorer)
    wanted = [
        target_exposure(direction, *average.update(bar, *row)[:3], params)
        for bar, (direction, row) in enumerate(
            zip(said["direction"], said[decided].to_numpy(), strict=True)
        )
    ]
    return pd.DataFrame({"target": wanted}, bars.index)


def trades(bars, scorer, strategy=GlowStrategy):
    """What was filled in each bar and what the account was worth at its close."""
    result = run_backtest(bars, strategy, {"model": scorer, **POLICY}, slippage_bps=2.0)
    fills = result.orders[["size", "price", "commission", "slippage"]]
    assert fills.index.is_unique
    return fills.join(result.states[["exposure", "equity"]], how="outer").reindex(bars.index)


def placed(bars, scorer, strategy=GlowStrategy):
    """What was ordered at each bar's close.

    The next bar, in which such an order fills, is always the same: it opens at this bar's close
    and stays there, so that the order of the last bar shows too.
    """
    last = bars.iloc[[-1]]
    close = last["close"].iloc[0]
    after = last.assign(open=close, high=close, low=close)
    after.index = after.index + pd.Timedelta(days=1)
    result = run_backtest(
        pd.concat([bars, after]).rename_axis("timestamp"), strategy, {"model": scorer, **POLICY}
    )
    return result.orders.set_index("created")[["size"]].reindex(bars.index)


STEPS = [scores, lines, targets, trades, placed]


@pytest.mark.parametrize("step", STEPS)
def test_no_step_sees_a_later_bar(step, bars, scorer):
    # A recalibrated shortfall is a sum that leaves out what is nothing in all rows.
    overwritten = 0.0 if scorer.recalibration is None else 1e-13
    assert_no_lookahead(
        lambda known: step(known, scorer), bars, CUTS, ROUNDING, overwritten=overwritten
    )


@pytest.mark.parametrize("step", STEPS)
def test_every_step_has_something_to_say(step, bars, scorer):
    said = step(bars, scorer).iloc[WARM_UP + 1 :]
    first_column = said.iloc[:, 0].fillna(0.0)
    assert first_column.nunique() > 20


@pytest.mark.parametrize("step", STEPS)
def test_a_peeking_scorer_is_caught(step, bars, scorer):
    peeking = PeekingScorer(scorer)
    with pytest.raises(AssertionError, match="with the future of row"):
        assert_no_lookahead(lambda known: step(known, peeking), bars, CUTS, ROUNDING)


def test_a_peeking_strategy_is_caught(bars, scorer):
    with pytest.raises(AssertionError, match="with the future of row"):
        assert_no_lookahead(
            lambda known: placed(known, scorer, PeekingStrategy), bars, CUTS, ROUNDING
        )


def test_an_order_fills_no_earlier_than_the_bar_after_it(bars, scorer):
    orders = run_backtest(bars, GlowStrategy, {"model": scorer, **POLICY}).orders
    positions = bars.index.get_indexer(orders.index)
    np.testing.assert_array_equal(bars.index.get_indexer(orders["created"]), positions - 1)
    np.testing.assert_array_equal(orders["price"], bars["open"].iloc[positions])
    assert len(orders) > 20
