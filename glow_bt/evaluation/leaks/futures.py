"""Where histories are cut, and the other futures that they are given."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.signal import lfilter

from glow_bt.ohlcv import BAR_COLUMNS, OPTIONAL_COLUMNS

__all__ = ["choose_cuts", "other_future"]

_NEAR_START = (0, 1, 2, 3, 5, 8)
_NEAR_END = (2, 3, 4, 7)  # from the end; the very last bar has no future
_SMALLEST_MOVE = 0.005


def choose_cuts(
    bars: pd.DataFrame,
    first: int,
    count: int,
    rng: np.random.Generator,
    busy: npt.NDArray[np.int64],
) -> list[int]:
    """Choose the last known bars of the histories that are tried.

    About half are chosen for what is special about them: the first bars with values, the last
    ones, those before and after a day's border or a hole, those before the largest volumes and
    moves, and those at which the target acted. The others are drawn at random.

    Args:
        bars: the history.
        first: first row at which the target says something.
        count: how many are wanted.
        rng: source of chance.
        busy: rows at which the target acted.

    Returns:
        Rows in order, each at least ``first`` and followed by at least one bar.
    """
    last = len(bars) - 2
    share = max(count // 8, 1)
    groups = [
        np.array([first + step for step in _NEAR_START]),
        np.array([len(bars) - step for step in _NEAR_END]),
        _drawn(_borders(bars, first, last), share, rng),
        _before_largest(bars["volume"].to_numpy(), share, first, last),
        _before_largest(_moves(bars), share, first, last),
        _drawn(busy, share, rng),
    ]
    chosen: dict[int, None] = {}
    for rank in range(max(map(len, groups))):
        for group in groups:
            if rank < len(group) and first <= group[rank] <= last:
                chosen.setdefault(int(group[rank]))
    structured = list(chosen)[: max(count * 2 // 3, 1)]
    others = np.setdiff1d(np.arange(first, last + 1), structured)
    wanted = min(max(count - len(structured), 0), len(others))
    return sorted({*structured, *rng.choice(others, wanted, replace=False).tolist()})


def _drawn(
    rows: npt.NDArray[np.int64], count: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    drawn: npt.NDArray[np.int64] = rng.choice(rows, min(count, len(rows)), replace=False)
    return drawn


def _borders(bars: pd.DataFrame, first: int, last: int) -> npt.NDArray[np.int64]:
    """Rows that end a day, or a span without holes; half of them and the rows after the rest."""
    stamps = pd.DatetimeIndex(bars.index)
    steps = np.diff(stamps.asi8)
    days = np.diff(stamps.normalize().asi8)
    ends = np.flatnonzero((days > 0) & (days > steps) | (steps > np.median(steps)))
    ends = np.sort(np.r_[ends[::2], ends[1::2] + 1])
    return ends[(ends >= first) & (ends <= last)]


def _before_largest(
    values: npt.NDArray[np.float64], count: int, first: int, last: int
) -> npt.NDArray[np.int64]:
    rows = np.argsort(-values, kind="stable") - 1
    return rows[(rows >= first) & (rows <= last)][:count]


def _moves(bars: pd.DataFrame) -> npt.NDArray[np.float64]:
    moves: npt.NDArray[np.float64] = np.abs(np.diff(np.log(bars["close"].to_numpy()), prepend=0.0))
    moves[0] = 0.0
    return moves


def other_future(bars: pd.DataFrame, cut: int, draw: int, seed: int) -> pd.DataFrame:
    """Give a history another future.

    After the cut the price jumps by 10 to 50 % and then walks at random, in steps three times
    as large as the history's. Volume, funding and open interest are scaled. Stamps stay, and so
    does the contract of `glow_bt.ohlcv`.

    Args:
        bars: the history, N bars.
        cut: last row that stays.
        draw: number of the future: even ones jump up, odd ones down; so does the volume.
        seed: seed of its chance; the same four arguments give the same future.

    Returns:
        A new frame of N bars.
    """
    rng = np.random.default_rng([seed, cut, draw])
    changed = bars.copy()
    later = len(bars) - cut - 1
    if later < 1:
        return changed
    values = bars[list(BAR_COLUMNS)].to_numpy()
    sign = 1.0 if draw % 2 == 0 else -1.0
    scale = max(3.0 * float(np.median(_moves(bars))), _SMALLEST_MOVE)
    # Back to where it jumped to, in the long run: no history is long enough to leave the floats.
    steps = rng.normal(0.0, min(scale, 0.05), later)
    level = lfilter([1.0], [1.0, -0.999], steps)
    close = values[cut, 3] * np.exp(sign * rng.uniform(0.1, 0.4) + level)
    open_ = np.r_[values[cut, 3], close[:-1]] * np.exp(rng.normal(0.0, scale / 10, later))
    open_[0] = close[0] * np.exp(rng.normal(0.0, scale / 10))
    wick = np.exp(np.abs(rng.normal(0.0, scale / 3, (2, later))))
    high, low = np.maximum(open_, close) * wick[0], np.minimum(open_, close) / wick[1]
    typical = float(np.median(values[:, 4]))
    factor = np.exp(sign * rng.uniform(1.0, 2.0) + rng.normal(0.0, 0.5, later))
    volume = values[cut + 1 :, 4] * factor + typical * rng.uniform(0.0, 0.1, later)
    new = dict(zip(BAR_COLUMNS, (open_, high, low, close, volume), strict=True))
    for name in OPTIONAL_COLUMNS:
        if name in bars:
            new[name] = bars[name].to_numpy()[cut + 1 :] * np.exp(rng.normal(sign, 0.3, later))
    for name, future in new.items():
        changed[name] = np.r_[bars[name].to_numpy()[: cut + 1], future]
    return changed
