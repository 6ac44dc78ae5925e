"""What is known of one window while its answers come in."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from datafeeds.bybit_klines import Klines, merge_klines
from datafeeds.series import Page

if TYPE_CHECKING:
    from datafeeds.bybit_series import BybitSeries

__all__ = ["ANSWERS_THAT_AGREE", "SETTLING_MS", "Draft"]

ANSWERS_THAT_AGREE = 3
"""Answers that must agree before what they lack is believed to be lacking."""
SETTLING_MS = 30_000
"""A bar that closed so long ago is final even if no later one shows."""
# Longest usual time between two payments of funding.
_FUNDING_GAP_MS = 8 * 3_600_000


class Draft:
    """The rows of one window that are final so far.

    A row is final if its answer shows a later one, or if its step ended `SETTLING_MS` before
    the answer by the exchange's clock; a funding rate is at once. In an answer that was asked
    to reach the present and shows no forming row, the newest row does not count: such an answer
    may be an old one, and its newest row still the forming one of then. It does count if the
    history is known to end there and `ANSWERS_THAT_AGREE` have it alike.

    Attributes:
        window: what is asked for.
        rows: final rows.
        answers: how many there were.
        is_confirmed: whether what is missing is believed to be lacking.
    """

    def __init__(self, series: BybitSeries, window: range) -> None:
        self.window = window
        self.answers = 0
        self.is_confirmed = False
        self._series = series
        empty = np.empty((0, len(series.kind.columns)))
        self.rows = Klines(np.empty(0, dtype=np.int64), empty)
        self._at = 0
        self._last: Counter[tuple[int, bytes]] = Counter()
        self._unsure: set[int] = set()

    def take(self, found: Klines, at_ms: int, *, reaches_present: bool) -> None:
        """Add an answer.

        Args:
            found: its rows, of the window and perhaps the step after it.
            at_ms: the exchange's clock in it.
            reaches_present: whether the step after the window was asked for and may be forming.

        Raises:
            MalformedAnswerError: if it contradicts the rows known already; nothing is taken.
        """
        stamps, step = found.stamps, self._series.step_ms
        inside = stamps < self.window.stop
        if self._series.kind.regular:
            newest = stamps == stamps.max(initial=0)
            final = (stamps + step <= at_ms) & inside & ~newest
            newest &= inside & (stamps + step + SETTLING_MS <= at_ms)
            if reaches_present:
                self._keep_unsure(found.where(newest))
                newest[:] = False
            final |= newest
        else:
            final = inside & (stamps <= at_ms)
        self.rows = merge_klines(self.rows, found.where(final))
        self._unsure -= set(self.rows.stamps.tolist()) if self._unsure else set()
        self._at = max(self._at, at_ms)
        self.answers += 1

    def accept_last(self, last_ms: int | None) -> None:
        """Take the newest row for final if it is the history's last and has been seen enough."""
        for (stamp, values), seen in self._last.items():
            if stamp == last_ms and stamp in self._unsure and seen >= ANSWERS_THAT_AGREE:
                row = np.frombuffer(values, dtype=np.float64).reshape(1, -1)
                last = Klines(np.array([stamp], dtype=np.int64), row)
                self.rows = merge_klines(self.rows, last)
                self._unsure.discard(stamp)
                return

    def missing(self, first_ms: int | None, last_ms: int | None) -> npt.NDArray[np.int64]:
        """Return the window's stamps from the first row ever to the last that have none.

        Of a kind with no row at every stamp: both ends of gaps in which one may be missing.
        """
        low = max(self.window.start, self.window.start if first_ms is None else first_ms)
        high = self.window.stop
        if last_ms is not None:
            high = min(high, last_ms + self.window.step)
        if self._series.kind.regular:
            grid = np.arange(self._series.ceil(low), high, self.window.step, dtype=np.int64)
            return np.setdiff1d(grid, self.rows.stamps, assume_unique=True)
        return self._odd_gaps(low, high)

    def ends_missing(self, missing: npt.NDArray[np.int64]) -> tuple[bool, bool]:
        """Return whether stamps before and after all its rows are among those missing.

        Stamps whose row was seen but is not known to be final do not count.
        """
        missing = missing[~np.isin(missing, list(self._unsure))]
        if not len(missing) or not len(self.rows):
            return len(missing) > 0, len(missing) > 0
        first, last = self.rows.stamps[0], self.rows.stamps[-1]
        return bool(missing[0] < first), bool(missing[-1] > last)

    @property
    def is_unsure(self) -> bool:
        """Whether a row was seen that is not known to be final."""
        return bool(self._unsure)

    def page(self, last_ms: int | None) -> Page | None:
        """Return what is settled of the window, None if nothing is.

        The page ends after the exchange's last row (if that is known) and before steps whose
        row is not final yet.
        """
        step = self.window.step
        # The first open whose bar had not closed for long enough.
        end = self._series.floor(self._at - SETTLING_MS)
        if len(self.rows):
            end = max(end, int(self.rows.stamps[-1]) + step)
        if last_ms is not None:
            end = min(end, last_ms + step)
        end = min(end, self.window.stop, *self._unsure)
        if end <= self.window.start:
            return None
        rows = self.rows.where(self.rows.stamps < end)
        return Page(range(self.window.start, end, step), rows.stamps, rows.values)

    def _keep_unsure(self, newest: Klines) -> None:
        for stamp, values in zip(newest.stamps.tolist(), newest.values, strict=True):
            self._unsure.add(stamp)
            self._last[stamp, values.tobytes()] += 1

    def _odd_gaps(self, low: int, high: int) -> npt.NDArray[np.int64]:
        """Both ends of the gaps that are longer than one beside them."""
        high = min(high, self._series.floor(self._at - SETTLING_MS))
        stamps, step = self.rows.stamps, self.window.step
        if low >= high:
            return np.empty(0, dtype=np.int64)
        if not len(stamps):
            return np.array([low, high - step], dtype=np.int64)
        gaps = np.diff(stamps)
        usual = np.r_[_FUNDING_GAP_MS, gaps, _FUNDING_GAP_MS] if len(gaps) < 2 else gaps
        odd = np.minimum(np.r_[gaps[:1], gaps[:-1]], np.r_[gaps[1:], gaps[-1:]]) < gaps
        odd |= gaps > _FUNDING_GAP_MS
        ends = [stamps[:-1][odd], stamps[1:][odd]]
        if stamps[0] - low >= usual[0]:
            ends += [np.array([low]), stamps[:1]]
        if high - stamps[-1] > usual[-1]:
            ends += [stamps[-1:], np.array([high - step])]
        return np.unique(np.concatenate(ends)).astype(np.int64)
