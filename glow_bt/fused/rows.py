"""Taking rows in, and saying what is wrong with them."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from glow_bt.errors import FlowError

__all__ = ["as_rows", "refuse"]

Array = npt.NDArray[np.floating[Any]]


def as_rows(values: npt.ArrayLike, width: int, dtype: np.dtype[Any], what: str) -> Array:
    """Return a copy (N, width) of a dtype that the kernel can write to.

    Raises:
        FlowError: on another shape, or values that are not real numbers.
    """
    if type(values) is np.ndarray and values.dtype == dtype and values.shape[1:] == (width,):
        return values.copy()  # at one row a call the checks below would be felt
    try:
        given = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise FlowError(f"expected {what} of shape (N, {width}), found {error}") from error
    if given.dtype.kind not in "fiub":
        raise FlowError(f"expected {what} of real numbers, found an array of {given.dtype}")
    if given.ndim != 2 or given.shape[1] != width:
        raise FlowError(f"expected {what} of shape (N, {width}), found {given.shape}")
    if given.dtype == dtype:
        return np.array(given, order="C")
    with np.errstate(over="ignore"):  # the kernel refuses what becomes infinite
        return np.array(given, dtype, order="C")


def refuse(
    row: int,
    rows: npt.ArrayLike,
    context: npt.ArrayLike | None,
    dtype: np.dtype[Any],
    what: str = "rows",
) -> NoReturn:
    """Say what is wrong with a row that the kernel stopped at.

    Raises:
        FlowError: always.
    """
    for values, name in ((rows, what), (context, "contexts")):
        if values is None:
            continue
        with np.errstate(over="ignore"):
            given = np.asarray(values).astype(dtype)
        bad = ~np.isfinite(given).all(axis=1)
        if bad.any():
            first = int(bad.argmax())
            raise FlowError(
                f"expected finite {name}, found {int(bad.sum())} that are not, first row "
                f"{first}: {given[first].tolist()}; remove or repair it"
            )
    raise FlowError(
        f"expected {what} within the reach of {dtype}, found one whose result overflows, row "
        f"{row}: {np.asarray(rows)[row].tolist()}; remove or repair it"
    )
