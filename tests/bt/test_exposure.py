import datetime
import logging

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from glow_bt.bt import BybitPerpetual
from glow_bt.bt.exposure import ExposureStrategy
from glow_bt.bt.ledger import AccountLedger
from glow_bt.errors import ConfigError
from tests.bt.market import cerebro_over, random_bars, run_strategy

BARS = random_bars(60)
CASH = 10_000.0


class Scheduled(ExposureStrategy):
    """Wants the exposure of its schedule, by bar and, with several feeds, by feed."""

    params = (("schedule", ()),)

    def target_exposure(self, data, current):
        wanted = self.p.schedule[min(len(data), len(self.p.schedule)) - 1]
        return wanted[self.datas.index(data)] if isinstance(wanted, tuple) else wanted


def run_scheduled(schedule, *, bars=BARS, commission=None, **params):
    cerebro = cerebro_over(bars)
    cerebro.broker.setcash(CASH)
    cerebro.broker.addcommissioninfo(commission or BybitPerpetual(taker=0.0))
    cerebro.addanalyzer(AccountLedger, _name="ledger")
    return run_strategy(cerebro, Scheduled, schedule=schedule, **{"dead_band": 0.0} | params)


def fills_of(strategy):
    return strategy.analyzers.ledger.fills()


def test_a_wanted_exposure_is_reached_at_the_next_open():
    fills = fills_of(run_scheduled([0.0, 0.0, -0.6]))
    assert fills.index[0] == BARS.index[3]
    assert fills["size"].iloc[0] == pytest.approx(-0.6 * CASH / BARS["close"].iloc[2], rel=1e-13)
    assert fills["price"].iloc[0] == BARS["open"].iloc[3]


def test_inside_the_band_there_is_no_order():
    wobble = [0.5 + 0.04 * (-1) ** i for i in range(60)]
    calm = random_bars(60, volatility=1e-4)
    # Into the band around 0.54 at the first bar, and no further.
    assert len(fills_of(run_scheduled(wobble, bars=calm, dead_band=0.1))) == 1
    assert len(fills_of(run_scheduled(wobble, bars=calm, dead_band=0.03))) > 50
    # (3/32 x 0.005)^(1/3) = 0.078 more.
    assert len(fills_of(run_scheduled(wobble, bars=calm, dead_band=0.03, cost_rate=0.005))) == 1


def test_flat_is_flat_to_the_last_digit():
    strategy = run_scheduled([0.31, 0.77, 0.13, -0.59, 0.9, 0.05, 0.0])
    assert strategy.position.size == 0.0
    assert len(fills_of(strategy)) == 7


def test_orders_wait_for_the_one_that_is_pending():
    """The feed that trades has one bar a day; at every hour it is asked again."""
    hourly, daily = random_bars(72), random_bars(3, freq="D", start="2024-01-01 23:00")
    strategy = run_scheduled([(0.0, 0.5)], bars=[hourly, daily])
    fills = fills_of(strategy)
    assert fills.index[0] == daily.index[1]
    assert len(strategy.rejected) == 0
    assert fills["size"].iloc[0] == pytest.approx(0.25 * CASH / daily["close"].iloc[0])


def test_capital_is_split_equally():
    bars = [random_bars(30, seed=s) for s in (1, 2)]
    fills = fills_of(run_scheduled([(0.8, -0.6)], bars=bars))
    sizes = fills["size"].iloc[:2].tolist()
    closes = [frame["close"].iloc[0] for frame in bars]
    assert sizes == pytest.approx([0.4 * CASH / closes[0], -0.3 * CASH / closes[1]])


def test_sizes_are_in_the_steps_of_the_commission_scheme():
    commission = BybitPerpetual(taker=0.0, qty_step=0.25)
    fills = fills_of(run_scheduled([0.333, -0.5], commission=commission))
    assert (fills["size"] % 0.25 == 0.0).all()
    assert fills["size"].iloc[0] == np.floor(0.333 * CASH / BARS["close"].iloc[0] * 4) / 4


def test_a_size_below_one_step_is_no_order():
    commission = BybitPerpetual(taker=0.0, qty_step=1000.0)
    assert len(fills_of(run_scheduled([0.5], commission=commission))) == 0


def test_a_strategy_has_to_say_what_it_wants():
    with pytest.raises(NotImplementedError):
        run_strategy(cerebro_over(BARS), ExposureStrategy)


def test_a_scheme_without_steps_will_do():
    plain = bt.CommInfoBase(commission=0.001, commtype=bt.CommInfoBase.COMM_PERC, stocklike=True)
    fills = fills_of(run_scheduled([0.333], commission=plain))
    assert fills["size"].iloc[0] == pytest.approx(0.333 * CASH / BARS["close"].iloc[0])


@pytest.mark.parametrize(
    "start",
    [
        "2024-01-01 10:00",
        "2024-01-01T10:00:00Z",
        "2024-01-01 15:30+05:30",
        pd.Timestamp("2024-01-01 10:00", tz="UTC"),
        datetime.datetime(2024, 1, 1, 10, tzinfo=datetime.UTC),
    ],
)
def test_the_first_order_is_placed_at_the_close_of_start(start):
    fills = fills_of(run_scheduled([0.5], start=start))
    assert fills["created"].iloc[0] == BARS.index[10]


def test_a_start_that_is_no_stamp_is_refused():
    with pytest.raises(ConfigError, match="expected start as a stamp"):
        run_scheduled([0.5], start="soon")


def gapping_bars():
    """Opens 2 % above the last close at the second bar: too dear for all of the equity."""
    bars = random_bars(10, volatility=1e-4)
    bars.loc[bars.index[1:], ["open", "high", "low", "close"]] *= 1.02
    return bars


def test_a_refused_order_is_logged_recorded_and_tried_again(caplog):
    bars = gapping_bars()
    with caplog.at_level(logging.WARNING, logger="glow_bt.bt.exposure"):
        strategy = run_scheduled([0.99], bars=bars, dead_band=0.001)
    [rejected] = strategy.rejected
    assert rejected.timestamp == bars.index[0]
    assert rejected.reason == "Margin"
    assert rejected.size == pytest.approx(0.9892 * CASH / bars["close"].iloc[0])
    assert rejected.price == bars["close"].iloc[0]
    assert "order refused (Margin)" in caplog.text
    assert fills_of(strategy)["created"].tolist() == [bars.index[1]]


def test_a_used_up_account_stops_trading(caplog):
    bars = random_bars(20, volatility=1e-4)
    bars.loc[bars.index[5:], ["open", "high", "low", "close"]] *= 3.0
    with caplog.at_level(logging.WARNING, logger="glow_bt.bt.exposure"):
        strategy = run_scheduled([-0.9] * 8 + [0.0], bars=bars, dead_band=0.01)
    assert strategy.broker.getvalue() < 0.0
    assert len(fills_of(strategy)) == 1
    assert strategy.rejected == []
    assert caplog.text.count("equity used up") == 1


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"leverage_cap": 0.0}, "leverage_cap above 0"),
        ({"dead_band": -1.0}, "dead_band of 0 or more"),
        ({"dead_bend": 0.1}, "did you mean 'dead_band'"),
    ],
)
def test_settings_that_cannot_work_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        run_scheduled([0.5], **setting)


def test_copies_of_orders_that_were_told_are_not_kept():
    strategy = run_scheduled([0.2, 0.9] * 30, dead_band=0.01)
    assert len(fills_of(strategy)) > 10
    assert strategy._orders == []
