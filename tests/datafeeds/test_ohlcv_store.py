import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datafeeds.ohlcv_store import OhlcvStore, StoredBars
from glow_bt.errors import ConfigError, DataError
from tests.datafeeds.random_bars import make_bars

KEY = ("bybit", "BTC/USDT:USDT", "1h")
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@pytest.fixture
def store(tmp_path):
    return OhlcvStore(tmp_path / "store")


def file_of(store):
    [path] = store.root.rglob("*.parquet")
    return path


def test_bars_come_back_to_the_bit(store):
    bars = make_bars(500).assign(funding_rate=0.0001, open_interest=np.nan)
    assert store.write(*KEY, bars) == 500
    pd.testing.assert_frame_equal(store.read(*KEY), bars)


def test_file_lies_where_the_documentation_says(store):
    store.write(*KEY, make_bars(3))
    assert file_of(store) == store.root / "bybit" / "BTC%2FUSDT%3AUSDT" / "1h.parquet"


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
    keys = [("bybit", "BTC/USDT", "1h"), KEY, ("bybit", "BTC/USDT:USDT", "1m"), ("x", "A", "1d")]
    for i, key in enumerate(reversed(keys)):
        store.write(*key, make_bars(10, seed=i))
    assert store.list() == tuple(StoredBars(*key) for key in keys)
    for i, key in enumerate(reversed(keys)):
        pd.testing.assert_frame_equal(store.read(*key), make_bars(10, seed=i))


@settings(max_examples=200, deadline=None)
@given(st.tuples(NAMES, NAMES, NAMES), st.tuples(NAMES, NAMES, NAMES))
def test_names_are_safe_reversible_and_never_meet(one, other):
    store = OhlcvStore("root")
    paths = [store._path(StoredBars(*key)) for key in (one, other)]
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
@given(st.tuples(NAMES, NAMES, NAMES))
def test_any_names_come_back(tmp_path_factory, key):
    store = OhlcvStore(tmp_path_factory.mktemp("store"))
    store.write(*key, make_bars(3))
    assert store.list() == (StoredBars(*key),)
    assert len(store.read(*key)) == 3


def test_empty_names_are_refused(store):
    with pytest.raises(ConfigError, match="expected exchange, symbol and timeframe"):
        store.write("bybit", "", "1h", make_bars(3))


def test_what_is_not_stored(store):
    assert store.list() == ()
    assert store.span(*KEY) is None
    with pytest.raises(
        DataError, match="expected stored bars of bybit BTC/USDT:USDT 1h, found nothing"
    ):
        store.read(*KEY)
    store.write("bybit", "ETH/USDT", "1d", make_bars(3, "D"))
    with pytest.raises(DataError, match="found bybit ETH/USDT 1d in"):
        store.read(*KEY)


def test_every_truncation_is_noticed(store):
    store.write(*KEY, make_bars(40))
    path = file_of(store)
    whole = path.read_bytes()
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"1h\.parquet damaged .*delete it and fetch"):
            store.read(*KEY)


def test_no_flipped_byte_gives_other_bars(store):
    bars = make_bars(40)
    store.write(*KEY, bars)
    path = file_of(store)
    whole = path.read_bytes()
    noticed = 0
    for place in np.random.default_rng(0).integers(0, len(whole), 150).tolist():
        damaged = bytearray(whole)
        damaged[place] ^= 0x55
        path.write_bytes(damaged)
        try:
            found = store.read(*KEY)
        except DataError:
            noticed += 1
        else:
            pd.testing.assert_frame_equal(found, bars)
    assert noticed > 75


def test_damaged_file_is_not_written_over(store):
    store.write(*KEY, make_bars(10))
    file_of(store).write_bytes(b"PAR1")
    with pytest.raises(DataError, match="damaged"):
        store.write(*KEY, make_bars(20))


def test_file_of_another_symbol_is_refused(store):
    store.write(*KEY, make_bars(10))
    file_of(store).rename(file_of(store).with_name("4h.parquet"))
    with pytest.raises(
        DataError, match="found those of bybit BTC/USDT:USDT 1h; the file was moved"
    ):
        store.read("bybit", "BTC/USDT:USDT", "4h")


def test_parquet_of_another_maker_is_refused(store):
    store.write(*KEY, make_bars(10))
    make_bars(10).to_parquet(file_of(store))
    with pytest.raises(DataError, match="damaged"):
        store.read(*KEY)


KILLED_WRITER = """
import os, pathlib, random, signal, sys, time
import pyarrow.parquet as pq
from datafeeds.ohlcv_store import OhlcvStore
from tests.datafeeds.random_bars import make_bars

root = pathlib.Path(sys.argv[1])
bars = make_bars(40_000)
key = ("bybit", "BTC/USDT:USDT", "1h")
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)

def stored(store):
    span = store.span(*key)
    return 0 if span is None else bars.index.get_loc(span[1]) + 1

def in_child(work):
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    return os.waitpid(child, 0)[1] == signal.SIGKILL

def check(store, at_least):
    count = stored(store)
    assert count >= at_least, (count, at_least)
    if count:
        assert store.read(*key).equals(bars.iloc[:count])
    return count

def half_written(table, file, **options):
    real_write(table, file, **options)
    file.truncate(file.tell() // 2)
    die()

def after_rename(path, target):
    os.rename(path, target)
    die()

real_write = pq.write_table
store = OhlcvStore(root / "instants")
for place, name, deed, grows in [
    (pq, "write_table", die, 0), (pq, "write_table", half_written, 0), (os, "fsync", die, 0),
    (pathlib.Path, "replace", die, 0), (pathlib.Path, "replace", after_rename, 1000),
]:
    for first_write in (True, False):
        store = OhlcvStore(root / f"{name}-{deed.__name__}-{first_write}")
        if not first_write:
            store.write(*key, bars.iloc[:500])
        before = stored(store)
        real = getattr(place, name)
        setattr(place, name, deed)
        assert in_child(lambda: store.write(*key, bars.iloc[:1000]))
        setattr(place, name, real)
        assert check(store, before) == (grows or before)
        assert store.write(*key, bars.iloc[:1000]) == 1000 - (grows or before)

store = OhlcvStore(root / "random")
started = time.monotonic()
done = store.write(*key, bars.iloc[:250])
one_write = time.monotonic() - started

def write_on(killer):
    for start in range(done, len(bars), 250):
        store.write(*key, bars.iloc[start - 10 : start + 250])
        os.write(killer, b".")

def kill_after(writes, seconds):
    told, killer = os.pipe()
    child = os.fork()
    if child == 0:
        write_on(killer)
        os._exit(0)
    for _ in range(writes):
        os.read(told, 1)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.close(told)
    os.close(killer)
    return os.waitpid(child, 0)[1] == signal.SIGKILL

rng = random.Random(0)
kills = 0
for i in range(24):
    kills += kill_after(i % 3, rng.uniform(0, 2 * one_write))
    done = check(store, done + 250 * (i % 3))
print(kills, done)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked writers")
def test_killed_writers_leave_the_old_bars_or_the_new(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    finished = subprocess.run(
        [sys.executable, "-c", KILLED_WRITER, tmp_path],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    kills, written = map(int, finished.stdout.split())
    assert kills == 24
    assert written >= 250 * 25
