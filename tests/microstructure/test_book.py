import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glow_bt.errors import DataError
from glow_bt.microstructure import BookUpdate, OrderBook, Outcome


def snapshot(update_id, bids, asks):
    return BookUpdate(True, 0, update_id, bids, asks)


def delta(update_id, bids=(), asks=()):
    return BookUpdate(False, 0, update_id, bids, asks)


@pytest.fixture
def book():
    book = OrderBook()
    whole = snapshot(5, [["99.5", "2"], ["99", "4"]], [["100.5", "3"], ["101", "1"]])
    assert book.apply(whole) is Outcome.APPLIED
    return book


def test_a_snapshot_is_the_book_in_any_order():
    book = OrderBook()
    book.apply(snapshot(5, [["99", "4"], ["99.5", "2"]], [["101", "1"], ["100.5", "3"]]))
    assert book.bids(5) == [(99.5, 2), (99, 4)]
    assert book.asks(5) == [(100.5, 3), (101, 1)]
    assert book.bids(1) == [(99.5, 2)]
    assert book.valid
    assert book.update_id == 5


def test_a_delta_sets_adds_and_removes_levels(book):
    changes = delta(6, [["99.5", "0"], ["98", "7"]], [["100.5", "8"], ["100", "1"]])
    assert book.apply(changes) is Outcome.APPLIED
    assert book.bids(5) == [(99, 4), (98, 7)]
    assert book.asks(5) == [(100, 1), (100.5, 8), (101, 1)]


def test_removing_what_is_not_there_changes_nothing(book):
    assert book.apply(delta(6, [["50", "0"]])) is Outcome.APPLIED
    assert book.bids(5) == [(99.5, 2), (99, 4)]


def test_a_price_written_with_other_zeros_is_the_same_level(book):
    book.apply(delta(6, [["99.50", "6"], ["099.0", "0.000"]]))
    assert book.bids(5) == [(99.5, 6)]


def test_an_older_delta_is_dropped(book):
    for stale in (5, 4):
        assert book.apply(delta(stale, [["99.5", "9"]])) is Outcome.STALE
    assert book.bids(1) == [(99.5, 2)]
    assert book.apply(delta(6)) is Outcome.APPLIED


def test_a_gap_makes_the_book_unknown_until_a_snapshot(book):
    assert book.apply(delta(7, [["99.5", "9"]])) is Outcome.GAP
    assert not book.valid
    assert book.update_id is None
    assert book.bids(5) == book.asks(5) == []
    assert book.apply(delta(8)) is Outcome.AWAITING
    assert book.apply(snapshot(9, [["98", "1"]], [["99", "1"]])) is Outcome.APPLIED
    assert book.bids(5) == [(98, 1)]


def test_a_delta_before_any_snapshot_is_dropped():
    assert OrderBook().apply(delta(7, [["1", "1"]])) is Outcome.AWAITING


def test_a_crossed_book_is_unknown(book):
    assert book.apply(delta(6, [["100.5", "1"]])) is Outcome.CROSSED
    assert not book.valid
    assert book.apply(delta(7)) is Outcome.AWAITING


def test_an_update_id_of_one_starts_anew_even_as_a_delta(book):
    assert book.apply(delta(1, [["10", "1"]], [["11", "1"]])) is Outcome.APPLIED
    assert book.bids(5) == [(10, 1)]
    assert book.apply(delta(2, [["9", "1"]])) is Outcome.APPLIED


def test_an_empty_side_is_known_to_be_empty(book):
    assert book.apply(snapshot(9, [], [["99", "1"]])) is Outcome.APPLIED
    assert book.valid
    assert book.bids(5) == []


@pytest.mark.parametrize(
    "level",
    [
        *([price, "1"] for price in ("-1", "0", "1e2", "abc", "", "nan", "1.0000000000001", "٣")),
        *(["99", size] for size in ("-1", "x", "nan", "inf", None)),
        [100.5, "1"],
        ["99"],
        ["99", "1", "1"],
        None,
        7,
    ],
)
def test_a_level_that_is_none_is_refused_and_the_book_unknown(book, level):
    with pytest.raises(DataError, match=r"expected levels \[price, size\] as text"):
        book.apply(delta(6, [["99.5", "9"], level]))
    assert not book.valid


def test_many_prices_are_forgotten_without_harm(monkeypatch):
    monkeypatch.setattr("glow_bt.microstructure.book._REMEMBERED_PRICES", 3)
    book = OrderBook()
    book.apply(snapshot(1, [[str(price), "1"] for price in range(1, 20)], []))
    book.apply(delta(2, [[f"{price}.0", "0"] for price in range(1, 19)]))
    assert book.bids(5) == [(19, 1)]


PRICES = st.integers(1, 40).map(lambda ticks: f"{ticks / 10:.1f}")
LEVELS = st.lists(st.tuples(PRICES, st.sampled_from(["0", "1", "2.5"])), max_size=6)


@settings(max_examples=30)
@given(st.lists(st.tuples(LEVELS, LEVELS), max_size=12))
def test_a_book_holds_what_a_dictionary_would(changes):
    book = OrderBook()
    book.apply(snapshot(10, [], []))
    bids, asks = {}, {}
    for number, (bid_changes, ask_changes) in enumerate(changes, start=11):
        ask_changes = [(str(float(price) + 5), size) for price, size in ask_changes]
        book.apply(delta(number, bid_changes, ask_changes))
        for side, rows in ((bids, bid_changes), (asks, ask_changes)):
            side.update({float(price): float(size) for price, size in rows})
    assert book.bids(99) == sorted(((p, q) for p, q in bids.items() if q), reverse=True)
    assert book.asks(99) == sorted((p, q) for p, q in asks.items() if q)
