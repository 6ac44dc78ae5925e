"""Combinatorial purged cross-validation (Lopez de Prado 2018, ch. 12)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from glow_bt.errors import ConfigError, TooFewBarsError
from glow_bt.folds.blocks import MIN_BLOCK, check_count, check_purge, least_length, training_ranges

__all__ = ["CombinatorialFold", "CombinatorialFolds", "combinatorial_purged_folds"]

Positions = npt.NDArray[np.int64]

# A model is trained for each fold.
_MOST_FOLDS = 20_000
_MOST_GROUPS = 200


@dataclass(frozen=True)
class CombinatorialFold:
    """One choice of groups to test.

    Attributes:
        groups: numbers of the tested groups, from 0, ascending.
        train: ranges of bars, in order of time, that may be trained on.
        test: the tested groups' bars, in order of time.
    """

    groups: tuple[int, ...]
    train: tuple[range, ...]
    test: tuple[range, ...]


@dataclass(frozen=True)
class CombinatorialFolds:
    """All choices of groups to test, and how their tests make paths.

    Attributes:
        groups: (G,) bars of each group; together all of the history.
        folds: (C(G, k),) a fold for each choice of k groups.
        paths: (C(G - 1, k - 1), G) for each path and group the number of the fold, from 0, whose
            test of that group belongs to the path. Each path covers the history once, and each
            test of a fold is in one path.
    """

    groups: tuple[range, ...]
    folds: tuple[CombinatorialFold, ...]
    paths: tuple[tuple[int, ...], ...]

    def path_blocks(self, path: int) -> tuple[tuple[int, range], ...]:
        """Return a path's blocks in order of time: the number of the fold, and the bars."""
        return tuple(zip(self.paths[path], self.groups, strict=True))

    def indices(self) -> Iterator[tuple[Positions, Positions]]:
        """Yield training and test positions of each fold; a list of them is a scikit-learn cv."""
        for fold in self.folds:
            yield _positions(fold.train), _positions(fold.test)


def combinatorial_purged_folds(
    n_bars: int,
    n_groups: int = 6,
    n_test_groups: int = 2,
    *,
    purge: int,
    min_purge: int = 0,
    embargo: int = 0,
    min_train: int = MIN_BLOCK,
    min_test: int = MIN_BLOCK,
) -> CombinatorialFolds:
    """Test every choice of k out of G groups of bars, trained on the others.

    With one test group it is purged k-fold cross-validation. Training bars may come after test
    bars: good for many paths of a backtest, not for what a model would have known at the time.

    Args:
        n_bars: length of the history.
        n_groups: G, groups that follow one another, as equal as they can be, the longer first.
        n_test_groups: k, groups that each fold tests.
        purge: bars left out on either side of each test block.
        min_purge: longest feature window and horizon, that the purge must not fall short of.
        embargo: more bars left out after each test block.
        min_train: bars that each fold needs to train on.
        min_test: bars that each group needs.

    Raises:
        ConfigError: on a setting that cannot work, or more than 200 groups or 20,000 folds.
        TooFewBarsError: if groups or training bars are too few; from the number in the message
            on, every history is long enough.
    """
    check_purge(purge, min_purge)
    check_count("embargo", embargo, 0)
    _check_groups(n_groups, n_test_groups)

    def suffices(n: int) -> bool:
        return n // n_groups >= max(min_test, 1) and (
            _least_train(n, n_groups, n_test_groups, purge, embargo) >= max(min_train, 1)
        )

    if not suffices(n_bars):
        raise TooFewBarsError(
            least_length(suffices, n_bars),
            n_bars,
            f"testing {n_test_groups} of {n_groups} groups, purge {purge}, embargo {embargo},",
        )
    groups = _groups(n_bars, n_groups)
    folds = []
    for chosen in combinations(range(n_groups), n_test_groups):
        test = tuple(groups[group] for group in chosen)
        train = training_ranges(n_bars, test, purge=purge, embargo=embargo)
        folds.append(CombinatorialFold(chosen, train, test))
    tests: list[list[int]] = [[] for _ in groups]
    for number, fold in enumerate(folds):
        for group in fold.groups:
            tests[group].append(number)
    return CombinatorialFolds(groups, tuple(folds), tuple(zip(*tests, strict=True)))


def _check_groups(n_groups: int, n_test_groups: int) -> None:
    if not 1 <= n_test_groups < n_groups:
        raise ConfigError(
            f"expected from 1 to n_groups - 1 test groups, found {n_test_groups} of {n_groups}"
        )
    if n_groups > _MOST_GROUPS or math.comb(n_groups, n_test_groups) > _MOST_FOLDS:
        raise ConfigError(
            f"expected at most {_MOST_GROUPS} groups and {_MOST_FOLDS} folds, a model each, found "
            f"more with {n_test_groups} of {n_groups} groups; take fewer"
        )


def _groups(n_bars: int, n_groups: int) -> tuple[range, ...]:
    """Divide a history into groups, none of which shrinks when the history grows."""
    size, longer = divmod(n_bars, n_groups)
    borders = [size * k + min(k, longer) for k in range(n_groups + 1)]
    return tuple(range(borders[k], borders[k + 1]) for k in range(n_groups))


def _least_train(n_bars: int, n_groups: int, n_test: int, purge: int, embargo: int) -> int:
    """Return the training bars of the fold that has fewest.

    Between two tested groups lies what `training_ranges` leaves there, so the least sum over
    all choices is a shortest path over the tested groups, one after the other.
    """
    groups = _groups(n_bars, n_groups)
    ends = np.array([max(group.start - purge, 0) for group in groups])  # where training must stop
    begins = np.array([group.stop + purge + embargo for group in groups])  # where it may go on
    between = np.maximum(ends - begins[:, None], 0)  # from row to column
    between[np.tril_indices(n_groups)] = n_bars  # more than any sum: not in order of time
    least = ends
    for _ in range(n_test - 1):
        least = (least[:, None] + between).min(axis=0)
    return int((least + np.maximum(n_bars - begins, 0)).min())


def _positions(ranges: tuple[range, ...]) -> Positions:
    return np.concatenate([np.arange(block.start, block.stop) for block in ranges])
