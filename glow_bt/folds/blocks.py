"""What all divisions share: a fold, purge and embargo, the least number of bars."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from glow_bt.errors import ConfigError

__all__ = [
    "MIN_BLOCK",
    "Fold",
    "check_count",
    "check_purge",
    "least_length",
    "training_ranges",
]

# Fewest bars in a block unless more are asked for.
MIN_BLOCK = 50
# More bars than this are no history, and floats would begin to round them.
_MOST = 10**12


@dataclass(frozen=True)
class Fold:
    """One division of a history, in order of time.

    Attributes:
        train: bars that parameters are fitted on.
        validation: bars that decide on early stopping, filter thresholds and ranks; may be
            empty where none were asked for.
        test: bars that nothing was fitted on; may be empty.
    """

    train: range
    validation: range
    test: range


def training_ranges(
    n_bars: int, held_out: Iterable[range], *, purge: int, embargo: int = 0
) -> tuple[range, ...]:
    """Return the bars that may be trained on beside blocks that are held out of the middle.

    `purge` bars are left out on either side of a held-out block, for windows and forward returns
    that reach over its borders, and `embargo` more bars behind it, for what purging cannot see,
    such as serial correlation (Lopez de Prado 2018, sec. 7.4.1 and 7.4.2).

    Args:
        n_bars: length of the history.
        held_out: validation or test blocks, in any order; they may touch or overlap.
        purge: bars left out before and after each block.
        embargo: bars left out after each block and its purge.

    Returns:
        Ranges in order of time that hold at least a bar each; none, if nothing is left.

    Raises:
        ConfigError: if purge or embargo is negative.
    """
    check_purge(purge)
    check_count("embargo", embargo, 0)
    ranges = []
    start = 0
    for block in sorted((block for block in held_out if block), key=lambda block: block.start):
        if (stop := block.start - purge) > start:
            ranges.append(range(start, stop))
        start = max(start, block.stop + purge + embargo)
    if start < n_bars:
        ranges.append(range(start, n_bars))
    return tuple(ranges)


def check_purge(purge: int, min_purge: int = 0) -> None:
    """Refuse a purge that is negative or shorter than what reaches over a border.

    Args:
        purge: bars left out between blocks.
        min_purge: longest feature window and horizon in bars, as the caller knows them.

    Raises:
        ConfigError: if the purge is shorter than 0 or min_purge.
    """
    check_count("a purge", purge, 0)
    if purge < min_purge:
        raise ConfigError(
            f"expected a purge of at least {min_purge} bars, as far as the longest feature window "
            f"and the horizon reach, found {purge}; raise the purge or leave it out"
        )


def check_count(name: str, value: int, least: int) -> None:
    """Refuse a number of bars or folds below the least that works.

    Raises:
        ConfigError: outside least to 10^12.
    """
    if not least <= value <= _MOST:
        raise ConfigError(f"expected {name} of {least} bars or more, at most 10^12, found {value}")


def least_length(suffices: Callable[[int], bool], too_few: int) -> int:
    """Return the least length that suffices, given one that does not.

    Doubles and then halves, so that it asks about 2 log2(length) times.

    Args:
        suffices: monotone: a length beyond one that suffices suffices too.
        too_few: a length that does not.
    """
    step = 1
    while not suffices(too_few + step):
        too_few += step
        step *= 2
    enough = too_few + step
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if suffices(middle):
            enough = middle
        else:
            too_few = middle
    return enough
