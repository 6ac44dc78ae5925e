"""Chronological folds with a purge: the only place where a history is divided.

All ranges are positions of bars, half open. A purge leaves bars between two blocks unused, so
that no feature window or forward return reaches from one block into the next (Lopez de Prado
2018, Advances in Financial Machine Learning, ch. 7).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from glow_bt.errors import ConfigError, TooFewBarsError

__all__ = ["Fold", "chronological_split", "split_at", "walk_forward_folds"]

_MIN_BLOCK = 50


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
    n_bars: int, *, purge: int, fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
) -> Fold:
    """Divide a history once, by shares of its bars, with `purge` bars lost at each border.

    Args:
        n_bars: length of the history.
        purge: bars left out before validation and before test.
        fractions: shares of train, validation and test; they sum to 1.

    Raises:
        ConfigError: if the shares are not positive or do not sum to 1 (test may be 0).
        TooFewBarsError: if a block would hold fewer than 50 bars.
    """
    train, validation, test = fractions
    if min(train, validation) <= 0 or test < 0 or abs(sum(fractions) - 1) > 1e-9:
        raise ConfigError(
            "expected positive shares of train, validation and test that sum to 1, "
            f"found {fractions}"
        )
    train_stop = round(n_bars * train)
    validation_stop = n_bars if test == 0 else round(n_bars * (train + validation))
    fold = split_at(n_bars, train_stop, validation_stop, purge=purge)
    for share, block in ((train, fold.train), (validation, fold.validation)):
        if len(block) < _MIN_BLOCK:
            needed = math.ceil((_MIN_BLOCK + purge) / min(train, share)) + 1
            raise TooFewBarsError(needed, n_bars, f"a split {fractions} with purge {purge}")
    return fold


def split_at(n_bars: int, train_stop: int, validation_stop: int, *, purge: int) -> Fold:
    """Divide a history at two given positions; the purge is taken from each block's start."""
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
) -> list[Fold]:
    """Divide the last part of a history into test blocks, each with its own past to train on.

    Test blocks follow one another without a hole. Before each stand `purge` unused bars, then
    its validation block, `purge` unused bars, and its training block.

    Args:
        n_bars: length of the history.
        n_folds: number of test blocks.
        purge: bars left out between blocks, at least the longest feature window plus horizon.
        test_fraction: share of the history that is tested.
        validation_fraction: share of each fold's past that validates.
        expanding: whether training always begins with the first bar; if not, every fold trains
            on as many bars as the first.

    Raises:
        ConfigError: on a setting that cannot work.
        TooFewBarsError: if the first fold's blocks would hold fewer than 50 bars.
    """
    if n_folds < 1:
        raise ConfigError(f"expected at least 1 fold, found {n_folds}")
    for name, share in {
        "test_fraction": test_fraction,
        "validation_fraction": validation_fraction,
    }.items():
        if not 0 < share < 1:
            raise ConfigError(f"expected {name} inside (0, 1), found {share}")
    if purge < 0:
        raise ConfigError(f"expected a purge of 0 bars or more, found {purge}")
    first_test = round(n_bars * (1 - test_fraction))
    borders = [first_test + round((n_bars - first_test) * k / n_folds) for k in range(n_folds + 1)]
    folds = []
    for start, stop in pairwise(borders):
        past_start = 0 if expanding else start - first_test
        past_stop = start - purge
        past = past_stop - past_start
        validation_start = past_stop - round(past * validation_fraction)
        folds.append(
            Fold(
                train=range(past_start, max(validation_start - purge, past_start)),
                validation=range(validation_start, past_stop),
                test=range(start, stop),
            )
        )
    _check_first(folds[0], n_bars, purge, test_fraction, validation_fraction, n_folds)
    return folds


def _check_first(
    fold: Fold,
    n_bars: int,
    purge: int,
    test_fraction: float,
    validation_fraction: float,
    n_folds: int,
) -> None:
    if min(len(fold.train), len(fold.validation), len(fold.test)) >= _MIN_BLOCK:
        return
    past = max(
        (_MIN_BLOCK + purge) / (1 - validation_fraction) + purge,
        _MIN_BLOCK / validation_fraction + purge,
    )
    needed = max(past / (1 - test_fraction), n_folds * _MIN_BLOCK / test_fraction)
    raise TooFewBarsError(
        max(int(needed) + 2, n_bars + 1), n_bars, f"{n_folds} folds with purge {purge}"
    )
