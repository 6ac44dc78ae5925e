import numpy as np
import pytest

from glow_bt.bt import BybitPerpetual, GlowRecorder
from glow_bt.bt.ledger import AccountLedger
from glow_bt.errors import ConfigError
from strategies.glow_baselines import BuyAndHold, RealisedVolatility, VolatilityTarget
from tests.bt.market import cerebro_over, random_bars, run_strategy

BARS = random_bars(200, seed=7)
CASH = 10_000.0


def run_baseline(strategy, bars=BARS, *, leverage=1.0, mode=None, **params):
    cerebro = cerebro_over(bars, **(mode or {}))
    cerebro.broker.setcash(CASH)
    cerebro.broker.addcommissioninfo(BybitPerpetual(leverage=leverage))
    cerebro.addanalyzer(GlowRecorder, _name="recorder")
    cerebro.addanalyzer(AccountLedger, _name="ledger")
    return run_strategy(cerebro, strategy, **params)


def states_of(run):
    return run.analyzers.recorder.frame()


def test_buy_and_hold_buys_once():
    run = run_baseline(BuyAndHold)
    fills = run.analyzers.ledger.fills()
    assert fills["created"].tolist() == [BARS.index[0]]
    assert fills["size"].iloc[0] == pytest.approx(0.99 * CASH / BARS["close"].iloc[0])
    size, price = fills["size"].iloc[0], BARS["open"].iloc[1]
    expected = CASH + size * (BARS["close"] - price) - size * price * 0.00055
    np.testing.assert_allclose(states_of(run)["equity"].iloc[1:], expected.iloc[1:], rtol=1e-12)


def test_buy_and_hold_begins_where_it_is_told_to():
    fills = run_baseline(BuyAndHold, start=BARS.index[61]).analyzers.ledger.fills()
    assert fills["created"].tolist() == [BARS.index[61]]


def test_buy_and_hold_tries_again_after_a_gap():
    bars = random_bars(20, volatility=1e-4)
    bars.loc[bars.index[1:], ["open", "high", "low", "close"]] *= 1.05
    run = run_baseline(BuyAndHold, bars)
    assert len(run.rejected) == 1
    assert run.analyzers.ledger.fills()["created"].tolist() == [bars.index[1]]


@pytest.mark.parametrize("mode", [{}, {"runonce": False}, {"exactbars": 1}], ids=str)
def test_volatility_target_is_target_over_realised(mode):
    lookback, periods, target = 24, 8760.0, 0.4
    params = {"target_volatility": target, "lookback": lookback, "periods_per_year": periods}
    run = run_baseline(
        VolatilityTarget, leverage=3.0, leverage_cap=3.0, dead_band=0.0, mode=mode, **params
    )
    squares = np.log(BARS["close"]).diff() ** 2
    realised = np.sqrt(periods * squares.rolling(lookback).mean())
    wanted = np.minimum(target / realised, 0.99 * 3.0).dropna()
    fills = run.analyzers.ledger.fills().set_index("created")
    held = fills["size"].cumsum()
    equity = run.analyzers.ledger.equity()
    assert len(fills) == len(wanted) - 1
    np.testing.assert_allclose(
        held * BARS["close"].loc[held.index] / equity.loc[held.index],
        wanted.loc[held.index],
        rtol=1e-9,
    )
    assert wanted.std() > 0.01


def test_volatility_target_has_a_cap_and_a_band():
    calm = random_bars(200, seed=7, volatility=1e-5)
    run = run_baseline(VolatilityTarget, calm)
    assert run.analyzers.ledger.fills()["size"].tolist() == pytest.approx(
        [0.99 * CASH / calm["close"].iloc[60]]
    )
    banded = run_baseline(VolatilityTarget, periods_per_year=8760.0, lookback=12)
    free = run_baseline(VolatilityTarget, periods_per_year=8760.0, lookback=12, dead_band=0.0)
    counts = [len(run.analyzers.ledger.fills()) for run in (banded, free)]
    assert 0 < counts[0] < 0.3 * counts[1]


def test_prices_that_do_not_move_are_held_at_the_cap():
    flat = random_bars(30)
    flat[["open", "high", "low", "close"]] = 100.0
    run = run_baseline(VolatilityTarget, flat, lookback=5)
    assert run.position.size == pytest.approx(0.99 * CASH / 100.0)


def test_every_feed_has_its_own_volatility():
    bars = [random_bars(60, seed=1), random_bars(60, seed=2, volatility=0.02)]
    run = run_baseline(VolatilityTarget, bars, lookback=10)
    values = [indicator.lines.volatility[0] for indicator in run.volatility]
    assert values[0] < values[1]


def test_too_few_bars_leave_the_account_alone():
    run = run_baseline(VolatilityTarget, BARS[:30])
    assert len(run.analyzers.ledger.fills()) == 0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"target_volatility": 0.0}, "target_volatility above 0"),
        ({"lookback": 0}, "lookback of at least 1"),
        ({"periods_per_year": 0.0}, "periods_per_year above 0"),
        ({"target_vol": 0.2}, "did you mean 'target_volatility'"),
    ],
)
def test_settings_that_cannot_work_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        run_baseline(VolatilityTarget, **setting)


def test_realised_volatility_refuses_what_it_does_not_know():
    with pytest.raises(ConfigError, match="did you mean 'lookback'"):
        RealisedVolatility(cerebro_over(BARS).datas[0], look_back=5)
