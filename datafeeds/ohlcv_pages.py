"""What a page must be like to be stored, and where two answers contradict each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from datafeeds.ohlcv_parts import Part, SeriesFormat, frame_of
from datafeeds.ohlcv_spans import end_of
from datafeeds.series import Page, kind_of
from glow_bt.errors import DataError
from glow_bt.ohlcv import BAR_COLUMNS, validate_bars

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

__all__ = ["Clash", "checked_page", "clash_of", "pieces_of", "shown"]

_END_OF_TIME = pd.Timestamp("2261-12-31", tz="UTC")


class Clash(NamedTuple):
    """Values that are stored otherwise.

    Attributes:
        stamps: at how many stamps.
        first: the first of them, epoch milliseconds.
        stored: the values there that are stored.
        given: those that were given.
    """

    stamps: int
    first: int
    stored: npt.NDArray[np.float64]
    given: npt.NDArray[np.float64]


def checked_page(page: Page, form: SeriesFormat) -> Page:
    """Return a page in canonical form: one kind of zero, one kind of NaN.

    Raises:
        DataError: if its window is off the grid, its stamps are out of the window, out of order,
            double or off the grid of a regular kind, or its values cannot be.
    """
    window, grid = page.window, form.grid
    if window.step != grid.step_ms or (window.start - grid.offset_ms) % grid.step_ms:
        raise DataError(
            f"expected a window on the grid of {_name(form)} (every {grid.step_ms} ms from "
            f"{grid.offset_ms}), found {window}; ask for windows of that grid"
        )
    if len(page.stamps) and np.asarray(page.stamps).dtype.kind not in "iu":
        raise DataError(
            f"expected whole epoch milliseconds for stamps of {_name(form)}, found "
            f"{np.asarray(page.stamps).dtype}; give int64"
        )
    stamps = np.asarray(page.stamps, dtype=np.int64)
    values = np.asarray(page.values, dtype=np.float64)
    if stamps.ndim != 1 or values.shape != (len(stamps), len(form.columns)):
        raise DataError(
            f"expected stamps of shape (N,) and values of shape (N, {len(form.columns)}) for "
            f"{_name(form)}, found {stamps.shape} and {values.shape}; "
            f"give the columns {', '.join(form.columns)}"
        )
    window = range(window.start, end_of(window), window.step)
    _check_stamps(stamps, window, form)
    _check_values(Part((), stamps, values), form)
    return Page(window, stamps, np.where(np.isnan(values), np.nan, values + 0.0))


def pieces_of(page: Page, form: SeriesFormat) -> Iterable[tuple[int, Page]]:
    """Cut a page at the edges of parts; each piece with the number of its block."""
    for number, window in form.grid.cut([page.window]):
        first, end = np.searchsorted(page.stamps, [window.start, window.stop])
        yield number, Page(window, page.stamps[first:end], page.values[first:end])


def clash_of(
    page: Page, known: Iterable[Part | Page]
) -> tuple[npt.NDArray[np.bool_], Clash | None]:
    """Compare a page with what is known already.

    Returns:
        Which of its stamps are new, of shape (N,), and where values differ, if any do.
    """
    is_new = np.ones(len(page.stamps), dtype=bool)
    differs = np.zeros(len(page.stamps), dtype=bool)
    stored = np.full(page.values.shape, np.nan)
    for other in known:
        rows = np.searchsorted(other.stamps, page.stamps)
        rows[rows == len(other.stamps)] = 0
        if not len(other.stamps):
            continue
        found = np.flatnonzero(other.stamps[rows] == page.stamps)
        is_new[found] = False
        stored[found] = other.values[rows[found]]
    shared = ~is_new
    left, right = stored[shared], page.values[shared]
    differs[shared] = ((left != right) & ~(np.isnan(left) & np.isnan(right))).any(axis=1)
    if not differs.any():
        return is_new, None
    row = int(differs.argmax())
    clash = Clash(int(differs.sum()), int(page.stamps[row]), stored[row], page.values[row])
    return is_new, clash


def shown(stamp_ms: int) -> str:
    """Return a stamp for people."""
    return str(pd.Timestamp(stamp_ms, unit="ms", tz="UTC"))


def _check_stamps(stamps: npt.NDArray[np.int64], window: range, form: SeriesFormat) -> None:
    steps = np.diff(stamps)
    if (steps <= 0).any():
        row = int((steps <= 0).argmax())
        raise DataError(
            f"expected stamps of {_name(form)} in ascending order, found {shown(stamps[row + 1])} "
            f"after {shown(stamps[row])}; sort the page and keep one value of each stamp"
        )
    outside = (stamps < window.start) | (stamps >= window.stop)
    if outside.any():
        raise DataError(
            f"expected stamps of {_name(form)} from {shown(window.start)} until before "
            f"{shown(window.stop)}, found {shown(stamps[outside][0])}; cut the page to its window"
        )
    off = (stamps - window.start) % window.step != 0
    if kind_of(form.key.kind).regular and off.any():
        raise DataError(
            f"expected stamps of {_name(form)} every {window.step} ms from {form.grid.offset_ms}, "
            f"found {shown(stamps[off][0])} off that grid; check timeframe and time zone"
        )


def _check_values(part: Part, form: SeriesFormat) -> None:
    """Check values; what makes a bar a bar is known to `glow_bt.ohlcv` alone."""
    if not len(part.stamps):
        return
    frame = frame_of(part, form.columns)
    if set(BAR_COLUMNS[:4]) <= set(form.columns):
        frame["volume"] = frame.get("volume", 0.0)
        validate_bars(frame, now=_END_OF_TIME)
        return
    lowest = 0.0 if form.key.kind == "open_interest" else -np.inf
    bad = ~(np.isfinite(part.values) & (part.values >= lowest)).all(axis=1)
    if bad.any():
        row = int(bad.argmax())
        raise DataError(
            f"expected {'finite' if lowest else 'finite and no negative'} values of "
            f"{_name(form)}, found {part.values[row].tolist()} at {shown(part.stamps[row])}; "
            "ask for them again"
        )


def _name(form: SeriesFormat) -> str:
    return " ".join(filter(None, form.key))
