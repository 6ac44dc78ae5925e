import backtrader as bt
import pandas as pd
import pytest

from glow_bt.bt.backtest_broker import BacktestBroker
from glow_bt.bt.ledger import AccountLedger
from tests.bt.market import cerebro_over, random_bars

BARS = random_bars(1200, seed=5)


class Busy(bt.Strategy):
    """Orders of every kind: brackets, groups, trailing, too large, running out, cancelled late."""

    def __init__(self):
        self.placed, self.told, self.kept = [], [], []

    def next(self):
        turn, close = len(self) % 14, self.data.close[0]
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
            self.placed.append(self.close() or self.buy())
        self.place_rarer(turn, close)
        self.kept.append(len(self.broker.orders) + len(self._orders) + trades_of(self))

    def place_rarer(self, turn, close):
        if turn == 7:
            trail = {"trailpercent": 0.004, "exectype": bt.Order.StopTrail}
            self.placed.append(self.sell(size=2, tradeid=2, **trail))
        elif turn == 8:
            self.placed.append(self.buy(size=1e7))
        elif turn == 9:
            until = self.data.datetime.datetime(0) + pd.Timedelta(hours=5)
            patient = {"exectype": bt.Order.Limit, "valid": until}
            self.placed.append(self.buy(price=0.9 * close, **patient))
        elif turn == 11:
            self.placed += self.sell_bracket(
                exectype=bt.Order.Market, stopprice=1.006 * close, limitprice=0.996 * close
            )
        elif turn == 13:
            for order in self.placed[-200:-40]:
                self.cancel(order)

    def notify_order(self, order):
        number = order.ref - self.placed[0].ref if self.placed else 0
        done = order.executed
        self.told.append((len(self), number, order.status, done.price, done.size, done.remsize))


def trades_of(strategy):
    return sum(len(trades) for by_id in strategy._trades.values() for trades in by_id.values())


def run(broker, size=None):
    """Run with a broker that fills at most so much of an order a bar."""
    cerebro = cerebro_over(BARS)
    cerebro.setbroker(broker)
    broker.set_int2pnl(False)
    broker.setcash(1e6)
    if size is not None:
        broker.set_filler(bt.fillers.FixedSize(size=size))
    cerebro.addanalyzer(AccountLedger, _name="ledger")
    cerebro.addstrategy(Busy)
    return cerebro.run()[0]


@pytest.fixture(scope="module", params=[None, 1], ids=["whole", "in parts"])
def both(request):
    return run(BacktestBroker(), request.param), run(bt.brokers.BackBroker(), request.param)


def test_fills_and_notifications_are_those_of_backtraders_own_broker(both):
    ours, theirs = both
    assert len(ours.told) > 2000
    assert ours.told == theirs.told
    kinds = {bt.Order.Completed, bt.Order.Canceled, bt.Order.Expired, bt.Order.Margin}
    assert kinds <= {status for _, _, status, *_ in ours.told}
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
