import numpy as np
import pandas as pd
import pytest

from datafeeds.bybit_funding import BybitFunding
from glow_bt.bt import BybitPerpetual
from glow_bt.bt.funding import FundingRates, FundingSchedule
from glow_bt.bt.paper_funding import PaperFunding, Payment
from glow_bt.errors import ConfigError, TransientFeedError
from tests.bt.market import random_bars
from tests.bt.test_commission import run_plan
from tests.datafeeds.bybit_faults import FAULTS
from tests.datafeeds.random_bars import make_bars


@pytest.fixture
def funded(serve):
    """Rates every 8 hours, then 4, then each hour."""
    bars = make_bars(24 * 90)
    server = serve(now="2024-03-20 00:30")
    server.add_bars("BTCUSDT", "1h", bars)
    index = pd.DatetimeIndex(
        [
            *pd.date_range("2024-01-01", "2024-02-01", freq="8h"),
            *pd.date_range("2024-02-01 04:00", "2024-02-10", freq="4h"),
            *pd.date_range("2024-02-10 01:00", "2024-03-20", freq="h"),
        ],
        tz="UTC",
    )
    rates = np.random.default_rng(0).normal(1e-4, 1e-4, len(index)).round(8)
    server.rates = pd.Series(rates, index=index)
    server.add_funding("BTCUSDT", server.rates)
    return server


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("2024-01-05 07:59", "2024-01-05 08:00"),
        ("2024-01-05 08:00", "2024-01-05 16:00"),
        ("2024-01-05 08:01", "2024-01-05 15:59"),
        ("2024-01-25", "2024-03-19 12:34:56"),
        ("2024-02-11 05:30", "2024-02-11 05:30"),
    ],
)
def test_rates_of_a_span_are_those_that_a_schedule_gives(funded, connect, before, now):
    funding = BybitFunding(connect(funded), "BTC/USDT:USDT")
    span = [pd.Timestamp(stamp, tz="UTC").value for stamp in (before, now)]
    assert funding.rates_between(*span) == FundingSchedule(funded.rates).rates_between(*span)
    assert isinstance(funding, FundingRates)


def test_nothing_is_asked_where_no_stamp_can_lie(funded, connect):
    funding = BybitFunding(connect(funded), "BTC/USDT:USDT")
    asked = funded.count("funding/history")
    hour = pd.Timestamp("2024-02-11 05:00", tz="UTC").value
    assert funding.rates_between(hour, hour + 59 * 60 * 10**9) == []
    assert funded.count("funding/history") == asked


def test_a_broker_charges_what_the_exchange_says(funded, connect):
    bars = random_bars(60, start="2024-02-09 03:00", freq="h")
    plan = [10.0, 0, 0, -25.0, 0, 0, 5.0]
    live = BybitPerpetual(funding=BybitFunding(connect(funded), "BTC/USDT:USDT"))
    schedule = BybitPerpetual(funding=funded.rates)
    assert run_plan(bars, plan, live).equity == run_plan(bars, plan, schedule).equity


def test_a_rate_that_is_listed_late_is_charged_when_it_is(funded, connect):
    """Three questions, of one request each: the payment before shows that no other is there."""
    stamp = pd.Timestamp("2024-02-05 08:00", tz="UTC")
    funded.add_funding("BTCUSDT", funded.rates[funded.rates.index < stamp])
    rates = BybitFunding(connect(funded), "BTC/USDT:USDT")
    funding = PaperFunding(rates)
    asked = funded.count("funding/history")
    minute_ns = 60 * 10**9
    funded.now = "2024-02-05 08:01:02"
    assert funding.rates_between(stamp.value - minute_ns, stamp.value) == []
    assert funding.settle(stamp.value, 2.0, 50_000.0) == ([], [])
    assert rates.seen_ns == pd.Timestamp("2024-02-05 08:01:02").value
    funded.now = "2024-02-05 08:02:02"
    assert funding.settle(stamp.value + minute_ns, 0.0, 0.0) == ([], [])
    funded.add_funding("BTCUSDT", funded.rates)
    funded.now = "2024-02-05 08:03:02"
    late = [Payment(stamp.value, 2.0, 50_000.0, funded.rates[stamp])]
    assert funding.settle(stamp.value + 2 * minute_ns, 0.0, 0.0) == ([], late)
    assert funding.awaited() == []
    assert funded.count("funding/history") == asked + 3


def test_an_exchange_that_is_away_for_hours_is_waited_for(funded, connect, retry, clock):
    reasons = []

    def patient(reason):
        reasons.append(reason)
        if len(reasons) == 3:
            funded._scripts.clear()
        return True

    client = connect(funded)
    funding = BybitFunding(client, "BTC/USDT:USDT", patient=patient, retry=retry)
    funded.script("time", [FAULTS["maintenance"]] * 1000)
    span = [pd.Timestamp(stamp, tz="UTC").value for stamp in ("2024-01-05", "2024-01-05 16:00")]
    assert funding.rates_between(*span) == FundingSchedule(funded.rates).rates_between(*span)
    assert len(reasons) == 3
    assert "maintenance" in reasons[0]


@pytest.mark.parametrize("patient", [None, lambda reason: False])
def test_where_nobody_is_patient_the_failure_is_told(funded, connect, patient):
    funding = BybitFunding(connect(funded), "BTC/USDT:USDT", patient=patient)
    funded.script("time", [FAULTS["http_503"]] * 1000)
    span = [pd.Timestamp(stamp, tz="UTC").value for stamp in ("2024-01-05", "2024-01-05 16:00")]
    with pytest.raises(TransientFeedError, match="HTTP 503"):
        funding.rates_between(*span)


def test_spot_pays_no_funding(funded, connect):
    funded.add_bars("ETHUSDT", "1h", make_bars(10), category="spot")
    with pytest.raises(ConfigError, match="spot"):
        BybitFunding(connect(funded), "ETH/USDT")
