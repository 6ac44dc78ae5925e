"""What a run said at each bar, and where two runs differ."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from glow_bt.errors import ConfigError

__all__ = ["TOLERANCE", "Record", "first_change", "table_of"]

Floats = npt.NDArray[np.float64]

# Relative; batched matrix products round by how many rows they have.
TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False)
class Record:
    """What a run said.

    Attributes:
        values: each output by name (N,): what it said at each bar, NaN for nothing.
        first: first row at which it is compared: before it is warm-up.
        events: names of the outputs that say something at few bars, such as orders.
    """

    values: Mapping[str, Floats]
    first: int = 0
    events: tuple[str, ...] = ()

    def known_from(self) -> int | None:
        """Return the first row with any value; None if there is none."""
        rows = [
            int(np.isfinite(values[self.first :]).argmax()) + self.first
            for values in self.values.values()
            if np.isfinite(values[self.first :]).any()
        ]
        return min(rows, default=None)

    def busy(self) -> npt.NDArray[np.int64]:
        """Return rows at which something happened: an order, or a flag that changed."""
        rows: list[npt.NDArray[np.int64]] = []
        for name, values in self.values.items():
            if name in self.events:
                rows.append(np.flatnonzero(np.nan_to_num(values) != 0.0))
            elif len(np.unique(values[np.isfinite(values)])) <= 8:
                rows.append(np.flatnonzero(np.diff(np.nan_to_num(values)) != 0.0) + 1)
        return np.unique(np.concatenate(rows)) if rows else np.array([], dtype=np.int64)


def first_change(base: Record, other: Record, until: int) -> dict[str, int]:
    """Return each output that differs, with the first row at which it does.

    Args:
        base: a run.
        other: a run that must say the same up to a row. An output that it lacks is NaN there.
        until: last row that is compared.
    """
    changes: dict[str, int] = {}
    for name in {**base.values, **other.values}:
        left, right = (_known(record, name, until) for record in (base, other))
        # A sum that comes out near zero has the noise of its terms.
        usual = np.abs(left[np.isfinite(left)])
        scale = float(np.median(usual)) if len(usual) else 0.0
        with np.errstate(invalid="ignore"):
            near = np.abs(left - right) <= TOLERANCE * (
                np.maximum(np.abs(left), np.abs(right)) + scale
            )
        same = near | (left == right) | (np.isnan(left) & np.isnan(right))
        if not same[base.first :].all():
            changes[name] = int((~same[base.first :]).argmax()) + base.first
    return changes


def _known(record: Record, name: str, until: int) -> Floats:
    """Return an output's values up to a row, NaN where it has none."""
    known = np.full(until + 1, np.nan)
    if name in record.values:
        values = record.values[name][: until + 1]
        known[: len(values)] = values
    return known


def table_of(result: object, index: pd.Index, name: str) -> dict[str, Floats]:
    """Bring what a feature function returned to one array of floats a column.

    Args:
        result: a frame, a series or an array of one row a bar. A frame or series may leave bars
            out: they have no value.
        index: the bars' stamps (N,).
        name: the function's, for messages and for a series without a name.

    Raises:
        ConfigError: if it is something else, or its rows are not those of the bars.
    """
    if isinstance(result, pd.Series):
        result = result.to_frame(name if result.name is None else str(result.name))
    if isinstance(result, pd.DataFrame):
        frame = _aligned(result, index, name)
        columns = [str(column) for column in frame.columns]
        return {
            column: _floats(frame.iloc[:, place]) for place, column in enumerate(_unique(columns))
        }
    rows = np.asarray(result)
    if rows.ndim not in (1, 2) or len(rows) != len(index) or rows.dtype == object:
        raise ConfigError(
            f"expected {name} to return a DataFrame, a Series or an array of one row a bar "
            f"({len(index)}), found {type(result).__name__} of shape {rows.shape}; return one "
            "value for each bar, NaN where there is none"
        )
    if rows.ndim == 1:
        return {name: _floats(pd.Series(rows))}
    return {
        f"column {place}": _floats(pd.Series(rows[:, place])) for place in range(rows.shape[1])
    }


def _aligned(frame: pd.DataFrame, index: pd.Index, name: str) -> pd.DataFrame:
    if frame.index.equals(index):
        return frame
    if len(frame) == len(index) and isinstance(frame.index, pd.RangeIndex):
        return frame
    if frame.index.is_unique and frame.index.isin(index).all():
        return frame.reindex(index)
    raise ConfigError(
        f"expected {name} to return one row for each of {len(index)} bars, found {len(frame)} "
        "rows with other stamps; reindex them to the bars"
    )


def _unique(names: list[str]) -> list[str]:
    seen: dict[str, int] = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
    counts: dict[str, int] = {}
    unique = []
    for name in names:
        counts[name] = counts.get(name, 0) + 1
        unique.append(f"{name} ({counts[name]})" if seen[name] > 1 else name)
    return unique


def _floats(column: pd.Series) -> Floats:
    if pd.api.types.is_numeric_dtype(column.dtype) and not np.iscomplexobj(column):
        return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))
    if isinstance(column.dtype, np.dtype | pd.DatetimeTZDtype) and column.dtype.kind in "mM":
        numbers = column.astype("int64").where(column.notna())
        return np.asarray(numbers.to_numpy(dtype=np.float64))
    # Words and categories are the same or not.
    return np.array(
        [np.nan if value is None or value != value else _number(value) for value in column.array],
        dtype=np.float64,
    )


def _number(value: object) -> float:
    if isinstance(value, bool | int | float | np.number):
        return float(value)
    return float(zlib.crc32(repr(value).encode()))
