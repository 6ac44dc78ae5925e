import datetime as dt
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from datafeeds.bybit_client import BybitClient
from datafeeds.bybit_retry import RetryPolicy
from glow_bt.errors import ConfigError, FeedError, SymbolError, TransientFeedError
from glow_bt.ohlcv import find_gaps, write_bars
from tests.datafeeds import bybit_server
from tests.datafeeds.bybit_faults import BLOCKED, FAULTS, http_status, ret_code, stall
from tests.datafeeds.random_bars import make_bars

SYMBOL = "BTC/USDT:USDT"
# Answers that hold too little but nothing wrong, or all of it in another order.
INCOMPLETE = {"short_page", "hole", "no_rows", "stale_forming", "stale_answer"}
HARMLESS = {"duplicate_rows", "unordered_rows", "text_envelope"}
# Faults that fit any endpoint.
GENERAL = [name for name in FAULTS if name.startswith(("http_", "null", "reset"))] + [
    "server_timeout", "clock", "rate_limit", "protection", "truncated", "html", "empty", "object",
]  # fmt: skip


@pytest.fixture
def fetch(hourly, connect):
    client = connect(hourly)

    def call(since="2024-01-01", until=None, symbol=SYMBOL, timeframe="1h", **options):
        return client.fetch_ohlcv(symbol, timeframe, since, until, **options)

    return call


def test_bars_are_those_of_the_server_without_the_forming_one(hourly, fetch):
    pd.testing.assert_frame_equal(fetch(), hourly.bars)


@pytest.mark.parametrize(("seconds", "closed"), [(-1, 1498), (0, 1499), (1, 1499)])
def test_a_bar_is_closed_by_the_exchanges_clock(hourly, fetch, seconds, closed):
    close = hourly.bars.index[-1] + pd.Timedelta(hours=1)
    hourly.now = (close + pd.Timedelta(seconds=seconds)).tz_localize(None)
    assert len(fetch()) == closed


@pytest.mark.parametrize(
    ("since", "until", "first", "end"),
    [
        ("2024-01-02", "2024-01-03", 24, 48),
        ("2024-01-02T00:00:01", "2024-01-03T00:00:01", 25, 49),
        (1704153600000, 1704240000000, 24, 48),
        (dt.datetime(2024, 1, 2, tzinfo=dt.UTC), "2024-01-02T01:00", 24, 25),
        ("2024-01-02T01:00+01:00", "2030-01-01", 24, 1499),
    ],
)
def test_span_includes_since_and_ends_before_until(hourly, fetch, since, until, first, end):
    pd.testing.assert_frame_equal(fetch(since, until), hourly.bars.iloc[first:end])


@pytest.mark.parametrize(
    ("symbol", "category"),
    [
        ("BTC/USDT:USDT", "linear"),
        ("BTCUSDT", "linear"),
        ("BTC/USD:BTC", "inverse"),
        ("BTCUSD", "inverse"),
        ("BTC/USDT", "spot"),
        ("SOL/USDT", "spot"),
        ("SOLUSDT", "spot"),
    ],
)
def test_symbols_of_all_product_lines(serve, connect, symbol, category):
    server = serve(now="2024-02-01")
    listed = {"linear": ["BTCUSDT"], "inverse": ["BTCUSD"], "spot": ["BTCUSDT", "SOLUSDT"]}
    for line, names in listed.items():
        for name in names:
            server.add_bars(name, "1h", make_bars(30, seed=len(line) + len(name)), category=line)
    name = symbol.replace("/", "").split(":")[0]
    found = connect(server).fetch_ohlcv(symbol, "1h", "2024-01-01")
    pd.testing.assert_frame_equal(found, make_bars(30, seed=len(category) + len(name)))


def test_only_the_product_line_in_question_is_loaded_and_only_once(hourly, fetch):
    fetch(until="2024-01-02")
    fetch(until="2024-01-02")
    asked = [query for endpoint, query in hourly.requests if endpoint == "instruments-info"]
    assert {query["category"] for query in asked} == {"linear"}
    assert len(asked) == 2  # listed and about to be


def test_only_public_market_data_is_asked_for(hourly, fetch):
    fetch()
    assert {endpoint for endpoint, _ in hourly.requests} == {"instruments-info", "time", "kline"}


def test_progress_counts_up_to_the_bars_of_the_span(fetch):
    calls = []
    fetch(progress=lambda done, total: calls.append((done, total)))
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert {total for _, total in calls} == {1499}
    assert calls[0][0] in (1000, 499)
    assert calls[-1][0] == 1499


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_healed(hourly, fetch, name):
    hourly.script("kline", [None, FAULTS[name]])
    pd.testing.assert_frame_equal(fetch(), hourly.bars)


@pytest.mark.parametrize("name", [name for name in FAULTS if name not in INCOMPLETE | HARMLESS])
def test_a_fault_that_stays_ends_in_one_clear_line(hourly, fetch, name):
    hourly.script("kline", [FAULTS[name]] * 20)
    times = 3 if name == "http_403" else 7  # that one may be for good
    with pytest.raises(
        TransientFeedError, match=rf"(Bybit|expected) .*asked {times} times in \d+ s"
    ) as caught:
        fetch(until="2024-01-02")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("endpoint", ["instruments-info", "time"])
@pytest.mark.parametrize("name", GENERAL)
def test_faults_before_the_first_page_are_healed(hourly, fetch, endpoint, name):
    hourly.script(endpoint, [FAULTS[name]] * 2)
    pd.testing.assert_frame_equal(fetch(until="2024-01-02"), hourly.bars.iloc[:24])


def test_an_empty_list_of_instruments_is_not_believed_at_once(hourly, fetch):
    hourly.script("instruments-info", [FAULTS["no_rows"]])
    assert len(fetch(until="2024-01-02")) == 24


@pytest.mark.parametrize("seed", range(12))
def test_storms_of_faults_end_in_the_same_bars(serve, connect, seed):
    rng = np.random.default_rng(seed)
    bars = make_bars(4321, seed=seed)
    server = serve(now="2024-12-31", wide=["latest", "earliest"][seed % 2])
    server.add_bars("BTCUSDT", "1h", bars)
    chosen = rng.choice(list(FAULTS), 40)
    faults = [FAULTS[name] if rng.random() < 0.3 else None for name in chosen]
    server.script("kline", faults)
    found = connect(server).fetch_ohlcv(SYMBOL, "1h", "2024-01-01")
    pd.testing.assert_frame_equal(found, bars)


@pytest.mark.parametrize("seed", range(10))
def test_whatever_goes_wrong_no_bar_is_wrong(hourly, connect, seed):
    rng = np.random.default_rng(seed)
    names = [*INCOMPLETE, *INCOMPLETE, *FAULTS]
    hourly.script("kline", [FAULTS[name] for name in rng.choice(names, 12)])
    try:
        found = connect(hourly).fetch_ohlcv(SYMBOL, "1h", "2024-01-01")
    except FeedError:
        return
    pd.testing.assert_frame_equal(found, hourly.bars.loc[found.index])
    missing = len(hourly.bars.loc[found.index[0] : found.index[-1]]) - len(found)
    assert sum(gap.missing for gap in find_gaps(found)) == missing


def test_a_slow_answer_is_asked_for_again(hourly, connect):
    hourly.script("kline", [stall(30)])
    found = connect(hourly, timeout=0.3).fetch_ohlcv(SYMBOL, "1h", "2024-01-01", "2024-01-02")
    assert len(found) == 24


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (http_status(403, BLOCKED, "text/html"), "because of its country or region"),
        (http_status(404), "HTTP 404: upstream error; check base_url"),
        (ret_code(10010, "Unmatched IP"), "retCode 10010: Unmatched IP"),
        (ret_code(10001, "Not supported symbols"), "does not serve the symbol"),
    ],
)
def test_refusals_are_not_asked_again(hourly, fetch, clock, fault, message):
    hourly.script("kline", [fault])
    with pytest.raises(FeedError, match=message):
        fetch(until="2024-01-02")
    assert clock.waits == []
    assert hourly.count("kline") == 1


@pytest.mark.parametrize(
    ("symbol", "offer"),
    [("BTC/USDT:USDTT", "BTC/USDT:USDT"), ("BTCUSTD", "BTC/USDT:USDT"), ("ETH/USD", "give it as")],
)
def test_unknown_symbol_offers_the_nearest(hourly, fetch, symbol, offer):
    with pytest.raises(SymbolError, match=f"found '{symbol}'; .*{offer}"):
        fetch(symbol=symbol)
    assert hourly.count("kline") == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"timeframe": "7m"}, "expected a timeframe among 1m"),
        ({"since": "2024-01-02", "until": "2024-01-01"}, "expected since before until"),
        ({"since": "2024-01-02", "until": "2024-01-02"}, "expected since before until"),
        ({"since": "someday"}, "expected since as a date"),
        ({"until": "someday"}, "expected until as a date"),
    ],
)
def test_wrong_calls_are_refused_without_asking(hourly, fetch, call, message):
    with pytest.raises(ConfigError, match=message):
        fetch(**call)
    assert hourly.requests == []


def test_future_is_refused_by_the_exchanges_clock(fetch):
    with pytest.raises(ConfigError, match=r"expected since in the past, .* on the exchange"):
        fetch(since="2024-12-31")


def test_span_before_the_listing_alone_says_when_it_starts(fetch):
    with pytest.raises(FeedError, match="found none; it was listed on 2024-01-01: ask for later"):
        fetch("2023-01-01", "2023-06-01")


def test_forming_bar_alone_is_no_closed_bar(hourly, fetch):
    with pytest.raises(FeedError, match=r"expected closed 1h bars .* found none; ask for"):
        fetch(hourly.bars.index[-1] + pd.Timedelta(minutes=61))


def test_no_network_says_what_was_tried(connect, hourly):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        client = connect(hourly, base_url=f"http://user:secret@127.0.0.1:{port}")
        with pytest.raises(TransientFeedError) as caught:
            client.fetch_ohlcv(SYMBOL, "1h", "2024-01-01")
    message = str(caught.value)
    assert message.startswith(
        f"expected an answer from 127.0.0.1:{port}, found none (Connection refused)"
    )
    assert "check the network, the proxy and base_url (asked 7 times in" in message
    assert "secret" not in message


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:80",
        "ftp://host",
        "",
        "https://",
        "http://[::1",
        "http://a..b",
        "http://host:99999",
    ],
)
def test_base_url_must_be_an_address(url):
    with pytest.raises(ConfigError, match="expected base_url as http://host"):
        BybitClient(base_url=url)


def test_requests_that_cannot_be_sent_are_refused_at_once(connect, hourly, clock):
    with pytest.raises(
        FeedError, match=r"from \*\.x, the request failed .URL has an invalid label"
    ):
        connect(hourly, base_url="http://*.x").server_time()
    assert clock.waits == []


def test_bybit_is_asked_unless_told_otherwise():
    with BybitClient() as client:
        addresses = set(client._link._exchange.urls["api"].values())
        uses_proxies = client._link._exchange.session.trust_env
    assert addresses == {"https://api.{hostname}"}
    assert uses_proxies


def test_proxies_stand_between_us_and_bybit_only(hourly, connect, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert connect(hourly).server_time() == pd.Timestamp(hourly.now, tz="UTC")


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan"), float("inf")])
def test_timeout_must_be_positive(timeout):
    with pytest.raises(ConfigError, match="expected a finite timeout above 0"):
        BybitClient(timeout=timeout)


def test_base_url_may_end_in_a_slash(hourly, connect):
    client = connect(hourly, base_url=f"{hourly.url}/")
    assert client.server_time() == pd.Timestamp(hourly.now, tz="UTC")


def test_requests_keep_to_the_rate_limit(hourly, connect):
    client = connect(hourly, throttle=True)
    started = time.monotonic()
    for _ in range(4):
        client.server_time()
    assert time.monotonic() - started > 0.25  # three pauses of 100 ms, less their rounding


def test_jitter_is_seeded(hourly):
    def waits(seed):
        with BybitClient(hourly.url, seed=seed) as client:
            return [client._retry.delay(k) for k in range(1, 9)]

    assert waits(1) == waits(1) != waits(2)


def test_a_closed_client_opens_anew(hourly):
    with BybitClient(hourly.url, throttle=False) as client:
        client.server_time()
    assert client.server_time() == pd.Timestamp(hourly.now, tz="UTC")
    client.close()


AWAY = {"fails": FAULTS["http_503"], "throttles": FAULTS["http_429"], "hangs": stall(60)}


@pytest.fixture
def away(hourly):
    """A client that waits for long, and a server that fails for good in a way to choose."""

    def start(endpoint, fault):
        hourly.script(endpoint, [AWAY[fault]] * 1000)
        return BybitClient(hourly.url, retry=RetryPolicy(first_delay=60.0, max_delay=60.0))

    return start


@pytest.mark.parametrize("fault", AWAY)
@pytest.mark.parametrize("endpoint", ["instruments-info", "time", "kline"])
def test_close_ends_what_waits_for_an_exchange_that_is_away(hourly, away, endpoint, fault):
    """The wait before the next attempt, the pause that was asked for, the wait for an answer."""
    client = away(endpoint, fault)
    with ThreadPoolExecutor(1) as pool:
        fetching = pool.submit(client.fetch_ohlcv, SYMBOL, "1h", "2024-01-01")
        while not hourly.count(endpoint):
            time.sleep(0.01)
        time.sleep(0.1)
        started = time.monotonic()
        client.close()
        with pytest.raises(FeedError, match="found it closed while it"):
            fetching.result(timeout=5.0)
    assert time.monotonic() - started < 1.0
    hourly._scripts.clear()
    assert client.market(SYMBOL).id == "BTCUSDT"  # it can be used again
    client.close()


@pytest.mark.parametrize("fault", AWAY)
@pytest.mark.parametrize("endpoint", ["instruments-info", "time", "kline"])
def test_ctrl_c_ends_what_waits_for_an_exchange_that_is_away(hourly, away, endpoint, fault):
    pressed = []

    def press():
        pressed.append(time.monotonic())
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    timer = threading.Timer(0.3, press)
    with pytest.raises(KeyboardInterrupt), away(endpoint, fault) as client:  # noqa: PT012
        timer.start()
        client.fetch_ohlcv(SYMBOL, "1h", "2024-01-01")
    assert time.monotonic() - pressed[0] < 1.0
    timer.join()


def test_server_runs_as_a_script(tmp_path, connect, hourly):
    bars = make_bars(50)
    write_bars(bars, tmp_path / "bars.csv")
    script = [sys.executable, Path(bybit_server.__file__), tmp_path / "bars.csv"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [*script, "--symbol", "ETHUSDT", "--timeframe", "1h", "--port", "0"],
        env=environment, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            line = process.stdout.readline()
            client = connect(hourly, base_url=line.split(" at ")[1].split(";")[0])
            found = client.fetch_ohlcv("ETHUSDT", "1h", "2024-01-01")
        finally:
            process.terminate()
    assert line.startswith("50 bars of ETHUSDT at http://127.0.0.1:")
    pd.testing.assert_frame_equal(found, bars)
