import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from glow_bt.bt import BybitPerpetual
from glow_bt.bt.ledger import AccountLedger
from tests.bt.market import cerebro_over, random_bars, run_strategy

BARS = random_bars(40)
CASH = 10_000.0


class Scripted(bt.Strategy):
    """Long, more, reversed, refused, closed; then a limit order."""

    params = (("limit", True),)

    def next(self):
        close = self.data.close[0]
        actions = {
            3: lambda: self.buy(size=20.0),
            6: lambda: self.buy(size=10.0),
            12: lambda: self.sell(size=70.0),
            15: lambda: self.sell(size=500.0),
            20: self.close,
        }
        if self.p.limit:
            limit = {"exectype": bt.Order.Limit, "price": close * 1.05}
            actions[25] = lambda: self.buy(size=5.0, **limit)
        actions.get(len(self) - 1, lambda: None)()


def booked(*, slippage=0.0, commission=None, limit=True):
    cerebro = cerebro_over(BARS)
    cerebro.broker.setcash(CASH)
    cerebro.broker.set_int2pnl(False)
    cerebro.broker.set_slippage_perc(slippage, slip_out=True)
    cerebro.broker.addcommissioninfo(commission or BybitPerpetual(funding_rate=0.001))
    cerebro.addanalyzer(AccountLedger, _name="it")
    return run_strategy(cerebro, Scripted, limit=limit).analyzers.it


def test_every_fill_is_booked_at_the_open_after_its_order():
    fills = booked().fills()
    bars = [4, 7, 13, 21, 26]
    assert fills.index.tolist() == BARS.index[bars].tolist()
    assert fills["created"].tolist() == BARS.index[[i - 1 for i in bars]].tolist()
    assert fills["size"].tolist() == [20.0, 10.0, -70.0, 40.0, 5.0]
    np.testing.assert_array_equal(fills["price"], BARS["open"].iloc[bars])
    np.testing.assert_allclose(
        fills["commission"], 0.00055 * fills["size"].abs() * fills["price"], rtol=1e-12
    )
    assert (fills["slippage"] == 0.0).all()


def test_slippage_is_what_market_orders_lose_to_the_open():
    fills = booked(slippage=0.002).fills()
    opens = BARS["open"].loc[fills.index]
    market = fills.iloc[:4]
    side = np.sign(market["size"])
    np.testing.assert_allclose(market["price"], opens.iloc[:4] * (1 + 0.002 * side), rtol=1e-12)
    np.testing.assert_allclose(
        market["slippage"], 0.002 * market["size"].abs() * opens.iloc[:4], rtol=1e-9
    )
    assert fills["slippage"].iloc[4] == 0.0


def test_equity_is_booked_at_every_bar_and_follows_from_the_fills():
    ledger = booked(slippage=0.002)
    fills = ledger.fills()
    equity = ledger.equity()
    assert equity.index.equals(BARS.index)
    held = fills["size"].reindex(BARS.index, fill_value=0.0).cumsum()
    paid = (fills["size"] * fills["price"] + fills["commission"]).reindex(BARS.index, fill_value=0)
    before_funding = CASH - paid.cumsum() + held * BARS["close"]
    assert equity.iloc[7] == pytest.approx(before_funding.iloc[7])  # 08:00 is the first stamp
    assert before_funding.iloc[-1] - equity.iloc[-1] == pytest.approx(ledger.costs()["funding"])
    assert ledger.costs()["funding"] != 0.0


def test_costs_are_told_apart_and_are_the_whole_difference():
    ledger = booked(slippage=0.002, limit=False)
    fills, costs = ledger.fills(), ledger.costs()
    free = booked(commission=BybitPerpetual(taker=0.0), limit=False)
    assert free.costs() == {"commission": 0.0, "slippage": 0.0, "funding": 0.0}
    assert costs["commission"] == pytest.approx(fills["commission"].sum())
    assert costs["slippage"] == pytest.approx(fills["slippage"].sum())
    difference = free.equity().iloc[-1] - ledger.equity().iloc[-1]
    assert sum(costs.values()) == pytest.approx(difference, rel=1e-9)


def test_refused_orders_are_booked():
    refusals = booked().refusals()
    assert refusals.index.tolist() == [BARS.index[15]]
    assert refusals["size"].tolist() == [-500.0]
    assert refusals["price"].tolist() == [BARS["close"].iloc[15]]
    assert refusals["reason"].tolist() == ["Margin"]


def test_closed_trades_are_booked():
    trades = booked().trades()
    opens = BARS["open"].to_numpy()
    long, short = trades.to_dict("records")
    assert trades.index.tolist() == BARS.index[[13, 21]].tolist()
    assert [t["opened"] for t in (long, short)] == BARS.index[[4, 13]].tolist()
    assert (long["long"], short["long"]) == (True, False)
    assert long["price"] == pytest.approx((20 * opens[4] + 10 * opens[7]) / 30)
    assert long["pnl"] == pytest.approx(30 * opens[13] - 20 * opens[4] - 10 * opens[7])
    assert short["pnl"] == pytest.approx(40 * (opens[13] - opens[21]))
    assert (long["bars"], short["bars"]) == (9, 8)


def test_analysis_counts():
    ledger = booked()
    expected = {"fills": 5, "refused": 1, "trades": 2, **ledger.costs()}
    assert ledger.get_analysis() == expected


def test_a_run_without_orders_has_empty_books_of_the_same_form():
    class Idle(bt.Strategy):
        pass

    cerebro = cerebro_over(BARS)
    cerebro.addanalyzer(AccountLedger, _name="it")
    idle, busy = run_strategy(cerebro, Idle).analyzers.it, booked()
    for empty, full in [
        (idle.fills(), busy.fills()),
        (idle.refusals(), busy.refusals()),
        (idle.trades(), busy.trades()),
    ]:
        assert len(empty) == 0
        pd.testing.assert_frame_equal(empty, full.iloc[:0])


def test_partial_fills_are_booked_one_by_one():
    cerebro = cerebro_over(BARS)
    cerebro.broker.setcash(CASH)
    cerebro.broker.set_filler(lambda order, price, ago: min(0.2, abs(order.executed.remsize)))
    cerebro.addanalyzer(AccountLedger, _name="it")

    class Large(bt.Strategy):
        def next(self):
            if len(self) == 1:
                self.buy(size=0.5)

    fills = run_strategy(cerebro, Large).analyzers.it.fills()
    assert fills["size"].tolist() == pytest.approx([0.2, 0.2, 0.1])
    assert fills["ref"].nunique() == 1
    assert fills.index.tolist() == BARS.index[1:4].tolist()
