import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datafeeds.bybit_time import TIMEFRAMES
from datafeeds.ohlcv_store import OhlcvStore
from datafeeds.series import FUNDING_STEP_MS, Page, SeriesKey
from glow_bt.errors import ConfigError, DamagedPartError, DataError, StoreError
from glow_bt.ohlcv import read_bars
from tests.datafeeds.random_bars import make_bars

KEY = ("bybit", "BTC/USDT:USDT", "1h")
SERIES = SeriesKey("bybit", "BTC/USDT:USDT", "bars", "1h")
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@pytest.fixture
def store(tmp_path):
    return OhlcvStore(tmp_path / "store")


def file_of(store):
    [path] = store.root.rglob("*.parquet")
    return path


def step_of(timeframe):
    return pd.Timedelta(milliseconds=TIMEFRAMES[timeframe].step_ms)


def test_bars_come_back_to_the_bit(store):
    bars = make_bars(500).assign(funding_rate=0.0001, open_interest=np.nan)
    assert store.write(*KEY, bars) == 500
    pd.testing.assert_frame_equal(store.read(*KEY), bars)


def test_file_lies_where_the_documentation_says(store):
    store.write(*KEY, make_bars(3))
    folder = store.root / "bybit" / "BTC%2FUSDT%3AUSDT" / "bars-1h"
    names = sorted(path.name for path in folder.iterdir())
    assert names == [".lock", "20210503T000000Z.parquet", "series.json"]


def test_parts_are_bar_files_like_any_other(store):
    store.write(*KEY, make_bars(20))
    pd.testing.assert_frame_equal(read_bars(file_of(store)), make_bars(20))


def test_a_history_without_a_timeframe_has_its_kind_for_a_name(store):
    key = SeriesKey("bybit", "BTC/USDT:USDT", "funding_rate", "")
    stamps = np.array([28_800_000, 57_600_000])
    with store.writer(key, FUNDING_STEP_MS) as writer:
        window = range(0, 86_400_000, FUNDING_STEP_MS)
        writer.add(Page(window, stamps, np.array([[0.0001], [-0.0002]])))
    assert file_of(store).parent.name == "funding_rate"
    assert store.list() == (key,)
    rates = store.read("bybit", "BTC/USDT:USDT", "", kind="funding_rate")
    assert list(rates.columns) == ["funding_rate"]
    assert rates.index.name == "timestamp"
    assert rates.index.dtype == make_bars(1).index.dtype
    assert rates["funding_rate"].tolist() == [0.0001, -0.0002]
    assert store.lacking(key) == ()


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 30)), min_size=1, max_size=6))
def test_any_order_of_writes_gives_the_union(tmp_path_factory, spans):
    store = OhlcvStore(tmp_path_factory.mktemp("store"))
    bars = make_bars(100)
    stored = np.zeros(100, dtype=bool)
    for start, count in spans:
        added = store.write(*KEY, bars.iloc[start : start + count])
        before = stored.sum()
        stored[start : start + count] = True
        assert added == stored.sum() - before
        pd.testing.assert_frame_equal(store.read(*KEY), bars[stored])
        assert store.span(*KEY) == (bars.index[stored][0], bars.index[stored][-1])


@pytest.mark.parametrize("column", ["open", "close", "volume", "funding_rate"])
def test_overlap_that_differs_is_refused_and_nothing_changes(store, column):
    bars = make_bars(50).assign(funding_rate=0.0001)
    store.write(*KEY, bars.iloc[:30])
    before = file_of(store).read_bytes()
    other = bars.iloc[20:].copy()
    # Within high and low, so that the bars are sound in themselves.
    changed = other.index[[3, 7]]
    other.loc[changed, column] = other.loc[changed, "low"] + 0.001
    with pytest.raises(
        DataError, match=r"found 2 that differ, first at 2024-01-01 23:00.*stored open="
    ):
        store.write(*KEY, other)
    assert file_of(store).read_bytes() == before


def test_missing_values_agree_with_missing_values_only(store):
    bars = make_bars(10).assign(open_interest=[np.nan] * 5 + [7.0] * 5)
    store.write(*KEY, bars)
    assert store.write(*KEY, bars) == 0
    with pytest.raises(DataError, match="first at 2024-01-01 00:00:00"):
        store.write(*KEY, bars.fillna(1.0))


def test_other_columns_are_refused(store):
    store.write(*KEY, make_bars(10))
    with pytest.raises(
        DataError, match="expected columns open, high, low, close, volume as stored"
    ):
        store.write(*KEY, make_bars(10).assign(funding_rate=0.0))


def test_bars_out_of_contract_are_refused(store):
    with pytest.raises(DataError, match="expected stamps in ascending order"):
        store.write(*KEY, make_bars(10).iloc[::-1])
    assert store.list() == ()


@pytest.mark.parametrize(
    ("since", "until", "chosen"),
    [
        (None, None, slice(None)),
        ("2024-01-01T03:00", None, slice(3, None)),
        ("2024-01-01T02:30", "2024-01-01T05:00", slice(3, 5)),
        (None, 1704067200000, slice(0)),
    ],
)
def test_reading_a_span(store, since, until, chosen):
    bars = make_bars(10)
    store.write(*KEY, bars)
    pd.testing.assert_frame_equal(store.read(*KEY, since, until), bars.iloc[chosen])


def test_several_symbols_and_timeframes_lie_side_by_side(store):
    keys = [("bybit", "BTC/USDT", "1h"), KEY, ("bybit", "BTC/USDT:USDT", "4h"), ("x", "A", "1d")]
    histories = [make_bars(10, step_of(key[2]), seed=i) for i, key in enumerate(keys)]
    for key, bars in reversed(list(zip(keys, histories, strict=True))):
        store.write(*key, bars)
    assert store.list() == tuple(SeriesKey(*key[:2], "bars", key[2]) for key in keys)
    for key, bars in zip(keys, histories, strict=True):
        pd.testing.assert_frame_equal(store.read(*key), bars)


@settings(max_examples=200, deadline=None)
@given(st.tuples(NAMES, NAMES, NAMES), st.tuples(NAMES, NAMES, NAMES))
def test_names_are_safe_reversible_and_never_meet(one, other):
    store = OhlcvStore("root")
    paths = [store._folder(SeriesKey(*key[:2], "mark", key[2])) for key in (one, other)]
    for path in paths:
        assert len(path.parts) == 4
        assert all(set(part) <= SAFE for part in path.parts[1:])
        assert not any(part.startswith(".") for part in path.parts[1:])
    same_file = str(paths[0]).casefold() == str(paths[1]).casefold()
    assert same_file == (one == other)


SAFE = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_%.")


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.tuples(NAMES, NAMES), st.sampled_from(sorted(TIMEFRAMES)))
def test_any_names_come_back(tmp_path_factory, names, timeframe):
    store = OhlcvStore(tmp_path_factory.mktemp("store"))
    store.write(*names, timeframe, make_bars(3, step_of(timeframe)))
    assert store.list() == (SeriesKey(*names, "bars", timeframe),)
    assert len(store.read(*names, timeframe)) == 3


def test_empty_names_are_refused(store):
    with pytest.raises(ConfigError, match="expected exchange, symbol and timeframe"):
        store.write("bybit", "", "1h", make_bars(3))
    with pytest.raises(ConfigError, match="expected a kind among bars, mark"):
        store.read("bybit", "BTC/USDT", "1h", kind="trades")


def test_bars_off_the_grid_of_their_timeframe_are_refused(store):
    with pytest.raises(DataError, match=r"every 14400000 ms from 0, found 2024-01-01 01:00:00"):
        store.write("bybit", "BTC/USDT", "4h", make_bars(10))
    with pytest.raises(DataError, match=r"expected bars every 1h, found one that opens at .*0001"):
        store.write(*KEY, make_bars(10, start="2024-01-01T00:00:00.0001"))
    with pytest.raises(ConfigError, match="expected a timeframe among"):
        store.write("bybit", "BTC/USDT", "7h", make_bars(10))
    assert store.list() == ()


def test_what_is_not_stored(store):
    assert store.list() == ()
    assert store.span(*KEY) is None
    with pytest.raises(
        DataError, match="expected stored bars of bybit BTC/USDT:USDT 1h, found nothing"
    ):
        store.read(*KEY)
    store.write("bybit", "ETH/USDT", "1d", make_bars(3, "D"))
    with pytest.raises(DataError, match="found bybit ETH/USDT bars 1d in"):
        store.read(*KEY)


def test_every_truncation_is_noticed(store):
    store.write(*KEY, make_bars(40))
    path = file_of(store)
    whole = path.read_bytes()
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"T000000Z\.parquet damaged .*data repair"):
            store.read(*KEY)


def test_every_flipped_byte_is_noticed(store):
    store.write(*KEY, make_bars(40))
    path = file_of(store)
    whole = path.read_bytes()
    for place in np.random.default_rng(0).integers(0, len(whole), 150).tolist():
        damaged = bytearray(whole)
        damaged[place] ^= 0x55
        path.write_bytes(damaged)
        with pytest.raises(DamagedPartError, match="damaged") as raised:
            store.read(*KEY)
        assert raised.value.part == path


def test_damaged_file_is_not_written_over(store):
    store.write(*KEY, make_bars(10))
    file_of(store).write_bytes(b"PAR1")
    with pytest.raises(DataError, match="damaged"):
        store.write(*KEY, make_bars(20))


def test_folder_of_another_history_is_refused(store):
    store.write(*KEY, make_bars(10))
    file_of(store).parent.rename(file_of(store).parent.with_name("bars-4h"))
    with pytest.raises(StoreError, match="found that of bybit BTC/USDT:USDT bars 1h; the folder"):
        store.read("bybit", "BTC/USDT:USDT", "4h")
    with pytest.raises(StoreError, match="put it back"):
        store.write("bybit", "BTC/USDT:USDT", "4h", make_bars(10, "4h"))


def test_part_of_another_symbol_is_refused(store, tmp_path):
    other = OhlcvStore(tmp_path / "other")
    other.write("bybit", "ETH/USDT:USDT", "1h", make_bars(10))
    store.write(*KEY, make_bars(10))
    file_of(store).write_bytes(file_of(other).read_bytes())
    with pytest.raises(DamagedPartError, match="damaged"):
        store.read(*KEY)


def test_parquet_of_another_maker_is_refused(store):
    store.write(*KEY, make_bars(10))
    make_bars(10).to_parquet(file_of(store))
    with pytest.raises(DataError, match="damaged"):
        store.read(*KEY)
