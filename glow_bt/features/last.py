"""The market state of one bar from its window, for live feeds: few calls, however small.

A third way of filling `WindowStatistics`, beside batch and streaming. Its sums are formed in the
order of `glow_bt.features.windows.rolling_sum`, so that they are equal to the bit.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from glow_bt.errors import TooFewBarsError
from glow_bt.features.bars import as_columns
from glow_bt.features.spec import DEFAULT_SPEC, FEATURES, FeatureSpec
from glow_bt.features.windows import FloatArray, WindowStatistics, nested_means

__all__ = ["last_features"]

# Series that are summed, in the order in which they are joined; a zero comes last.
_SERIES = ("square", "volume", "rises", "falls", "signed", "log_close", "range_square")


def last_features(window: FloatArray, spec: FeatureSpec = DEFAULT_SPEC) -> FloatArray:
    """Compute the market state of the last bar of a window only.

    Args:
        window: (at least `spec.min_bars`, 5) open, high, low, close, volume; older bars than
            needed are not looked at.
        spec: windows and paddings.

    Returns:
        (16,) in the order of `spec.names`, equal to the bit to the last row of `feature_array`.

    Raises:
        TooFewBarsError: if the window is shorter than `spec.min_bars`.
        FeatureError: if the shape is another, or a bar breaks the contract.
    """
    if len(window) < spec.min_bars:
        raise TooFewBarsError(spec.min_bars, len(window), "the market state of a bar")
    statistics = _statistics(as_columns(window[-spec.min_bars :]), spec)
    return np.array([feature.value(statistics, spec) for feature in FEATURES])


def _statistics(columns: FloatArray, spec: FeatureSpec) -> WindowStatistics[float]:
    _, high, low, close, volume = columns
    short, medium, long = spec.windows
    returns = np.log(close[1:] / close[:-1])
    square = returns * returns
    log_range = np.log(high / low)
    range_square = log_range * log_range
    series = np.concatenate(
        [
            square,
            volume[1:],
            np.where(returns > 0.0, square, 0.0),
            np.where(returns < 0.0, square, 0.0),
            np.sign(returns) * volume[1:],
            np.log(close[1:]),
            range_square[1:],
            [0.0],
        ]
    )
    sums = _summed(series, spec)
    moves = np.log(close[-1] / close[[-1 - short, -1 - medium, -1 - long]]).tolist()
    last_close, last_range = float(close[-1]), float(range_square[-1])
    return WindowStatistics(
        sigma=max(math.sqrt(sums[0] / long), spec.sigma_floor),
        return_1=float(returns[-1]),
        return_short=moves[0],
        return_medium=moves[1],
        return_long=moves[2],
        trend=float(series[6 * len(returns) - 1]) - sums[4] / medium,
        squares=nested_means((sums[7], sums[8], sums[9]), spec.windows),
        square_up=sums[1] / medium,
        square_down=sums[2] / medium,
        range_square=last_range,
        range_before=sums[5] / (medium - 1),
        range_medium=(sums[5] + last_range) / medium,
        volume=float(volume[-1]),
        volume_before=sums[6] / (medium - 1),
        volumes=nested_means((sums[10], sums[11], sums[12]), spec.windows),
        volume_signed=sums[3] / medium,
        close=last_close,
        low=float(low[-1]),
        high=float(high[-1]),
        low_medium=min(low[-medium:].tolist()),
        high_medium=max(high[-medium:].tolist()),
    )


def _summed(series: FloatArray, spec: FeatureSpec) -> list[float]:
    """Return the sums that `_windows` names, of series joined one after another."""
    blocks = series[_gathering(spec)]
    while blocks.shape[-1] > 1:
        blocks = blocks[..., 0::2] + blocks[..., 1::2]
    parts = blocks[..., 0]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    sums: list[float] = total.tolist()
    return sums


def _windows(spec: FeatureSpec) -> list[tuple[str, int, int]]:
    """Return series, length and lag in bars of each sum."""
    short, medium, long = spec.windows
    return [
        ("square", long, 1),
        ("rises", medium, 0),
        ("falls", medium, 0),
        ("signed", medium, 0),
        ("log_close", medium, 0),
        ("range_square", medium - 1, 1),
        ("volume", medium - 1, 1),
        *(
            (name, length, lag)
            for name in ("square", "volume")
            for length, lag in ((short, 0), (medium - short, short), (long - medium, medium))
        ),
    ]


@lru_cache(maxsize=16)
def _gathering(spec: FeatureSpec) -> npt.NDArray[np.intp]:
    """Return (P, S, L) where the values of part p of sum s stand among the joined series.

    A window is cut into parts whose lengths are the powers of two that make it up, smallest
    first and oldest first, and each part is halved down to neighbours. What is too short is
    filled with the zero at the end, which changes no sum.
    """
    length = spec.min_bars - 1  # of each series
    windows = _windows(spec)
    bits = max(size.bit_length() for _, size, _ in windows)
    at = np.full((bits, len(windows), 1 << (bits - 1)), len(_SERIES) * length, dtype=np.intp)
    for s, (name, size, lag) in enumerate(windows):
        start = _SERIES.index(name) * length + length - lag - size
        for p in range(bits):
            if size >> p & 1:
                at[p, s, : 1 << p] = start + np.arange(1 << p)
                start += 1 << p
    return at
