import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from glow_bt.bt.feed import ArrayFeed
from glow_bt.errors import ConfigError, DataError
from tests.bt.market import random_bars

NAMES = ["open", "high", "low", "close", "volume", "openinterest", "funding_rate"]


class Reader(bt.Strategy):
    def __init__(self):
        self.rows = []

    def next(self):
        lines = [getattr(self.data.lines, name)[0] for name in NAMES]
        self.rows.append((self.data.datetime.datetime(), *lines))


def read(*feeds, **kwargs):
    cerebro = bt.Cerebro(stdstats=False, **kwargs)
    for feed in feeds:
        cerebro.adddata(feed)
    cerebro.addstrategy(Reader)
    frame = pd.DataFrame(cerebro.run()[0].rows, columns=["timestamp", *NAMES])
    return frame.set_index("timestamp").tz_localize("UTC")


@pytest.mark.parametrize("preload", [True, False])
def test_every_value_arrives_unchanged(preload):
    bars = random_bars(50).assign(funding_rate=0.0001, open_interest=np.arange(50.0))
    seen = read(ArrayFeed(dataname=bars), preload=preload)
    expected = bars.rename(columns={"open_interest": "openinterest"})[NAMES]
    pd.testing.assert_frame_equal(seen, expected, check_freq=False, check_index_type=False)


def test_what_bars_do_not_have_is_told_apart():
    seen = read(ArrayFeed(dataname=random_bars(3)))
    assert seen["funding_rate"].isna().all()
    assert (seen["openinterest"] == 0.0).all()


@pytest.mark.parametrize(
    ("freq", "timeframe", "compression"),
    [
        ("30s", bt.TimeFrame.Seconds, 30),
        ("15min", bt.TimeFrame.Minutes, 15),
        ("4h", bt.TimeFrame.Minutes, 240),
        ("D", bt.TimeFrame.Days, 1),
        ("B", bt.TimeFrame.Days, 1),
        ("7D", bt.TimeFrame.Weeks, 1),
    ],
)
def test_timeframe_is_that_of_the_bars(freq, timeframe, compression):
    feed = ArrayFeed(dataname=random_bars(20, freq=freq))
    assert (feed._timeframe, feed._compression) == (timeframe, compression)


def test_a_given_timeframe_is_kept():
    feed = ArrayFeed(dataname=random_bars(1), timeframe=bt.TimeFrame.Minutes, compression=5)
    assert (feed._timeframe, feed._compression) == (bt.TimeFrame.Minutes, 5)
    assert ArrayFeed(dataname=random_bars(1))._timeframe == bt.TimeFrame.Days


def test_dates_limit_the_bars():
    bars = random_bars(100)
    feed = ArrayFeed(
        dataname=bars,
        fromdate=pd.Timestamp("2024-01-02").to_pydatetime(),
        todate=pd.Timestamp("2024-01-03 05:00").to_pydatetime(),
    )
    assert read(feed)["close"].tolist() == bars["close"].iloc[24:54].tolist()


def test_one_feed_serves_several_runs():
    feed = ArrayFeed(dataname=random_bars(30))
    pd.testing.assert_frame_equal(read(feed), read(feed))


def test_resampled_hours_are_what_pandas_makes_of_them():
    bars = random_bars(48)
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.resampledata(
        ArrayFeed(dataname=bars), timeframe=bt.TimeFrame.Minutes, compression=240, boundoff=60
    )
    cerebro.addstrategy(Reader)
    seen = pd.DataFrame(cerebro.run()[0].rows).set_index(0)
    expected = bars.resample("4h").agg(
        {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    )
    np.testing.assert_allclose(seen[[1, 2, 3, 4, 5]], expected, rtol=1e-15)


def test_bars_that_break_the_contract_are_refused():
    with pytest.raises(DataError, match="ascending order"):
        ArrayFeed(dataname=random_bars(5).iloc[::-1])


def test_anything_but_a_frame_is_refused():
    with pytest.raises(ConfigError, match="found str; read files with"):
        ArrayFeed(dataname="bars.csv")


def test_bars_closer_than_a_second_are_refused():
    with pytest.raises(ConfigError, match="whole seconds"):
        ArrayFeed(dataname=random_bars(5, freq="100ms"))
