import itertools
import threading

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datafeeds.ohlcv_store import OhlcvStore
from datafeeds.series import FUNDING_STEP_MS, Page, SeriesKey
from glow_bt.errors import ConfigError, DataError, StoreError, StoreLockedError
from tests.datafeeds.random_bars import make_bars
from tests.datafeeds.stored_pages import (
    KEY,
    PART_STEPS,
    STEP,
    fetch,
    make_history,
    page_of,
    tree,
)

COUNT = 100
HISTORY = make_history(COUNT, lacking=(3, 4, 50, 99))
START = HISTORY.window.start


@pytest.fixture
def store(tmp_path):
    return OhlcvStore(tmp_path / "store", part_steps=PART_STEPS)


@pytest.fixture
def writer(store):
    with store.writer(KEY, STEP) as writer:
        yield writer


def steps(first, end):
    return range(START + first * STEP, START + end * STEP, STEP)


def answer(first, end, history=HISTORY):
    return page_of(history, steps(first, end))


def test_pages_come_back_as_bars(store):
    fetch(store, HISTORY)
    bars = make_bars(COUNT).drop(make_bars(COUNT).index[[3, 4, 50, 99]])
    pd.testing.assert_frame_equal(store.read("bybit", "BTC/USDT:USDT", "1h"), bars)
    assert store.settled(KEY) == (HISTORY.window,)
    assert store.check(KEY) == []


def test_a_history_lies_in_fixed_blocks_of_its_grid(store):
    fetch(store, HISTORY)
    parts = sorted(store.root.rglob("*.parquet"))
    rows = [len(pd.read_parquet(part)) for part in parts]
    names = [pd.Timestamp(part.stem) for part in parts]
    assert sum(rows) == len(HISTORY.stamps)
    assert all((name.value // 10**6) % (STEP * PART_STEPS) == 0 for name in names)
    assert [b - a for a, b in itertools.pairwise(names)] == [pd.Timedelta(hours=40)] * 3


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, COUNT - 1), st.integers(1, 60), st.booleans()),
        min_size=1,
        max_size=12,
    )
)
def test_any_pages_in_any_order_and_sessions_give_the_same_bytes(tmp_path_factory, spans):
    root = tmp_path_factory.mktemp("stores")
    store = OhlcvStore(root / "any", part_steps=PART_STEPS)
    asked = set()
    with_new = 0
    writer = store.writer(KEY, STEP).__enter__()
    for first, count, reopen in spans:
        page = answer(first, min(first + count, COUNT))
        with_new += writer.add(page)
        assert writer.add(page) == 0
        asked |= set(page.window)
        if reopen:
            writer.__exit__(None, None, None)
            writer = store.writer(KEY, STEP).__enter__()
    assert {stamp for window in writer.missing(HISTORY.window, 7) for stamp in window} == (
        set(HISTORY.window) - asked
    )
    writer.__exit__(None, None, None)
    assert with_new == len(asked & set(HISTORY.stamps.tolist()))
    assert {stamp for span in store.settled(KEY) for stamp in span} == asked
    plain = OhlcvStore(root / "plain", part_steps=PART_STEPS)
    with plain.writer(KEY, STEP) as writer:
        for span in store.settled(KEY):
            writer.add(page_of(HISTORY, span))
    assert tree(store.root) == tree(plain.root)
    assert store.check(KEY) == []


def test_windows_do_not_depend_on_what_was_fetched_before(writer):
    whole = writer.missing(HISTORY.window, 15)
    assert [stamp for window in whole for stamp in window] == list(HISTORY.window)
    assert all(window.stop % (15 * STEP) == 0 for window in whole[:-1])
    writer.add(page_of(HISTORY, whole[2]))
    assert writer.missing(HISTORY.window, 15) == whole[:2] + whole[3:]
    inside = range(whole[2].start - STEP, whole[2].stop + STEP, STEP)
    assert [len(window) for window in writer.missing(inside, 15)] == [1, 1]


def test_holes_are_between_values_settled_and_without_one(store):
    with store.writer(KEY, STEP) as writer:
        assert writer.lacking(HISTORY.window) == []
        writer.add(answer(0, 20))
        writer.add(answer(30, 100))
        expected = [steps(3, 5), steps(50, 51)]
        assert writer.lacking(HISTORY.window) == expected
        assert writer.lacking(steps(4, 50)) == [steps(4, 5)]
    assert store.lacking(KEY) == tuple(expected)


def test_a_hole_across_an_edge_of_parts_is_one(store):
    origin = make_history(1).window.start
    edge = (-origin // STEP) % PART_STEPS
    history = make_history(COUNT, lacking=range(edge - 3, edge + 4))
    fetch(store, history)
    assert store.lacking(KEY) == (steps(edge - 3, edge + 4),)


def test_a_hole_that_heals_is_filled_and_a_short_answer_takes_nothing_away(writer):
    whole = make_history(COUNT)
    assert writer.add(answer(0, 20)) == 18
    assert writer.add(answer(0, 20, whole)) == 2
    assert writer.add(answer(0, 20)) == 0
    assert writer.lacking(HISTORY.window) == []


def test_forgotten_spans_are_fetched_anew_to_the_same_bytes(store):
    fetch(store, HISTORY)
    before = tree(store.root)
    with store.writer(KEY, STEP) as writer:
        writer.forget([steps(10, 12), steps(25, 90), range(0, STEP, STEP)])
        assert writer.missing(HISTORY.window, 1000) == [steps(10, 12), steps(25, 90)]
        writer.forget([steps(-100, 200)])
        assert writer.missing(HISTORY.window, 1000) == [HISTORY.window]
        assert list(store.root.rglob("*.parquet")) == []
        writer.add(answer(0, 30))
    assert store.check(KEY) == []
    fetch(store, HISTORY)
    assert tree(store.root) == before


@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "journalled"])
def test_a_contradiction_names_stamp_and_both_values_and_changes_nothing(store, sealed):
    with store.writer(KEY, STEP) as writer:
        writer.add(answer(0, 30))
        if sealed:
            writer.seal()
        before = tree(store.root)
        page = answer(20, 60)
        page.values[5, 4] = 77.125
        page.values[9, 4] = 78.125
        stored = HISTORY.values[np.flatnonzero(HISTORY.stamps == page.stamps[5])[0], 4]
        with pytest.raises(DataError, match=f"found 2 that .*01:00:00.*{stored:g}; .*77.125"):
            writer.add(page)
        assert tree(store.root) == before
        assert writer.missing(steps(0, 60), 1000) == [steps(30, 60)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p._replace(window=range(START + 1, START + STEP, STEP)), "window on the grid"),
        (lambda p: p._replace(window=range(START, START + STEP, 1000)), "window on the grid"),
        (lambda p: p._replace(window=steps(0, 5)), "found 2024-01-01 05:00:00.*cut the page"),
        (lambda p: p._replace(window=steps(1, 20)), "found 2024-01-01 00:00:00.*cut the page"),
        (lambda p: p._replace(stamps=p.stamps[::-1].copy()), "ascending order"),
        (lambda p: p._replace(stamps=np.r_[p.stamps[:1], p.stamps[:-1]]), "ascending order"),
        (lambda p: p._replace(stamps=p.stamps + 7), "found 2024-01-01 00:00:00.007000.* off that"),
        (lambda p: p._replace(stamps=p.stamps * 1.0), "whole epoch milliseconds .*float64"),
        (lambda p: p._replace(values=p.values[:, :4]), r"values of shape \(N, 5\)"),
        (lambda p: p._replace(values=p.values * [1, 1, np.nan, 1, 1]), "expected finite values"),
        (lambda p: p._replace(values=p.values * [1, np.inf, 1, 1, 1]), "expected finite values"),
        (lambda p: p._replace(values=p.values * [1, 1, 1, 1, -1]), "expected volume of zero"),
        (lambda p: p._replace(values=p.values * [1, 0.5, 1, 1, 1]), "high at or above low"),
        (lambda p: p._replace(values=p.values * [9, 1, 1, 1, 1]), "between low and high"),
        (lambda p: p._replace(values=p.values * 0), "expected positive prices"),
    ],
)
def test_pages_that_cannot_be_true_are_refused(writer, store, change, message):
    with pytest.raises(DataError, match=message):
        writer.add(change(answer(0, 20)))
    assert writer.missing(steps(0, 20), 100) == [steps(0, 20)]
    assert store.list() == ()


def test_other_kinds_have_their_own_rules(store):
    mark = KEY._replace(kind="mark")
    with store.writer(mark, STEP) as writer:
        page = answer(0, 20)
        writer.add(page._replace(values=page.values[:, :4]))
        with pytest.raises(DataError, match="high at or above low"):
            writer.add(page._replace(values=page.values[:, [0, 2, 1, 3]]))
    interest = KEY._replace(kind="open_interest")
    with store.writer(interest, STEP) as writer:
        with pytest.raises(DataError, match=r"no negative values .*found \[-1.0\]"):
            writer.add(Page(steps(0, 1), np.array([START]), np.array([[-1.0]])))
        assert writer.add(Page(steps(0, 1), np.array([START]), np.array([[0.0]]))) == 1
    funding = SeriesKey("bybit", "BTC/USDT:USDT", "funding_rate", "")
    with store.writer(funding, FUNDING_STEP_MS) as writer:
        page = Page(steps(0, 9), np.array([START + 5]), np.array([[-0.01]]))
        assert writer.add(page) == 1
        with pytest.raises(DataError, match="expected finite values"):
            writer.add(page._replace(values=np.array([[np.nan]])))
        assert writer.lacking(steps(0, 9)) == []
    assert len(store.list()) == 3
    assert all(store.check(key) == [] for key in store.list())


def test_zero_has_one_sign(store, tmp_path):
    funding = SeriesKey("bybit", "BTC/USDT:USDT", "funding_rate", "")
    other = OhlcvStore(tmp_path / "other", part_steps=PART_STEPS)
    for each, zero in [(store, 0.0), (other, -0.0)]:
        with each.writer(funding, STEP) as writer:
            writer.add(Page(steps(0, 9), np.array([START]), np.array([[zero]])))
    assert tree(store.root) == tree(other.root)


def test_grids_that_cannot_be(store):
    for step, offset in [(0, 0), (-STEP, 0), (1500, 0), (STEP, 1)]:
        with pytest.raises(ConfigError, match="expected a grid of whole seconds"):
            store.writer(KEY, step, offset)
    fetch(store, HISTORY)
    for step, offset in [(2 * STEP, 0), (STEP, 1000)]:
        with (
            pytest.raises(ConfigError, match=r"expected the grid stored for .*3600000 ms"),
            store.writer(KEY, step, offset),
        ):
            pass
    with store.writer(KEY, STEP, 5 * STEP) as writer:
        assert writer.missing(HISTORY.window, 100) == []


def test_parts_of_a_stored_history_keep_their_size(store):
    fetch(store, make_history(50))
    fetch(OhlcvStore(store.root, part_steps=7), HISTORY)
    fetch(store, HISTORY)
    assert len(list(store.root.rglob("*.parquet"))) == 4
    assert store.check(KEY) == []


def test_stamps_before_the_epoch_are_kept(store):
    window = range(-100 * STEP, 100 * STEP, STEP)
    history = Page(window, np.array(window), HISTORY.values[:1].repeat(200, axis=0))
    fetch(store, history)
    names = sorted(path.name for path in store.root.rglob("*.parquet"))
    assert names[0] == "19691227T000000Z.parquet"
    assert store.settled(KEY) == (window,)
    assert store.check(KEY) == []


def test_two_writers_of_one_history_are_one_too_many(store, writer):
    with (
        pytest.raises(StoreLockedError, match=r"no other writer of .*bars-1h, found one at work"),
        store.writer(KEY, STEP),
    ):
        pass
    fetch(OhlcvStore(store.root.with_name("other")), HISTORY)
    assert writer.add(answer(0, 10)) == 8


def test_a_closed_writer_writes_nothing(store):
    closed = store.writer(KEY, STEP)
    for deed in (lambda: closed.add(answer(0, 10)), lambda: closed.forget([]), closed.seal):
        with pytest.raises(StoreError, match="expected an open writer"):
            deed()
    assert not store.root.exists()


def test_an_error_of_the_user_seals_what_was_added(store):
    def fails_after_a_page():
        with store.writer(KEY, STEP) as writer:
            writer.add(answer(0, 10))
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fails_after_a_page()
    assert store.settled(KEY) == (steps(0, 10),)
    assert not list(store.root.rglob("journal"))


def test_what_is_journalled_is_sealed_when_it_is_worth_a_part(store, writer):
    for first in range(0, 50, 10):
        writer.add(answer(first, first + 10))
    assert store.settled(KEY) == (steps(0, 40),)


def test_the_journal_does_not_grow_with_the_history(store):
    history = make_history(1000)
    sizes = []
    with store.writer(KEY, STEP) as writer:
        for window in writer.missing(history.window, 10)[::-1]:
            writer.add(page_of(history, window))
            sizes += [path.stat().st_size for path in store.root.rglob("journal")]
    rows_of_a_part = PART_STEPS * 8 * 6
    assert rows_of_a_part / 2 < max(sizes) < rows_of_a_part + 1000


def test_a_reader_sees_the_history_as_it_was_when_it_began(store):
    with store.writer(KEY, STEP) as writer:
        writer.add(answer(0, 60))
        writer.seal()
        pieces = store.iterate(KEY)
        first = next(pieces)
        writer.add(answer(60, 100))
        writer.add(answer(0, 60, make_history(COUNT)))
        writer.seal()
        rest = list(pieces)
    seen = pd.concat([first, *rest])
    assert seen.index.as_unit("ms").asi8[-1] == START + 59 * STEP
    assert not seen.index.duplicated().any()
    assert len(store.read("bybit", "BTC/USDT:USDT", "1h")) == 99


def test_readers_see_whole_pages_while_pages_are_written(store):
    history = make_history(1500)

    def write():
        with store.writer(KEY, STEP) as writer:
            windows = writer.missing(history.window, 10)
            for row in np.random.default_rng(0).permutation(len(windows)):
                writer.add(page_of(history, windows[row]))

    thread = threading.Thread(target=write)
    thread.start()
    seen = [0]
    try:
        while thread.is_alive():
            if not store.settled(KEY):
                continue
            stamps = store.read("bybit", "BTC/USDT:USDT", "1h").index.as_unit("ms").asi8
            counts = np.unique((stamps // STEP) // 10, return_counts=True)[1]
            assert (counts[1:-1] == 10).all()
            assert len(stamps) >= seen[-1]
            seen.append(len(stamps))
    finally:
        thread.join()
    assert len(set(seen)) > 5
    assert store.check(KEY) == []


def test_pieces_are_what_read_gives(store):
    fetch(store, HISTORY)
    whole = store.read("bybit", "BTC/USDT:USDT", "1h")
    for since, until in [(None, None), ("2024-01-02", "2024-01-04T05:30"), (START, START)]:
        pieces = list(store.iterate(KEY, since, until))
        frame = store.read("bybit", "BTC/USDT:USDT", "1h", since, until)
        pd.testing.assert_frame_equal(pd.concat([whole.iloc[:0], *pieces]), frame)
    assert len(list(store.iterate(KEY))) == 4
