"""Test blocks that follow one another, each with its own past."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from glow_bt.errors import ConfigError, TooFewBarsError
from glow_bt.folds import MIN_BLOCK, Fold, walk_forward_folds
from tests.folds.divisions import (
    in_order,
    purges,
    refusal,
    shares,
    suffices_from,
    walk_settings,
)


def first_folds(n, *, n_folds, purge, test_fraction, validation_fraction, expanding, **_):
    """Folds as the first version of this code divided: results that were written rest on them."""
    first_test = round(n * (1 - test_fraction))
    borders = [first_test + round((n - first_test) * k / n_folds) for k in range(n_folds + 1)]
    folds = []
    for start, stop in pairwise(borders):
        past_start = 0 if expanding else start - first_test
        past_stop = start - purge
        validation_start = past_stop - round((past_stop - past_start) * validation_fraction)
        folds.append(
            Fold(
                train=range(past_start, validation_start - purge),
                validation=range(validation_start, past_stop),
                test=range(start, stop),
            )
        )
    return folds


def first_suffices(n, settings):
    return all(
        len(fold.train) >= settings["min_train"]
        and len(fold.validation) >= settings["min_validation"]
        and len(fold.test) >= MIN_BLOCK
        for fold in first_folds(n, **settings)
    )


@given(st.data(), st.integers(0, 8000))
def test_equal_folds_are_those_that_results_were_written_with(data, n_bars):
    settings = walk_settings(data.draw)
    error = refusal(walk_forward_folds, n_bars, settings)
    assert (error is None) == first_suffices(n_bars, settings)
    if error is None:
        assert walk_forward_folds(n_bars, **settings) == first_folds(n_bars, **settings)


@given(st.data(), st.integers(0, 2000))
def test_the_bars_asked_for_are_those_that_a_search_one_by_one_finds(data, n_bars):
    settings = walk_settings(data.draw)
    error = refusal(walk_forward_folds, n_bars, settings)
    assume(error is not None)
    # Down from what suffices: the least from which on every length does.
    length = error.needed + 200
    while first_suffices(length - 1, settings):
        length -= 1
    assert error.needed == length


def test_absurd_numbers_of_folds_are_refused_at_once():
    with pytest.raises(TooFewBarsError, match="needs at least 83333333333333 bars, found 1000"):
        walk_forward_folds(1000, 10**12, purge=62)
    with pytest.raises(ConfigError, match=r"n_folds of 1 bars or more, at most 10\^12"):
        walk_forward_folds(1000, 10**400, purge=62)


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


def counted(draw):
    """Settings with blocks counted in bars."""
    expanding = draw(st.booleans())
    validation_bars = draw(st.one_of(st.just(0), st.integers(20, 300)))
    return {
        "purge": draw(purges),
        "test_fraction": draw(shares),
        "test_every": draw(st.integers(1, 500)),
        "validation_bars": validation_bars,
        "train_bars": None if expanding else draw(st.one_of(st.none(), st.integers(50, 400))),
        "expanding": expanding,
        "min_train": draw(st.integers(1, 50)),
        "min_validation": draw(st.integers(1, 20)),
    }


@given(st.data(), st.integers(0, 4000))
def test_blocks_counted_in_bars_have_their_lengths_and_tile_the_tested_share(data, n_bars):
    settings = counted(data.draw)
    assume(refusal(walk_forward_folds, n_bars, settings) is None)
    folds = walk_forward_folds(n_bars, **settings)
    purge, every = settings["purge"], settings["test_every"]
    tested = [bar for fold in folds for bar in fold.test]
    assert tested == list(range(round(n_bars * (1 - settings["test_fraction"])), n_bars))
    assert {len(fold.test) for fold in folds[:-1]} <= {every}
    assert 1 <= len(folds[-1].test) <= every
    for fold in folds:
        assert len(fold.validation) == settings["validation_bars"]
        assert fold.test.start - fold.validation.stop == purge
        assert len(fold.train) >= settings["min_train"]
        assert fold.train.start >= 0
        if fold.validation:
            in_order(fold, n_bars, purge)
        else:
            assert fold.test.start - fold.train.stop == purge
    if not settings["expanding"]:
        assert len({len(fold.train) for fold in folds}) == 1
        assert len(folds[0].train) == settings["train_bars"] or settings["train_bars"] is None
    else:
        assert {fold.train.start for fold in folds} == {0}


@given(st.data(), st.integers(0, 2000), st.integers(0, 300))
def test_the_bars_that_counted_blocks_ask_for_suffice_and_no_fewer(data, n_bars, more):
    settings = counted(data.draw)
    error = refusal(walk_forward_folds, n_bars, settings)
    assume(error is not None)
    suffices_from(error, walk_forward_folds, settings, more)


@given(st.data(), st.integers(500, 4000), st.integers(1, 40), st.integers(1, 40))
def test_no_window_or_label_reaches_over_a_border_or_into_the_future(
    data, n_bars, window, horizon
):
    """A bar's features look back over `window` bars, itself included, its label ahead."""
    settings = data.draw(st.sampled_from([walk_settings, counted]))(data.draw)
    settings["purge"] = settings["min_purge"] = window + horizon
    assume(refusal(walk_forward_folds, n_bars, settings) is None)
    for fold in walk_forward_folds(n_bars, **settings):
        for earlier, later in (
            (fold.train, fold.validation),
            (fold.train, fold.test),
            (fold.validation, fold.test),
        ):
            if earlier and later:
                assert max(earlier) + horizon < min(later) - window + 1


def test_quarters_of_a_year_and_a_window_of_bars_by_hand():
    folds = walk_forward_folds(
        100, purge=5, test_fraction=0.5, test_every=20, validation_bars=10, train_bars=15,
        expanding=False, min_train=1, min_validation=1,
    )  # fmt: skip
    assert folds == [
        Fold(range(15, 30), range(35, 45), range(50, 70)),
        Fold(range(35, 50), range(55, 65), range(70, 90)),
        Fold(range(55, 70), range(75, 85), range(90, 100)),
    ]


def test_numbers_of_numpy_and_of_python_divide_alike():
    assert walk_forward_folds(np.int64(900), 3, purge=np.int64(10)) == walk_forward_folds(
        900, 3, purge=10
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_folds": 0, "purge": 0}, "at least 1 fold"),
        ({"purge": -1}, "purge of 0 bars or more"),
        ({"purge": 0, "test_fraction": 1.0}, "test_fraction inside"),
        ({"purge": 0, "validation_fraction": 0.0}, "validation_fraction inside"),
        ({"purge": 61, "min_purge": 62}, "purge of at least 62 bars, .* found 61; raise"),
        ({"purge": 0, "n_folds": 4, "test_every": 9}, "n_folds or test_every, found both"),
        ({"purge": 0, "test_every": 0}, "test_every of 1 bars or more"),
        ({"purge": 0, "test_every": "3 quarters"}, "such as 90D, 3MS or QS, found '3 quarters'"),
        ({"purge": 0, "test_every": "-3MS"}, "period of the calendar above 0"),
        ({"purge": 0, "test_every": "0MS"}, "period of the calendar above 0"),
        ({"purge": 0, "test_every": "3MS"}, "index for test blocks of 3MS, found none"),
        ({"purge": 0, "validation_bars": -1}, "validation_bars of 0 bars or more"),
        ({"purge": 0, "validation_bars": 49}, "validation_bars of at least 50, or 0 for none"),
        ({"purge": 0, "train_bars": 90}, "train_bars with expanding=False and validation_bars"),
        (
            {"purge": 0, "train_bars": 49, "expanding": False, "validation_bars": 0},
            "train_bars of 50 bars or more",
        ),
    ],
)
def test_walk_forward_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        walk_forward_folds(1000, **settings)
