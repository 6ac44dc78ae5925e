import numpy as np
import pytest

from datafeeds.ohlcv_journal import Journal, read_journal
from datafeeds.ohlcv_parts import Grid, SeriesFormat
from datafeeds.ohlcv_store import OhlcvStore
from datafeeds.series import KINDS
from glow_bt.errors import DamagedPartError
from tests.datafeeds.stored_pages import KEY, PART_STEPS, STEP, fetch, make_history, page_of, tree

FORM = SeriesFormat(KEY, Grid(STEP, 0, PART_STEPS), KINDS["bars"].columns)
HISTORY = make_history(30, lacking=(3,))
PAGES = [page_of(HISTORY, HISTORY.window[first : first + 6]) for first in (12, 0, 24)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal"


def written(path):
    """Write the pages and return the journal's length after each."""
    journal = Journal(path, FORM)
    lengths = []
    for page in PAGES:
        journal.append(page)
        lengths.append(path.stat().st_size)
    journal.close()
    return lengths


def assert_same(pages, expected):
    assert [page.window for page in pages] == [page.window for page in expected]
    for page, other in zip(pages, expected, strict=True):
        np.testing.assert_array_equal(page.stamps, other.stamps)
        np.testing.assert_array_equal(page.values, other.values)


def test_pages_come_back_to_the_bit(path):
    written(path)
    records = read_journal(path)
    assert records.form == FORM
    assert records.drops == []
    assert_same(records.pages, PAGES)


def test_wherever_it_is_torn_the_whole_pages_stay_and_the_rest_is_cut_off(path):
    lengths = written(path)
    data = path.read_bytes()
    for size in (*range(0, len(data), 7), *lengths[:2], lengths[2] - 1):
        path.write_bytes(data[:size])
        journal = Journal(path, FORM)
        whole = sum(length <= size for length in lengths)
        assert_same(journal.recover().pages, PAGES[:whole])
        journal.append(PAGES[2])
        journal.close()
        assert_same(read_journal(path).pages, [*PAGES[:whole], PAGES[2]])


@pytest.mark.parametrize("tail", [b"\0" * 700, b"page" * 100, b"page\xff\xff\xff\xff1234"])
def test_what_a_power_cut_appends_is_cut_off(path, tail):
    written(path)
    data = path.read_bytes()
    path.write_bytes(data + tail)
    journal = Journal(path, FORM)
    assert_same(journal.recover().pages, PAGES)
    journal.close()
    assert path.read_bytes() == data


def test_no_flipped_byte_gives_another_page(path):
    written(path)
    data = path.read_bytes()
    for place in range(0, len(data), 2):
        damaged = bytearray(data)
        damaged[place] ^= 0x55
        path.write_bytes(damaged)
        found = read_journal(path)
        assert_same(found.pages, PAGES[: len(found.pages)])
        assert len(found.pages) < len(PAGES)


def test_a_journal_of_another_history_is_named(path):
    written(path)
    for other in (FORM._replace(key=KEY._replace(symbol="X")), FORM._replace(grid=Grid(1, 0, 1))):
        with pytest.raises(DamagedPartError, match="it is of bybit BTC/USDT:USDT bars 1h"):
            Journal(path, other).recover()


def test_records_of_an_unknown_make_are_named(path):
    journal = Journal(path, FORM)
    journal._write(b"page", b"short")
    journal.close()
    with pytest.raises(DamagedPartError, match="a record cannot be read"):
        read_journal(path)


def test_a_writer_takes_in_what_is_left_even_where_it_is_torn(tmp_path):
    store = OhlcvStore(tmp_path / "store", part_steps=PART_STEPS)
    fetch(store, page_of(HISTORY, HISTORY.window[:6]))
    [index] = store.root.rglob("series.json")
    lengths = written(index.with_name("journal"))
    with index.with_name("journal").open("rb+") as file:
        file.truncate(lengths[-1] - 1)
    [damage] = store.check(KEY)
    assert damage.path.name == "journal"
    assert "found one with 2 pages that a killed writer left" in damage.what
    fetched = {stamp for window in fetch(store, HISTORY, 6) for stamp in window}
    assert fetched == {*HISTORY.window[6:12], *HISTORY.window[18:]}
    plain = OhlcvStore(tmp_path / "plain", part_steps=PART_STEPS)
    fetch(plain, HISTORY)
    assert tree(store.root) == tree(plain.root)
