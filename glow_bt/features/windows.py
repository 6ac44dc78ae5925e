"""What the market state reads off its windows, and sliding windows over whole arrays.

`WindowStatistics` is where batch and streaming meet: each fills it in its own way, and the
formulas of `glow_bt.features.spec` read nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FloatArray",
    "NestedMeans",
    "Value",
    "WindowStatistics",
    "nested_means",
    "rolling_max",
    "rolling_min",
    "rolling_sum",
]

FloatArray = NDArray[np.float64]
Value = TypeVar("Value", float, FloatArray)
_Combine = Callable[[FloatArray, FloatArray], FloatArray]


class NestedMeans(NamedTuple, Generic[Value]):
    """Means of one series over the short, medium and long windows and over their rests.

    Attributes:
        short: over the short window.
        before_short: over the bars of the medium window that precede the short one.
        medium: over the medium window.
        before_medium: over the bars of the long window that precede the medium one.
        long: over the long window.
    """

    short: Value
    before_short: Value
    medium: Value
    before_medium: Value
    long: Value


class WindowStatistics(NamedTuple, Generic[Value]):
    """What the windows that end at a bar hold: floats, or arrays (N,) over bars.

    Windows are the spec's `short`, `medium` and `long` and include the current bar; "before"
    leaves it out. Returns are log returns of closes.

    Attributes:
        sigma: root mean square of the `long` returns before the current one, floored.
        return_1: return of the bar.
        return_short: return over `short` bars.
        return_medium: return over `medium` bars.
        return_long: return over `long` bars.
        trend: log close less the mean of the last `medium` log closes.
        squares: means of the squared returns.
        square_up: mean over `medium` of the squared returns above 0, others counting 0.
        square_down: the same of those below 0.
        range_square: squared log range of the bar, ln(high / low)^2.
        range_before: its mean over the `medium - 1` bars before.
        range_medium: its mean over `medium`.
        volume: volume of the bar.
        volume_before: its mean over the `medium - 1` bars before.
        volumes: means of the volume.
        volume_signed: mean over `medium` of volume times the sign of the return.
        close: close of the bar.
        low: low of the bar.
        high: high of the bar.
        low_medium: lowest low over `medium`.
        high_medium: highest high over `medium`.
    """

    sigma: Value
    return_1: Value
    return_short: Value
    return_medium: Value
    return_long: Value
    trend: Value
    squares: NestedMeans[Value]
    square_up: Value
    square_down: Value
    range_square: Value
    range_before: Value
    range_medium: Value
    volume: Value
    volume_before: Value
    volumes: NestedMeans[Value]
    volume_signed: Value
    close: Value
    low: Value
    high: Value
    low_medium: Value
    high_medium: Value


def nested_means(
    sums: tuple[Value, Value, Value], windows: tuple[int, int, int]
) -> NestedMeans[Value]:
    """Turn the sums over three adjoining blocks into means over nested windows.

    Blocks, and not differences of nested sums: a crash then leaves no rounding behind in a sum
    of quiet bars.

    Args:
        sums: over the short window, over the bars before it in the medium window, and over the
            bars before that in the long window.
        windows: short, medium and long.
    """
    short, medium, long = windows
    newest, middle, oldest = sums
    return NestedMeans(
        short=newest / short,
        before_short=middle / (medium - short),
        medium=(newest + middle) / medium,
        before_medium=oldest / (long - medium),
        long=(newest + middle + oldest) / long,
    )


def rolling_sum(values: FloatArray, window: int) -> FloatArray:
    """Sum of every `window` neighbours along the last axis: (..., N) -> (..., N - window + 1).

    Windows are joined from halves, quarters and so on, so that each sum is formed from its own
    values alone, in the same order wherever it stands: nothing drifts, no window knows of its
    neighbours, and the rounding error grows with log2(window). Memory is linear in N.
    """
    return _join_blocks(values, window, np.add)


def rolling_max(values: FloatArray, window: int) -> FloatArray:
    """Largest of every `window` neighbours along the last axis: (..., N - window + 1)."""
    return _join_blocks(values, window, np.maximum)


def rolling_min(values: FloatArray, window: int) -> FloatArray:
    """Smallest of every `window` neighbours along the last axis: (..., N - window + 1)."""
    return _join_blocks(values, window, np.minimum)


def _join_blocks(values: FloatArray, window: int, combine: _Combine) -> FloatArray:
    """Combine neighbours into blocks of 1, 2, 4, ... and those in `window`'s binary form."""
    count = max(values.shape[-1] - window + 1, 0)
    blocks, size = values, 1
    joined, covered = blocks[..., :0], 0
    while True:
        if window & size:
            part = blocks[..., covered : covered + count]
            joined = combine(joined, part) if covered else part
            covered += size
        if 2 * size > window:
            return joined
        blocks = combine(blocks[..., :-size], blocks[..., size:])
        size *= 2
