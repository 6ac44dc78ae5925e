"""Funding by stamp, against ledgers made by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glow_bt.bt import BybitPerpetual
from glow_bt.bt.funding import FundingSchedule
from glow_bt.bt.ledger import AccountLedger
from glow_bt.errors import ConfigError, DataError
from tests.bt.market import cerebro_over, random_bars, run_strategy
from tests.bt.test_commission import CASH, Planned, flat_bars, ledger, random_plan, run_plan
from tests.models import utc


def rates_at(stamps, rates):
    return pd.Series(rates, index=pd.DatetimeIndex(stamps), dtype=float)


def charges_by_hand(bars, plan, rates):
    """What each bar pays: every stamp since the bar before, on what was held since then."""
    held = np.r_[0.0, np.cumsum(np.r_[0.0, plan])][: len(bars)]
    charges = np.zeros(len(bars))
    for i in range(1, len(bars)):
        for stamp, rate in rates.items():
            if bars.index[i - 1] < stamp <= bars.index[i]:
                charges[i] += held[i] * bars["close"].iloc[i - 1] * rate
    return charges


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_equity_is_that_of_a_ledger_made_by_hand(data):
    """Intervals of 8, 4 and 1 hours that change, longs and shorts, rates of both signs."""
    seed = data.draw(st.integers(0, 2**32))
    freq = data.draw(st.sampled_from(["h", "4h", "D", "7h"]))
    bars = random_bars(40, seed=seed % 1000, volatility=0.004, freq=freq, start="2024-01-05 03:00")
    steps = data.draw(st.lists(st.sampled_from([1, 4, 8]), min_size=20, max_size=120))
    start = bars.index[0] - pd.Timedelta(hours=data.draw(st.integers(0, 20)))
    stamps = [start.floor("8h") + pd.Timedelta(hours=int(h)) for h in np.cumsum(steps)]
    rates = rates_at(stamps, np.random.default_rng(seed).normal(0.0, 0.0005, len(stamps)))
    plan = random_plan(40, 2, seed)
    strategy = run_plan(bars, plan, BybitPerpetual(leverage=2.0, funding=rates))
    charges = charges_by_hand(bars, plan, rates)
    assert strategy.refused == []
    expected = ledger(bars, plan, funding=charges)
    np.testing.assert_allclose(strategy.equity, expected, rtol=0, atol=1e-6)
    paid = sum(strategy.broker.d_credit.values())
    assert paid == pytest.approx(charges.sum(), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_a_daily_bar_pays_three_stamps_each_with_its_own_rate(side):
    bars = flat_bars("2024-01-01", 24 * 4).iloc[::24]
    stamps = pd.date_range("2024-01-01", periods=12, freq="8h", tz="UTC")
    rates = rates_at(stamps, [0.0001 * 2**i * (-1) ** i for i in range(12)])
    plan = [side * 10.0]
    strategy = run_plan(bars, plan, BybitPerpetual(taker=0.0, funding=rates))
    # Bought at the open of 2 January, which does not pay for that stamp.
    expected = [
        side * 10.0 * 100.0 * rates.iloc[3 * day + 1 : 3 * day + 4].sum() for day in (1, 2)
    ]
    paid = -np.diff(strategy.equity)
    np.testing.assert_allclose(paid, [0.0, *expected], rtol=1e-12, atol=1e-9)


def test_one_stamp_costs_size_times_mark_times_rate_to_the_last_bit():
    bars = random_bars(12, start="2024-01-01 03:00")
    rate, size = 0.000123456789, 7.3
    commission = BybitPerpetual(funding=rates_at([utc("2024-01-01 08:00")], [rate]))
    strategy = run_plan(bars, [size], commission)
    (paid,) = strategy.broker.d_credit.values()
    mark = bars["close"].loc["2024-01-01 07:00+00:00"]
    assert paid == size * mark * rate


def test_an_interval_that_changes_is_followed():
    """Eight hours until 16:00, then four, then one: by hand, 10 x 100 x 1 % each."""
    stamps = [f"2024-01-01 {hour:02}:00" for hour in (0, 8, 16, 20, 21, 22)]
    rates = rates_at(map(utc, stamps), [0.01] * 6)
    strategy = run_plan(
        flat_bars("2024-01-01", 24), [10.0], BybitPerpetual(taker=0.0, funding=rates)
    )
    paid = -np.diff(np.array(strategy.equity), prepend=CASH)
    assert {i: round(x, 9) for i, x in enumerate(paid) if x} == dict.fromkeys(
        (8, 16, 20, 21, 22), 10.0
    )


def test_rates_by_stamp_come_before_those_of_the_bars():
    bars = flat_bars("2024-01-01", 26).assign(funding_rate=0.05)
    rates = rates_at([utc("2024-01-01 09:00")], [0.01])
    frame = rates.to_frame("funding_rate")
    for given_rates in (rates, frame, FundingSchedule(rates)):
        commission = BybitPerpetual(taker=0.0, funding=given_rates)
        assert run_plan(bars, [10.0], commission).equity[-1] == pytest.approx(CASH - 10.0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["h", "D"]))
def test_equity_is_cash_and_profit_less_fees_and_funding(seed, freq):
    """The identity, from the ledger's own books."""
    bars = random_bars(40, seed=seed % 1000, volatility=0.004, freq=freq)
    rng = np.random.default_rng(seed)
    stamps = pd.date_range(bars.index[0], bars.index[-1], freq="8h")
    rates = rates_at(stamps, rng.normal(0.0, 0.001, len(stamps)))
    cerebro = cerebro_over(bars)
    cerebro.broker.setcash(CASH)
    cerebro.broker.set_int2pnl(False)
    cerebro.broker.addcommissioninfo(BybitPerpetual(leverage=2.0, funding=rates))
    cerebro.addanalyzer(AccountLedger, _name="ledger")
    plan = random_plan(40, 2, seed)
    books = run_strategy(cerebro, Planned, plan=plan).analyzers.ledger
    fills, costs = books.fills(), books.costs()
    profit = math.fsum(fills["size"] * (bars["close"].iloc[-1] - fills["price"]))
    assert costs["funding"] == pytest.approx(charges_by_hand(bars, plan, rates).sum(), abs=1e-9)
    assert books.equity().iloc[-1] == pytest.approx(
        CASH + profit - costs["commission"] - costs["funding"], abs=1e-6
    )


def test_the_span_is_open_at_its_start_and_closed_at_its_end():
    stamps = pd.date_range("2024-01-01", periods=4, freq="8h", tz="UTC")
    schedule = FundingSchedule(rates_at(stamps, [0.1, 0.2, 0.3, 0.4]))
    ns = stamps.as_unit("ns").asi8.tolist()
    assert schedule.rates_between(ns[0], ns[2]) == [0.2, 0.3]
    assert schedule.rates_between(ns[2], ns[2]) == []
    assert schedule.rates_between(ns[0] - 1, ns[3] + 10**15) == [0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"funding": [0.1]}, ConfigError, "funding_rate as a Series"),
        (
            {"funding": rates_at([utc("2024-01-01")], [1.5])},
            DataError,
            "as fractions, found 1.5 at 2024-01-01",
        ),
        (
            {"funding": rates_at([utc("2024-01-01")], [0.1]), "funding_rate": 0.1},
            ConfigError,
            "found both",
        ),
    ],
)
def test_rates_that_cannot_be_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        BybitPerpetual(**settings)
