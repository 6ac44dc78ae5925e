"""The market state bar by bar, in constant time whatever the windows and the history."""

from __future__ import annotations

import math

import numpy as np

from glow_bt.features.accumulators import Lag, RollingMax, RollingSum
from glow_bt.features.bars import Bar, BarLike, as_bar
from glow_bt.features.spec import DEFAULT_SPEC, FEATURES, FeatureSpec
from glow_bt.features.windows import FloatArray, NestedMeans, WindowStatistics, nested_means

__all__ = ["FeatureStream"]


class _NestedSums:
    """Sums of one series over three adjoining blocks, through which each value moves in turn."""

    __slots__ = ("_before_medium", "_before_short", "_short", "_windows")

    def __init__(self, windows: tuple[int, int, int]) -> None:
        short, medium, long = windows
        self._windows = windows
        self._short = RollingSum(short)
        self._before_short = RollingSum(medium - short)
        self._before_medium = RollingSum(long - medium)

    def push(self, value: float) -> NestedMeans[float]:
        """Add a value and return the means over the nested windows."""
        self._before_medium.push(self._before_short.push(self._short.push(value)))
        sums = (self._short.total, self._before_short.total, self._before_medium.total)
        return nested_means(sums, self._windows)


class FeatureStream:
    """Market state of a live series; equal to `compute_features` of the same bars to 1e-9.

    Args:
        spec: windows and paddings; default `DEFAULT_SPEC`.

    Example:
        >>> stream = FeatureStream()
        >>> bar = {"open": 1.0, "high": 1.2, "low": 0.9, "close": 1.1, "volume": 3.0}
        >>> stream.update(bar) is None  # warm-up: the first state comes with bar spec.min_bars
        True
    """

    def __init__(self, spec: FeatureSpec | None = None) -> None:
        self.spec = DEFAULT_SPEC if spec is None else spec
        self._min_bars = self.spec.min_bars
        self._count = 0
        self._previous: Bar | None = None
        self._volatility = math.nan
        medium = self.spec.medium
        self._closes_ago = tuple(Lag(window) for window in self.spec.windows)
        self._squares = _NestedSums(self.spec.windows)
        self._volumes = _NestedSums(self.spec.windows)
        self._rises = RollingSum(medium)
        self._falls = RollingSum(medium)
        self._signed = RollingSum(medium)
        self._log_closes = RollingSum(medium)
        self._ranges_before = RollingSum(medium - 1)
        self._volumes_before = RollingSum(medium - 1)
        self._highest = RollingMax(medium)
        self._lowest = RollingMax(medium)

    @property
    def volatility(self) -> float:
        """Root mean square of the last `long` returns, floored; NaN before there are so many."""
        return self._volatility

    def update(self, bar: BarLike) -> FloatArray | None:
        """Take in the next closed bar.

        Args:
            bar: open, high, low, close, volume by name, or as a sequence in this order.

        Returns:
            (16,) state in the order of `spec.names`, or None during warm-up.

        Raises:
            FeatureError: if the bar breaks the contract; the stream is then as it was before.
        """
        current = as_bar(bar)
        # The first bar counts as preceded by itself: the zeros that this makes up have left
        # every window before the first state.
        statistics = self._advance(current, self._previous or current)
        self._previous = current
        if self._count < self._min_bars:
            return None
        return np.array([feature.value(statistics, self.spec) for feature in FEATURES])

    def _advance(self, bar: Bar, previous: Bar) -> WindowStatistics[float]:
        """Move every window on by one bar; what is returned has a meaning after warm-up only."""
        medium, close, log_close = self.spec.medium, bar.close, math.log(bar.close)
        step = math.log(close / previous.close)
        square = step * step
        self._rises.push(square if step > 0.0 else 0.0)
        self._falls.push(square if step < 0.0 else 0.0)
        self._signed.push(math.copysign(bar.volume, step) if step else 0.0)
        self._log_closes.push(log_close)
        self._ranges_before.push(_range_square(previous))
        self._volumes_before.push(previous.volume)
        moves = [math.log(close / (lag.push(close) or close)) for lag in self._closes_ago]
        squares = self._squares.push(square)
        range_square = _range_square(bar)
        statistics = WindowStatistics(
            sigma=self._volatility,
            return_1=step,
            return_short=moves[0],
            return_medium=moves[1],
            return_long=moves[2],
            trend=log_close - self._log_closes.total / medium,
            squares=squares,
            square_up=self._rises.total / medium,
            square_down=self._falls.total / medium,
            range_square=range_square,
            range_before=self._ranges_before.total / (medium - 1),
            range_medium=(self._ranges_before.total + range_square) / medium,
            volume=bar.volume,
            volume_before=self._volumes_before.total / (medium - 1),
            volumes=self._volumes.push(bar.volume),
            volume_signed=self._signed.total / medium,
            close=close,
            low=bar.low,
            high=bar.high,
            low_medium=-self._lowest.push(-bar.low),
            high_medium=self._highest.push(bar.high),
        )
        self._count += 1
        if self._count > self.spec.long:
            self._volatility = max(math.sqrt(squares.long), self.spec.sigma_floor)
        return statistics


def _range_square(bar: Bar) -> float:
    log_range = math.log(bar.high / bar.low)
    return log_range * log_range
