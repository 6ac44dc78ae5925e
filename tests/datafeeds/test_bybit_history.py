"""Histories into a store, through the real client and a loopback server."""

import signal
import threading
import time

import pandas as pd
import pytest

from datafeeds.bybit_history import ask_again, fetch_histories
from datafeeds.bybit_retry import RetryPolicy
from datafeeds.ohlcv_store import OhlcvStore
from datafeeds.series import SeriesKey
from glow_bt.errors import ConfigError, FeedError, StoreLockedError, TransientFeedError
from tests.datafeeds.bybit_faults import FAULTS
from tests.datafeeds.fault_study import run_schedule
from tests.datafeeds.kill_study import run_trials
from tests.datafeeds.random_bars import make_bars
from tests.datafeeds.store_trees import tree_of

SYMBOL = "BTC/USDT:USDT"
KEY = SeriesKey("bybit", SYMBOL, "bars", "1h")


@pytest.fixture
def store(tmp_path):
    return OhlcvStore(tmp_path / "store")


@pytest.fixture
def fetch(hourly, connect, store):
    def call(since="2024-01-01", until=None, server=hourly, into=store, **options):
        client = connect(server)
        [fetched] = fetch_histories(client, into, [client.series(SYMBOL)], since, until, **options)
        return fetched

    return call


def stored(store, key=KEY):
    return store.read(*key[:2], key.timeframe, kind=key.kind)


def test_the_store_holds_the_closed_bars(hourly, fetch, store):
    fetched = fetch()
    pd.testing.assert_frame_equal(stored(store), hourly.bars)
    assert (fetched.new, fetched.rows, fetched.lacking) == (1499, 1499, 0)
    assert (fetched.first, fetched.last) == (hourly.bars.index[0], hourly.bars.index[-1])


def test_a_second_call_asks_for_nothing_that_is_there(hourly, fetch):
    fetch()
    hourly.requests.clear()
    assert fetch().new == 0
    assert hourly.count("kline") == 0


def test_later_bars_are_appended_and_earlier_ones_put_before(hourly, fetch, store, tmp_path):
    fetch("2024-01-20", "2024-02-01")
    fetch("2024-01-20")
    hourly.requests.clear()
    fetch("2024-01-01")
    starts = [int(query["start"]) for name, query in hourly.requests if name == "kline"]
    assert max(starts) < pd.Timestamp("2024-01-20", tz="UTC").value // 1_000_000
    at_once = OhlcvStore(tmp_path / "at_once")
    fetch("2024-01-01", into=at_once)
    assert tree_of(store.root) == tree_of(at_once.root)


def test_an_error_keeps_what_arrived_and_the_next_call_goes_on(hourly, fetch, store, tmp_path):
    hourly.script("kline", [None] + [FAULTS["http_500"]] * 200)
    with pytest.raises(TransientFeedError, match="HTTP 500"):
        fetch()
    kept = len(stored(store))
    assert 0 < kept < 1499
    hourly._scripts.clear()
    assert fetch().new == 1499 - kept
    clean = OhlcvStore(tmp_path / "clean")
    fetch(into=clean)
    assert tree_of(store.root) == tree_of(clean.root)


def test_a_hole_that_heals_later_is_filled_by_the_next_call(serve, connect, fetch, store):
    bars = make_bars(600)
    server = serve(now=bars.index[-1].tz_localize(None))
    server.add_bars("BTCUSDT", "1h", bars.drop(bars.index[[100, 101, 300]]))
    assert fetch(server=server).lacking == 3
    server.add_bars("BTCUSDT", "1h", bars)
    again = fetch(server=server)
    assert (again.new, again.lacking) == (3, 0)
    pd.testing.assert_frame_equal(stored(store), bars.iloc[:-1])


def test_bars_that_stay_lacking_are_told_of_each_time(serve, fetch):
    bars = make_bars(600)
    server = serve(now=bars.index[-1].tz_localize(None))
    server.add_bars("BTCUSDT", "1h", bars.drop(bars.index[[100, 101, 300]]))
    assert [fetch(server=server).lacking for _ in range(2)] == [3, 3]


def test_a_span_before_the_listing_costs_few_requests(hourly, fetch):
    """Of a later call too, which only makes sure of the first bar."""
    assert fetch("2015-01-01").first == hourly.bars.index[0]
    assert hourly.count("kline") < 20
    hourly.requests.clear()
    assert fetch("2015-01-01").new == 0
    assert hourly.count("kline") < 7


def test_a_beginning_that_was_hidden_is_found(serve, connect, fetch):
    bars = make_bars(600)
    server = serve(now=bars.index[-1].tz_localize(None))
    server.add_bars("BTCUSDT", "1h", bars.iloc[250:])
    assert fetch("2023-01-01", server=server).first == bars.index[250]
    server.add_bars("BTCUSDT", "1h", bars)
    again = fetch("2023-01-01", server=server)
    assert (again.first, again.new) == (bars.index[0], 250)


def test_a_history_that_ends_before_the_present_is_an_error_and_kept(serve, fetch, store):
    """An exchange that shows no trading of what it lists may show it later."""
    bars = make_bars(600)
    server = serve(now=bars.index[-1].tz_localize(None))
    server.add_bars("BTCUSDT", "1h", bars.iloc[:500])
    with pytest.raises(TransientFeedError, match="found none for the last 99 stamps; fetch again"):
        fetch(server=server)
    assert len(stored(store)) == 500
    server.add_bars("BTCUSDT", "1h", bars)
    assert fetch(server=server).new == 99


def test_a_span_that_ends_where_the_exchange_has_nothing_says_so(serve, fetch):
    bars = make_bars(600)
    server = serve(now=bars.index[-1].tz_localize(None))
    server.add_bars("BTCUSDT", "1h", bars.drop(bars.index[400:500]))
    fetched = fetch(until=bars.index[450], server=server)
    assert (fetched.rows, fetched.after) == (400, 50)


def test_progress_reaches_the_whole_span_also_when_resumed(fetch):
    calls = []
    fetch("2024-01-10", "2024-01-20")
    fetch(progress=lambda *call: calls.append(call))
    assert {(key, total) for key, _, total in calls} == {(KEY, 1499)}
    assert calls[0][1] == 240
    assert calls[-1][1] == 1499
    assert [done for _, done, _ in calls] == sorted(done for _, done, _ in calls)


def test_several_symbols_and_kinds_at_once(serve, connect, store):
    server = serve(now="2024-02-01T00:20")
    names = ["BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "ADAUSDT"]
    for seed, name in enumerate(names):
        server.add_bars(name, "1h", make_bars(1000, seed=seed))
        rates = pd.date_range("2024-01-01", "2024-02-01", freq="8h", tz="UTC")
        server.add_funding(name, pd.Series(range(len(rates)), index=rates) * 1e-6)
    client = connect(server)
    series = [client.series(n, kind) for n in names for kind in ("bars", "funding_rate")]
    fetched = fetch_histories(client, store, series, "2024-01-05")
    assert [one.key for one in fetched] == [one.key for one in series]
    for seed, name in enumerate(names):
        key = client.series(name).key
        expected = make_bars(1000, seed=seed).loc["2024-01-05":"2024-01-31"]
        pd.testing.assert_frame_equal(stored(store, key), expected)
        rates = stored(store, key._replace(kind="funding_rate", timeframe=""))
        # From the day before on: that is the rate that counts when the span begins.
        assert rates.index[0] == pd.Timestamp("2024-01-04", tz="UTC")
        assert rates.index[-1] == pd.Timestamp("2024-01-31T16:00", tz="UTC")


@pytest.mark.parametrize(
    "now",
    ["08:02", "08:30", "09:30", "11:59", "12:00:10", "13:30", "15:58", "16:00:05", "16:01:30"],
)
def test_funding_is_settled_up_to_the_present_whenever_it_is_asked_for(serve, connect, store, now):
    server = serve(now=f"2024-02-01T{now}")
    server.add_bars("BTCUSDT", "1h", make_bars(1000))
    rates = pd.date_range("2024-01-01", "2024-02-01T08:00", freq="8h", tz="UTC")
    server.add_funding("BTCUSDT", pd.Series(1e-4, index=rates))
    client = connect(server)
    funding = client.series(SYMBOL, "funding_rate")
    [fetched] = fetch_histories(client, store, [funding], "2024-01-20")
    assert fetched.last == rates[-1 if now > "09:01" else -2]
    (settled,) = store.settled(funding.key)
    minute = pd.Timestamp(f"2024-02-01T{now}", tz="UTC") - pd.Timedelta(minutes=1)
    assert settled.stop == minute.floor("h").value // 1_000_000


def test_a_funding_rate_is_not_settled_before_it_is_published(serve, connect, store):
    server = serve(now="2024-02-01T08:00:30")
    server.add_bars("BTCUSDT", "1h", make_bars(1000))
    rates = pd.date_range("2024-01-01", "2024-02-01", freq="8h", tz="UTC")
    server.add_funding("BTCUSDT", pd.Series(1e-4, index=rates))
    client = connect(server)
    funding = client.series(SYMBOL, "funding_rate")
    fetch_histories(client, store, [funding], "2024-01-20")
    server.add_funding(
        "BTCUSDT", pd.Series(1e-4, index=rates.append(rates[-1:] + pd.Timedelta(hours=8)))
    )
    server.now = "2024-02-01T09:02"
    assert fetch_histories(connect(server), store, [funding], "2024-01-20")[0].new == 1


def test_what_the_exchange_refuses_is_raised(serve, connect, store):
    server = serve(now="2024-02-01T00:20")
    server.add_bars("BTCUSDT", "1h", make_bars(1000))
    server.add_instrument("ETHUSDT", listed=pd.Timestamp("2024-01-01", tz="UTC"))
    client = connect(server)
    series = [client.series("BTCUSDT"), client.series("ETHUSDT")]
    with pytest.raises(FeedError, match="Invalid period"):
        fetch_histories(client, store, series, "2024-01-05")


def test_an_error_of_one_series_is_raised_when_the_others_are_done(serve, connect, store):
    server = serve(now="2024-02-01T00:20")
    for name in ("BTCUSDT", "ETHUSDT"):
        server.add_bars(name, "1h", make_bars(1000))
    client = connect(server)
    ask = client.pages

    def pages(series, windows):
        if series.market.id == "BTCUSDT":
            raise FeedError("the reason")
        yield from ask(series, windows)

    client.pages = pages
    series = [client.series("BTCUSDT"), client.series("ETHUSDT")]
    with pytest.raises(FeedError, match=r"^the reason$"):
        fetch_histories(client, store, series, "2024-01-05")
    assert len(stored(store, series[1].key)) == 27 * 24


def test_a_series_given_by_two_names_is_fetched_once(hourly, connect, store):
    client = connect(hourly)
    series = [client.series("BTCUSDT"), client.series(SYMBOL)]
    [fetched] = fetch_histories(client, store, series, "2024-01-01")
    assert fetched.new == 1499


def test_ctrl_c_does_not_wait_for_an_exchange_that_is_away(hourly, connect, store):
    hourly.script("kline", [None, *[FAULTS["http_503"]] * 100])
    client = connect(hourly, retry=RetryPolicy(first_delay=60, max_delay=60, budget=600))

    def interrupt():
        while hourly.count("kline") < 2:
            time.sleep(0.01)
        time.sleep(0.2)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    series = client.series(SYMBOL)
    user = threading.Thread(target=interrupt)
    user.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        fetch_histories(client, store, [series], "2024-01-01")
    user.join()
    assert time.monotonic() - began < 10
    assert not [t for t in threading.enumerate() if t.name.startswith("bybit")]


def test_two_writers_of_one_series_are_told_apart(hourly, fetch, store):
    with (
        store.writer(KEY, 3_600_000),
        pytest.raises(StoreLockedError, match="expected no other writer"),
    ):
        fetch()


@pytest.mark.parametrize(
    ("since", "until", "error", "message"),
    [
        ("2024-02-01", "2024-01-01", ConfigError, "expected since before until"),
        ("2031-01-01", None, ConfigError, "expected since in the past"),
        ("soon", None, ConfigError, "expected since as a date"),
        ("2024-03-03T10:30", None, FeedError, "expected a span with a closed 1h bar"),
        ("2020-01-01", "2021-01-01", FeedError, "found none; it was listed on 2024-01-01"),
    ],
)
def test_spans_that_cannot_be_are_refused(fetch, since, until, error, message):
    with pytest.raises(error, match=message):
        fetch(since, until)


def test_damage_is_mended_and_the_rest_kept(hourly, connect, tmp_path):
    store = OhlcvStore(tmp_path, part_steps=500)
    client = connect(hourly)
    fetch_histories(client, store, [client.series(SYMBOL)], "2024-01-01")
    whole = tree_of(store.root)
    part = sorted(store.root.rglob("*.parquet"))[1]
    part.write_bytes(part.read_bytes()[:-100])
    lost = store.drop_damaged(KEY)
    hourly.requests.clear()
    assert ask_again(client, store, client.series(SYMBOL), lost) == sum(map(len, lost)) > 0
    assert hourly.count("kline") <= 2
    assert tree_of(store.root) == whole


@pytest.mark.parametrize("seed", range(10))
def test_random_faults_end_in_the_same_bytes(seed, tmp_path):
    """More of them: `python -m tests.datafeeds.fault_study`."""
    assert run_schedule(seed, tmp_path)["equal"]


@pytest.mark.slow
def test_kills_lose_nothing_and_no_page_is_asked_for_three_times():
    """More of them: `python -m tests.datafeeds.kill_study`."""
    trials = run_trials(4, num_bars=8_000)
    assert all(trial["finished"] and trial["equal"] for trial in trials)
    assert max(trial["most_asked"] for trial in trials) <= 2
