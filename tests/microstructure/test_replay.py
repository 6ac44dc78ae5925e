import numpy as np
import pytest

from glow_bt.errors import DataError
from glow_bt.microstructure import BookReplay, BookUpdate, Outcome
from tests.microstructure.markets import random_states, random_updates


def replay(*updates, levels=2):
    replay = BookReplay(levels)
    for update in updates:
        replay.push(update)
    return replay


def snapshot(stamp, update_id):
    return BookUpdate(True, stamp, update_id, [["99", "2"]], [["101", "3"], ["102", "4"]])


def test_each_update_gives_a_state_with_missing_levels_nan():
    states = replay(snapshot(5, 7), BookUpdate(False, 9, 8, [["98", "1"]], [])).take()
    assert states.stamps.tolist() == [5, 9]
    assert states.valid.all()
    np.testing.assert_array_equal(states.bids[0], [[99, 2], [np.nan, np.nan]])
    np.testing.assert_array_equal(states.bids[1], [[99, 2], [98, 1]])
    np.testing.assert_array_equal(states.asks[0], [[101, 3], [102, 4]])


def test_a_lost_book_is_a_state_and_a_snapshot_ends_it():
    kept = replay(
        snapshot(5, 7),
        BookUpdate(False, 6, 7, [], []),
        BookUpdate(False, 9, 9, [], []),
        BookUpdate(False, 10, 10, [], []),
        snapshot(12, 11),
    )
    assert dict(kept.counts) == {"applied": 2, "stale": 1, "gap": 1, "awaiting": 1, "resyncs": 1}
    states = kept.take()
    assert states.stamps.tolist() == [5, 9, 12]
    assert states.valid.tolist() == [True, False, True]
    assert np.isnan(states.bids[1]).all()


def test_a_crossed_book_is_lost():
    kept = replay(snapshot(5, 7), BookUpdate(False, 6, 8, [["101", "1"]], []))
    assert kept.take().valid.tolist() == [True, False]
    assert not kept.valid


def test_a_malformed_update_loses_the_book():
    kept = replay(snapshot(5, 7))
    with pytest.raises(DataError, match="expected levels"):
        kept.push(BookUpdate(False, 6, 8, [["x", "1"]], []))
    assert kept.take().valid.tolist() == [True, False]
    assert kept.push(snapshot(9, 9)) is Outcome.APPLIED
    assert kept.counts["resyncs"] == 1


def test_a_broken_connection_loses_a_known_book_once():
    kept = replay(snapshot(5, 7))
    kept.lose(8)
    kept.lose(9)
    assert kept.take().stamps.tolist() == [5, 8]


def test_a_clock_that_steps_back_does_not_change_the_past():
    kept = replay(snapshot(5, 7), BookUpdate(False, 3, 8, [], []))
    assert kept.counts["reordered"] == 1
    assert kept.take().stamps.tolist() == [5, 5]


def test_states_do_not_depend_on_when_they_are_taken():
    whole = random_states(3, 200, 5000, losses=0.05)
    kept = BookReplay(3)
    parts = []
    for update in random_updates(3, 200, 5000, losses=0.05):
        kept.push(update)
        if len(kept) == 17:
            parts.append(kept.take())
    parts.append(kept.take())
    np.testing.assert_array_equal(np.concatenate([part.asks for part in parts]), whole.asks)
    assert not len(kept.take())
    assert not whole.valid.all()
