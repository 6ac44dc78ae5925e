"""A rate that is listed late is charged late, and the account ends as if it had been on time."""

import json
import os

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glow_bt.bt import BybitPerpetual
from glow_bt.bt.funding import FundingRates
from glow_bt.bt.paper import PaperRun
from glow_bt.bt.paper_funding import PaperFunding, Payment
from glow_bt.errors import FeedError, TransientFeedError
from tests.bt.live_feed import LiveFeed, history, late, live
from tests.bt.market import random_bars
from tests.bt.test_commission import CASH, Planned, run_plan

WARM, END = 4, 60
BARS = random_bars(END, seed=5, start="2024-01-01 03:00")
HOUR = 3_600 * 10**9
MINUTE = HOUR // 60
STAMPS = pd.date_range("2024-01-01 08:00", periods=16, freq="4h", tz="UTC")
RATES = pd.Series(np.random.default_rng(2).normal(0.0, 0.001, len(STAMPS)), index=STAMPS)
ORDERS = {5: 20.0, 9: -35.0, 14: 15.0, 20: 10.0, 21: -10.0, 33: -8.0, 40: 30.0, 52: -22.0}
PLAN = [ORDERS.get(bar, 0.0) for bar in range(END)]


@pytest.fixture(scope="module", autouse=True)
def _no_waiting_for_the_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


class Listing:
    """Rates that an exchange lists so many nanoseconds after their stamps."""

    def __init__(self, rates, delays):
        self.listed = {
            stamp: (stamp + delay, rate)
            for stamp, delay, rate in zip(
                rates.index.as_unit("ns").asi8, delays, rates, strict=True
            )
        }
        self.now_ns = self.seen_ns = 0
        self.asked = []
        self.failure = None

    def stamps_between(self, before_ns, now_ns):
        return range(before_ns - before_ns % HOUR + HOUR, now_ns + 1, HOUR)

    def listed_between(self, before_ns, now_ns):
        self.asked.append((before_ns, now_ns))
        if self.failure is not None:
            raise self.failure
        self.seen_ns = self.now_ns
        return {
            stamp: rate
            for stamp, (at, rate) in self.listed.items()
            if before_ns < stamp <= now_ns and at <= self.now_ns
        }

    def timed(self, events):
        """Feed events, with the clock at each bar's close."""
        for event in events:
            if hasattr(event, "name_index"):
                yield lambda stamp=event.name_index[0]: self._close(stamp)
            yield event

    def _close(self, stamp):
        self.now_ns = stamp.value + HOUR


def run(folder, listing, events, plan=PLAN, **feed):
    paper = PaperRun(
        folder,
        settings={},
        strategy=Planned,
        params={"plan": plan},
        commission=BybitPerpetual(funding=PaperFunding(listing)),
        cash=CASH,
    )
    return paper.run(LiveFeed(events=list(listing.timed(events)), **feed))


def backtest(rates):
    return run_plan(BARS, PLAN, BybitPerpetual(funding=rates))


def account(folder):
    return json.loads((folder / "state.json").read_text())["account"]


@settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=12,
)
@given(
    hours=st.lists(st.floats(0.0, 20.0), min_size=len(RATES), max_size=len(RATES)),
    stops=st.lists(st.integers(WARM + 2, END - 1), unique=True, max_size=3).map(sorted),
)
def test_the_account_is_a_backtest_s_over_the_same_funding(tmp_path_factory, hours, stops):
    """However late the rates, wherever it is stopped: once they are listed nothing is lacking."""
    folder = tmp_path_factory.mktemp("late")
    listing = Listing(RATES, [round(late * HOUR) for late in hours])
    first = WARM
    for stop in [*stops, END]:
        strategy = run(folder, listing, [*history(BARS, 0, first), *live(BARS, first, stop)])
        first = stop
    end = BARS.index[-1].value + HOUR
    known = RATES[[at <= end for at, _ in listing.listed.values()]]
    expected = backtest(known)
    assert strategy.broker.getvalue() == pytest.approx(expected.equity[-1], abs=1e-9)
    paid = pd.read_csv(folder / "funding.csv", parse_dates=["timestamp", "stamp"])
    assert account(folder)["funding"]["data0"] == pytest.approx(paid["paid"].sum(), abs=1e-9)
    held = np.cumsum(np.r_[0.0, 0.0, PLAN])[: END + 1]  # that came into each bar
    for row in paid.itertuples():
        bar = BARS.index.get_loc(row.stamp)
        assert row.size == held[bar]
        assert row.mark == BARS["close"].iloc[bar - 1]
        assert row.rate == RATES[row.stamp]
        booked = row.timestamp.as_unit("ns").value + HOUR
        at = max(listing.listed[row.stamp.as_unit("ns").value][0], row.stamp.value + HOUR)
        assert booked - HOUR < at <= booked
    holding = [stamp for stamp in known.index if held[BARS.index.get_loc(stamp)]]
    assert sorted(paid["stamp"]) == holding


def test_rates_on_time_give_the_account_of_a_schedule_to_the_last_bit(tmp_path):
    on_time = run(
        tmp_path, Listing(RATES, [0] * 16), [*history(BARS, 0, WARM), *live(BARS, WARM, END)]
    )
    assert on_time.equity == backtest(RATES).equity[WARM:]


def test_what_was_held_at_the_stamp_pays_though_it_is_closed_since(tmp_path):
    plan = [0.0] * 7 + [10.0, -10.0]  # held over 12:00 only
    listing = Listing(RATES[1:2], [3 * HOUR])
    run(tmp_path, listing, [*history(BARS, 0, WARM), *live(BARS, WARM, 20)], plan)
    (row,) = pd.read_csv(tmp_path / "funding.csv").itertuples(index=False)
    assert (row.timestamp, row.stamp) == (
        "2024-01-01T14:00:00+00:00",  # the bar that closes at 15:00
        "2024-01-01T12:00:00+00:00",
    )
    mark = BARS["close"].iloc[8]
    assert row.size == 10.0
    assert row.paid == 10.0 * mark * RATES.iloc[1]
    equity = pd.read_csv(tmp_path / "equity.csv", index_col=0)
    assert equity["funding"].loc["2024-01-01T13:00:00+00:00"] == 0.0
    assert equity["funding"].loc["2024-01-01T14:00:00+00:00"] == row.paid
    assert account(tmp_path)["positions"]["data0"]["size"] == 0.0
    awaited = [stamp for stamp, *_ in account(tmp_path)["awaited"].get("data0", [])]
    assert 12 * HOUR not in [stamp % (24 * HOUR) for stamp in awaited]


def test_bars_that_are_replayed_pay_at_once(tmp_path):
    listing = Listing(RATES, [HOUR * 5] * 16)
    events = [*history(BARS, 0, WARM), *live(BARS, WARM, 30), *late(BARS, 30, 50)]
    strategy = run(tmp_path, listing, [*events, *live(BARS, 50, END)])
    known = RATES[[at <= BARS.index[-1].value + HOUR for at, _ in listing.listed.values()]]
    # Nothing is ordered while bars are late.
    plan = [*PLAN[:30], *[0.0] * 20, *PLAN[50:]]
    expected = run_plan(BARS, plan, BybitPerpetual(funding=known))
    assert strategy.broker.getvalue() == pytest.approx(expected.equity[-1], abs=1e-9)


def minutes(funding, listing, first, count):
    """Settle minute bars in which nothing is held; return the late payments by bar."""
    found = {}
    for bar in range(first, first + count):
        listing.now_ns = (bar + 1) * MINUTE
        charged, paid = funding.settle(bar * MINUTE, 0.0, 0.0)
        assert charged == []
        if paid:
            found[bar] = paid
    return found


def held_at_eight(delay):
    """Someone who held 2 at 100 over 08:00 of 1970-01-01, whose rate is listed so much later."""
    listing = Listing(pd.Series([0.001], index=pd.to_datetime([8 * HOUR], utc=True)), [delay])
    funding = PaperFunding(listing)
    listing.now_ns = 8 * HOUR + MINUTE
    assert funding.rates_between(8 * HOUR - MINUTE, 8 * HOUR) == []
    assert funding.settle(8 * HOUR, 2.0, 100.0) == ([], [])
    return funding, listing


def test_a_rate_two_minutes_late_is_charged_with_the_bar_that_closes_then():
    funding, listing = held_at_eight(2 * MINUTE)
    found = minutes(funding, listing, 481, 30)
    assert found == {481: [Payment(8 * HOUR, 2.0, 100.0, 0.001)]}
    assert found[481][0].paid == pytest.approx(0.2)
    assert len(listing.asked) == 2  # and no more when nothing is awaited


def test_the_exchange_is_asked_often_for_five_minutes_and_then_once_an_hour():
    funding, listing = held_at_eight(150 * MINUTE)
    assert list(minutes(funding, listing, 481, 200)) == [660]
    assert [now // MINUTE for _, now in listing.asked] == [480, 481, 482, 483, 484, 540, 600, 660]


def test_after_a_day_no_rate_is_expected_any_more():
    funding, listing = held_at_eight(25 * HOUR)
    assert minutes(funding, listing, 481, 26 * 60) == {}
    assert funding.awaited() == []
    assert len(listing.asked) < 32


def test_a_restart_asks_at_once():
    old, listing = held_at_eight(90 * MINUTE)
    listing.seen_ns = 0
    funding = PaperFunding(listing)
    funding.restore(json.loads(json.dumps(old.awaited())))
    assert list(minutes(funding, listing, 580, 3)) == [580]


def test_an_exchange_that_is_away_is_asked_with_the_next_bar():
    funding, listing = held_at_eight(2 * MINUTE)
    listing.failure = TransientFeedError("away")
    assert minutes(funding, listing, 481, 2) == {}
    listing.failure = None
    assert list(minutes(funding, listing, 483, 2)) == [483]


def test_a_refusal_is_told():
    funding, listing = held_at_eight(2 * MINUTE)
    listing.failure = FeedError("refused")
    with pytest.raises(FeedError, match="refused"):
        minutes(funding, listing, 481, 1)


def test_an_account_from_before_late_rates_were_charged_is_taken_up(tmp_path):
    listing = Listing(RATES, [0] * 16)
    run(tmp_path, listing, [*history(BARS, 0, WARM), *live(BARS, WARM, 30)])
    file = tmp_path / "state.json"
    state = json.loads(file.read_text())
    del state["account"]["awaited"]
    file.write_text(json.dumps(state))
    run(tmp_path, listing, [*history(BARS, 0, 30), *live(BARS, 30, END)])
    assert json.loads(file.read_text())["account"]["cash"] == pytest.approx(
        backtest(RATES).free_cash[-1]
    )
    assert isinstance(PaperFunding(listing), FundingRates)
