"""Every choice of groups to test, and the paths that their tests make."""

import math
import time
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from glow_bt.errors import ConfigError, TooFewBarsError
from glow_bt.folds import CombinatorialFold, combinatorial_purged_folds
from tests.folds.divisions import refusal, suffices_from


def settings_of(draw):
    n_groups = draw(st.integers(2, 7))
    return {
        "n_groups": n_groups,
        "n_test_groups": draw(st.integers(1, n_groups - 1)),
        "purge": draw(st.integers(0, 30)),
        "embargo": draw(st.integers(0, 30)),
        "min_train": draw(st.integers(1, 100)),
        "min_test": draw(st.integers(1, 50)),
    }


@given(st.data(), st.integers(0, 1500))
def test_folds_are_all_choices_purged_and_embargoed(data, n_bars):
    settings = settings_of(data.draw)
    assume(refusal(combinatorial_purged_folds, n_bars, settings) is None)
    found = combinatorial_purged_folds(n_bars, **settings)
    g, k = settings["n_groups"], settings["n_test_groups"]
    assert [bar for group in found.groups for bar in group] == list(range(n_bars))
    sizes = [len(group) for group in found.groups]
    assert sizes == [len(part) for part in np.array_split(np.arange(n_bars), g)]
    assert min(sizes) >= settings["min_test"]
    assert [fold.groups for fold in found.folds] == list(combinations(range(g), k))
    before, behind = settings["purge"], settings["purge"] + settings["embargo"]
    for fold, (train, test) in zip(found.folds, found.indices(), strict=True):
        assert fold.test == tuple(found.groups[group] for group in fold.groups)
        np.testing.assert_array_equal(test, np.concatenate([np.asarray(b) for b in fold.test]))
        assert len(train) >= settings["min_train"]
        for block in fold.test:
            assert not ((train >= block.start - before) & (train < block.stop + behind)).any()
        # And no more is left out than has to be.
        lost = n_bars - len(train) - len(test)
        assert lost <= k * (before + behind)


@given(st.data(), st.integers(0, 1500))
def test_each_path_covers_the_history_once_and_each_test_is_in_one_path(data, n_bars):
    settings = settings_of(data.draw)
    assume(refusal(combinatorial_purged_folds, n_bars, settings) is None)
    found = combinatorial_purged_folds(n_bars, **settings)
    g, k = settings["n_groups"], settings["n_test_groups"]
    # Lopez de Prado 2018, sec. 12.4.1: phi(N, k) = k / N C(N, N - k).
    assert len(found.paths) == k * math.comb(g, g - k) // g == math.comb(g - 1, k - 1)
    used = set()
    for path in range(len(found.paths)):
        blocks = found.path_blocks(path)
        assert [bar for _, block in blocks for bar in block] == list(range(n_bars))
        for number, block in blocks:
            assert block in found.folds[number].test
            used.add((number, block.start))
    assert len(used) == len(found.paths) * g == k * len(found.folds)


def test_six_groups_by_two_are_the_fifteen_folds_and_five_paths_of_the_book():
    found = combinatorial_purged_folds(600, purge=2, embargo=3)
    assert len(found.folds) == 15
    assert found.folds[1] == CombinatorialFold(
        groups=(0, 2), train=(range(105, 198), range(305, 600)), test=(range(100), range(200, 300))
    )
    # Figure 12.2: path 1 takes the first test of each group.
    assert found.paths[0] == (0, 0, 1, 2, 3, 4)
    assert found.paths[4] == (4, 8, 11, 13, 14, 14)


def test_one_test_group_is_purged_cross_validation():
    found = combinatorial_purged_folds(500, 5, 1, purge=4, embargo=6)
    assert found.paths == ((0, 1, 2, 3, 4),)
    assert found.folds[2].train == (range(196), range(310, 500))


@given(st.data(), st.integers(0, 600), st.integers(0, 100))
def test_the_bars_asked_for_suffice_and_no_fewer(data, n_bars, more):
    settings = settings_of(data.draw)
    error = refusal(combinatorial_purged_folds, n_bars, settings)
    assume(error is not None)
    suffices_from(error, combinatorial_purged_folds, settings, more)


def test_a_history_that_grows_never_loses_training_bars():
    sizes = [
        [sum(map(len, fold.train)) for fold in combinatorial_purged_folds(n, 5, 2, purge=3).folds]
        for n in range(400, 440)
    ]
    assert all(
        a <= b for before, after in pairwise(sizes) for a, b in zip(before, after, strict=True)
    )


def test_many_groups_are_refused_or_answered_at_once():
    begun = time.perf_counter()
    with pytest.raises(TooFewBarsError, match="testing 199 of 200 groups, purge 62, embargo 9,"):
        combinatorial_purged_folds(100, 200, 199, purge=62, embargo=9)
    with pytest.raises(ConfigError, match="at most 200 groups and 20000 folds"):
        combinatorial_purged_folds(10**6, 30, 15, purge=0)
    with pytest.raises(ConfigError, match="at most 200 groups and 20000 folds"):
        combinatorial_purged_folds(10**6, 10**9, 2, purge=0)
    assert time.perf_counter() - begun < 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_test_groups": 0}, "1 to n_groups - 1 test groups, found 0 of 6"),
        ({"n_test_groups": 6}, "found 6 of 6"),
        ({"purge": -1}, "purge of 0 bars"),
        ({"min_purge": 3}, "purge of at least 3 bars"),
        ({"embargo": -1}, "embargo of 0 bars"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        combinatorial_purged_folds(1000, **{"purge": 0} | settings)
