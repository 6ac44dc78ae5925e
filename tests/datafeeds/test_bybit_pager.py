import dataclasses

import numpy as np
import pandas as pd
import pytest

from datafeeds.bybit_time import timeframe_of
from glow_bt.errors import FeedError, TransientFeedError
from glow_bt.ohlcv import find_gaps
from tests.datafeeds.bybit_faults import FAULTS, with_cell
from tests.datafeeds.random_bars import make_bars

SYMBOL = "BTC/USDT:USDT"
CHANGED = with_cell(5, "0.125")


def kline_queries(server):
    return [query for endpoint, query in server.requests if endpoint == "kline"]


def without(bars, *holes):
    return bars.drop(index=bars.index[np.r_[*holes]])


@pytest.fixture
def listed(serve):
    """Starts a server that holds the given bars and whose clock stands after the last."""

    def start(bars, timeframe="1h", **settings):
        half = pd.Timedelta(milliseconds=timeframe_of(timeframe).step_ms / 2)
        server = serve(now=(bars.index[-1] + 3 * half).tz_localize(None), **settings)
        server.add_bars("BTCUSDT", timeframe, bars)
        return server

    return start


@pytest.mark.parametrize("wide", ["latest", "earliest"])
@pytest.mark.parametrize("count", [1, 999, 1000, 1001, 3456])
def test_every_bar_comes_once_under_both_readings_of_a_wide_span(listed, connect, wide, count):
    bars = make_bars(count)
    server = listed(bars, wide=wide)
    found = connect(server).fetch_ohlcv(SYMBOL, "1h", bars.index[0])
    pd.testing.assert_frame_equal(found, bars)
    # No row is forming here: three answers make sure that there is none, three of the last bar.
    assert len(kline_queries(server)) <= -(-count // 1000) + 6


def test_requests_hold_both_ends_and_at_most_a_thousand_bars(listed, connect):
    server = listed(make_bars(2500))
    connect(server).fetch_ohlcv(SYMBOL, "1h", "2024-01-01", "2024-04-01")
    for query in kline_queries(server):
        assert int(query["limit"]) == 1000
        assert (int(query["end"]) - int(query["start"])) // 3_600_000 < 1000


@pytest.mark.parametrize("timeframe", ["1m", "15m", "4h", "1d", "1w"])
def test_timeframes(listed, connect, timeframe):
    frequency = {"1d": "D", "1w": "W-MON"}.get(timeframe, timeframe.replace("m", "min"))
    bars = make_bars(1100, frequency, "1999-01-04")
    server = listed(bars, timeframe)
    found = connect(server).fetch_ohlcv(SYMBOL, timeframe, bars.index[0])
    pd.testing.assert_frame_equal(found, bars)


@pytest.mark.parametrize("wide", ["latest", "earliest"])
@pytest.mark.parametrize("since", ["2023-12-31T23:00", "2023-11-20", "2015-01-01", "0001-01-01"])
def test_span_before_the_listing_is_served_from_the_first_bar(listed, connect, wide, since):
    bars = make_bars(1500)
    server = listed(bars, wide=wide)
    found = connect(server).fetch_ohlcv(SYMBOL, "1h", since, bars.index[-1])
    pd.testing.assert_frame_equal(found, bars.iloc[:-1])
    assert len(kline_queries(server)) <= 9


def test_long_closure_inside_the_span_is_crossed(listed, connect):
    bars = without(make_bars(9000), slice(1500, 7777))
    server = listed(bars)
    found = connect(server).fetch_ohlcv(SYMBOL, "1h", "2024-01-01")
    pd.testing.assert_frame_equal(found, bars)


def test_trading_that_ended_is_served_to_its_last_bar(listed, connect):
    bars = make_bars(1200)
    server = listed(bars)
    server.now = "2034-12-31"
    found = connect(server).fetch_ohlcv(SYMBOL, "1h", "2024-01-01")
    pd.testing.assert_frame_equal(found, bars)
    assert len(kline_queries(server)) <= 14  # of 88 windows up to the present


def test_exchange_that_is_behind_with_its_newest_bars_has_none_of_them(listed, connect):
    bars = make_bars(24)
    server = listed(bars)
    server.now = "2024-01-02T02:30"
    client = connect(server)
    pd.testing.assert_frame_equal(client.fetch_ohlcv(SYMBOL, "1h", "2024-01-01"), bars)
    with pytest.raises(FeedError, match="found none"):
        client.fetch_ohlcv(SYMBOL, "1h", "2024-01-02")


def test_holes_are_asked_for_three_times_more_then_left(listed, connect):
    bars = without(make_bars(2500), slice(40, 45), [1700])
    server = listed(bars)
    found = connect(server).fetch_ohlcv(SYMBOL, "1h", "2024-01-01")
    pd.testing.assert_frame_equal(found, bars)
    assert [gap.missing for gap in find_gaps(found)] == [5, 1]
    assert len(kline_queries(server)) <= 3 + 2 * 3 + 5  # three windows, and no row is forming


@pytest.mark.parametrize("name", ["short_page", "hole", "no_rows"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_rows_missing_from_one_answer_are_had_from_the_next(listed, connect, name, place):
    bars = make_bars(2500)
    server = listed(bars)
    server.script("kline", [None] * place + [FAULTS[name]])
    found = connect(server).fetch_ohlcv(SYMBOL, "1h", "2024-01-01")
    pd.testing.assert_frame_equal(found, bars)


def test_two_answers_that_miss_different_rows_complete_each_other(listed, connect):
    bars = make_bars(1001)
    server = listed(bars)
    server.now = "2024-03-01"
    server.script("kline", [FAULTS["short_page"], FAULTS["hole"]])
    found = connect(server).fetch_ohlcv(SYMBOL, "1h", "2024-01-01", bars.index[-1])
    pd.testing.assert_frame_equal(found, bars.iloc[:-1])
    assert len(kline_queries(server)) == 2


def test_empty_answers_that_the_next_bar_contradicts_are_not_believed(listed, connect):
    bars = make_bars(2500)
    server = listed(bars)
    server.script("kline", [None, FAULTS["no_rows"], FAULTS["no_rows"]])
    found = connect(server).fetch_ohlcv(SYMBOL, "1h", "2024-01-01")
    pd.testing.assert_frame_equal(found, bars)


def test_a_window_that_stays_empty_against_the_next_bar_is_an_error(listed, connect):
    server = listed(make_bars(2500))
    serve_kline = server._kline

    def kline(query):
        answer = serve_kline(query)
        second = pd.Timestamp("2024-01-01", tz="UTC") + pd.Timedelta(hours=1000)
        if query.get("start") == str(second.value // 1_000_000) and query["limit"] == "1000":
            answer["result"]["list"] = []
        return answer

    server._answers["kline"] = kline
    with pytest.raises(TransientFeedError, match="found none in 4 answers; fetch again"):
        connect(server).fetch_ohlcv(SYMBOL, "1h", "2024-01-01")


def test_answers_that_stay_in_contradiction_are_an_error(listed, connect):
    server = listed(without(make_bars(900), [10]))
    server.script("kline", [None] + [CHANGED] * 80)
    with pytest.raises(TransientFeedError, match="the same each time"):
        connect(server).fetch_ohlcv(SYMBOL, "1h", "2024-01-01", "2024-02-01")


def newest_row_for_a_start_alone(server):
    """Makes the server read a start alone as the opposite of what is documented."""
    serve_kline = server._kline

    def kline(query):
        if "start" in query and "end" not in query:
            query = {**query, "end": str(server.now_ms()), "limit": "2"}
            answer = serve_kline(query)
            answer["result"]["list"] = answer["result"]["list"][1:]
            return answer
        return serve_kline(query)

    server._answers["kline"] = kline


def test_nothing_is_skipped_where_a_start_alone_is_read_otherwise(listed, connect):
    bars = make_bars(4500)
    server = listed(bars)
    newest_row_for_a_start_alone(server)
    found = connect(server).fetch_ohlcv(SYMBOL, "1h", "2023-06-01")
    pd.testing.assert_frame_equal(found, bars)


def test_instrument_with_a_forming_bar_alone_has_no_bars(listed, connect):
    bars = make_bars(1)
    server = listed(bars)
    server.now = (bars.index[0] + pd.Timedelta(minutes=10)).tz_localize(None)
    with pytest.raises(FeedError, match="expected closed 1h bars of BTC/USDT:USDT"):
        connect(server).fetch_ohlcv(SYMBOL, "1h", "2023-06-01")


def test_window_is_given_up_within_the_policy(listed, connect, retry, clock):
    server = listed(make_bars(10))
    server.script("kline", [FAULTS["http_503"]] * 100)
    client = connect(server, retry=dataclasses.replace(retry, attempts=3))
    with pytest.raises(TransientFeedError, match=r"HTTP 503.*asked 3 times"):
        client.fetch_ohlcv(SYMBOL, "1h", "2024-01-01")
    assert len(kline_queries(server)) == 3
    assert len(clock.waits) == 2
