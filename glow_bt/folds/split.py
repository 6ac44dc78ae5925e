"""One division of a history into train, validation and test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from glow_bt.errors import ConfigError, TooFewBarsError
from glow_bt.folds.blocks import MIN_BLOCK, Fold, check_purge, least_length

__all__ = ["check_fractions", "chronological_split", "split_at"]

# A share below this divides nothing: 50 bars of it would ask for five million.
_LEAST_SHARE = 1e-5


def chronological_split(
    n_bars: int,
    *,
    purge: int,
    min_purge: int = 0,
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
    min_train: int = MIN_BLOCK,
    min_validation: int = MIN_BLOCK,
) -> Fold:
    """Divide a history once, by shares of its bars, with `purge` bars lost at each border.

    Args:
        n_bars: length of the history.
        purge: bars left out before validation and before test.
        min_purge: longest feature window and horizon, that the purge must not fall short of.
        fractions: shares of train, validation and test; they sum to 1.
        min_train: bars that the training block needs.
        min_validation: bars that the validation block needs.

    Raises:
        ConfigError: if the shares are not positive or do not sum to 1 (test may be 0), or the
            purge is negative or below min_purge.
        TooFewBarsError: if train or validation would hold fewer bars than they need; from the
            number in the message on, every history is long enough.
    """
    check_fractions(fractions)
    check_purge(purge, min_purge)
    train, validation, test = fractions
    validation_stop = n_bars if test == 0 else round(n_bars * (train + validation))
    fold = split_at(n_bars, round(n_bars * train), validation_stop, purge=purge)
    if len(fold.train) < min_train or len(fold.validation) < min_validation:
        needed = _needed(n_bars, purge, fractions, min_train, min_validation)
        raise TooFewBarsError(needed, n_bars, f"a split {fractions} with purge {purge}")
    return fold


def _needed(
    n_bars: int,
    purge: int,
    fractions: tuple[float, float, float],
    min_train: int,
    min_validation: int,
) -> int:
    """Return the least length from which on every history has large enough blocks.

    The training block never shrinks when the history grows. The validation block may, by a bar,
    as both of its ends are rounded: round((a + v) n) - round(a n) is within 1 of v n. So it is
    too small below (needed - 1) / v bars, large enough above (needed + 1) / v, and between the
    two it is looked at.
    """
    train, validation, test = fractions
    needed = 0
    if min_train > 0:
        needed = least_length(lambda n: round(n * train) >= min_train, 0)
    if min_validation <= 0:
        return needed
    lengths: npt.NDArray[np.int64] = np.arange(
        max(int((min_validation + purge - 2) / validation) - 1, 0),
        int((min_validation + purge + 2) / validation) + 2,
    )
    # As round does, to even.
    stop = lengths if test == 0 else np.rint(lengths * (train + validation)).astype(np.int64)
    size = stop - np.rint(lengths * train).astype(np.int64) - purge
    return max(needed, int(lengths[np.flatnonzero(size < min_validation)[-1]]) + 1)


def check_fractions(fractions: Sequence[float]) -> None:
    """Refuse shares of train, validation and test that divide nothing.

    Raises:
        ConfigError: unless train and validation are above 0 (1e-5 is the least), test is 0 or
            more, and the sum is 1.
    """
    sound = (
        len(fractions) == 3
        and min(fractions[:2]) >= _LEAST_SHARE
        and fractions[2] >= 0
        and abs(sum(fractions) - 1) <= 1e-9
    )
    if not sound:
        raise ConfigError(
            "expected shares of train, validation and test above 0 (test may be 0) that sum to "
            f"1, found {fractions}; give such as (0.7, 0.15, 0.15)"
        )


def split_at(
    n_bars: int, train_stop: int, validation_stop: int, *, purge: int, min_purge: int = 0
) -> Fold:
    """Divide a history at two given positions; the purge is taken from each block's start.

    Raises:
        ConfigError: unless 0 <= train_stop <= validation_stop <= n_bars and the purge is at
            least 0 and min_purge.
    """
    check_purge(purge, min_purge)
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
