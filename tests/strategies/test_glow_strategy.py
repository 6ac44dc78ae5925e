from dataclasses import replace

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from glow_bt.bt import BybitPerpetual, GlowIndicator, GlowRecorder, VaRBacktest
from glow_bt.bt.ledger import AccountLedger
from glow_bt.errors import ConfigError, GlowError
from glow_bt.scoring import Scorer
from strategies.glow_strategy import GlowStrategy
from tests.bt.market import (
    WINDOW,
    WindowScorer,
    cerebro_over,
    random_bars,
    scores_of,
    trained_model,
)

BARS = random_bars(250, seed=3)
CASH = 10_000.0
TAKER = 0.00055
# Goes by the direction and by the current bar alone.
AT_ONCE = {"stance": 0.0, "half_life": 0.0, "risk_budget": 0.02}


def cerebro_with_books(bars=BARS, **kwargs):
    cerebro = cerebro_over(bars, **kwargs)
    cerebro.broker.setcash(CASH)
    cerebro.broker.set_int2pnl(False)
    cerebro.broker.addcommissioninfo(BybitPerpetual(leverage=2.0))
    cerebro.addanalyzer(GlowRecorder, _name="recorder")
    cerebro.addanalyzer(VaRBacktest, _name="var")
    cerebro.addanalyzer(AccountLedger, _name="ledger")
    return cerebro


def run_glow(bars=BARS, *, model=None, mode=None, **params):
    cerebro = cerebro_with_books(bars, **(mode or {}))
    cerebro.addstrategy(GlowStrategy, model=model or WindowScorer(), **AT_ONCE | params)
    return cerebro.run()[0]


def states_of(strategy):
    return strategy.analyzers.recorder.frame()


def simulate(
    bars,
    scores,
    *,
    cap,
    band,
    long_only=False,
    risk_budget=0.02,
    es_budget=np.inf,
    error=0.0,
    stance=0.0,
    half_life=0.0,
):
    """The strategy without Backtrader: equity and exposure at each close, and the orders."""
    cash, size, order = CASH, 0.0, 0.0
    equities, exposures, orders, past = [], [], [], []
    for (open_, close), score in zip(bars[["open", "close"]].to_numpy(), scores, strict=True):
        cash -= order * open_ + abs(order) * open_ * TAKER
        size += order
        equity = cash + size * close
        exposure = size * close / equity
        target = 0.0
        if np.isfinite(score).all():
            past.append((score[1] * score[2], -score[5] + error, -score[6]))
            ages = np.arange(len(past))[::-1]
            weights = 0.5 ** (ages / half_life) if half_life else ages == 0
            usual, loss, shortfall = np.average(past, axis=0, weights=weights)
            limit = min(risk_budget / loss, es_budget / shortfall, cap)
            side = np.clip(stance + score[3], -1.0, 1.0) * min(2.0 * usual, 1.0)
            target = float(np.clip(side * limit, -0.99 * cap, 0.99 * cap))
            target = max(target, 0.0) if long_only else target
        if target == 0.0 or abs(exposure) > cap:
            wanted = target
        elif abs(exposure - target) <= band:
            wanted = exposure
        else:
            wanted = target + 0.8 * band * np.sign(exposure - target)
        order = wanted * equity / close - size if wanted != exposure else 0.0
        equities.append(equity)
        exposures.append(exposure)
        orders.append(order)
    return np.array(equities), np.array(exposures), np.array(orders)


@pytest.mark.parametrize("averaged", [{}, {"stance": 1.0, "half_life": 7.5}], ids=str)
@pytest.mark.parametrize("long_only", [False, True])
@pytest.mark.parametrize("cap", [1.0, 1.6])
@pytest.mark.parametrize("dead_band", [0.0, 0.15])
def test_it_does_what_an_independent_simulation_does(averaged, long_only, cap, dead_band):
    strategy = run_glow(leverage_cap=cap, dead_band=dead_band, long_only=long_only, **averaged)
    equity, exposure, orders = simulate(
        BARS, scores_of(BARS), cap=cap, band=dead_band, long_only=long_only, **averaged
    )
    assert strategy.rejected == []
    states = states_of(strategy)
    np.testing.assert_allclose(states["equity"], equity[WINDOW - 1 :], rtol=0, atol=1e-6)
    np.testing.assert_allclose(states["exposure"], exposure[WINDOW - 1 :], rtol=0, atol=1e-9)
    fills = strategy.analyzers.ledger.fills()["size"].reindex(BARS.index, fill_value=0.0)
    np.testing.assert_allclose(fills.iloc[1:], orders[:-1], rtol=0, atol=1e-9)
    assert np.abs(exposure).max() > 0.5
    assert (exposure.min() < -0.3) == (not long_only and not averaged)


class HeavyTails(WindowScorer):
    """The same with a shortfall of twice the VaR in every other hour."""

    def score_arrays(self, stamps_ns, bars):
        scores = super().score_arrays(stamps_ns, bars)
        heavy = stamps_ns // 3_600_000_000_000 % 2 == 0
        scores[heavy, 6] = 2.0 * scores[heavy, 5]
        return scores


def test_es_budget_and_error_margin_do_what_an_independent_simulation_does(monkeypatch):
    monkeypatch.setattr(GlowIndicator, "var_error", lambda self: 0.003, raising=False)
    strategy = run_glow(model=HeavyTails(), dead_band=0.0, es_budget=0.02, error_margin=2.0)

    def simulated(**budgets):
        scores = scores_of(BARS, HeavyTails())
        equity, exposure, _ = simulate(BARS, scores, cap=1.0, band=0.0, **budgets)
        return equity[WINDOW - 1 :], exposure[WINDOW - 1 :]

    states = states_of(strategy)
    equity, exposure = simulated(es_budget=0.02, error=0.006)
    np.testing.assert_allclose(states["equity"], equity, rtol=0, atol=1e-6)
    np.testing.assert_allclose(states["exposure"], exposure, rtol=0, atol=1e-9)
    for other in ({"error": 0.006}, {"es_budget": 0.02}):
        assert np.abs(simulated(**other)[1] - exposure).max() > 0.05


def test_it_is_flat_in_the_warm_up_and_after_every_bar_outside_the_filter():
    states = states_of(run_glow())
    outside = states.index[:-1][states["in_distribution"].iloc[:-1] == 0.0]
    after = states.index[states.index.get_indexer(outside) + 1]
    assert len(outside) > 20
    assert (states.loc[after, "exposure"] == 0.0).all()
    assert states["exposure"].iloc[0] == 0.0


def test_by_default_it_holds_the_asset_and_trades_seldom():
    defaults = {"stance": 1.0, "half_life": 24.0, "risk_budget": 0.01}
    calm, hasty = (
        states_of(run_glow(**settings))["exposure"]
        for settings in (defaults, defaults | {"half_life": 0.0})
    )
    assert (calm > 0.0).mean() > 0.9
    assert (calm >= 0.0).all()
    assert calm.diff().abs().sum() < 0.5 * hasty.diff().abs().sum()


def test_averages_go_on_from_a_saved_state():
    whole, first, second = (run_glow(half_life=7.5) for _ in range(3))
    assert first.save_state() == whole.save_state()
    second.load_state({"ruined": False, "averages": [[1.0, 0.5, -0.01, 0.0, 0.0]]})
    assert second.save_state()["averages"] != whole.save_state()["averages"]
    second.load_state(whole.save_state())
    assert second.save_state() == whole.save_state()


def test_a_state_of_before_there_were_averages_is_refused():
    with pytest.raises(ConfigError, match=r"expected a state with averages .*in another folder"):
        run_glow().load_state({"ruined": False})


def test_nan_is_flat():
    class Patchy(WindowScorer):
        def score_arrays(self, stamps_ns, bars):
            scores = super().score_arrays(stamps_ns, bars)
            scores[stamps_ns // 3_600_000_000_000 % 5 == 0, 3] = np.nan
            return scores

    states = states_of(run_glow(model=Patchy()))
    gaps = np.flatnonzero(states["direction"].isna())[:-1]
    assert len(gaps) > 40
    assert (states["exposure"].iloc[gaps + 1] == 0.0).all()
    assert (states["exposure"] != 0.0).sum() > 50


@pytest.mark.parametrize(
    "mode",
    [{"runonce": False}, {"preload": False}, {"exactbars": 1}, {"exactbars": -1}],
    ids=str,
)
def test_every_mode_trades_alike(mode):
    expected, found = states_of(run_glow()), states_of(run_glow(mode=mode))
    pd.testing.assert_frame_equal(found, expected, rtol=0, atol=1e-9)


def test_two_feeds_get_half_of_the_capital_each():
    bars = [random_bars(120, seed=s) for s in (4, 5)]
    strategy = run_glow(bars, dead_band=0.0, risk_budget=0.004)
    fills = strategy.analyzers.ledger.fills()
    first = fills[fills["created"] == bars[0].index[WINDOW - 1]]
    expected = []
    for frame in bars:
        score = scores_of(frame)[WINDOW - 1]
        exposure = score[2] * score[3] * min(2.0 * score[1], 1.0) * min(0.004 / -score[5], 1.0)
        expected.append(0.5 * CASH * exposure / frame["close"].iloc[WINDOW - 1])
    assert all(expected)
    assert first["size"].tolist() == pytest.approx(expected)
    assert strategy.glow[0].scorer is strategy.glow[1].scorer


def test_before_start_it_only_watches():
    start = BARS.index[100]
    strategy = run_glow(start=start)
    assert strategy.analyzers.ledger.fills()["created"].min() >= start
    assert len(states_of(strategy)) == len(BARS) - WINDOW + 1


@pytest.mark.parametrize("maxcpus", [1, 2])
def test_parameters_can_be_optimised(maxcpus):
    cerebro = cerebro_with_books(maxcpus=maxcpus)
    cerebro.optstrategy(
        GlowStrategy, model=WindowScorer(), **AT_ONCE | {"risk_budget": [0.005, 0.02]}
    )
    budgets = {}
    for [run] in cerebro.run():
        exposure = run.analyzers.recorder.frame()["exposure"]
        budgets[run.params.risk_budget] = exposure.abs().mean()
        assert run.analyzers.var.get_analysis()["bars"] == len(BARS) - WINDOW
        assert run.analyzers.ledger.get_analysis()["fills"] > 10
    assert budgets[0.005] < 0.5 * budgets[0.02]


def test_plots_and_observers_do_not_disturb_it():
    cerebro = bt.Cerebro()
    cerebro.adddata(cerebro_over(BARS).datas[0])
    cerebro.addstrategy(GlowStrategy, model=WindowScorer(), **AT_ONCE)
    cerebro.addanalyzer(bt.analyzers.TradeAnalyzer, _name="trades")
    cerebro.addanalyzer(bt.analyzers.TimeReturn, _name="returns")
    cerebro.broker.addcommissioninfo(BybitPerpetual())
    strategy = cerebro.run()[0]
    assert strategy.analyzers.trades.get_analysis()["total"]["closed"] > 5
    assert len(strategy.analyzers.returns.get_analysis()) > 5


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"model": "no/such/folder"}, "no/such/folder"),
        ({"risk_budgt": 0.1}, "did you mean 'risk_budget'"),
        ({"risk_budget": -0.1}, "risk_budget above 0"),
        ({"es_budget": 0.0}, "es_budget above 0"),
        ({"state": [None, None]}, "one state for each of 1 data feeds, found 2"),
    ],
)
def test_settings_that_cannot_work_are_refused(setting, message):
    with pytest.raises(GlowError, match=message) as raised:
        run_glow(**setting)
    assert "expected" in str(raised.value)


def test_a_model_is_needed():
    cerebro = cerebro_over(BARS)
    cerebro.addstrategy(GlowStrategy)
    with pytest.raises(ConfigError, match="expected model="):
        cerebro.run()


def test_horizon_and_recalibration_reach_the_indicator_and_one_scorer_serves_all_feeds():
    artifact, bars = trained_model()
    strategy = run_glow(
        [bars[:150], bars[:140]], model=artifact, horizon=5, recalibrate=True, var_level=0.02
    )
    first, second = strategy.glow
    assert first.scorer is second.scorer
    assert (first.horizon, first.var_level) == (5, 0.02)
    scorer = Scorer(artifact, horizon=5, recalibrate=True, var_level=0.02)
    expected = scorer.score(bars[:140])["var"].iloc[-1]
    assert second.lines.var[0] == pytest.approx(expected, rel=1e-9)
    assert first.scorer.recalibration == scorer.recalibration


@pytest.mark.parametrize("runonce", [True, False])
def test_the_error_of_var_makes_positions_smaller(runonce):
    """Of a trained model, by its own members."""
    artifact, bars = trained_model()
    sure = replace(artifact.direction, drift_belief=1.0, slope_belief=1.0)
    artifact = replace(artifact, direction=sure)
    exposures = [
        states_of(
            run_glow(
                bars[:200],
                model=artifact,
                mode={"runonce": runonce},
                error_margin=margin,
                dead_band=0.0,
                risk_budget=1e-4,
            )
        )["exposure"].abs()
        for margin in (0.0, 4.0)
    ]
    assert exposures[0].max() > 1e-4
    assert exposures[1].sum() < 0.95 * exposures[0].sum()
