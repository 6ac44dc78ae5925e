import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from datafeeds.ohlcv_store import OhlcvStore
from glow_bt.errors import StoreError
from tests.datafeeds.stored_pages import KEY, PART_STEPS, STEP, fetch, make_history, page_of, tree

HISTORY = make_history(85, lacking=(3, 4, 70))
BEGUN = page_of(HISTORY, range(HISTORY.window.start, HISTORY.window.start + 50 * STEP, STEP))
CALLS = ("open", "write", "fsync", "replace", "unlink", "mkdir", "ftruncate")


class Faults:
    """Let the n-th of the calls that change a disk fail, alone or with all after it."""

    def __init__(self, monkeypatch, at, *, lasting):
        self.count = 0
        for name in CALLS:
            monkeypatch.setattr(os, name, self.wrap(getattr(os, name), name, at, lasting))

    def wrap(self, real, name, at, lasting):
        def call(*args, **options):
            self.count += 1
            if self.count == at or (lasting and self.count > at):
                if name == "write":
                    real(args[0], args[1][: len(args[1]) // 2])
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*args, **options)

        return call


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    store = OhlcvStore(tmp_path_factory.mktemp("begun"), part_steps=PART_STEPS)
    fetch(store, BEGUN)
    return store


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    store = OhlcvStore(tmp_path_factory.mktemp("whole"), part_steps=PART_STEPS)
    fetch(store, HISTORY)
    return tree(store.root)


def read(store):
    return store.read("bybit", "BTC/USDT:USDT", "1h")


def backwards(windows):
    return windows[::-1]


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "until-freed"])
def test_a_disk_that_is_full_at_any_step_costs_nothing(tmp_path, begun, whole, lasting):
    failed = 0
    for at in range(1, 1000):
        store = OhlcvStore(tmp_path / "store", part_steps=PART_STEPS)
        shutil.copytree(begun.root, store.root)
        before = read(store)
        told = []
        with pytest.MonkeyPatch.context() as patches:
            faults = Faults(patches, at, lasting=lasting)
            try:
                fetch(store, HISTORY, order=backwards, told=told.append)
            except StoreError as error:
                assert "expected room on the disk" in str(error)  # noqa: PT017
                assert "free some and call again" in str(error)  # noqa: PT017
                failed += 1
        assert {damage.path.name for damage in store.check(KEY)} <= {"journal"}
        after = read(store)
        pd.testing.assert_frame_equal(after[after.index.isin(before.index)], before)
        assert not set(fetch(store, HISTORY)) & set(told)
        assert tree(store.root) == whole
        shutil.rmtree(store.root)
        if faults.count < at:
            break
    assert failed > 25


def test_an_error_that_is_no_lack_of_room_says_where(begun, tmp_path):
    store = OhlcvStore(tmp_path / "file")
    store.root.write_text("in the way")
    with pytest.raises(StoreError, match=r"expected to write in .*bars-1h, found Not a directory"):
        fetch(store, HISTORY)


def test_the_writer_goes_on_when_there_is_room_again(begun, whole, tmp_path):
    store = OhlcvStore(tmp_path / "store", part_steps=PART_STEPS)
    with store.writer(KEY, STEP) as writer:
        for window in writer.missing(HISTORY.window, 15):
            for at in (1, 2, 3):
                with pytest.MonkeyPatch.context() as patches:
                    Faults(patches, at, lasting=False)
                    try:
                        writer.add(page_of(HISTORY, window))
                    except StoreError:
                        continue
                    break
            writer.add(page_of(HISTORY, window))
    assert tree(store.root) == whole


def record(monkeypatch, events):
    """Note what is written, synced, renamed and removed, by name."""
    names = {}
    real = {name: getattr(os, name) for name in ("open", "write", "fsync", "replace", "unlink")}

    def opened(path, *args):
        descriptor = real["open"](path, *args)
        names[descriptor] = Path(path).name
        return descriptor

    def noted(name):
        def call(first, *args):
            result = real[name](first, *args)
            target = args[0] if name == "replace" else first
            events.append((name, names[first] if isinstance(first, int) else Path(target).name))
            return result

        return call

    monkeypatch.setattr(os, "open", opened)
    for name in ("write", "fsync", "replace", "unlink"):
        monkeypatch.setattr(os, name, noted(name))


def test_bytes_reach_the_disk_before_their_names_and_parts_before_the_index(tmp_path, monkeypatch):
    store = OhlcvStore(tmp_path / "store", part_steps=PART_STEPS)
    events = []
    with store.writer(KEY, STEP) as writer:
        record(monkeypatch, events)
        writer.add(page_of(HISTORY, HISTORY.window[:5]))
        writer.add(page_of(HISTORY, HISTORY.window[10:15]))
        writer.seal()
        monkeypatch.undo()
    part = "20231230T160000Z.parquet"
    assert part in {name for _, name in events}
    parts = [name for deed, name in events if deed == "replace" and name.endswith("quet")]
    expected = [("write", "journal"), ("fsync", "journal"), ("fsync", "bars-1h")]
    expected += [("write", "journal"), ("fsync", "journal")]
    for name in (*parts, "series.json"):
        temporary = f".{name}.tmp"
        expected += [("write", temporary), ("fsync", temporary)]
        expected += [("replace", name), ("fsync", "bars-1h")]
    expected += [("unlink", "journal"), ("fsync", "bars-1h")]
    assert events == expected


LIMITED = """
import resource, sys
from datafeeds.ohlcv_store import OhlcvStore
from glow_bt.errors import StoreError
from tests.datafeeds.stored_pages import KEY, STEP, fetch, make_history

store = OhlcvStore(sys.argv[1], part_steps=2000)
history = make_history(6000)
for limit in (100, 10_000, 30_000, 60_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        fetch(store, history, 100)
    except StoreError as error:
        print(limit, "expected room on the disk" in str(error))
print(sum(map(len, store.settled(KEY))))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
fetch(store, history, 100)
print(sum(map(len, store.settled(KEY))), store.check(KEY))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files")
def test_a_limit_that_the_system_sets_is_met_in_the_middle_of_a_write(tmp_path):
    finished = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path / "store"],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    lines = finished.stdout.splitlines()
    assert lines[0] == "100 True"
    assert lines[-1] == "6000 []"
    plain = OhlcvStore(tmp_path / "plain", part_steps=2000)
    fetch(plain, make_history(6000))
    assert tree(tmp_path / "store") == tree(plain.root)
