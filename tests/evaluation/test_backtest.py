import backtrader as bt
import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from glow_bt.artifact import save_artifact
from glow_bt.bt import BybitPerpetual
from glow_bt.bt.feed import ArrayFeed
from glow_bt.errors import ConfigError, DataError, LookAheadError
from glow_bt.evaluation.backtest import run_backtest
from glow_bt.scoring import SCORE_COLUMNS, Scorer
from strategies.glow_baselines import BuyAndHold
from strategies.glow_strategy import GlowStrategy
from tests.bt.market import (
    WINDOW,
    PeekingScorer,
    WindowScorer,
    random_bars,
    scores_of,
    trained_model,
)

BARS = random_bars(300, seed=21)
CASH = 100_000.0


def run_glow(bars=BARS, *, model=None, params=None, **kwargs):
    return run_backtest(
        bars, GlowStrategy, {"model": model or WindowScorer(), **(params or {})}, **kwargs
    )


def funding_of(orders, bars, rate):
    """Funding at each bar: hourly bars, so a stamp is where the hour is 0, 8 or 16."""
    held = orders["size"].reindex(bars.index, fill_value=0.0).cumsum()
    coming_in = held.shift(fill_value=0.0)
    due = pd.Series(bars.index.hour % 8 == 0, index=bars.index)
    return (coming_in * bars["close"].shift() * rate).where(due, 0.0).fillna(0.0)


@pytest.mark.parametrize("leverage", [1.0, 3.0])
@pytest.mark.parametrize("slippage_bps", [0.0, 7.0])
def test_equity_is_that_of_a_ledger_of_its_fills(leverage, slippage_bps):
    result = run_glow(
        params={"leverage_cap": leverage, "risk_budget": 0.03, "dead_band": 0.02},
        commission=BybitPerpetual(leverage=leverage, funding_rate=0.0005),
        slippage_bps=slippage_bps,
    )
    orders = result.orders
    funding = funding_of(orders, BARS, 0.0005)
    paid = (orders["size"] * orders["price"] + orders["commission"]).reindex(
        BARS.index, fill_value=0.0
    )
    held = orders["size"].reindex(BARS.index, fill_value=0.0).cumsum()
    equity = CASH + held * BARS["close"] - (paid + funding).cumsum()
    np.testing.assert_allclose(result.equity, equity, rtol=0, atol=1e-6)
    exposure = (held * BARS["close"] / equity).loc[result.states.index]
    np.testing.assert_allclose(result.states["exposure"], exposure, rtol=0, atol=1e-9)
    # The costs are the difference to the same fills, free of charge and at the open.
    opens = BARS["open"].loc[orders.index]
    gross = (
        CASH
        + held * BARS["close"]
        - (orders["size"] * opens).reindex(BARS.index, fill_value=0.0).cumsum()
    )
    assert sum(result.costs.values()) == pytest.approx(gross.iloc[-1] - equity.iloc[-1], abs=1e-6)
    assert result.costs["funding"] == pytest.approx(funding.sum(), abs=1e-6)
    assert len(orders) > 100
    assert len(result.rejected) == 0


def test_orders_fill_at_the_open_after_their_bar_less_slippage():
    orders = run_glow(slippage_bps=5.0).orders
    position = BARS.index.get_indexer(orders.index)
    assert (BARS.index.get_indexer(orders["created"]) == position - 1).all()
    side = np.sign(orders["size"])
    np.testing.assert_allclose(orders["price"], BARS["open"].iloc[position] * (1 + 5e-4 * side))


def test_slippage_is_paid_in_full_even_out_of_the_bar():
    flat = BARS.copy()
    flat["high"] = flat["low"] = flat["close"] = flat["open"]
    result = run_backtest(flat, BuyAndHold, slippage_bps=10.0)
    assert result.orders["price"].iloc[0] == pytest.approx(flat["open"].iloc[1] * 1.001)


def test_states_and_equity():
    result = run_glow()
    assert list(result.states.columns) == ["close", "exposure", "equity", *SCORE_COLUMNS]
    assert result.states.index.equals(BARS.index[WINDOW - 1 :])
    assert result.equity.index.equals(BARS.index)
    assert (result.equity.iloc[:WINDOW] == CASH).all()
    assert (result.equity.loc[result.states.index] == result.states["equity"]).all()
    np.testing.assert_array_equal(
        result.states[list(SCORE_COLUMNS)], scores_of(BARS)[WINDOW - 1 :]
    )


def test_trades_add_up():
    result = run_glow(params={"long_only": True, "stance": 0.0, "half_life": 0.0})
    trades, orders = result.trades, result.orders
    held = orders["size"].cumsum()
    assert len(trades) == (held.abs() < 1e-9).sum() > 5
    closed = orders.loc[: trades.index[-1]]
    assert trades["pnl"].sum() == pytest.approx(-(closed["size"] * closed["price"]).sum())
    assert trades["commission"].sum() == pytest.approx(closed["commission"].sum())
    assert trades["long"].all()


def test_refused_orders_are_told():
    gapping = BARS.copy()
    gapping.loc[gapping.index[1:], ["open", "high", "low", "close"]] *= 1.05
    result = run_backtest(gapping, BuyAndHold)
    assert result.rejected.index.tolist() == [BARS.index[0]]
    assert result.rejected["reason"].tolist() == ["Margin"]


def another_future(bars, cut):
    """The same bars up to `cut`, other prices and volumes after it."""
    rng = np.random.default_rng(cut)
    factors = np.exp(rng.normal(0.3, 0.2, (len(bars) - cut - 1, 1))) * [1.0, 1.0, 1.0, 1.0, 3.0]
    changed = bars.copy()
    changed.iloc[cut + 1 :] *= factors
    return changed


def known_until(result, stamp):
    """What a run had said and done at the close of a bar."""
    orders = result.orders
    filled = orders.set_index("created")["size"]
    placed = pd.concat([filled, result.rejected["size"]]).sort_index()
    return (
        result.states.loc[:stamp],
        result.equity.loc[:stamp],
        placed.loc[:stamp],
        orders.loc[:stamp].drop(columns="ref"),
        result.trades.loc[:stamp],
    )


def moved(known, again, rounding):
    """Whether numbers are others, by more than rounding (relatively or absolutely)."""
    if not rounding:
        return not known.equals(again)
    try:
        check = pd.testing.assert_series_equal if known.ndim == 1 else assert_frame_equal
        check(known, again, rtol=rounding, atol=rounding, check_freq=False)
    except AssertionError:
        return True
    return False


def assert_blind_to_the_future(run, bars, cuts, rounding=0.0):
    """Check it to the bit; where bars are cut off numbers may move by `rounding`.

    A matrix product of fewer rows may round otherwise.
    """
    whole = run(bars)
    for cut in cuts:
        stamp = bars.index[cut]
        for name, other in {
            "another": another_future(bars, cut),
            "none": bars.iloc[: cut + 2],  # the bar that the last order fills in
        }.items():
            for known, again in zip(
                known_until(whole, stamp), known_until(run(other), stamp), strict=True
            ):
                tolerance = rounding if name == "none" else 0.0
                found = moved(known, again, tolerance)
                assert not found, f"with {name} future, bars up to {stamp} moved"


@pytest.mark.parametrize("long_only", [False, True])
def test_what_comes_later_changes_nothing(long_only):
    def run(bars):
        return run_glow(bars, params={"long_only": long_only}, slippage_bps=2.0)

    assert_blind_to_the_future(run, BARS, cuts=[WINDOW, 50, 137, 250])


def test_a_model_that_peeks_is_caught():
    with pytest.raises(AssertionError, match="future"):
        assert_blind_to_the_future(
            lambda bars: run_glow(bars, model=PeekingScorer()), BARS, cuts=[50]
        )


def test_the_filled_size_does_not_know_the_open_it_fills_at():
    other = BARS.copy()
    other.loc[BARS.index[100:], ["open", "high", "low", "close"]] *= 1.004
    sizes = [
        run_glow(bars).orders.query("created <= @BARS.index[99]")["size"].tolist()
        for bars in (BARS, other)
    ]
    assert sizes[0] == sizes[1]
    assert len(sizes[0]) > 20


def test_a_trained_model_from_its_folder(tmp_path):
    artifact, bars = trained_model()
    folder = tmp_path / "model"
    save_artifact(artifact, folder)
    result = run_backtest(bars, GlowStrategy, {"model": folder, "dead_band": 0.01})
    scores = Scorer(artifact).score(bars).dropna()
    pd.testing.assert_frame_equal(
        result.states[list(SCORE_COLUMNS)], scores, check_freq=False, rtol=0, atol=1e-9
    )
    assert_blind_to_the_future(
        lambda bars: run_backtest(bars, GlowStrategy, {"model": artifact, "dead_band": 0.01}),
        bars,
        cuts=[130, 200],
        rounding=1e-9,
    )


def test_a_trained_model_does_not_see_its_training_bars_again():
    artifact, _ = trained_model()
    seen = random_bars(1061, seed=11)[500:900]
    with pytest.raises(LookAheadError, match="trained on"):
        run_backtest(seen, GlowStrategy, {"model": artifact})
    allowed = {"model": artifact, "allow_training_bars": True}
    assert len(run_backtest(seen, GlowStrategy, allowed).states) == 400 - 120


def test_a_feed_will_do_and_runs_repeat_to_the_bit():
    feed = ArrayFeed(dataname=BARS)
    first, second, third = (run_glow(bars) for bars in (feed, feed, BARS))
    for other in (second, third):
        assert first.states.equals(other.states)
        assert first.equity.equals(other.equity)
        assert first.orders.drop(columns="ref").equals(other.orders.drop(columns="ref"))
        assert first.costs == other.costs


def test_too_few_bars_give_an_empty_result():
    result = run_glow(BARS[: WINDOW - 1])
    assert len(result.states) == len(result.orders) == len(result.trades) == 0
    assert result.equity.tolist() == [CASH] * (WINDOW - 1)
    assert result.costs == {"commission": 0.0, "slippage": 0.0, "funding": 0.0}


def test_a_strategy_of_one_s_own_without_orders():
    class Idle(bt.Strategy):
        pass

    result = run_backtest(BARS, Idle, cash=5.0)
    assert (result.equity == 5.0).all()
    assert result.states[list(SCORE_COLUMNS)].isna().all(axis=None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strategy": object}, "derived from backtrader.Strategy"),
        ({"strategy": "GlowStrategy"}, "derived from backtrader.Strategy"),
        ({"params": {"lookback": 3}}, "found 'lookback'; check the spelling"),
        ({"cash": 0.0}, "starting cash above 0"),
        ({"cash": float("nan")}, "starting cash above 0"),
        ({"slippage_bps": -1.0}, "slippage_bps of 0 or more"),
    ],
)
def test_wrong_calls_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        run_backtest(**{"bars": BARS, "strategy": BuyAndHold, **arguments})


def test_bars_that_break_the_contract_are_refused():
    with pytest.raises(DataError, match="ascending order"):
        run_backtest(BARS.iloc[::-1], BuyAndHold)
