import shutil

import numpy as np
import pandas as pd
import pytest

from datafeeds.ohlcv_index import SeriesIndex
from datafeeds.ohlcv_parts import Part, encode
from datafeeds.ohlcv_spans import end_of
from datafeeds.ohlcv_store import OhlcvStore
from glow_bt.errors import DamagedPartError, DataError, StoreError, StoreLockedError
from tests.datafeeds.stored_pages import KEY, PART_STEPS, STEP, fetch, make_history, page_of, tree

HISTORY = make_history(110, lacking=(3, 4, 70))
NAMES = ("bybit", "BTC/USDT:USDT", "1h")


@pytest.fixture
def store(tmp_path):
    store = OhlcvStore(tmp_path / "store", part_steps=PART_STEPS)
    fetch(store, HISTORY)
    return store


def parts(store):
    return sorted(store.root.rglob("*.parquet"))


def index_of(store):
    [path] = store.root.rglob("series.json")
    return path


def block_of(part):
    start = int(pd.Timestamp(part.stem).value // 10**6)
    return range(start, start + PART_STEPS * STEP, STEP)


def settled_in(part):
    block = block_of(part)
    start = max(block.start, HISTORY.window.start)
    return range(start, min(end_of(block), HISTORY.window.stop), STEP)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-40])


def flip(path):
    data = bytearray(path.read_bytes())
    for place in range(20, 120):
        data[place] ^= 0x55
    path.write_bytes(data)


def empty(path):
    path.write_bytes(b"")


def remove(path):
    path.unlink()


def of_another_symbol(path):
    other = OhlcvStore(path.parents[4] / "another", part_steps=PART_STEPS)
    with other.writer(KEY._replace(symbol="ETH/USDT"), STEP) as writer:
        writer.add(HISTORY)
    [copy] = other.root.rglob(path.name)
    shutil.copy(copy, path)


def of_another_maker(path):
    pd.DataFrame({"a": [1.0]}).to_parquet(path)


def of_another_block(path):
    other = next(other for other in path.parent.glob("*.parquet") if other != path)
    shutil.copy(other, path)


DEEDS = [truncate, flip, empty, remove, of_another_symbol, of_another_maker, of_another_block]


@pytest.mark.parametrize("damage", DEEDS)
@pytest.mark.parametrize("which", [0, 1, 3])
def test_a_damaged_part_is_named_repairable_and_the_rest_is_kept(store, damage, which):
    before = tree(store.root)
    whole = store.read(*NAMES)
    part = parts(store)[which]
    others = [name for name in before if not name.endswith((part.name, "series.json"))]
    damage(part)
    with pytest.raises(DamagedPartError, match=f"{part.name} damaged") as raised:
        store.read(*NAMES)
    assert raised.value.part == part
    block = block_of(part)
    for since, until in [(None, block.start), (end_of(block), None)]:
        rest = store.read(*NAMES, since, until)
        stamps = whole.index.as_unit("ms").asi8
        kept = stamps < block.start if until is not None else stamps >= end_of(block)
        pd.testing.assert_frame_equal(rest, whole[kept])
    assert [found.path for found in store.check(KEY)] == [part]
    assert store.drop_damaged(KEY) == (settled_in(part),)
    assert store.drop_damaged(KEY) == ()
    assert store.check(KEY) == []
    assert {name: tree(store.root)[name] for name in others} == {
        name: before[name] for name in others
    }
    fetched = fetch(store, HISTORY)
    assert {stamp for window in fetched for stamp in window} == set(settled_in(part))
    assert tree(store.root) == before


def test_a_damaged_part_is_not_written_over(store):
    part = parts(store)[1]
    flip(part)
    before = tree(store.root)
    with store.writer(KEY, STEP) as writer:
        first = range(block_of(part).start, block_of(part).start + STEP, STEP)
        with pytest.raises(DamagedPartError, match=part.name):
            writer.add(page_of(HISTORY, first))
    assert tree(store.root) == before


@pytest.mark.parametrize("place", [0, 30, 150, 300, -70, -3])
def test_a_flipped_byte_of_the_index_is_named_and_it_is_made_anew(store, place):
    before = tree(store.root)
    path = index_of(store)
    data = bytearray(path.read_bytes())
    data[place] ^= 0x55
    path.write_bytes(data)
    for deed in (
        lambda: store.read(*NAMES),
        lambda: store.settled(KEY),
        lambda: fetch(store, HISTORY),
    ):
        with pytest.raises(DamagedPartError, match=r"series\.json damaged"):
            deed()
    assert [found.path for found in store.check(KEY)] == [path]
    assert store.drop_damaged(KEY) == ()
    assert tree(store.root) == before


def test_every_truncation_of_the_index_is_named(store):
    path = index_of(store)
    data = path.read_bytes()
    for size in range(0, len(data), 17):
        path.write_bytes(data[:size])
        with pytest.raises(DamagedPartError, match=r"series\.json damaged"):
            store.read(*NAMES)


def test_an_index_that_is_gone_is_made_anew(store):
    before = tree(store.root)
    index_of(store).unlink()
    with pytest.raises(DamagedPartError, match="it is missing"):
        store.read(*NAMES)
    assert store.list() == (KEY,)
    assert store.drop_damaged(KEY) == ()
    assert tree(store.root) == before


@pytest.mark.parametrize("which", [0, 1, 3])
def test_a_part_damaged_together_with_the_index_costs_its_block(store, which):
    before = tree(store.root)
    part = parts(store)[which]
    flip(part)
    empty(index_of(store))
    assert [found.path.name for found in store.check(KEY)] == ["series.json", part.name]
    assert store.drop_damaged(KEY) == (block_of(part),)
    assert store.check(KEY) == []
    fetch(store, HISTORY)
    assert tree(store.root) == before


def test_when_all_is_damaged_all_blocks_are_to_be_fetched(store):
    store = OhlcvStore(store.root, part_steps=PART_STEPS)
    for path in (*parts(store), index_of(store)):
        empty(path)
    assert len(store.check(KEY)) == 5
    [lost] = store.drop_damaged(KEY)
    assert lost.start <= HISTORY.window.start
    assert lost.stop >= HISTORY.window.stop
    assert store.settled(KEY) == ()


def test_a_part_whose_content_is_whole_is_written_anew_not_fetched(store):
    before = tree(store.root)
    part = parts(store)[0]
    table = part.read_bytes()
    place = table.index(b"parquet-cpp-arrow")
    part.write_bytes(table[:place] + b"X" + table[place + 1 :])
    with pytest.raises(DamagedPartError, match=r"it is not as series\.json says"):
        store.read(*NAMES)
    assert store.drop_damaged(KEY) == ()
    assert tree(store.root) == before


def test_parts_that_the_index_does_not_name_are_found_and_taken_in(store):
    before = tree(store.root)
    part = parts(store)[2]
    index = SeriesIndex.load(part.parent)
    number = index.form.grid.number_in(part.name)
    index.enter(number, Part((), np.empty(0, np.int64), np.empty((0, 5))), b"")
    index.save(part.parent)
    [found] = store.check(KEY)
    assert found.path == part
    assert "expected series.json to name" in found.what
    with store.writer(KEY, STEP) as writer, pytest.raises(DamagedPartError, match=part.name):
        writer.add(page_of(HISTORY, settled_in(part)))
    assert store.drop_damaged(KEY) == ()
    assert tree(store.root) == before


def test_files_of_others_are_named_and_never_touched(store):
    note = parts(store)[0].with_name("notes.txt")
    note.write_text("mine")
    copy = parts(store)[0].with_name("copy.parquet")
    shutil.copy(parts(store)[0], copy)
    assert [found.path for found in store.check(KEY)] == [copy, note]
    assert "move it away" in store.check(KEY)[0].what
    assert store.drop_damaged(KEY) == ()
    assert note.read_text() == "mine"
    assert copy.exists()


def test_a_folder_that_was_moved_is_left_alone(store):
    folder = index_of(store).parent
    moved = folder.rename(folder.with_name("bars-4h"))
    key = KEY._replace(timeframe="4h")
    before = tree(moved)
    assert "the folder was moved" in store.check(key)[0].what
    with pytest.raises(StoreError, match="put it back"):
        store.drop_damaged(key)
    assert tree(moved) == before


def test_a_file_that_cannot_be_read_is_no_reason_to_delete_it(store):
    part = parts(store)[1]
    part.unlink()
    part.mkdir()
    message = f"expected to read .*{part.name}, found Is a directory"
    for deed in (lambda: store.read(*NAMES), lambda: store.drop_damaged(KEY)):
        with pytest.raises(StoreError, match=message):
            deed()
    assert [found.path for found in store.check(KEY)] == [part]
    assert part.is_dir()


def test_values_that_break_a_rule_are_found(store):
    part = parts(store)[1]
    index = SeriesIndex.load(part.parent)
    number = index.form.grid.number_in(part.name)
    with store.writer(KEY, STEP) as writer:
        sound = writer._part(number)
    values = sound.values.copy()
    values[7, 1] = values[7, 2] - 1.0
    broken = Part(sound.settled, sound.stamps, values)
    data = encode(broken, index.form)
    part.write_bytes(data)
    index.enter(number, broken, data)
    index.save(part.parent)
    [found] = store.check(KEY)
    assert found.path == part
    assert "expected high at or above low" in found.what


def test_a_journal_of_another_history_is_named_and_dropped(store):
    other = OhlcvStore(store.root.with_name("other"), part_steps=PART_STEPS)
    with other.writer(KEY._replace(symbol="X"), STEP) as writer:
        writer.add(page_of(HISTORY, HISTORY.window[:5]))
        [journal] = other.root.rglob("journal")
        shutil.copy(journal, index_of(store).with_name("journal"))
    before = tree(store.root)
    assert "it is of another history" in store.check(KEY)[0].what
    with pytest.raises(DamagedPartError, match="it is of bybit X bars 1h"):
        fetch(store, HISTORY)
    assert tree(store.root) == before
    assert store.drop_damaged(KEY) == ()
    assert store.check(KEY) == []


def test_nothing_is_dropped_while_a_writer_is_at_work(store):
    with store.writer(KEY, STEP) as writer:
        window = range(HISTORY.window.stop, HISTORY.window.stop + STEP, STEP)
        writer.add(page_of(HISTORY, window))
        assert store.check(KEY) == []
        with pytest.raises(StoreLockedError):
            store.drop_damaged(KEY)


def test_what_is_not_stored_cannot_be_checked(store):
    for deed in (store.check, store.drop_damaged):
        with pytest.raises(DataError, match="expected stored mark of bybit BTC/USDT:USDT 1h"):
            deed(KEY._replace(kind="mark"))
    assert store.settled(KEY._replace(kind="mark")) == ()
    assert store.lacking(KEY._replace(kind="mark")) == ()
