"""What a variable of the user's holds about the bars that are known, in a few numbers."""

from __future__ import annotations

import zlib
from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

__all__ = ["Known", "snapshot"]

_MOST_COLUMNS = 64
_MOST_ITEMS = 32
_SCALARS = (bool, int, float, np.number, np.bool_)


@dataclass(frozen=True)
class Known:
    """The bars up to which values must not change.

    Attributes:
        num_bars: length of the history, N.
        last: last row that is known.
        stamp: its stamp.
        rows: known rows that are looked at.
    """

    num_bars: int
    last: int
    stamp: pd.Timestamp
    rows: tuple[int, ...]


def snapshot(name: str, value: Any, known: Known) -> Iterator[tuple[str, bool, tuple[float, ...]]]:  # noqa: ANN401
    """Describe a variable's known part.

    Args:
        name: the variable's.
        value: what it holds.
        known: which bars are.

    Yields:
        Name, with the column in brackets for frames; whether all of it is known at the last known
        bar (not so for numbers: a mean of everything may never be used); and numbers to compare.
    """
    if isinstance(value, pd.DataFrame):
        for column in value.columns[:_MOST_COLUMNS]:
            series = value[column]
            if isinstance(series, pd.Series):
                yield f"{name}[{column}]", *_of_series(series, known)
    elif isinstance(value, pd.Series):
        yield name, *_of_series(value, known)
    elif isinstance(value, np.ndarray | array | list | tuple | deque):
        yield name, *_of_rows(value, known)
    elif isinstance(getattr(value, "array", None), array):  # a line of Backtrader
        yield name, *_of_rows(value.array, known)
    elif type(value).__module__.startswith("sklearn."):
        yield from _of_fitted(name, value)
    elif value is None or isinstance(value, (*_SCALARS, str)):
        yield name, False, _numbers([value])


def _of_fitted(name: str, owner: object) -> Iterator[tuple[str, bool, tuple[float, ...]]]:
    """What scikit-learn has learned: of too many rows, perhaps."""
    for attribute, fitted in vars(owner).items():
        if attribute.endswith("_") and isinstance(fitted, np.ndarray | float):
            yield f"{name}.{attribute}", False, _numbers(np.ravel(fitted)[:_MOST_ITEMS])


def _of_series(series: pd.Series, known: Known) -> tuple[bool, tuple[float, ...]]:
    if isinstance(series.index, pd.DatetimeIndex):
        if len(series) == known.num_bars:
            return True, _numbers(series.iloc[list(known.rows)].array)
        stamp = known.stamp if series.index.tz else known.stamp.tz_localize(None)
        count = int((series.index <= stamp).sum())
        places = sorted({0, count // 3, count // 2, count - 3, count - 2, count - 1})
        return True, _numbers(series.iloc[[p for p in places if 0 <= p < count]].array)
    return _of_rows(series.to_numpy(), known)


def _of_rows(
    values: npt.NDArray[Any] | array[float] | list[Any] | tuple[Any, ...] | deque[Any],
    known: Known,
) -> tuple[bool, tuple[float, ...]]:
    size = 0 if isinstance(values, np.ndarray) and not values.ndim else len(values)
    if size == known.num_bars or size > known.last:
        # Windows leave out the first bars; a list that grows still lacks the last.
        grows = isinstance(values, list)
        missing = 0 if grows else max(known.num_bars - size, 0)
        return True, _numbers([values[row] for row in known.rows if row <= known.last - missing])
    if size > _MOST_ITEMS:
        return True, _numbers([values[row] for row in known.rows if row < size])
    return False, _numbers(list(values)) if size else (float(size),)


def _numbers(values: Any) -> tuple[float, ...]:  # noqa: ANN401
    numbers: list[float] = []
    for value in values:
        if isinstance(value, _SCALARS):
            numbers.append(float(value))
        elif isinstance(value, str):
            numbers.append(float(zlib.crc32(value.encode())))
        elif isinstance(value, np.ndarray | list | tuple):
            flat = np.ravel(np.asarray(value))
            if flat.dtype.kind in "bif":
                numbers.extend(flat[:_MOST_ITEMS].astype(float).tolist())
        elif isinstance(value, pd.Timestamp):
            numbers.append(float(value.value))
        else:
            numbers.append(np.nan)
    return tuple(numbers)
