import backtrader as bt
import pandas as pd
import pytest

from glow_bt.bt.backtest_broker import BacktestBroker
from glow_bt.bt.ledger import AccountLedger
from tests.bt.market import cerebro_over, random_bars

BARS = random_bars(1200, seed=5)


class Busy(bt.Strategy):
    """Market orders back and forth, brackets and orders of which one cancels the other."""

    def __init__(self):
        self.placed, self.told, self.kept = [], [], []

    def next(self):
        turn, close = len(self) % 8, self.data.close[0]
        if turn == 0:
            self.placed += self.buy_bracket(
                price=close, stopprice=0.995 * close, limitprice=1.005 * close
            )
        elif turn in {1, 2}:
            self.placed.append(self.buy() if turn == 1 else self.sell(size=2))
        elif turn == 4:
            first = self.buy(exectype=bt.Order.Limit, price=0.998 * close)
            second = self.buy(exectype=bt.Order.Stop, price=1.002 * close, oco=first)
            self.placed += [first, second]
        elif turn == 6:
            self.placed.append(self.close())
        self.kept.append(len(self.broker.orders) + len(self._orders) + trades_of(self))

    def notify_order(self, order):
        number = order.ref - self.placed[0].ref if self.placed else 0
        self.told.append((len(self), number, order.status, order.executed.price))


def trades_of(strategy):
    return sum(len(trades) for by_id in strategy._trades.values() for trades in by_id.values())


def run(broker):
    cerebro = cerebro_over(BARS)
    cerebro.setbroker(broker)
    broker.set_int2pnl(False)
    broker.setcash(1e6)
    cerebro.addanalyzer(AccountLedger, _name="ledger")
    cerebro.addstrategy(Busy)
    return cerebro.run()[0]


@pytest.fixture(scope="module")
def both():
    return run(BacktestBroker()), run(bt.brokers.BackBroker())


def test_fills_and_notifications_are_those_of_backtraders_own_broker(both):
    ours, theirs = both
    assert len(ours.told) > 2000
    assert ours.told == theirs.told
    books, expected = (strategy.analyzers.ledger for strategy in both)
    pd.testing.assert_series_equal(books.equity(), expected.equity())
    for table in ("fills", "trades"):
        own, other = getattr(books, table)(), getattr(expected, table)()
        pd.testing.assert_frame_equal(
            own.drop(columns="ref", errors="ignore"), other.drop(columns="ref", errors="ignore")
        )


def test_what_is_over_is_not_kept(both):
    ours, theirs = both
    assert max(ours.kept) < 1500
    assert theirs.kept[-1] > 3000
