"""Chronological folds with a purge: the only place where a history is divided.

All ranges are positions of bars, half open. A purge leaves bars between two blocks unused, so
that no feature window or forward return reaches from one block into the next (Lopez de Prado
2018, Advances in Financial Machine Learning, ch. 7).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from glow_bt.errors import ConfigError, TooFewBarsError

__all__ = [
    "MIN_BLOCK",
    "Fold",
    "check_fractions",
    "chronological_split",
    "split_at",
    "walk_forward_folds",
]

# Fewest bars in a block unless more are asked for.
MIN_BLOCK = 50


@dataclass(frozen=True)
class Fold:
    """One division of a history, in order of time.

    Attributes:
        train: bars that parameters are fitted on.
        validation: bars that decide on early stopping, filter thresholds and ranks.
        test: bars that nothing was fitted on; may be empty.
    """

    train: range
    validation: range
    test: range


def chronological_split(
    n_bars: int,
    *,
    purge: int,
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
    min_train: int = MIN_BLOCK,
    min_validation: int = MIN_BLOCK,
) -> Fold:
    """Divide a history once, by shares of its bars, with `purge` bars lost at each border.

    Args:
        n_bars: length of the history.
        purge: bars left out before validation and before test.
        fractions: shares of train, validation and test; they sum to 1.
        min_train: bars that the training block needs.
        min_validation: bars that the validation block needs.

    Raises:
        ConfigError: if the shares are not positive or do not sum to 1 (test may be 0), or the
            purge is negative.
        TooFewBarsError: if train or validation would hold fewer bars than they need; from the
            number in the message on, every history is long enough.
    """
    check_fractions(fractions)
    _check_purge(purge)
    train, validation, test = fractions

    def divide(n: int) -> Fold:
        validation_stop = n if test == 0 else round(n * (train + validation))
        return split_at(n, round(n * train), validation_stop, purge=purge)

    def suffices(n: int) -> bool:
        fold = divide(n)
        return len(fold.train) >= min_train and len(fold.validation) >= min_validation

    if not suffices(n_bars):
        # Rounding takes at most half a bar at each end of a block.
        bound = max((min_train + 1) / train, (min_validation + purge + 2) / validation)
        needed = _least_sufficient(suffices, bound)
        raise TooFewBarsError(needed, n_bars, f"a split {fractions} with purge {purge}")
    return divide(n_bars)


def check_fractions(fractions: Sequence[float]) -> None:
    """Refuse shares of train, validation and test that divide nothing.

    Raises:
        ConfigError: unless train and validation are above 0, test 0 or more, and the sum is 1.
    """
    sound = (
        len(fractions) == 3
        and min(fractions[:2]) > 0
        and fractions[2] >= 0
        and abs(sum(fractions) - 1) <= 1e-9
    )
    if not sound:
        raise ConfigError(
            "expected shares of train, validation and test above 0 (test may be 0) that sum to "
            f"1, found {fractions}; give such as (0.7, 0.15, 0.15)"
        )


def split_at(n_bars: int, train_stop: int, validation_stop: int, *, purge: int) -> Fold:
    """Divide a history at two given positions; the purge is taken from each block's start.

    Raises:
        ConfigError: unless 0 <= train_stop <= validation_stop <= n_bars and purge >= 0.
    """
    _check_purge(purge)
    if not 0 <= train_stop <= validation_stop <= n_bars:
        raise ConfigError(
            f"expected 0 <= train_stop <= validation_stop <= {n_bars} bars, found {train_stop} "
            f"and {validation_stop}; put them in order of time"
        )
    return Fold(
        train=range(train_stop),
        validation=range(min(train_stop + purge, validation_stop), validation_stop),
        test=range(min(validation_stop + purge, n_bars), n_bars),
    )


def walk_forward_folds(
    n_bars: int,
    n_folds: int = 4,
    *,
    purge: int,
    test_fraction: float = 0.6,
    validation_fraction: float = 0.2,
    expanding: bool = True,
    min_train: int = MIN_BLOCK,
    min_validation: int = MIN_BLOCK,
) -> list[Fold]:
    """Divide the last part of a history into test blocks, each with its own past to train on.

    Test blocks follow one another without a hole. Before each stand `purge` unused bars, then
    its validation block, `purge` unused bars, and its training block.

    Args:
        n_bars: length of the history.
        n_folds: number of test blocks.
        purge: bars left out between blocks, at least the longest feature window.
        test_fraction: share of the history that is tested.
        validation_fraction: share of each fold's past that validates.
        expanding: whether training always begins with the first bar; if not, every fold has as
            long a past as the first.
        min_train: bars that each training block needs.
        min_validation: bars that each validation block needs.

    Raises:
        ConfigError: on a setting that cannot work.
        TooFewBarsError: if a block would hold fewer bars than it needs (50 in a test block);
            from the number in the message on, every history is long enough.
    """
    _check_walk_forward(n_folds, purge, test_fraction, validation_fraction)

    def divide(n: int) -> list[Fold]:
        return _divide_last_part(
            n, n_folds, purge, test_fraction, validation_fraction, expanding=expanding
        )

    def suffices(n: int) -> bool:
        return all(
            len(fold.train) >= min_train
            and len(fold.validation) >= min_validation
            and len(fold.test) >= MIN_BLOCK
            for fold in divide(n)
        )

    if not suffices(n_bars):
        # Rounding takes at most a bar at each border.
        past = purge + max(
            (min_train + purge + 1) / (1 - validation_fraction),
            (min_validation + 1) / validation_fraction,
        )
        tested = n_folds * (MIN_BLOCK + 2)
        bound = max((past + 1) / (1 - test_fraction), tested / test_fraction)
        needed = _least_sufficient(suffices, bound)
        raise TooFewBarsError(needed, n_bars, f"{n_folds} folds with purge {purge}")
    return divide(n_bars)


def _check_walk_forward(
    n_folds: int, purge: int, test_fraction: float, validation_fraction: float
) -> None:
    if n_folds < 1:
        raise ConfigError(f"expected at least 1 fold, found {n_folds}")
    for name, share in {
        "test_fraction": test_fraction,
        "validation_fraction": validation_fraction,
    }.items():
        if not 0 < share < 1:
            raise ConfigError(f"expected {name} inside (0, 1), found {share}")
    _check_purge(purge)


def _divide_last_part(
    n_bars: int,
    n_folds: int,
    purge: int,
    test_fraction: float,
    validation_fraction: float,
    *,
    expanding: bool,
) -> list[Fold]:
    first_test = round(n_bars * (1 - test_fraction))
    borders = [first_test + round((n_bars - first_test) * k / n_folds) for k in range(n_folds + 1)]
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


def _least_sufficient(suffices: Callable[[int], bool], bound: float) -> int:
    """Return the least length from which on all suffice, given that all from `bound` on do."""
    length = math.ceil(bound)
    while suffices(length - 1):
        length -= 1
    return length


def _check_purge(purge: int) -> None:
    if purge < 0:
        raise ConfigError(f"expected a purge of 0 bars or more, found {purge}")
