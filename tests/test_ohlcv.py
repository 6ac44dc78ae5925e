import gzip

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glow_bt.errors import DataError, TooFewBarsError
from glow_bt.ohlcv import (
    Gap,
    bar_interval,
    bars_sha256,
    fill_gaps,
    find_gaps,
    periods_per_year,
    read_bars,
    validate_bars,
    write_bars,
)


def make_bars(count=48, freq="h", start="2024-01-01", seed=0):
    rng = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(0.01 * rng.standard_normal(count)))
    open_ = np.roll(close, 1)
    index = pd.date_range(start, periods=count, freq=freq, tz="UTC", name="timestamp")
    return pd.DataFrame(
        {
            "open": open_,
            "high": np.maximum(open_, close) * 1.001,
            "low": np.minimum(open_, close) * 0.999,
            "close": close,
            "volume": rng.lognormal(size=count),
        },
        index=index,
    )


class TestValidate:
    def test_canonical_form(self):
        bars = make_bars()
        shuffled = bars[["volume", "close", "low", "high", "open"]].astype({"volume": "float32"})
        valid = validate_bars(shuffled)
        assert list(valid.columns) == ["open", "high", "low", "close", "volume"]
        assert valid.index.name == "timestamp"
        assert str(valid.index.tz) == "UTC"
        assert (valid.dtypes == np.float64).all()
        assert shuffled.columns[0] == "volume", "the caller's frame is left alone"

    def test_is_idempotent(self):
        once = validate_bars(make_bars())
        pd.testing.assert_frame_equal(validate_bars(once), once)

    def test_optional_columns_come_last_and_may_be_empty(self):
        bars = make_bars().assign(open_interest=5.0, funding_rate=np.nan)
        valid = validate_bars(bars)
        assert list(valid.columns)[-2:] == ["funding_rate", "open_interest"]
        with pytest.raises(DataError, match="open_interest finite or empty"):
            validate_bars(bars.assign(open_interest=np.inf))

    def test_naive_stamps_are_utc_and_others_are_converted(self):
        bars = make_bars()
        naive = validate_bars(bars.tz_localize(None))
        tokyo = validate_bars(bars.tz_convert("Asia/Tokyo"))
        pd.testing.assert_frame_equal(naive, tokyo, check_freq=False)
        assert naive.index[0] == pd.Timestamp("2024-01-01", tz="UTC")

    @pytest.mark.parametrize(
        ("unit", "dtype"), [("s", "int64"), ("ms", "int64"), ("us", "int64"), ("ns", "Int64")]
    )
    def test_integer_epochs(self, unit, dtype):
        bars = make_bars()
        stamps = pd.array(bars.index.as_unit(unit).asi8, dtype=dtype)
        valid = validate_bars(bars.reset_index(drop=True).assign(timestamp=stamps))
        assert (valid.index == bars.index).all()
        index = pd.Index(stamps, name="timestamp")
        assert (validate_bars(bars.set_axis(index)).index == bars.index).all()

    def test_no_bars_are_valid(self):
        assert validate_bars(make_bars().iloc[:0]).empty
        assert validate_bars(make_bars().iloc[:0].reset_index()).empty

    def test_present(self):
        bars = make_bars()
        last = bars.index[-1]
        assert len(validate_bars(bars, now=last)) == len(bars)
        for now in (last - pd.Timedelta("1s"), (last - pd.Timedelta("1s")).tz_localize(None)):
            with pytest.raises(DataError, match=r"1 stamps in the future.*check the clock"):
                validate_bars(bars, now=now)
        with pytest.raises(DataError, match="in the future"):
            validate_bars(make_bars(start="2200-01-01"))

    def test_stamps_too_late_for_nanoseconds_are_refused_whatever_the_present(self):
        index = pd.date_range("3000-01-01", periods=48, tz="UTC", unit="s")
        with pytest.raises(DataError, match="found 3000-01-01"):
            validate_bars(make_bars().set_axis(index), now=pd.Timestamp("3500-01-01"))


def with_value(column, value, row=3):
    bars = make_bars()
    bars.iloc[row, bars.columns.get_loc(column)] = value
    return bars


def with_stamps(change):
    bars = make_bars()
    return bars.set_axis(change(bars.index))


REFUSED = {
    "missing column": (make_bars().drop(columns=["high", "volume"]), "found no high, volume"),
    "unknown column": (make_bars().assign(vwap=1.0), "unknown column vwap; drop or rename"),
    "repeated column": (
        pd.concat([make_bars(), make_bars()[["close"]]], axis=1),
        "each column once, found close again",
    ),
    "no stamps": (make_bars().reset_index(drop=True), "name the column of bar opens 'timestamp'"),
    "text": (with_value("close", 1.0).astype({"close": object}).replace(1.0, "abc"), "found text"),
    "NaN price": (
        with_value("low", np.nan),
        r"finite values, found 1 bars.*first at 2024-01-01 03",
    ),
    "infinite volume": (with_value("volume", np.inf), "finite values"),
    "zero price": (with_value("low", 0.0), "positive prices"),
    "negative volume": (with_value("volume", -1.0), "volume of zero or more"),
    "high below low": (with_value("high", 1.0), "high at or above low"),
    "close above high": (with_value("close", 1e6), "open and close between low and high"),
    "open below low": (with_value("open", 1e-6), "open and close between low and high"),
    "duplicate stamp": (
        with_stamps(lambda index: index.where(np.arange(len(index)) != 4, index[3])),
        "1 duplicate stamps, first 2024-01-01 03:00",
    ),
    "unordered stamps": (with_stamps(lambda index: index[::-1]), "sort the bars by timestamp"),
    "empty stamp": (
        with_stamps(lambda index: index.where(np.arange(len(index)) != 4)),
        "a stamp in every row",
    ),
    "empty integer stamp": (
        with_stamps(lambda index: pd.Index([None, *range(47)], dtype="Int64", name="timestamp")),
        "a stamp is empty",
    ),
    "fractional epoch": (
        with_stamps(lambda index: pd.Index(np.arange(48) + 0.5, name="timestamp")),
        "whole-numbered epoch",
    ),
    "stamp in words": (
        with_stamps(lambda index: pd.Index(["yesterday"] * 48, name="timestamp")),
        "ISO 8601",
    ),
    "stamps too early for nanoseconds": (
        make_bars().set_axis(pd.date_range("1500-01-01", periods=48, tz="UTC", unit="s")),
        "years 1678 to 2261, found 1500-01-01",
    ),
    "text stamps too early for nanoseconds": (
        with_stamps(
            lambda index: pd.Index([f"15{i:02}-01-01" for i in range(48)], name="timestamp")
        ),
        "expected stamps",
    ),
    "stamp outside all time": (
        with_stamps(lambda index: pd.Index(["9999999-01-01"] * 48, name="timestamp")),
        "ISO 8601",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_validate_refuses(case):
    bars, message = REFUSED[case]
    with pytest.raises(DataError, match=message):
        validate_bars(bars)


class TestInterval:
    @pytest.mark.parametrize("interval", ["1min", "5min", "1h", "4h", "1D"])
    def test_regular(self, interval):
        assert bar_interval(make_bars(freq=interval)) == pd.Timedelta(interval)

    def test_holes_do_not_count(self):
        assert bar_interval(make_bars(48).iloc[[0, 1, 2, 10, 11, 12, 40]]) == pd.Timedelta("1h")

    def test_one_bar_has_none(self):
        with pytest.raises(TooFewBarsError, match="at least 2 bars, found 1; give 1 more"):
            bar_interval(make_bars(1))


class TestPeriodsPerYear:
    @pytest.mark.parametrize(
        ("freq", "periods"), [("D", 365.0), ("h", 8760.0), ("15min", 35040.0), ("7D", 365 / 7)]
    )
    def test_round_the_clock(self, freq, periods):
        assert periods_per_year(make_bars(800, freq)) == pytest.approx(periods)

    def test_sessions(self):
        assert periods_per_year(make_bars(500, "B")) == 252.0

    def test_hours_of_sessions(self):
        bars = make_bars(24 * 30, "h")
        session = bars[
            (bars.index.hour >= 14) & (bars.index.hour < 21) & (bars.index.day_of_week < 5)
        ]
        assert periods_per_year(session) == pytest.approx(252 * 7)

    def test_weekdays_before_any_weekend_are_no_sessions(self):
        assert periods_per_year(make_bars(5, "D", start="2024-01-01")) == 365.0


class TestGaps:
    def test_none(self):
        assert find_gaps(make_bars()) == []
        assert find_gaps(make_bars(1)) == []

    def test_round_the_clock(self):
        bars = make_bars()
        holed = bars.drop(bars.index[[5, 6, 7, 20]])
        index = bars.index
        assert find_gaps(holed) == [Gap(index[4], index[8], 3), Gap(index[19], index[21], 1)]

    def test_weekends_and_holidays_of_sessions_are_none(self):
        bars = make_bars(100, "B")
        assert find_gaps(bars.drop(bars.index[[9, 10]])) == []

    def test_missing_sessions_count_weekdays(self):
        bars = make_bars(100, "B")
        hole = slice(10, 20)
        holed = bars.drop(bars.index[hole])
        assert find_gaps(holed) == [Gap(bars.index[9], bars.index[20], 10)]


class TestFillGaps:
    def test_fills_with_what_was_known(self):
        bars = validate_bars(make_bars().assign(funding_rate=np.arange(48.0)))
        holed = bars.drop(bars.index[[5, 6]])
        filled = fill_gaps(holed)
        assert (filled.index == bars.index).all()
        pd.testing.assert_frame_equal(filled.loc[holed.index], holed, check_freq=False)
        for row in (5, 6):
            expected = [bars["close"].iloc[4]] * 4 + [0.0, 4.0]
            assert filled.iloc[row].tolist() == expected
        assert find_gaps(filled) == []
        validate_bars(filled)

    @settings(max_examples=30, deadline=None)
    @given(st.sets(st.integers(1, 46), max_size=30))
    def test_any_hole(self, rows):
        bars = make_bars()
        holed = bars.drop(bars.index[sorted(rows)])
        # The interval is the most frequent step: it is the hour as long as hours prevail.
        if bar_interval(holed) == pd.Timedelta("1h"):
            assert sum(gap.missing for gap in find_gaps(holed)) == len(rows)
            assert (fill_gaps(holed).index == bars.index).all()

    def test_single_bar(self):
        bars = make_bars(1)
        filled = fill_gaps(bars)
        pd.testing.assert_frame_equal(filled, bars)
        assert filled is not bars

    def test_refuses_sessions(self):
        with pytest.raises(DataError, match="holes of such a market are not filled"):
            fill_gaps(make_bars(100, "B"))

    def test_refuses_bars_off_the_grid(self):
        late = make_bars()
        late.index = late.index.where(np.arange(48) != 7, late.index[7] + pd.Timedelta("5min"))
        with pytest.raises(DataError, match="off that grid"):
            fill_gaps(late)


class TestHash:
    def test_knows_every_bit_and_no_unit(self):
        bars = make_bars()
        same = bars.set_axis(bars.index.as_unit("ns"))
        assert bars_sha256(bars) == bars_sha256(same)
        nudged = bars.copy()
        nudged.iloc[7, 3] = np.nextafter(nudged.iloc[7, 3], np.inf)
        moved = bars.set_axis(bars.index + pd.Timedelta("1us"))
        renamed = bars.rename(columns={"open": "high", "high": "open"})
        hashes = {bars_sha256(frame) for frame in (bars, nudged, moved, renamed, bars[:-1])}
        assert len(hashes) == 5


class TestFiles:
    @pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet"])
    def test_round_trip_to_the_bit(self, tmp_path, ending):
        rng = np.random.default_rng(1)
        scale = np.exp(rng.uniform(-20, 20, 2000))
        bars = make_bars(2000)
        bars = validate_bars(bars.mul(scale, axis=0).assign(funding_rate=rng.normal(size=2000)))
        file = tmp_path / "deep" / "folder" / f"bars.{ending}"
        write_bars(bars, file)
        again = read_bars(file)
        pd.testing.assert_frame_equal(again, bars, check_exact=True, check_freq=False)
        assert bars_sha256(again) == bars_sha256(bars)
        assert list(file.parent.iterdir()) == [file], "no temporary file is left"

    def test_a_failed_write_leaves_the_old_file(self, tmp_path, monkeypatch):
        file = tmp_path / "bars.csv"
        write_bars(make_bars(), file)
        before = file.read_bytes()

        def full_disk(self, path, **_):
            path.write_text("half a fi")
            raise OSError("No space left on device")

        monkeypatch.setattr(pd.DataFrame, "to_csv", full_disk)
        with pytest.raises(OSError, match="No space"):
            write_bars(make_bars(10), file)
        assert file.read_bytes() == before
        assert list(tmp_path.iterdir()) == [file]

    def test_missing_file(self, tmp_path):
        with pytest.raises(DataError, match=r"found no file .*nowhere\.csv"):
            read_bars(tmp_path / "nowhere.csv")

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("empty.csv", b""),
            ("binary.csv", b"\xff\xfe\x00\x81"),
            ("html.csv", b"<html><body>502 Bad Gateway</body></html>"),
            ("cut.csv.gz", gzip.compress(b"timestamp,open\n" * 100, mtime=0)[:30]),
            ("not.csv.gz", b"timestamp,open,high,low,close,volume\n"),
            ("flipped.csv.gz", gzip.compress(b"timestamp,open" * 9, mtime=0)[:20] + b"\x00" * 40),
            ("not.parquet", b"PAR1 not at all"),
        ],
    )
    def test_unreadable_file(self, tmp_path, name, content):
        file = tmp_path / name
        file.write_bytes(content)
        with pytest.raises(DataError, match=name):
            read_bars(file)

    def test_a_file_cut_in_the_middle_of_a_line(self, tmp_path):
        file = tmp_path / "bars.csv"
        write_bars(make_bars(), file)
        lines = file.read_text().splitlines()
        file.write_text("\n".join(lines[:-1]) + "\n" + lines[-1].rsplit(",", 2)[0])
        with pytest.raises(DataError, match=r"bars\.csv: expected finite values"):
            read_bars(file)
