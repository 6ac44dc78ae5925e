"""One division of a history."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from glow_bt.errors import ConfigError, TooFewBarsError
from glow_bt.folds import Fold, chronological_split, split_at
from tests.folds.divisions import in_order, refusal, split_settings, suffices_from


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


def test_the_message_says_how_many_bars_are_missing():
    with pytest.raises(TooFewBarsError, match=r"needs at least 746 bars, found 700; give 46 more"):
        chronological_split(700, purge=62)


@given(st.data(), st.integers(0, 400))
def test_the_bars_asked_for_are_those_that_a_search_one_by_one_finds(data, n_bars):
    """Down from a length that suffices, one by one, also where rounding goes to and fro."""
    settings = split_settings(data.draw)
    error = refusal(chronological_split, n_bars, settings)
    assume(error is not None)
    train, validation, _ = settings["fractions"]
    length = math.ceil(
        max(
            (settings["min_train"] + 1) / train,
            (settings["min_validation"] + settings["purge"] + 2) / validation,
        )
    )
    while refusal(chronological_split, length - 1, settings) is None:
        length -= 1
    assert error.needed == length


def test_a_tiny_share_is_refused_or_answered_at_once():
    with pytest.raises(TooFewBarsError, match="needs at least 11200000 bars"):
        chronological_split(1000, purge=62, fractions=(0.5, 1e-5, 0.49999))
    with pytest.raises(ConfigError, match="sum to 1, found"):
        chronological_split(1000, purge=62, fractions=(0.5, 1e-12, 0.5 - 1e-12))


@pytest.mark.parametrize(
    "divide",
    [
        lambda **purges: chronological_split(1000, **purges),
        lambda **purges: split_at(1000, 500, 800, **purges),
    ],
)
def test_a_purge_below_windows_and_horizon_is_refused(divide):
    assert divide(purge=66, min_purge=66) == divide(purge=66)
    with pytest.raises(
        ConfigError, match=r"purge of at least 67 bars, .* horizon reach, found 66"
    ):
        divide(purge=66, min_purge=67)
