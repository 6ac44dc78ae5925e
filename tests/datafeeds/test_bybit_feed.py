import datetime as dt

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from datafeeds.bybit_feed import BybitData
from glow_bt.errors import ConfigError, DataError
from glow_bt.ohlcv import write_bars
from tests.datafeeds.random_bars import make_bars

COLUMNS = ["open", "high", "low", "close", "volume"]


class Recorder(bt.Strategy):
    """Keeps what each bar of the last feed shows when it is shown."""

    def __init__(self):
        self.rows = []
        self.stamps = []
        self.seen_at = []

    def next(self):
        data = self.datas[-1]
        stamp = data.datetime.datetime(0)
        if not self.stamps or stamp != self.stamps[-1]:
            self.stamps.append(stamp)
            self.seen_at.append(self.datas[0].datetime.datetime(0))
            self.rows.append([getattr(data, name)[0] for name in self.columns(data)])

    @staticmethod
    def columns(data):
        more = [name for name in ("funding_rate", "open_interest") if hasattr(data.lines, name)]
        return COLUMNS + more


def run(*feeds, analyzers=(), resample=None, **modes):
    cerebro = bt.Cerebro(stdstats=False, **modes)
    cerebro.addstrategy(Recorder)
    for feed in feeds:
        cerebro.adddata(feed)
    if resample:
        cerebro.resampledata(feeds[0], **resample)
    for analyzer, settings in analyzers:
        cerebro.addanalyzer(analyzer, **settings)
    [strategy] = cerebro.run()
    return strategy


def assert_shows(strategy, bars, columns=COLUMNS):
    assert strategy.stamps == list(bars.index.tz_localize(None).to_pydatetime())
    width = len(columns)
    np.testing.assert_array_equal(np.array(strategy.rows)[:, :width], bars[columns].to_numpy())


@pytest.mark.parametrize("preload", [True, False])
@pytest.mark.parametrize("runonce", [True, False])
@pytest.mark.parametrize("exactbars", [False, True, -1, -2])
def test_every_bar_is_shown_exactly_in_every_mode(preload, runonce, exactbars):
    bars = make_bars(100).assign(funding_rate=np.arange(100.0), open_interest=np.nan)
    bars.iloc[40:, -1] = 12.5
    strategy = run(BybitData(dataname=bars), preload=preload, runonce=runonce, exactbars=exactbars)
    assert_shows(strategy, bars, [*COLUMNS, "funding_rate", "open_interest"])


@pytest.mark.parametrize("freq", ["min", "7min", "h", "4h", "D", "W-MON"])
def test_stamps_are_exact(freq):
    bars = make_bars(3000, freq, "1960-01-04")
    assert_shows(run(BybitData(dataname=bars)), bars)


def test_it_shows_what_backtraders_own_feed_shows():
    bars = make_bars(200)
    ours = run(BybitData(dataname=bars))
    theirs = run(bt.feeds.PandasData(dataname=bars))
    assert ours.stamps == theirs.stamps
    np.testing.assert_array_equal(np.array(ours.rows)[:, :5], theirs.rows)


def test_lines_that_the_bars_lack_are_nan():
    strategy = run(BybitData(dataname=make_bars(5)))
    assert np.isnan(np.array(strategy.rows)[:, 5:]).all()
    assert strategy.data.openinterest[0] == 0.0


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet"])
@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_files(tmp_path, ending, kind):
    bars = make_bars(50).assign(funding_rate=0.0001)
    path = tmp_path / f"btc.{ending}"
    write_bars(bars, path)
    feed = BybitData(dataname=kind(path))
    assert_shows(run(feed), bars, [*COLUMNS, "funding_rate"])
    assert feed._name == "btc"


def test_name_can_be_given(tmp_path):
    write_bars(make_bars(5), tmp_path / "x.csv")
    assert BybitData(dataname=tmp_path / "x.csv", name="BTC")._name == "BTC"


@pytest.mark.parametrize(
    ("span", "chosen"),
    [
        ({"fromdate": dt.datetime(2024, 1, 1, 5)}, slice(5, None)),  # noqa: DTZ001
        ({"todate": dt.datetime(2024, 1, 1, 5)}, slice(6)),  # noqa: DTZ001
        ({"fromdate": dt.date(2024, 1, 2), "todate": dt.date(2024, 1, 2)}, slice(24, 48)),
        ({"fromdate": pd.Timestamp("2024-01-02T03:00", tz="Asia/Tokyo")}, slice(18, None)),
    ],
)
@pytest.mark.parametrize("preload", [True, False])
def test_dates_are_honoured_and_included(span, chosen, preload):
    bars = make_bars(100)
    assert_shows(run(BybitData(dataname=bars, **span), preload=preload), bars.iloc[chosen])


def test_zone_for_display():
    bars = make_bars(100)
    feed = BybitData(dataname=bars, tz="Asia/Kolkata", fromdate=dt.datetime(2024, 1, 2, 8))  # noqa: DTZ001
    local = bars.tz_convert("Asia/Kolkata")
    assert_shows(run(feed), local[local.index >= "2024-01-02T08:00"])


@pytest.mark.parametrize(
    ("freq", "timeframe", "compression"),
    [
        ("min", bt.TimeFrame.Minutes, 1),
        ("h", bt.TimeFrame.Minutes, 60),
        ("4h", bt.TimeFrame.Minutes, 240),
        ("D", bt.TimeFrame.Days, 1),
        ("W-MON", bt.TimeFrame.Weeks, 1),
    ],
)
def test_timeframe_is_that_of_the_bars(freq, timeframe, compression):
    feed = BybitData(dataname=make_bars(30, freq))
    assert (feed._timeframe, feed._compression) == (timeframe, compression)


def test_analyzers_count_in_the_unit_of_the_bars():
    bars = make_bars(72)
    timereturn = (bt.analyzers.TimeReturn, {"timeframe": bt.TimeFrame.Days, "data": None})
    feed = BybitData(dataname=bars)
    strategy = run(feed, analyzers=[(bt.analyzers.TimeReturn, {"_name": "own"}), timereturn])
    assert len(strategy.analyzers.own.get_analysis()) == 72
    assert len(strategy.analyzers.timereturn.get_analysis()) == 3


# Not exactbars=True: Backtrader drops the bar that it looks at when a feed has ended.
@pytest.mark.parametrize("modes", [{}, {"runonce": False}, {"exactbars": -2}])
def test_several_feeds_of_different_lengths(modes):
    long, short = make_bars(100, seed=1), make_bars(100, seed=2).iloc[30:70]
    strategy = run(BybitData(dataname=long), BybitData(dataname=short), **modes)
    assert_shows(strategy, short)
    assert strategy.seen_at == strategy.stamps


def resampled(bars, rule):
    how = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    return bars.resample(rule).agg(how)


def test_resampling_with_boundoff_is_exact_and_in_time():
    bars = make_bars(24 * 20)
    settings = {"timeframe": bt.TimeFrame.Minutes, "compression": 240, "boundoff": 60}
    strategy = run(BybitData(dataname=bars), resample=settings)
    expected = resampled(bars, "4h").iloc[: len(strategy.rows)]
    np.testing.assert_allclose(np.array(strategy.rows), expected.to_numpy(), rtol=1e-12)
    assert len(strategy.rows) == 20 * 6
    # Shown at the bar that opens in its last hour, which is when it is complete.
    last_hours = (expected.index + pd.Timedelta(hours=3)).tz_localize(None)
    assert strategy.seen_at == list(last_hours.to_pydatetime())


def test_days_of_hours_need_no_boundoff_and_come_one_bar_late():
    bars = make_bars(24 * 20)
    strategy = run(BybitData(dataname=bars), resample={"timeframe": bt.TimeFrame.Days})
    expected = resampled(bars, "D").iloc[: len(strategy.rows)]
    np.testing.assert_allclose(np.array(strategy.rows), expected.to_numpy(), rtol=1e-12)
    next_days = (expected.index[:-1] + pd.Timedelta(days=1)).tz_localize(None)
    assert strategy.seen_at[: len(next_days)] == list(next_days.to_pydatetime())


def test_unknown_parameter_is_refused():
    with pytest.raises(ConfigError, match="dataname_"):
        BybitData(dataname=make_bars(5), dataname_=1)


@pytest.mark.parametrize("source", [None, 7, [1.0]])
def test_other_sources_are_refused(source):
    with pytest.raises(ConfigError, match="expected dataname="):
        BybitData(dataname=source)


def test_bad_bars_are_refused():
    with pytest.raises(DataError, match="ascending order"):
        BybitData(dataname=make_bars(10).iloc[::-1])
    with pytest.raises(DataError, match="found no file nowhere"):
        BybitData(dataname="nowhere.csv")
