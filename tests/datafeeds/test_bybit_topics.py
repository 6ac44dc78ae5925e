import pytest

from datafeeds.bybit_markets import Market
from datafeeds.bybit_time import timeframe_of
from datafeeds.bybit_topics import (
    LiveBar,
    confirmed_bars,
    kline_topic,
    message_ms,
    stream_address,
)
from glow_bt.errors import ConfigError

BTC = Market("BTC/USDT:USDT", "BTCUSDT", "linear")
INVERSE = Market("BTC/USD:BTC", "BTCUSD", "inverse")
FIVE_MINUTES = timeframe_of("5m")
START = 1672324800000
END = START + 300_000


def message(ts=END, **cells):
    row = {
        "start": START, "end": END - 1, "interval": "5", "open": "16649.5", "close": "16677",
        "high": "16677", "low": "16608", "volume": "2.081", "turnover": "34666.4005",
        "confirm": True, "timestamp": END - 50,
    }  # fmt: skip
    return {"topic": "kline.5.BTCUSDT", "data": [row | cells], "ts": ts, "type": "snapshot"}


def read(found, market=BTC):
    return list(confirmed_bars(found, market, FIVE_MINUTES))


def test_a_confirmed_bar_is_read():
    assert read(message()) == [LiveBar(START, (16649.5, 16677.0, 16608.0, 16677.0, 2.081))]


def test_volume_of_inverse_contracts_is_the_turnover():
    assert read(message(), INVERSE)[0].values[-1] == 34666.4005


@pytest.mark.parametrize("confirm", [False, None, "true", 1])
def test_a_forming_bar_is_none(confirm):
    assert read(message(confirm=confirm)) == []


def test_a_bar_that_is_confirmed_before_its_close_is_none():
    assert read(message(ts=END - 1)) == []


@pytest.mark.parametrize(
    "damage",
    [
        {"open": "NaN"}, {"high": "1"}, {"low": None}, {"volume": "-1"}, {"close": "abc"},
        {"start": START + 1}, {"start": str(START)}, {"start": None}, {"turnover": "Infinity"},
    ],
)  # fmt: skip
def test_damaged_bars_are_left_out(damage):
    assert read(message(**damage), INVERSE if "turnover" in damage else BTC) == []


@pytest.mark.parametrize("data", [None, [], {}, "x", [None], [[]], [7]])
def test_damaged_messages_hold_nothing(data):
    assert read(message() | {"data": data}) == []
    assert read({"data": data}) == []


@pytest.mark.parametrize("ts", [None, "1672325100000", True, 1.5, 10**400, -(10**400)])
def test_messages_without_a_stamp_hold_nothing(ts):
    assert message_ms(message(ts=ts)) is None
    assert read(message(ts=ts)) == []


def test_topics_and_addresses_are_bybits():
    assert kline_topic(BTC, timeframe_of("1h")) == "kline.60.BTCUSDT"
    assert stream_address(None, "spot") == "wss://stream.bybit.com/v5/public/spot"
    assert stream_address("ws://127.0.0.1:80/", "linear") == "ws://127.0.0.1:80/v5/public/linear"
    assert stream_address("wss://host/some/path", "linear") == "wss://host/some/path"


@pytest.mark.parametrize("url", ["", "http://x", "ws://", "host", "ws://h:99999", 7])
def test_other_addresses_are_refused(url):
    with pytest.raises(ConfigError, match="expected stream_url as ws://host or wss://host"):
        stream_address(url, "linear")
