"""VPIN: how one-sided trading is, in buckets of equal volume."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from glow_bt.errors import ConfigError
from glow_bt.microstructure.spec import DAY_MS

__all__ = ["Vpin", "bulk_buy_share"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_BLOCK = 8192
# More buckets than this at once are a bucket that is much too small, not a history.
_MOST_BUCKETS = 50_000_000


def bulk_buy_share(change: Floats, window: int) -> Floats:
    """Return the share of an interval's volume that bulk classification takes for bought.

    It is Phi(change / sigma), Phi the normal distribution function and sigma the standard
    deviation (with n - 1) of the price changes. Source: Easley, Lopez de Prado & O'Hara 2012,
    "Flow toxicity and liquidity in a high-frequency world", Rev. Financial Studies 25(5).
    The paper takes sigma over its whole sample; here it is over the window that ends with the
    interval, so that it knows nothing of later ones.

    Args:
        change: (L,) price changes, NaN for intervals without one.
        window: intervals that sigma looks back on, this one included.

    Returns:
        (L,) shares in [0, 1]; 1/2 where there is no change, fewer than two of them in the window,
        or none that differs.
    """
    padded = np.concatenate([np.full(window - 1, np.nan), change])
    view = np.lib.stride_tricks.sliding_window_view(padded, window)
    score = np.zeros(len(change))
    for start in range(0, len(change), _BLOCK):
        rows = slice(start, start + _BLOCK)
        seen = np.isfinite(view[rows])
        count = seen.sum(axis=1)
        kept = np.where(seen, view[rows], 0.0)
        mean = kept.sum(axis=1) / np.maximum(count, 1)
        squares = np.where(seen, (kept - mean[:, None]) ** 2, 0.0).sum(axis=1)
        sigma = np.sqrt(squares / np.maximum(count - 1, 1))
        able = (count > 1) & (sigma > 0) & np.isfinite(change[rows])
        np.divide(change[rows], sigma, out=score[rows], where=able)
    share: Floats = ndtr(score)
    return share


class Vpin:
    """Volume-synchronised probability of informed trading, over consecutive bars.

    Trades fill buckets of volume V one after the other; one that reaches over a border is split
    there. Of the last n full buckets, with bought volume B_j::

        VPIN = sum |B_j - (V - B_j)| / (n V),  in [0, 1]

    Source: Easley, Lopez de Prado & O'Hara 2012 (see `bulk_buy_share`).
    VPIN lives in the time of volume: at a bar's close it is that of the n buckets filled last,
    even if none was filled in the bar.

    Args:
        bucket_volume: V; None takes the volume of the bars that open within the first day over
            n (of as many days as it takes to see a trade), and starts after them.
        buckets: n.
        since_ms: open of the first bar.
    """

    def __init__(self, bucket_volume: float | None, buckets: int, since_ms: int) -> None:
        self._volume = bucket_volume
        self._buckets = buckets
        self._day_ends_ms = since_ms + DAY_MS
        # Running totals, in one order of additions however the bars are handed over.
        self._total = 0.0
        self._bought = 0.0
        self._bought_at_border = 0.0
        self._filled = 0
        self._recent = np.empty(0)

    @property
    def bucket_volume(self) -> float | None:
        """Volume of a bucket; None until it is known."""
        return self._volume

    def update(
        self, amounts: Floats, bought: Floats, ends: Ints, opens: Ints
    ) -> tuple[Floats, Ints]:
        """Return VPIN at the close of bars, and how many buckets were filled in each.

        Args:
            amounts: (L,) volumes in order of time.
            bought: (L,) the part of each that was bought.
            ends: (B,) how many of them came before each bar's close.
            opens: (B,) the bars' opens.

        Raises:
            ConfigError: if buckets are so small that millions would be filled at once.
        """
        waiting = self._wait(amounts, ends, opens)
        done = int(ends[waiting - 1]) if waiting else 0
        vpin, filled = self._fill(amounts[done:], bought[done:], ends[waiting:] - done)
        return (
            np.concatenate([np.full(waiting, np.nan), vpin]),
            np.concatenate([np.zeros(waiting, np.int64), filled]),
        )

    def _wait(self, amounts: Floats, ends: Ints, opens: Ints) -> int:
        """Measure the first day; return how many of the bars belong to it."""
        waiting = 0
        while self._volume is None and waiting < len(ends):
            bars = max(int(np.searchsorted(opens, self._day_ends_ms)), waiting)
            first = int(ends[waiting - 1]) if waiting else 0
            last = int(ends[bars - 1]) if bars else 0
            self._total = float(_running(self._total, amounts[first:last])[-1])
            waiting = bars
            if waiting < len(ends):
                self._day_ends_ms += DAY_MS
                if self._total > 0:
                    self._volume = self._total / self._buckets
                    self._total = 0.0
        return waiting

    def _fill(self, amounts: Floats, bought: Floats, ends: Ints) -> tuple[Floats, Ints]:
        if self._volume is None or not len(ends):
            return np.empty(0), np.empty(0, np.int64)
        totals = _running(self._total, amounts)
        bought_totals = _running(self._bought, bought)
        if (totals[-1] - self._total) / self._volume > _MOST_BUCKETS:
            raise ConfigError(
                f"expected a bucket_volume that fits the volume, found {self._volume:g} with "
                f"{totals[-1]:g} traded; take about a fiftieth of a day's volume"
            )
        reached = (totals[ends] // self._volume).astype(np.int64)
        borders = np.arange(self._filled + 1, int(reached[-1]) + 1) * self._volume
        at_border = np.interp(borders, totals, bought_totals)
        parts = np.diff(at_border, prepend=self._bought_at_border)
        new = np.minimum(np.abs(2.0 * parts - self._volume) / self._volume, 1.0)
        imbalances = np.concatenate([self._recent, new])
        # A bar's window ends with the last bucket that was full at its close.
        vpin = self._means(imbalances, reached - self._filled + len(self._recent))
        filled = np.diff(reached, prepend=self._filled)
        self._total, self._bought = float(totals[-1]), float(bought_totals[-1])
        if len(new):
            self._bought_at_border = float(at_border[-1])
        self._filled = int(reached[-1])
        self._recent = imbalances[-self._buckets :]
        return vpin, filled

    def _means(self, imbalances: Floats, ends: Ints) -> Floats:
        means: Floats = np.full(len(ends), np.nan)
        able = np.flatnonzero(ends >= self._buckets)
        if len(able):
            view = np.lib.stride_tricks.sliding_window_view(imbalances, self._buckets)
            for start in range(0, len(able), _BLOCK):
                block = able[start : start + _BLOCK]
                means[block] = view[ends[block] - self._buckets].mean(axis=1)
        return means


def _running(total: float, values: Floats) -> Floats:
    """Return a total and what it becomes with each value, added one after the other."""
    return np.cumsum(np.concatenate([[total], values]))
