import dataclasses
import threading
import time

import numpy as np
import pandas as pd
import pytest

from datafeeds.bybit_retry import RetryPolicy
from datafeeds.bybit_time import windows
from glow_bt.errors import (
    AccessError,
    ConfigError,
    FeedError,
    MaintenanceError,
    RateLimitError,
    RegionError,
    TransientFeedError,
)
from tests.datafeeds.bybit_faults import BLOCKED, FAULTS, SLOW_FAULTS, http_status, ret_code
from tests.datafeeds.random_bars import make_bars

SYMBOL = "BTC/USDT:USDT"
HOUR = 3_600_000


def ms(moment):
    return pd.Timestamp(moment).value // 1_000_000


def span_of(bars):
    return range(ms(bars.index[0]), ms(bars.index[-1]) + HOUR, HOUR)


def rows_of(pages):
    """All pages' rows in order, after checking that each is within its window."""
    for page in pages:
        assert all(stamp in page.window for stamp in page.stamps.tolist())
        assert (np.diff(page.stamps) > 0).all()
    order = np.argsort(np.concatenate([page.stamps for page in pages]), kind="stable")
    return (
        np.concatenate([page.stamps for page in pages])[order],
        np.concatenate([page.values for page in pages])[order],
    )


def assert_rows(pages, bars):
    stamps, values = rows_of(pages)
    assert stamps.tolist() == [ms(stamp) for stamp in bars.index]
    np.testing.assert_array_equal(values, bars.to_numpy())


def settled(pages):
    """Spans that the pages settle, joined."""
    spans = sorted((page.window for page in pages), key=lambda span: span.start)
    joined = []
    for span in spans:
        if joined and joined[-1][1] == span.start:
            joined[-1] = (joined[-1][0], span.stop)
        else:
            joined.append((span.start, span.stop))
    return joined


@pytest.fixture
def big(serve):
    """A server with 8,765 hours, and one more that is forming."""
    bars = make_bars(8766)
    server = serve(now=(bars.index[-1] + pd.Timedelta(minutes=20)).tz_localize(None))
    server.add_bars("BTCUSDT", "1h", bars)
    server.bars = bars.iloc[:-1]
    return server


@pytest.mark.parametrize("in_flight", [1, 2, 8])
@pytest.mark.parametrize("order", ["ascending", "descending", "random"])
def test_pages_hold_every_bar_once_in_whatever_order_they_are_asked(
    big, connect, in_flight, order
):
    client = connect(big, in_flight=in_flight)
    cut = list(windows(span_of(big.bars), 1000))
    if order == "descending":
        cut.reverse()
    elif order == "random":
        np.random.default_rng(0).shuffle(cut)
    pages = list(client.pages(client.series(SYMBOL), cut))
    assert_rows(pages, big.bars)
    assert settled(pages) == [(span_of(big.bars).start, span_of(big.bars).stop)]
    assert big.count("kline") == 9


def test_windows_may_have_distances_and_are_read_only_as_far_as_needed(big, connect):
    client = connect(big, in_flight=2)
    taken = []

    def some():
        for window in list(windows(span_of(big.bars), 500))[::2]:
            taken.append(window)
            yield window

    pages = client.pages(client.series(SYMBOL), some())
    first = next(pages)
    assert len(taken) <= 4
    assert_rows([first, *pages], pd.concat([big.bars[i : i + 500] for i in range(0, 8765, 1000)]))


def test_several_requests_are_in_flight(big, connect):
    big.latency = 0.1
    client = connect(big)
    series = client.series(SYMBOL)
    started = time.monotonic()
    assert_rows(list(client.pages(series, windows(span_of(big.bars), 250))), big.bars)
    # 36 requests, one after the other, take 3.6 s.
    assert time.monotonic() - started < 1.8


def test_the_rate_limit_is_kept_by_all_threads_and_callers_together(big, connect):
    big.rate_limit = 30  # two callers by themselves would make 40
    client = connect(big, throttle=True, requests_per_second=20.0)
    series = client.series(SYMBOL)
    spans = [windows(span_of(big.bars), 400) for _ in range(2)]
    found = [None, None]

    def fetch(i):
        found[i] = list(client.pages(series, spans[i]))

    callers = [threading.Thread(target=fetch, args=(i,)) for i in range(2)]
    started = time.monotonic()
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    elapsed = time.monotonic() - started
    for pages in found:
        assert_rows(pages, big.bars)
    assert elapsed >= 2.0
    assert big.violations <= 1  # a busy machine may deliver two requests at once


def test_a_rate_limit_that_is_lower_than_ours_is_waited_for(big, connect):
    big.rate_limit = 8
    client = connect(big, throttle=True, requests_per_second=100.0, retry=RetryPolicy(attempts=12))
    pages = list(client.pages(client.series(SYMBOL), windows(span_of(big.bars), 1000)))
    assert_rows(pages, big.bars)
    assert 1 <= big.violations <= 12


def test_an_error_stops_the_rest_after_the_pages_that_arrived(big, connect):
    client = connect(big, in_flight=3)
    big.script("kline", [None, None, None, ret_code(10010, "Unmatched IP")])
    pages = client.pages(client.series(SYMBOL), windows(span_of(big.bars), 100))
    found = []

    def take():
        for page in pages:
            found.append(page)  # noqa: PERF402 - what came before the error is kept

    with pytest.raises(AccessError, match="Unmatched IP"):
        take()
    # What was in flight with the refused one arrived; nothing was asked after it.
    assert len(found) == big.count("kline") - 1
    assert 3 <= len(found) <= 6
    assert next(pages, None) is None


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (http_status(403, BLOCKED, "text/html"), RegionError),
        (ret_code(10024, "Compliance rules triggered"), RegionError),
        (ret_code(10003, "API key is invalid."), AccessError),
        (FAULTS["rate_limit"], RateLimitError),
        (FAULTS["http_503"], MaintenanceError),
        (FAULTS["reset"], TransientFeedError),
    ],
)
def test_errors_are_told_apart(big, connect, fault, kind):
    big.script("kline", [fault] * 100)
    client = connect(big)
    with pytest.raises(FeedError) as caught:
        list(client.pages(client.series(SYMBOL), windows(span_of(big.bars), 1000)))
    assert type(caught.value) is kind


def test_maintenance_says_until_when(big, connect):
    end = str(ms("2025-01-01T06:00"))
    big.maintenances.append({"title": "Upgrade", "state": "ongoing", "begin": "1", "end": end})
    client = connect(big)
    series = client.series(SYMBOL)
    big.script("kline", [FAULTS["maintenance"]] * 100)
    with pytest.raises(MaintenanceError, match=r"going on until 2025-01-01 06:00\+00:00: Upgrade"):
        list(client.pages(series, windows(span_of(big.bars), 1000)))
    big.script("time", [FAULTS["http_503"]] * 100)
    with pytest.raises(MaintenanceError, match="Upgrade"):
        client.server_time()


def test_closing_early_ends_the_threads_work(big, connect):
    client = connect(big)
    big.latency = 0.05
    pages = client.pages(client.series(SYMBOL), windows(span_of(big.bars), 100))
    next(pages)
    pages.close()
    asked = big.count("kline")
    time.sleep(0.2)
    assert big.count("kline") == asked
    client.close()
    assert not [one for one in threading.enumerate() if one.name.startswith("bybit")]


def test_closing_the_client_ends_what_is_under_way(big, connect):
    client = connect(big, retry=RetryPolicy(first_delay=30.0, max_delay=30.0))
    big.script("kline", [FAULTS["http_502"]] * 100)
    series, ended = client.series(SYMBOL), []

    def fetch():
        try:
            list(client.pages(series, windows(span_of(big.bars), 1000)))
        except FeedError as error:
            ended.append(str(error))

    caller = threading.Thread(target=fetch)
    caller.start()
    while big.count("kline") < 3:
        time.sleep(0.01)
    client.close()
    caller.join(5.0)
    assert not caller.is_alive()
    assert ended == ["expected an open client, found it closed while it fetched; fetch again"]


def test_the_budget_of_a_call_is_named(big, connect):
    client = connect(big, retry=RetryPolicy(first_delay=0.01, max_delay=0.02, total=0.0))
    series = client.series(SYMBOL)
    big.script("kline", [FAULTS["http_502"]] * 100)
    with pytest.raises(TransientFeedError, match="all 0 s of the call are used up"):
        list(client.pages(series, windows(span_of(big.bars), 1000)))


@pytest.mark.parametrize("answers", [1, 2, 3])
def test_holes_that_heal_are_filled(big, connect, answers):
    hidden = big.bars.index[np.r_[0:3, 70:75, 1000, 4200:4900, 8760:8765]]
    big.hide("BTCUSDT", "1h", hidden, answers)
    client = connect(big)
    pages = list(client.pages(client.series(SYMBOL), windows(span_of(big.bars), 1000)))
    assert_rows(pages, big.bars)
    # The third answer comes after all other windows.
    if answers == 3:
        assert pages[-1].window.start in {span_of(big.bars)[i] for i in (0, 1000, 4000, 8000)}


def test_holes_are_believed_after_four_answers(big, connect, clock):
    hidden = big.bars.index[70:75]
    big.hide("BTCUSDT", "1h", hidden, 100)
    client = connect(big)
    pages = list(client.pages(client.series(SYMBOL), windows(span_of(big.bars), 1000)))
    assert_rows(pages, big.bars.drop(hidden))
    assert settled(pages) == [(span_of(big.bars).start, span_of(big.bars).stop)]
    assert big.count("kline") == 9 + 3
    assert len(clock.waits) == 1  # before the last of them


def test_what_is_before_the_first_bar_is_one_page_without_rows(big, connect):
    client = connect(big)
    since = ms("2019-01-01T00:00Z")
    opens = range(since, span_of(big.bars).stop, HOUR)
    pages = list(client.pages(client.series(SYMBOL), windows(opens, 1000)))
    assert_rows(pages, big.bars)
    assert settled(pages) == [(opens.start, opens.stop)]
    assert sum(not len(page.stamps) for page in pages) == 1
    assert big.count("kline") <= 9 + 5


def test_the_listing_is_remembered(big, connect):
    client = connect(big)
    series = client.series(SYMBOL)
    early = range(ms("2019-01-01T00:00Z"), ms("2023-06-01T00:00Z"), HOUR)
    (page,) = client.pages(series, windows(early, 1000))
    assert (page.window.start, page.window.stop) == (early.start, early.stop)
    asked = big.count("kline")
    list(client.pages(series, windows(early, 1000)))
    assert big.count("kline") == asked


@pytest.mark.parametrize("in_flight", [1, 8])
def test_nothing_comes_of_windows_after_the_last_bar(big, connect, in_flight):
    big.now = "2029-01-01"
    client = connect(big, in_flight=in_flight)
    opens = range(span_of(big.bars).start, ms("2028-12-31"), HOUR)
    pages = list(client.pages(client.series(SYMBOL), windows(opens, 1000)))
    # The 8,766th bar has closed by now.
    assert settled(pages) == [(opens.start, span_of(big.bars).stop + HOUR)]
    assert len(rows_of(pages)[0]) == 8766
    assert big.count("kline") <= 9 + 16  # of 44


def test_windows_in_the_future_are_left_out(big, connect):
    client = connect(big)
    opens = range(span_of(big.bars)[-10], span_of(big.bars).stop + 3000 * HOUR, HOUR)
    pages = list(client.pages(client.series(SYMBOL), windows(opens, 1000)))
    assert_rows(pages, big.bars.iloc[-10:])


@pytest.mark.parametrize(
    "window", [range(0, 1001 * HOUR, HOUR), range(1, HOUR, HOUR), range(0, HOUR, HOUR // 2)]
)
def test_windows_that_cannot_be_asked_for_are_refused(big, connect, window):
    client = connect(big)
    series = client.series(SYMBOL)
    with pytest.raises(ConfigError, match="expected windows of at most 1000 steps of 3600000 ms"):
        list(client.pages(series, [window]))


def test_threads_of_an_ended_call_are_good_for_the_next(big, connect):
    client = connect(big, in_flight=2)
    big.latency = 0.02
    pages = client.pages(client.series(SYMBOL), windows(span_of(big.bars), 100))
    next(pages)
    pages.close()
    for _ in range(4):
        assert len(client.fetch_ohlcv(SYMBOL, "1h", "2024-12-01")) > 0


@pytest.mark.parametrize("asks", [1, 2])
@pytest.mark.parametrize("name", ["stale_forming", "stale_answer"])
@pytest.mark.parametrize("age", [1, 29, 31, 1200])
def test_values_of_a_forming_bar_are_never_taken(big, connect, name, asks, age):
    close = big.bars.index[-1] + pd.Timedelta(hours=1, seconds=age)
    big.now = close.tz_localize(None)
    big.script("kline", [FAULTS[name]] * asks)
    client = connect(big)
    opens = span_of(big.bars)[-100:]
    assert_rows(list(client.pages(client.series(SYMBOL), [opens])), big.bars.iloc[-100:])


@pytest.mark.parametrize("age", [0, 1, 29, 31, 1200])
@pytest.mark.parametrize("name", ["stale_forming", "stale_answer"])
def test_a_bar_that_stays_unsure_is_left_for_later(big, connect, name, age):
    close = big.bars.index[-1] + pd.Timedelta(hours=1, seconds=age)
    big.now = close.tz_localize(None)
    client = connect(big)
    series, opens = client.series(SYMBOL), span_of(big.bars)[-100:]
    big.script("kline", [FAULTS[name]] * 50)
    pages = list(client.pages(series, [opens]))
    assert_rows(pages, big.bars.iloc[-100:-1])
    assert settled(pages) == [(opens.start, opens.stop - HOUR)]
    big._scripts.clear()
    assert client.closed_klines(series, opens.start).stamps.tolist() == list(opens)


def test_a_full_window_up_to_the_present_still_shows_the_forming_bar(big, connect):
    client = connect(big)
    series, opens = client.series(SYMBOL), span_of(big.bars)[-1000:]
    big.script("kline", [FAULTS["stale_forming"]] * 2)
    assert_rows(list(client.pages(series, [opens])), big.bars.iloc[-1000:])


def test_closed_klines_are_those_since_a_moment(big, connect):
    client = connect(big)
    series = client.series(SYMBOL)
    found = client.closed_klines(series, ms(big.bars.index[-5]) - 1)
    assert found.stamps.tolist() == list(span_of(big.bars)[-5:])
    np.testing.assert_array_equal(found.values, big.bars.to_numpy()[-5:])
    assert len(client.closed_klines(series, span_of(big.bars).stop)) == 0


def test_a_stalled_answer_is_asked_for_again(big, connect):
    client = connect(big, timeout=0.3)
    big.script("kline", [None, *SLOW_FAULTS.values()])
    pages = list(client.pages(client.series(SYMBOL), windows(span_of(big.bars), 1000)))
    assert_rows(pages, big.bars)


def test_nobody_asks_after_the_policys_attempts(big, connect, retry):
    client = connect(big, retry=dataclasses.replace(retry, attempts=2), in_flight=1)
    series = client.series(SYMBOL)
    big.script("kline", [FAULTS["http_502"]] * 100)
    with pytest.raises(TransientFeedError, match="asked 2 times"):
        list(client.pages(series, windows(span_of(big.bars), 1000)))
    assert big.count("kline") == 2


def test_cookies_are_not_kept(big, connect):
    client = connect(big)
    reply = big.reply

    def with_cookie(*request):
        good = reply(*request)
        return dataclasses.replace(good, headers=(("Set-Cookie", "ak=1; Path=/"),))

    big.reply = with_cookie
    client.fetch_ohlcv(SYMBOL, "1h", "2024-01-01")
    assert not list(client._link._exchange.session.cookies)
