import math
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from glow_bt.errors import ConfigError, TooFewBarsError
from glow_bt.folds import MIN_BLOCK, Fold, chronological_split, split_at, walk_forward_folds

purges = st.integers(0, 120)
blocks = st.integers(1, 400)
shares = st.floats(0.05, 0.9)


@st.composite
def fractions(draw):
    train = draw(st.floats(0.1, 0.85))
    validation = draw(st.floats(0.05, 1.0)) * (1.0 - train)
    test = 1.0 - train - validation
    return train, validation, test if test > 1e-3 else 0.0


def split_settings(draw):
    shares = draw(fractions())
    assume(math.isclose(sum(shares), 1.0, abs_tol=1e-9))
    return {
        "purge": draw(purges),
        "fractions": shares,
        "min_train": draw(blocks),
        "min_validation": draw(blocks),
    }


def walk_settings(draw):
    return {
        "n_folds": draw(st.integers(1, 8)),
        "purge": draw(purges),
        "test_fraction": draw(shares),
        "validation_fraction": draw(shares),
        "expanding": draw(st.booleans()),
        "min_train": draw(blocks),
        "min_validation": draw(blocks),
    }


def refusal(divide, n_bars, settings):
    try:
        divide(n_bars, **settings)
    except TooFewBarsError as error:
        return error
    return None


def suffices_from(error, divide, settings, more):
    """The number in the message suffices, so does any larger one, and none below it."""
    assert error.found < error.needed
    assert refusal(divide, error.needed, settings) is None
    assert refusal(divide, error.needed + more, settings) is None
    assert refusal(divide, error.needed - 1, settings).needed == error.needed


def in_order(fold, n_bars, purge):
    """Blocks begin where they may, and at least `purge` bars lie between neighbours."""
    assert fold.train.step == fold.validation.step == fold.test.step == 1
    assert 0 <= fold.train.start < fold.train.stop
    assert fold.train.stop + purge <= fold.validation.start < fold.validation.stop
    if fold.test:
        assert fold.validation.stop + purge <= fold.test.start
    assert max(fold.validation.stop, fold.test.stop) <= n_bars


@given(st.data(), st.integers(0, 5000))
def test_a_split_is_purged_in_order_and_as_large_as_asked(data, n_bars):
    settings = split_settings(data.draw)
    assume(refusal(chronological_split, n_bars, settings) is None)
    fold = chronological_split(n_bars, **settings)
    in_order(fold, n_bars, settings["purge"])
    assert len(fold.train) >= settings["min_train"]
    assert len(fold.validation) >= settings["min_validation"]


@given(st.data(), st.integers(0, 5000), st.integers(0, 300))
def test_the_bars_that_a_split_asks_for_suffice_and_no_fewer(data, n_bars, more):
    settings = split_settings(data.draw)
    error = refusal(chronological_split, n_bars, settings)
    assume(error is not None)
    suffices_from(error, chronological_split, settings, more)


def test_a_split_by_hand():
    fold = chronological_split(1000, purge=62)
    assert fold == Fold(range(700), range(762, 850), range(912, 1000))


def test_a_split_without_a_test_block_uses_all_bars():
    fold = chronological_split(1000, purge=10, fractions=(0.8, 0.2, 0.0))
    assert fold == Fold(range(800), range(810, 1000), range(1000, 1000))


def test_a_test_block_that_the_purge_swallows_is_empty():
    fold = chronological_split(1000, purge=62, fractions=(0.75, 0.2, 0.05))
    assert not fold.test


@pytest.mark.parametrize(
    "wrong",
    [
        (0.7, 0.15, 0.2),
        (0.0, 0.5, 0.5),
        (1.0, 0.0, 0.0),
        (0.8, 0.3, -0.1),
        (0.5, 0.5),
        (math.nan, 0.5, 0.5),
    ],
)
def test_shares_that_do_not_divide_are_refused(wrong):
    with pytest.raises(ConfigError, match="sum to 1, found"):
        chronological_split(1000, purge=0, fractions=wrong)


@pytest.mark.parametrize(("train_stop", "validation_stop"), [(-1, 5), (6, 5), (5, 11)])
def test_positions_out_of_order_are_refused(train_stop, validation_stop):
    with pytest.raises(ConfigError, match="in order of time"):
        split_at(10, train_stop, validation_stop, purge=0)


def test_a_split_at_positions_takes_the_purge_from_the_start_of_blocks():
    assert split_at(100, 50, 80, purge=5) == Fold(range(50), range(55, 80), range(85, 100))


@given(st.data(), st.integers(0, 8000))
def test_walk_forward_folds_are_purged_and_their_tests_cover_the_end(data, n_bars):
    settings = walk_settings(data.draw)
    assume(refusal(walk_forward_folds, n_bars, settings) is None)
    folds = walk_forward_folds(n_bars, **settings)
    assert len(folds) == settings["n_folds"]
    for fold in folds:
        in_order(fold, n_bars, settings["purge"])
        assert fold.validation.start - fold.train.stop == settings["purge"]
        assert fold.test.start - fold.validation.stop == settings["purge"]
        assert len(fold.train) >= settings["min_train"]
        assert len(fold.validation) >= settings["min_validation"]
        assert len(fold.test) >= MIN_BLOCK
    assert all(before.test.stop == after.test.start for before, after in pairwise(folds))
    assert folds[-1].test.stop == n_bars
    assert folds[0].test.start == round(n_bars * (1 - settings["test_fraction"]))
    sizes = [len(fold.test) for fold in folds]
    assert max(sizes) - min(sizes) <= 1


@given(st.data(), st.integers(0, 8000), st.integers(0, 300))
def test_the_bars_that_a_walk_forward_asks_for_suffice_and_no_fewer(data, n_bars, more):
    settings = walk_settings(data.draw)
    error = refusal(walk_forward_folds, n_bars, settings)
    assume(error is not None)
    suffices_from(error, walk_forward_folds, settings, more)


def test_expanding_folds_train_from_the_first_bar_and_rolling_ones_on_as_many_bars_each():
    expanding = walk_forward_folds(4000, 5, purge=62)
    assert all(fold.train.start == 0 for fold in expanding)
    assert all(len(a.train) < len(b.train) for a, b in pairwise(expanding))
    rolling = walk_forward_folds(4000, 5, purge=62, expanding=False)
    assert len({(len(fold.train), len(fold.validation)) for fold in rolling}) == 1
    assert rolling[0] == expanding[0]
    assert [fold.test for fold in rolling] == [fold.test for fold in expanding]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_folds": 0, "purge": 0}, "at least 1 fold"),
        ({"purge": -1}, "purge of 0 bars or more"),
        ({"purge": 0, "test_fraction": 1.0}, "test_fraction inside"),
        ({"purge": 0, "validation_fraction": 0.0}, "validation_fraction inside"),
    ],
)
def test_walk_forward_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        walk_forward_folds(1000, **settings)


def test_the_message_says_how_many_bars_are_missing():
    with pytest.raises(TooFewBarsError, match=r"needs at least 746 bars, found 700; give 46 more"):
        chronological_split(700, purge=62)
