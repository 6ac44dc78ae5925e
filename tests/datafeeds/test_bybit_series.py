import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datafeeds.bybit_markets import Market
from datafeeds.bybit_series import grid_of, series_of
from datafeeds.bybit_time import TIMEFRAMES
from datafeeds.series import KINDS, SeriesKey
from glow_bt.errors import ConfigError, FeedError, SymbolError
from tests.datafeeds.bybit_faults import FAULTS
from tests.datafeeds.random_bars import make_bars

SYMBOL = "BTC/USDT:USDT"
MARKET = Market(SYMBOL, "BTCUSDT", "linear", 0)
HOUR = 3_600_000


def test_a_series_says_what_it_is():
    series = series_of(MARKET, "bars", "1w")
    assert series.key == SeriesKey("bybit", SYMBOL, "bars", "1w")
    assert (series.step_ms, series.offset_ms, series.limit) == (7 * 24 * HOUR, 96 * HOUR, 1000)
    assert series.kind is KINDS["bars"]
    assert pd.Timestamp(series.floor(1_700_000_000_000), unit="ms").day_name() == "Monday"
    assert series.ceil(series.floor(1_700_000_000_000)) == series.floor(1_700_000_000_000)


def test_funding_has_no_timeframe_and_a_grid_of_hours():
    series = series_of(MARKET, "funding_rate", "1h")
    assert series.key.timeframe == ""
    assert series.step_ms == HOUR
    # A window never fills an answer at eight hours between payments, wherever it begins.
    assert -(-series.limit // 8) < series.most


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("bars", {"interval": "60", "start": 1, "end": 2}),
        ("mark", {"interval": "60", "start": 1, "end": 2}),
        ("funding_rate", {"startTime": 1, "endTime": 2}),
        ("open_interest", {"intervalTime": "1h", "startTime": 1, "endTime": 2}),
    ],
)
def test_questions_have_the_names_of_their_endpoint(kind, params):
    question = series_of(MARKET, kind, "1h").question(9, 1, 2)
    assert question.params == {"category": "linear", "symbol": "BTCUSDT", "limit": 9, **params}


STAMPS = st.integers(-(10**12), 4 * 10**12)
SERIES = [series_of(MARKET, "bars", name) for name in TIMEFRAMES]
SERIES += [series_of(MARKET, "funding_rate", ""), series_of(MARKET, "open_interest", "5m")]


@given(
    st.sampled_from(SERIES),
    STAMPS,
    st.one_of(st.none(), STAMPS),
    st.integers(0, 50),
    st.integers(0, 10**9),
)
def test_what_is_closed_is_the_grid_in_the_span_as_far_as_it_can_be_had(
    series, since, until, steps, extra
):
    """Bars when they have closed; a funding rate at its stamp."""
    now = since + steps * series.step_ms + extra % series.step_ms
    needed = series.step_ms if series.kind.regular else 0
    expected = [
        stamp
        for stamp in range(series.ceil(since), now + 1, series.step_ms)
        if stamp + needed <= now and (until is None or stamp < until)
    ]
    assert list(series.closed(since, until, now)) == expected


def test_no_question_begins_before_1970():
    assert series_of(MARKET, "bars", "1h").question(9, -5).params["start"] == 0


@pytest.mark.parametrize(
    ("kind", "timeframe", "message"),
    [
        ("bars", "7m", "expected a timeframe among 1m, 3m"),
        ("mark", "2d", "expected a timeframe among 1m, 3m"),
        ("open_interest", "1m", "among 5m, 15m, 30m, 1h, 4h, 1d, found '1m'"),
        ("open_interest", "2h", "among 5m, 15m, 30m, 1h, 4h, 1d, found '2h'"),
        ("klines", "1h", "expected a kind among bars, mark"),
    ],
)
def test_what_bybit_lacks_is_refused_naming_what_it_has(hourly, connect, kind, timeframe, message):
    with pytest.raises(ConfigError, match=message):
        grid_of(kind, timeframe)
    with pytest.raises(ConfigError, match=message):
        connect(hourly).series(SYMBOL, kind, timeframe)
    assert hourly.requests == []


@pytest.mark.parametrize("kind", ["mark", "funding_rate", "open_interest"])
def test_spot_markets_have_bars_only(kind):
    with pytest.raises(ConfigError, match=f"expected a linear or inverse contract for {kind}"):
        series_of(Market("BTC/USDT", "BTCUSDT", "spot"), kind, "1h")


def test_unknown_symbol_of_a_series_offers_the_nearest(hourly, connect):
    with pytest.raises(SymbolError, match="did you mean BTC/USDT:USDT"):
        connect(hourly).series("BTC/USDT:USDTT")


@pytest.fixture
def perpetual(serve):
    """A server with the mark prices, funding rates and open interest of a perpetual."""
    server = serve(now="2024-06-01T00:20")
    marks = make_bars(3649, start="2024-01-01")
    server.add_instrument("BTCUSDT", listed=marks.index[0])
    server.add_mark("BTCUSDT", "1h", marks)
    rng = np.random.default_rng(3)
    # Every eight hours, then every hour, then every four.
    days = {
        8: ("2024-01-01", "2024-03-01"),
        1: ("2024-03-01", "2024-04-01"),
        4: ("2024-04-01", None),
    }
    stamps = [
        stamp
        for hours, (start, end) in days.items()
        for stamp in pd.date_range(start, end or "2024-06-01", freq=f"{hours}h", tz="UTC")
    ]
    stamps = pd.DatetimeIndex(sorted(set(stamps)), name="timestamp").as_unit("us")
    funding = pd.Series(rng.normal(0, 1e-4, len(stamps)).round(8), stamps)
    server.add_funding("BTCUSDT", funding)
    interest = pd.Series(rng.exponential(1e4, len(marks)).round(3), marks.index)
    server.add_open_interest("BTCUSDT", "1h", interest)
    server.truth = {
        "mark": marks.iloc[:-1, :4],
        "funding_rate": funding.to_frame("funding_rate"),
        "open_interest": interest.iloc[:-1].to_frame("open_interest"),
    }
    return server


ENDPOINTS = {
    "mark": "mark-price-kline",
    "funding_rate": "funding/history",
    "open_interest": "open-interest",
}


@pytest.mark.parametrize("kind", ENDPOINTS)
@pytest.mark.parametrize("since", ["2024-01-01", "2023-12-31T22:00", "2019-01-01"])
def test_histories_of_every_kind_are_complete(perpetual, connect, kind, since):
    client = connect(perpetual)
    found = client.fetch_series(client.series(SYMBOL, kind, "1h"), since)
    pd.testing.assert_frame_equal(found, perpetual.truth[kind], check_freq=False)
    # 19 windows of open interest; those of 2019 to 2023 are settled by a few questions.
    assert perpetual.count(ENDPOINTS[kind]) <= 45


@pytest.mark.parametrize("kind", ENDPOINTS)
@pytest.mark.parametrize(
    "name", ["short_page", "hole", "no_rows", "truncated", "duplicate_rows", "unordered_rows",
             "http_503", "null_list", "text_envelope", "reset_in_body"],
)  # fmt: skip
def test_faults_in_histories_of_every_kind_are_healed(perpetual, connect, kind, name):
    perpetual.script(ENDPOINTS[kind], [None, FAULTS[name], None, FAULTS[name]])
    client = connect(perpetual)
    # A rate of the present hour that an answer lacks may just not be published yet.
    until = "2024-06-01"
    found = client.fetch_series(client.series(SYMBOL, kind, "1h"), "2024-01-01", until)
    expected = perpetual.truth[kind]
    expected = expected[expected.index < pd.Timestamp(until, tz="UTC")]
    pd.testing.assert_frame_equal(found, expected, check_freq=False)


def test_a_rate_is_had_as_soon_as_it_is_paid(perpetual, connect):
    client = connect(perpetual)
    series = client.series(SYMBOL, "funding_rate")
    found = client.closed_klines(series, pd.Timestamp("2024-05-31", tz="UTC").value // 10**6)
    assert found.stamps[-1] == pd.Timestamp("2024-06-01").value // 10**6
    (page,) = client.pages(series, [range(int(found.stamps[0]), perpetual.now_ms(), HOUR)])
    assert page.window.stop == found.stamps[-1] + HOUR
    assert page.stamps.tolist() == found.stamps.tolist()


def test_hours_without_a_payment_yet_are_not_settled(perpetual, connect):
    perpetual.now = "2024-05-31T22:00:10"
    client = connect(perpetual)
    series = client.series(SYMBOL, "funding_rate")
    start = pd.Timestamp("2024-05-31", tz="UTC").value // 10**6
    (page,) = client.pages(series, [range(start, start + 24 * HOUR, HOUR)])
    # That of 21:00 could have come until now, that of 22:00 may still come.
    assert page.window.stop == start + 21 * HOUR


def test_a_history_that_begins_after_the_listing_costs_few_questions(serve, connect):
    server = serve(now="2024-01-01T00:20")
    interest = pd.Series(1.5, pd.date_range("2023-11-01", "2024-01-01", freq="h", tz="UTC"))
    server.add_instrument("BTCUSDT", listed=pd.Timestamp("2020-01-01", tz="UTC"))
    server.add_open_interest("BTCUSDT", "1h", interest)
    client = connect(server)
    found = client.fetch_series(client.series(SYMBOL, "open_interest", "1h"), "2020-01-01")
    assert len(found) == 61 * 24
    assert server.count("open-interest") <= 60  # of 176 windows


def test_no_value_of_a_kind_says_so(perpetual, connect):
    client = connect(perpetual)
    series = client.series(SYMBOL, "funding_rate")
    with pytest.raises(
        FeedError, match=r"expected values of funding_rate .* it was listed on 2024"
    ):
        client.fetch_series(series, "2020-01-01", "2021-01-01")
