"""Sums, extremes and lags of a sliding window, one value at a time, in constant time a value."""

from __future__ import annotations

from collections import deque

__all__ = ["Lag", "RollingMax", "RollingSum"]


class Lag:
    """Remembers the last `window` values.

    Args:
        window: how many values back to look.
    """

    __slots__ = ("_values",)

    def __init__(self, window: int) -> None:
        self._values = deque([0.0] * window)

    def push(self, value: float) -> float:
        """Add a value and return the one given `window` calls before (0 when there is none)."""
        self._values.append(value)
        return self._values.popleft()


class RollingSum:
    """Sum of the last `window` values, from what enters and what leaves.

    The rounding error of each addition is carried along (Neumaier 1974, "Rundungsfehleranalyse
    einiger Verfahren zur Summation endlicher Summen", ZAMM 54), so that a huge value leaves
    nothing behind once it is out of the window, however long the history.

    Args:
        window: how many values to sum.
    """

    __slots__ = ("_carry", "_lag", "_nonzero", "_sum")

    def __init__(self, window: int) -> None:
        self._lag = Lag(window)
        self._sum = 0.0
        self._carry = 0.0
        self._nonzero = 0

    @property
    def total(self) -> float:
        """Sum of the values in the window, those not yet given counting 0."""
        return self._sum + self._carry

    def push(self, value: float) -> float:
        """Add a value and return the one that leaves the window."""
        leaving = self._lag.push(value)
        self._add(value)
        self._add(-leaving)
        if value:
            self._nonzero += 1
        if leaving:
            self._nonzero -= 1
        if not self._nonzero:
            # Carried rounding is tiny, but zero must be zero: it decides whether volume exists.
            self._sum = self._carry = 0.0
        return leaving

    def _add(self, value: float) -> None:
        total = self._sum + value
        if abs(self._sum) >= abs(value):
            self._carry += (self._sum - total) + value
        else:
            self._carry += (value - total) + self._sum
        self._sum = total


class RollingMax:
    """Largest of the last `window` values.

    Keeps only values that no later one has reached, in falling order (a monotonic queue): a
    value enters and leaves once, so the cost a value is constant on average.

    Args:
        window: how many values to look at.
    """

    __slots__ = ("_count", "_values", "_window")

    def __init__(self, window: int) -> None:
        self._window = window
        self._count = 0
        self._values: deque[tuple[int, float]] = deque()

    def push(self, value: float) -> float:
        """Add a value and return the largest in the window."""
        values = self._values
        while values and values[-1][1] <= value:
            values.pop()
        values.append((self._count, value))
        self._count += 1
        if values[0][0] < self._count - self._window:
            values.popleft()
        return values[0][1]
