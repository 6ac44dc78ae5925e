import backtrader as bt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glow_bt.bt import BybitPerpetual
from glow_bt.errors import ConfigError
from tests.bt.market import cerebro_over, random_bars, run_strategy

CASH = 10_000.0
TAKER = 0.00055


class Planned(bt.Strategy):
    """Places a signed size at each bar's close and writes down what the broker says."""

    params = (("plan", ()), ("feed", 0))

    def __init__(self):
        self.equity, self.free_cash, self.refused, self.fees = [], [], [], 0.0

    def notify_order(self, order):
        if order.status in (order.Margin, order.Rejected):
            self.refused.append(len(self))
        if order.status == order.Completed:
            self.fees += order.executed.comm

    def next(self):
        self.equity.append(self.broker.getvalue())
        self.free_cash.append(self.broker.getcash())
        bar = len(self) - 1
        size = self.p.plan[bar] if bar < len(self.p.plan) else 0.0
        if size:
            order = self.buy if size > 0 else self.sell
            order(data=self.datas[self.p.feed], size=abs(size))


def run_plan(bars, plan, commission, *, shortcash=True, feed=0, **kwargs):
    cerebro = cerebro_over(bars, **kwargs)
    cerebro.broker.setcash(CASH)
    cerebro.broker.set_shortcash(shortcash)
    cerebro.broker.set_int2pnl(False)
    cerebro.broker.addcommissioninfo(commission)
    return run_strategy(cerebro, Planned, plan=plan, feed=feed)


def ledger(bars, plan, *, fee=TAKER, funding=0.0):
    """Equity at each close, vectorised: a plan's order i fills at the open of bar i + 1."""
    fills = np.r_[0.0, plan][: len(bars)]
    held = np.cumsum(fills)
    open_, close = bars["open"].to_numpy(), bars["close"].to_numpy()
    paid = np.cumsum(fills * open_ + np.abs(fills) * open_ * fee)
    return CASH + held * close - paid - np.cumsum(funding)


def funding_by_hand(bars, plan, rate):
    """Funding of each bar: stamps passed since the bar before, on what was held since then."""
    stamps = bars.index
    held = np.r_[0.0, np.cumsum(np.r_[0.0, plan])][: len(bars)]  # held coming into each bar
    charges = np.zeros(len(bars))
    for i in range(1, len(bars)):
        grid = pd.date_range(stamps[i - 1].ceil("8h"), stamps[i], freq="8h")
        passed = sum(stamps[i - 1] < stamp <= stamps[i] for stamp in grid)
        charges[i] = passed * held[i] * bars["close"].iloc[i - 1] * rate
    return charges


def random_plan(num_bars, leverage, seed, price=100.0):
    """Orders between random exposures inside the leverage, long and short, some of them zero."""
    rng = np.random.default_rng(seed)
    wanted = rng.uniform(-0.6, 0.6, num_bars) * leverage * CASH / price
    idle = rng.random(num_bars) < 0.4
    plan, held = np.zeros(num_bars), 0.0
    for i in range(num_bars):
        if not idle[i]:
            plan[i] = (0.0 if rng.random() < 0.2 else wanted[i]) - held
            held += plan[i]
    return plan[:-1]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5), st.booleans())
def test_equity_is_that_of_an_independent_ledger(seed, leverage, shortcash):
    bars = random_bars(60, seed=seed % 1000, volatility=0.004)
    plan = random_plan(60, leverage, seed)
    commission = BybitPerpetual(leverage=float(leverage), funding_rate=0.0003)
    strategy = run_plan(bars, plan, commission, shortcash=shortcash)
    assert strategy.refused == []
    expected = ledger(bars, plan, funding=funding_by_hand(bars, plan, 0.0003))
    np.testing.assert_allclose(strategy.equity, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("leverage", [1.0, 2.5, 5.0])
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_cash_is_equity_less_margin_at_the_mark(leverage, side):
    bars = random_bars(40, volatility=0.02)
    plan = [0, side * 20.0, 0, 0, -side * 35.0, 0, 0, side * 7.5]
    strategy = run_plan(bars, plan, BybitPerpetual(leverage=leverage))
    held = np.cumsum(np.r_[0.0, plan, np.zeros(31)])
    margin = np.abs(held) * bars["close"].to_numpy() / leverage
    np.testing.assert_allclose(
        np.array(strategy.equity) - strategy.free_cash, margin, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("side", [1.0, -1.0])
@pytest.mark.parametrize("leverage", [1.0, 3.0])
def test_orders_beyond_the_leverage_are_refused_long_and_short(side, leverage):
    bars = random_bars(10, volatility=1e-4)
    full = side * leverage * CASH / bars["close"].iloc[0]
    commission = BybitPerpetual(leverage=leverage)
    assert run_plan(bars, [0.99 * full], commission).refused == []
    assert len(run_plan(bars, [1.01 * full], commission).refused) == 1
    # Three times as much in steps: the margin of all steps together counts.
    assert len(run_plan(bars, [0.5 * full] * 6, commission).refused) == 5


def test_margin_is_shared_by_all_feeds():
    bars = [random_bars(10, seed=s, volatility=1e-4) for s in (1, 2)]

    class Both(Planned):
        def next(self):
            super().next()
            if len(self) == 1:
                for data in self.datas:
                    self.sell(data=data, size=60.0)

    cerebro = cerebro_over(bars)
    cerebro.broker.setcash(CASH)
    cerebro.broker.addcommissioninfo(BybitPerpetual())
    assert len(run_strategy(cerebro, Both).refused) == 1


def test_a_position_may_be_reduced_when_its_margin_is_used_up():
    bars = random_bars(6, volatility=1e-4)
    bars.loc[bars.index[3:], ["open", "high", "low", "close"]] *= 1.5
    strategy = run_plan(bars, [-95.0, 0, 0, 90.0], BybitPerpetual())
    assert strategy.free_cash[3] < 0.0 < strategy.equity[3]
    assert strategy.refused == []
    np.testing.assert_allclose(strategy.equity, ledger(bars, [-95.0, 0, 0, 90.0, 0]), atol=1e-6)


@pytest.mark.parametrize(("liquidity", "fee"), [("taker", 0.00055), ("maker", 0.0002)])
def test_fee_is_a_share_of_the_notional(liquidity, fee):
    bars = random_bars(5)
    strategy = run_plan(bars, [3.25, -5.5], BybitPerpetual(liquidity=liquidity))
    opens = bars["open"].to_numpy()
    assert strategy.fees == pytest.approx(fee * (3.25 * opens[1] + 5.5 * opens[2]), rel=1e-12)


@pytest.mark.parametrize("freq", ["h", "4h", "D", "B", "7h"])
@pytest.mark.parametrize("rate", [0.0001, -0.0002])
def test_funding_is_paid_once_at_every_stamp_passed(freq, rate):
    bars = random_bars(60, freq=freq, start="2024-01-05")
    plan = np.zeros(59)
    plan[[2, 20, 30, 50]] = [40.0, -90.0, 50.0, 30.0]
    strategy = run_plan(bars, plan, BybitPerpetual(funding_rate=rate))
    charges = funding_by_hand(bars, plan, rate)
    assert np.count_nonzero(charges) > 3
    np.testing.assert_allclose(strategy.equity, ledger(bars, plan, funding=charges), atol=1e-6)
    assert sum(strategy.broker.d_credit.values()) == pytest.approx(charges.sum(), rel=1e-9)


def flat_bars(start, num_bars):
    bars = random_bars(num_bars, start=start)
    bars[["open", "high", "low", "close"]] = 100.0
    return bars


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_a_day_of_funding_by_hand(side):
    """Opened at 07:00, closed at 16:00: pays at 08:00 and at 16:00, 10 x 100 x 1 % each."""
    plan = np.zeros(23)
    plan[6], plan[15] = side * 10.0, -side * 10.0
    commission = BybitPerpetual(taker=0.0, funding_rate=0.01)
    strategy = run_plan(flat_bars("2024-01-01", 24), plan, commission)
    paid = CASH - np.array(strategy.equity)
    assert paid[7] == 0.0
    np.testing.assert_allclose(paid[8:16], side * 10.0)
    np.testing.assert_allclose(paid[16:], side * 20.0)


def test_a_position_opened_at_the_stamp_does_not_pay_for_it():
    plan = [0] * 7 + [10.0]
    commission = BybitPerpetual(taker=0.0, funding_rate=0.01)
    equity = run_plan(flat_bars("2024-01-01", 17), plan, commission).equity
    assert equity[8:16] == [CASH] * 8
    assert equity[16] == pytest.approx(CASH - 10.0)


def test_the_rate_of_the_bars_comes_first():
    bars = flat_bars("2024-01-01", 26).assign(funding_rate=np.nan)
    bars.loc["2024-01-01 08:00+00:00", "funding_rate"] = 0.02
    bars.loc["2024-01-01 16:00+00:00", "funding_rate"] = -0.01
    commission = BybitPerpetual(taker=0.0, funding_rate=0.005)
    equity = np.array(run_plan(bars, [10.0], commission).equity)
    paid = -np.diff(equity, prepend=CASH)
    assert {i: round(x, 9) for i, x in enumerate(paid) if x} == {8: 20.0, 16: -10.0, 24: 5.0}


def test_funding_is_not_repeated_while_a_bar_forms():
    """Replay and a second feed ask the broker again and again for one and the same stamp."""
    commission = BybitPerpetual(taker=0.0, funding_rate=0.01)
    hourly = flat_bars("2024-01-01", 72)
    daily = hourly.iloc[::24]
    run = run_plan([hourly, daily], [10.0], commission)
    assert run.equity[-1] == pytest.approx(CASH - 8 * 10.0)
    on_daily = run_plan([hourly, daily], [10.0], commission, feed=1)
    # Bought at the second daily bar; the third passes three stamps.
    assert on_daily.equity[-1] == pytest.approx(CASH - 3 * 10.0)


def test_stamps_are_utc_whatever_the_feed_shows():
    bars = flat_bars("2024-01-01", 24)
    naive = bars.tz_localize(None)
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.adddata(
        bt.feeds.PandasData(
            dataname=naive, timeframe=bt.TimeFrame.Minutes, compression=60, tz="Asia/Kolkata"
        )
    )
    cerebro.broker.setcash(CASH)
    cerebro.broker.addcommissioninfo(BybitPerpetual(taker=0.0, funding_rate=0.01))
    equity = run_strategy(cerebro, Planned, plan=[10.0]).equity
    paid = -np.diff(np.array(equity), prepend=CASH)
    assert np.flatnonzero(paid).tolist() == [8, 16]


def test_size_for_a_margin_is_fractional_and_in_steps():
    assert BybitPerpetual().getsize(40_000.0, 10_000.0) == 0.25
    assert BybitPerpetual(leverage=3.0).getsize(40_000.0, 10_000.0) == pytest.approx(0.75)
    assert BybitPerpetual(qty_step=0.01).getsize(40_000.0, 9_999.0) == 0.24


def test_order_target_percent_works_for_long_positions():
    """Backtrader's own scheme floors the size to 0 here, silently."""

    class Target(Planned):
        def next(self):
            super().next()
            self.order_target_percent(target=0.5)

    bars = random_bars(30)
    bars[["open", "high", "low", "close"]] *= 600.0
    cerebro = cerebro_over(bars)
    cerebro.broker.setcash(CASH)
    cerebro.broker.addcommissioninfo(BybitPerpetual())
    strategy = run_strategy(cerebro, Target)
    exposure = strategy.position.size * bars["close"].iloc[-1] / strategy.equity[-1]
    assert exposure == pytest.approx(0.5, abs=0.02)
    assert 0.0 < strategy.position.size < 1.0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"liquidity": "market"}, "'taker' or 'maker'"),
        ({"taker": 5.5}, "taker as a fraction"),
        ({"maker": float("nan")}, "maker as a fraction"),
        ({"funding_rate": 1.0}, "funding_rate as a fraction"),
        ({"leverage": 0.0}, "leverage above 0"),
        ({"qty_step": -0.1}, "qty_step of 0 or more"),
        ({"levrage": 2.0}, "did you mean 'leverage'"),
    ],
)
def test_settings_that_cannot_work_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        BybitPerpetual(**setting)
