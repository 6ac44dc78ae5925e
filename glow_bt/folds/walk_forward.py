"""Test blocks that follow one another, each with its own past to train on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from pandas.tseries.offsets import BaseOffset

from glow_bt.errors import ConfigError, TooFewBarsError
from glow_bt.folds.blocks import MIN_BLOCK, Fold, check_count, check_purge, least_length
from glow_bt.folds.calendar import (
    bars_since_border,
    calendar_offset,
    calendar_starts,
    utc_index,
)

__all__ = ["DEFAULT_FOLDS", "walk_forward_folds"]

DEFAULT_FOLDS = 4


def walk_forward_folds(
    n_bars: int,
    n_folds: int | None = None,
    *,
    purge: int,
    min_purge: int = 0,
    test_fraction: float = 0.6,
    test_every: int | str | BaseOffset | None = None,
    index: pd.DatetimeIndex | None = None,
    validation_fraction: float = 0.2,
    validation_bars: int | None = None,
    train_bars: int | None = None,
    expanding: bool = True,
    min_train: int = MIN_BLOCK,
    min_validation: int = MIN_BLOCK,
) -> list[Fold]:
    """Divide the last part of a history into test blocks, each with its own past to train on.

    Test blocks follow one another without a hole. Before each stand `purge` unused bars, then
    its validation block, `purge` unused bars, and its training block. No training bar comes
    after a held-out one of the same fold, so no embargo is needed.

    Args:
        n_bars: length of the history.
        n_folds: number of test blocks of equal size; 4, unless test_every is given.
        purge: bars left out between blocks, at least the longest feature window; with labels
            that reach over the end of a block, that and the horizon.
        min_purge: longest feature window and horizon, that the purge must not fall short of.
        test_fraction: share of the history that is tested.
        test_every: instead of n_folds the length of a test block: in bars, or a period of the
            calendar such as "90D", "3MS" or "QS". Blocks of bars begin with the tested share;
            blocks of the calendar begin at its borders in UTC, the first inside the tested
            share; multiples count from 1970-01-01, so that 3MS and QS are the same. A period
            without bars has no block. The last block ends with the history, and may be shorter.
        index: bar opens, for periods of the calendar; read as UTC if without a zone.
        validation_fraction: share of each fold's past that validates.
        validation_bars: instead of it, the length of each validation block. With 0 there is
            none, and one purge only lies between train and test.
        train_bars: length of each training block, with expanding=False and validation_bars.
        expanding: whether training always begins with the first bar; if not, every fold has as
            long a past as the first.
        min_train: bars that each training block needs.
        min_validation: bars that each validation block needs, unless validation_bars is 0.

    Raises:
        ConfigError: on a setting that cannot work.
        TooFewBarsError: if a block would hold fewer bars than it needs (50 in one of n_folds
            test blocks); from the number in the message on, every history is long enough (by
            the calendar: that ends at the same bar and has no holes).
    """
    for name, share in {
        "test_fraction": test_fraction,
        "validation_fraction": validation_fraction,
    }.items():
        if not 0 < share < 1:
            raise ConfigError(f"expected {name} inside (0, 1), found {share}")
    check_purge(purge, min_purge)
    past = _Past(purge, validation_fraction, validation_bars, train_bars, expanding)
    past.check(min_train, min_validation)
    tests = _Tests.of(n_bars, n_folds, test_fraction, test_every, index)

    def suffices(n: int) -> bool:
        first = tests.first(n)
        return n - first >= tests.needed and past.suffices(first, min_train, min_validation)

    borders = tests.borders(n_bars) if n_bars - tests.first(n_bars) >= tests.needed else []
    if not borders or not past.suffices(borders[0], min_train, min_validation):
        needed = least_length(suffices, n_bars)
        raise TooFewBarsError(needed, n_bars, f"{tests.purpose} with purge {purge}")
    return [
        Fold(*past.divide(start, borders[0]), test=range(start, stop))
        for start, stop in pairwise(borders)
    ]


@dataclass(frozen=True)
class _Tests:
    """Where test blocks begin and end.

    Attributes:
        fraction: share of the history that is tested.
        needed: bars that the tested share needs.
        purpose: the blocks, in words.
        count: number of blocks of equal size, if that is what was asked for.
        every: bars a block, if that is.
        starts: where blocks of the calendar begin, if those are.
    """

    fraction: float
    needed: int
    purpose: str
    count: int = 0
    every: int = 0
    starts: Sequence[int] = ()

    @classmethod
    def of(
        cls,
        n_bars: int,
        n_folds: int | None,
        fraction: float,
        every: int | str | BaseOffset | None,
        index: pd.DatetimeIndex | None,
    ) -> _Tests:
        if every is None:
            count = DEFAULT_FOLDS if n_folds is None else n_folds
            if count < 1:
                raise ConfigError(f"expected at least 1 fold, found {count}")
            check_count("n_folds", count, 1)
            return cls(fraction, count * MIN_BLOCK, f"{count} folds", count=count)
        if n_folds is not None:
            raise ConfigError(
                f"expected n_folds or test_every, found both ({n_folds} and {every!r}); "
                "leave one of them out"
            )
        if isinstance(every, int | np.integer):
            every = int(every)
            check_count("test_every", every, 1)
            return cls(fraction, every, f"testing {every} bars at a time", every=every)
        offset = calendar_offset(every)
        if index is None:
            raise ConfigError(
                f"expected the bars' index for test blocks of {offset.freqstr}, found none; "
                "give index="
            )
        if len(index) != n_bars:
            raise ConfigError(f"expected an index of {n_bars} bars, found {len(index)}")
        index = utc_index(index)
        needed = bars_since_border(index, offset)
        starts = calendar_starts(index, offset).tolist()
        return cls(fraction, needed, f"testing {offset.freqstr} at a time", starts=starts)

    def first(self, n_bars: int) -> int:
        """Return where the tested share begins; it and what is left never shrink with n_bars."""
        return round(n_bars * (1 - self.fraction))

    def borders(self, n_bars: int) -> list[int]:
        """Return where blocks begin, and the end of the last."""
        first = self.first(n_bars)
        if self.count:
            tested = n_bars - first
            return [first + round(tested * k / self.count) for k in range(self.count + 1)]
        if self.every:
            return [*range(first, n_bars, self.every), n_bars]
        return [*(start for start in self.starts if start >= first), n_bars]


@dataclass(frozen=True)
class _Past:
    """How what lies before a test block is divided."""

    purge: int
    validation_fraction: float
    validation_bars: int | None
    train_bars: int | None
    expanding: bool

    def check(self, min_train: int, min_validation: int) -> None:
        """Refuse lengths that contradict one another."""
        if self.validation_bars is not None:
            check_count("validation_bars", self.validation_bars, 0)
            if 0 < self.validation_bars < min_validation:
                raise ConfigError(
                    f"expected validation_bars of at least {min_validation}, or 0 for none, "
                    f"found {self.validation_bars}"
                )
        if self.train_bars is None:
            return
        if self.expanding or self.validation_bars is None:
            raise ConfigError(
                "expected train_bars with expanding=False and validation_bars only; give them too"
            )
        check_count("train_bars", self.train_bars, max(min_train, 1))

    def suffices(self, start: int, min_train: int, min_validation: int) -> bool:
        """Return whether the first test block may begin at a position; later ones have more.

        Neither block shrinks when the position grows, as each is a rounded share, below 1, of a
        length that grows with it, or what such a share leaves.
        """
        train, validation = self.divide(start, start)
        least = 0 if self.validation_bars == 0 else max(min_validation, 1)
        return train.start >= 0 and len(train) >= max(min_train, 1) and len(validation) >= least

    def divide(self, start: int, first: int) -> tuple[range, range]:
        """Return train and validation before a test block, and before the first one if rolling."""
        stop = start - self.purge
        begin = 0 if self.expanding else start - first
        size = self.validation_bars
        if size is None:
            size = round((stop - begin) * self.validation_fraction)
        validation = range(stop - size, stop)
        train_stop = stop if self.validation_bars == 0 else validation.start - self.purge
        if self.train_bars is not None:
            begin = train_stop - self.train_bars
        return range(begin, train_stop), validation
