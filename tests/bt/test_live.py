import backtrader as bt
import pytest

from glow_bt.bt import BybitPerpetual
from glow_bt.bt.feed import ArrayFeed
from glow_bt.bt.ledger import AccountLedger
from glow_bt.bt.live import FeedStatus, live_only
from tests.bt.live_feed import LiveFeed, history, late, live
from tests.bt.market import cerebro_over, random_bars, run_strategy
from tests.bt.test_exposure import CASH, Scheduled, fills_of

BARS = random_bars(40)


class Counting(bt.Strategy):
    """Notes which bars it was awake for."""

    params = (("period", 3),)

    def __init__(self):
        self.sma = bt.indicators.SMA(period=self.p.period)
        self.awake, self.statuses = [], []

    def notify_data(self, data, status, *args, **kwargs):
        self.statuses.append(data._getstatusname(status))

    def prenext(self):
        self.awake.append(-len(self))

    def next(self):
        self.awake.append(len(self))


def run_over(feed, strategy, **params):
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.adddata(feed)
    cerebro.broker.setcash(CASH)
    cerebro.broker.addcommissioninfo(BybitPerpetual(taker=0.0))
    cerebro.addanalyzer(AccountLedger, _name="ledger")
    return run_strategy(cerebro, strategy, **params)


def run_live(events, strategy, **params):
    return run_over(LiveFeed(events=events), strategy, **params)


EVENTS = [*history(BARS, 0, 10), *live(BARS, 10, 20), *late(BARS, 20, 25), *live(BARS, 25, 30)]


def test_a_strategy_sleeps_through_bars_that_come_late():
    strategy = run_live(EVENTS, live_only(Counting))
    assert strategy.awake == [*range(11, 21), *range(26, 31)]
    assert strategy.statuses == ["DELAYED", "LIVE", "CONNBROKEN", "DELAYED", "LIVE"]
    assert strategy.sma[0] == pytest.approx(BARS["close"].iloc[27:30].mean())


def test_it_sleeps_in_its_warm_up_too():
    assert run_live(EVENTS, live_only(Counting), period=13).awake == [
        *(-11, -12),
        *range(13, 21),
        *range(26, 31),
    ]


def test_on_a_file_it_is_always_awake():
    strategy = run_strategy(cerebro_over(BARS), live_only(Counting))
    assert strategy.awake == [-1, -2, *range(3, 41)]
    assert live_only(Counting).__name__ == "Counting"


def test_an_exposure_strategy_places_orders_on_live_bars_only():
    wobble = [0.5 * (-1) ** i for i in range(40)]
    fills = fills_of(run_live(EVENTS, Scheduled, schedule=wobble))
    placed = [BARS.index.get_loc(stamp) for stamp in fills["created"]]
    # At bar 25 what is wanted is held from bar 20 on; the last order has no bar to fill in.
    assert placed == [*range(10, 20), *range(26, 29)]
    # What was placed at the close of bar 19 fills at the next open, late or not.
    assert BARS.index[20] in fills.index


def test_a_feed_of_a_file_is_never_asked():
    wobble = [0.5 * (-1) ** i for i in range(40)]
    assert len(fills_of(run_over(ArrayFeed(dataname=BARS), Scheduled, schedule=wobble))) == 39


def test_each_feed_has_its_own_status():
    first, second = LiveFeed(events=()), LiveFeed(events=())
    status = FeedStatus()
    status.note(first, first.LIVE)
    assert status.is_current(first)
    assert not status.is_current(second)
    status.note(first, first.CONNBROKEN)
    assert not status.is_current(first)
