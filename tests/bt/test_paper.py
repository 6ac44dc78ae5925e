"""Paper trading in pieces is paper trading in one go, to the last bit."""

import json
import math
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import backtrader as bt
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glow_bt.bt import BybitPerpetual, GlowIndicator
from glow_bt.bt.paper import PaperRun, saved_bar
from glow_bt.bt.paper_state import PaperState
from glow_bt.errors import ConfigError, DataError, ResultsError, TooFewBarsError
from glow_bt.scoring import Scorer
from strategies.glow_strategy import GlowStrategy
from tests.bt.live_feed import LiveFeed, history, late, live
from tests.bt.market import WINDOW, WindowScorer, random_bars, trained_model

WARM, END = 12, 60
BARS = random_bars(END, seed=3, start="2024-01-01 03:00")
RATES = pd.Series(
    np.random.default_rng(1).normal(0.0, 0.0004, 30),
    index=pd.date_range("2024-01-01", periods=30, freq="4h", tz="UTC"),
)
SETTINGS = {"symbol": "BTC/USDT:USDT", "costs": {"taker": 0.0005}}
SAME_FOLDER = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=12
)


class Brackets(bt.Strategy):
    """Every kind of order that can be saved, and a memory of its own."""

    def __init__(self):
        self.sma = bt.indicators.SMA(period=5)
        self.count, self.closed = 0, []

    def next(self):
        self.count += 1
        close, size = self.data.close[0], self.position.size
        step = self.count % 6
        if step == 1:
            self.buy(size=3.0 + self.count % 5)
        elif step == 2 and size > 0:
            self.sell(size=size, exectype=bt.Order.Limit, price=close * 1.01)
        elif step == 3:
            self.sell(size=2.5, exectype=bt.Order.Stop, price=close * 0.995, name="exit")
        elif step == 4:
            valid = self.data.num2date() + pd.Timedelta(hours=7)
            stop = {"exectype": bt.Order.StopLimit, "price": close * 1.002}
            self.buy(size=1.0, plimit=close * 1.004, valid=valid, **stop)
        elif self.data.close[0] < self.sma[0] and size:
            self.close()

    def notify_trade(self, trade):
        if trade.isclosed:
            self.closed.append((trade.price, trade.pnl, trade.commission, trade.barlen))

    def save_state(self):
        return {"count": self.count, "closed": self.closed}

    def load_state(self, values):
        self.count, self.closed = values["count"], [tuple(row) for row in values["closed"]]


def paper(folder, strategy=GlowStrategy, *, params=None, **kwargs):
    if params is None:
        params = {"model": WindowScorer(), "dead_band": 0.0} if strategy is GlowStrategy else {}
    defaults = {"settings": SETTINGS, "commission": BybitPerpetual(funding=RATES)}
    return PaperRun(Path(folder), strategy=strategy, params=params, **{**defaults, **kwargs})


def in_one_go(folder, *, bars=BARS, warm=WARM, stop=END, **kwargs):
    events = [*history(bars, 0, warm), *live(bars, warm, stop)]
    return paper(folder, **kwargs).run(LiveFeed(events=events))


def again(folder, first, stop, *, bars=BARS, start=0, **kwargs):
    """Go on after bar `first` - 1 was saved."""
    events = [*history(bars, start, first), *live(bars, first, stop)]
    return paper(folder, **kwargs).run(LiveFeed(events=events))


def books(folder):
    return {name: (Path(folder) / name).read_text() for name in ("equity.csv", "trades.csv")} | {
        "state": json.loads((Path(folder) / "state.json").read_text())
    }


@pytest.fixture(scope="module", autouse=True)
def _no_waiting_for_the_disk():
    """A killed process loses nothing that it wrote; only a power cut would."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The books of each strategy's run in one go."""
    found = {}
    for strategy in (GlowStrategy, Brackets):
        folder = tmp_path_factory.mktemp(strategy.__name__)
        in_one_go(folder, strategy=strategy)
        found[strategy] = books(folder)
    return found


STOPS = st.lists(st.integers(WARM + 1, END - 1), unique=True, max_size=5).map(sorted)


@pytest.mark.parametrize("strategy", [GlowStrategy, Brackets])
@SAME_FOLDER
@given(stops=STOPS, data=st.data())
def test_a_run_in_pieces_is_a_run_in_one_go(tmp_path_factory, whole, strategy, stops, data):
    folder = tmp_path_factory.mktemp("pieces")
    in_one_go(folder, stop=stops[0] if stops else END, strategy=strategy)
    for first, stop in zip(stops, [*stops[1:], END], strict=False):
        start = data.draw(st.integers(0, first - WINDOW))
        again(folder, first, stop, start=start, strategy=strategy)
    assert books(folder) == whole[strategy]


def test_the_books_show_trades_and_funding(whole):
    for found in whole.values():
        account = found["state"]["account"]
        assert found["trades.csv"].count("\n") > 10
        assert account["funding"]["data0"] != 0.0
        assert found["equity.csv"].count("\n") == 1 + END - WARM
    assert len(whole[Brackets]["state"]["strategy"]["closed"]) > 3


def test_the_account_s_identity_holds(tmp_path):
    """Equity is cash + profit - fees - funding, by the files alone."""
    in_one_go(tmp_path)
    equity = pd.read_csv(tmp_path / "equity.csv", index_col=0, parse_dates=True)
    fills = pd.read_csv(tmp_path / "trades.csv", index_col=0, parse_dates=True)
    for stamp, row in equity.iterrows():
        done = fills[fills.index <= stamp]
        profit = (done["size"] * (row["close"] - done["price"])).sum()
        paid = done["commission"].sum() + row["funding"]
        assert row["equity"] == pytest.approx(10_000.0 + profit - paid, abs=1e-7)
    assert equity.index.tolist() == BARS.index[WARM:].tolist()
    np.testing.assert_array_equal(
        fills["price"],
        BARS["open"].loc[fills.index],  # market orders fill at the open
    )


@SAME_FOLDER
@given(first=st.integers(WARM + 1, END - 8), missed=st.integers(1, 6))
def test_missed_bars_are_replayed_as_bars_that_came_late(tmp_path_factory, first, missed):
    """What waits fills at the next open, funding is charged, nothing is ordered."""
    one, pieces = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("pieces")
    back = first + missed
    events = [*history(BARS, 0, WARM), *live(BARS, WARM, first)]
    paper(one).run(LiveFeed(events=[*events, *late(BARS, first, back), *live(BARS, back, END)]))
    in_one_go(pieces, stop=first)
    again(pieces, back, END)
    assert books(pieces) == books(one)
    fills = pd.read_csv(one / "trades.csv", parse_dates=["created", "timestamp"])
    late_bars = BARS.index[first:back]
    assert not fills["created"].isin(late_bars).any()
    assert not fills["timestamp"].isin(late_bars[1:]).any()


def recalibrating(folder, events, **kwargs):
    artifact, _ = trained_model()
    sure = replace(artifact.direction, drift_belief=1.0, slope_belief=1.0)
    artifact = replace(artifact, direction=sure)
    params = {"model": artifact, "recalibrate": True, "horizon": 5, "var_level": 0.05}
    return paper(folder, params={**params, "dead_band": 0.0}, **kwargs).run(
        LiveFeed(events=events)
    )


def test_a_recalibrated_var_goes_on_to_the_last_bit(tmp_path_factory):
    artifact, bars = trained_model()
    warm = Scorer(artifact, horizon=5, recalibrate=True).min_bars
    seen = {"one": [], "pieces": []}
    one, pieces = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("pieces")
    end = warm + 40
    recalibrating(
        one, [*history(bars, 0, warm), *live(bars, warm, end)], on_bar=seen["one"].append
    )
    stops = [warm, warm + 3, warm + 4, warm + 17, warm + 30, end]
    for first, stop in pairwise(stops):
        events = [*history(bars, max(0, first - warm), first), *live(bars, first, stop)]
        recalibrating(pieces, events, on_bar=seen["pieces"].append)
    assert seen["pieces"] == seen["one"]
    assert books(pieces) == books(one)
    (stream,) = books(one)["state"]["streams"]
    assert any(stream["recalibration"]["offsets"])
    assert books(one)["trades.csv"].count("\n") > 3
    plain = Scorer(artifact, horizon=5, var_level=0.05).score(bars[:end])["var"].iloc[warm:]
    assert all(bar.var != var for bar, var in zip(seen["one"][8:], plain.iloc[8:], strict=True))


class Killed(BaseException):
    pass


@SAME_FOLDER
@given(writes=st.lists(st.integers(1, 40), min_size=1, max_size=4), torn=st.booleans())
def test_a_kill_between_any_two_writes_loses_the_bar_in_hand_at_most(
    tmp_path_factory, whole, writes, torn
):
    """Rows that are on the disk without their state, finished or not, are written anew."""
    folder = tmp_path_factory.mktemp("killed")
    real, left = os.fsync, []

    def counted(descriptor):
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        real(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", counted)
        for write in writes:
            left[:] = [write]
            booked = saved_bar(folder)
            try:
                first = WARM if booked is None else BARS.index.get_loc(booked) + 1
                again(folder, first, END)
                break
            except Killed:
                last = saved_bar(folder)
                file = folder / "equity.csv"
                rows = file.read_text().splitlines()[1:] if file.exists() else []
                extra = len(rows) - (0 if last is None else BARS.index.get_loc(last) + 1 - WARM)
                assert extra in (0, 1)
                if torn and rows:
                    with file.open("a") as out:
                        out.write("2024-01-0")
        left[:] = [10**9]
        booked = saved_bar(folder)
        first = WARM if booked is None else BARS.index.get_loc(booked) + 1
        again(folder, first, END)
    assert books(folder) == whole[GlowStrategy]
    assert not list(folder.glob(".*"))


def test_nothing_is_ordered_or_charged_before_the_first_live_bar(tmp_path):
    strategy = paper(tmp_path).run(LiveFeed(events=history(BARS, 0, END)))
    assert strategy.broker.getvalue() == 10_000.0
    assert not (tmp_path / "state.json").exists()
    assert saved_bar(tmp_path) is None


def test_a_restart_with_other_settings_is_refused_by_name(tmp_path):
    in_one_go(tmp_path, stop=20)
    other = {"symbol": "ETH/USDT:USDT", "costs": {"taker": 0.0005, "maker": 0.0}}
    with pytest.raises(ConfigError) as raised:
        again(tmp_path, 20, 25, settings=other)
    told = str(raised.value)
    assert "symbol 'BTC/USDT:USDT' there and 'ETH/USDT:USDT' now" in told
    assert "costs.maker None there and 0.0 now" in told
    assert "costs.taker" not in told
    assert "another folder to start anew" in told


def test_history_that_does_not_reach_back_is_refused(tmp_path):
    in_one_go(tmp_path, stop=20)
    with pytest.raises(
        DataError, match=r"the last one of the saved account, found .* as the next"
    ):
        again(tmp_path, 30, 35, start=21)
    with pytest.raises(
        TooFewBarsError, match=r"the warm-up until .* needs at least 7 bars, found 6"
    ):
        again(tmp_path, 30, 35, start=14)
    feed = LiveFeed(events=[*history(BARS, 21, 30)])
    with pytest.raises(DataError):
        paper(tmp_path).run(feed)
    assert feed.stopped == 1


def test_a_file_is_no_live_feed(tmp_path):
    from glow_bt.bt.feed import ArrayFeed

    with pytest.raises(ConfigError, match="expected a live feed"):
        paper(tmp_path).run(ArrayFeed(dataname=BARS))


def test_two_processes_do_not_trade_in_one_folder(tmp_path):
    def second():
        with pytest.raises(ResultsError, match="only process that trades in"):
            in_one_go(tmp_path)
        seen.append(True)

    seen = []
    events = [*history(BARS, 0, WARM), second, *live(BARS, WARM, 20)]
    paper(tmp_path).run(LiveFeed(events=events))
    assert seen == [True]


def test_it_stops_after_so_many_live_bars_and_when_asked(tmp_path):
    seen = []
    in_one_go(tmp_path / "a", max_bars=4, on_bar=seen.append)
    assert [bar.timestamp for bar in seen] == BARS.index[WARM : WARM + 4].tolist()
    run = paper(tmp_path / "b")
    run.on_bar = lambda bar: run.stop() if bar.timestamp == BARS.index[20] else None
    feed = LiveFeed(events=[*history(BARS, 0, WARM), *live(BARS, WARM, END)])
    run.run(feed)
    assert saved_bar(tmp_path / "b") == BARS.index[20]
    assert feed.stopped == 1
    run = paper(tmp_path / "c")
    run.stop()
    run.run(LiveFeed(events=live(BARS, 0, END)))
    assert saved_bar(tmp_path / "c") is None


def test_orders_and_trades_that_are_over_are_not_kept(tmp_path):
    strategy = in_one_go(tmp_path, strategy=Brackets)
    assert (tmp_path / "trades.csv").read_text().count("\n") > 10
    assert all(order.alive() for order in strategy.broker.orders)
    assert len(strategy._orders) < 5  # those of the last bar
    assert max(len(trades) for trades in strategy._trades[strategy.data].values()) == 1


def test_a_bar_is_told_when_it_is_on_the_disk(tmp_path):
    seen, statuses = [], []

    def told(bar):
        assert saved_bar(tmp_path) == bar.timestamp
        seen.append(bar)

    in_one_go(tmp_path, on_bar=told, on_status=lambda *told: statuses.append(told))
    table = pd.read_csv(tmp_path / "equity.csv", index_col=0, parse_dates=True)
    assert [bar.equity for bar in seen] == table["equity"].tolist()
    assert [bar.position for bar in seen] == table["position"].tolist()
    assert sum(bar.fills for bar in seen) == len(pd.read_csv(tmp_path / "trades.csv"))
    assert all(bar.live and bar.var < 0 and 0 <= bar.confidence <= 1 for bar in seen)
    assert statuses == [("DELAYED", ""), ("LIVE", "")]


def test_a_strategy_without_a_model_is_watched_by_one(tmp_path):
    artifact, bars = trained_model()
    warm = Scorer(artifact).min_bars
    watch = {"model": artifact, "recalibrate": True}
    one, pieces = [], []
    events = [*history(bars, 0, warm), *live(bars, warm, warm + 12)]
    paper(tmp_path / "one", Brackets, watch=watch, on_bar=one.append).run(LiveFeed(events=events))
    for first, stop in ((warm, warm + 5), (warm + 5, warm + 12)):
        events = [*history(bars, 0, first), *live(bars, first, stop)]
        run = paper(tmp_path / "two", Brackets, watch=watch, on_bar=pieces.append)
        run.run(LiveFeed(events=events))
    assert pieces == one
    assert not math.isnan(one[0].var)
    plain = []
    in_one_go(tmp_path / "plain", strategy=Brackets, on_bar=plain.append)
    assert math.isnan(plain[0].var)


class Forgetful(bt.Strategy):
    def __init__(self):
        GlowIndicator(self.data, model=trained_model()[0], recalibrate=True)


class Early(bt.Strategy):
    def notify_data(self, data, status, *args, **kwargs):
        if len(data):
            self.buy()


class Trailing(bt.Strategy):
    def next(self):
        self.sell(exectype=bt.Order.StopTrail, trailamount=1.0)


class Tied(bt.Strategy):
    def next(self):
        self.buy_bracket(limitprice=200.0, stopprice=50.0)


class Unspeakable(bt.Strategy):
    def save_state(self):
        return {"model": object()}


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (Forgetful, "found Forgetful without a parameter state"),
        (
            Trailing,
            "single orders of kind Market, Limit, Stop, StopLimit.* found one of StopTrail",
        ),
        (Tied, "tied to others"),
        (Unspeakable, "what JSON cannot hold"),
    ],
)
def test_what_cannot_be_taken_up_again_is_refused(tmp_path, strategy, message):
    with pytest.raises(ConfigError, match=message):
        in_one_go(tmp_path, strategy=strategy)


def test_an_order_in_the_warm_up_is_refused(tmp_path):
    events = [*history(BARS, 0, 5), bt.feed.DataBase.CONNBROKEN, *history(BARS, 5, 12)]
    with pytest.raises(ConfigError, match="no order in the warm-up, found one on data0"):
        paper(tmp_path, Early).run(LiveFeed(events=events))


def test_a_ruined_account_stays_ruined(tmp_path):
    in_one_go(tmp_path, stop=20)
    file = tmp_path / "state.json"
    values = json.loads(file.read_text())
    values["strategy"]["ruined"] = True
    file.write_text(json.dumps(values))
    again(tmp_path, 20, END)
    assert PaperState.read(tmp_path).strategy["ruined"] is True
    fills = pd.read_csv(tmp_path / "trades.csv", parse_dates=["created"])
    assert fills["created"].max() < BARS.index[20]
