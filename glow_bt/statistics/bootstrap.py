"""The stationary bootstrap: what a statistic would be on other histories like this one.

A draw is a history of the same length, made of blocks of the bars that there are. Blocks begin
anywhere, have geometric lengths and go on at the first bar after the last, so that a draw is
stationary and keeps the dependence of neighbouring bars. Politis & Romano 1994, Journal of the
American Statistical Association 89(428).

Intervals are percentile intervals. They stay inside a statistic's range (a drawdown is never above
0, a win rate never above 1), which basic ones do not, and need no standard error for each of many
statistics, which studentised ones do. For the Sharpe ratio the three cover alike. Simulated, a
nominal 95 % interval of it covers in 93 to 94 % with 250 independent bars, normal ones or
Student's t with 4 degrees of freedom, 94 to 96 % with 1000; with a first autocorrelation of 0.2 or
GARCH volatility in 92 to 93 % of 250 bars.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from glow_bt.errors import DataError
from glow_bt.statistics.checked import check_draws, check_share, checked_returns

__all__ = [
    "optimal_block_length",
    "percentile_interval",
    "resampled_positions",
    "resampled_statistic",
]

Floats = npt.NDArray[np.float64]
Positions = npt.NDArray[np.intp]

# Bars drawn at once: what is held at a time fits a processor's cache, whatever the draws.
_BARS_AT_ONCE = 2**18
_MIN_BARS = 20


def optimal_block_length(*columns: ArrayLike) -> float:
    """Return the mean block length that suits columns which are resampled together.

    Each column's is the one that estimates the variance of its mean best (Politis & White 2004,
    Econometric Reviews 23(1); corrected by Patton, Politis & White 2009, 28(4); computed by
    arch), from 1 up to min(3 sqrt(N), N / 3). The longest is taken: a block that is longer than a
    column needs costs a little precision, one that is shorter makes intervals too narrow.
    Constant columns need none.

    Args:
        columns: (N,) each, in order of time.

    Raises:
        DataError: on values that are not finite or columns of different lengths.
        TooFewBarsError: on fewer than 20 bars.
    """
    checked = [
        checked_returns(column, min_bars=_MIN_BARS, purpose="a block length", what="values")
        for column in columns
    ]
    if len({len(column) for column in checked}) > 1:
        raise DataError(
            f"expected columns of the same bars, found {[len(c) for c in checked]} of them"
        )
    varying = [column for column in checked if np.ptp(column) > 1e-12 * np.abs(column).max()]
    if not varying:
        return 1.0
    from arch.bootstrap import optimal_block_length as each_columns  # slow to load

    found = each_columns(np.column_stack([column / column.std() for column in varying]))
    return max(1.0, float(np.nanmax(found["stationary"].to_numpy())))


def resampled_positions(
    num_bars: int, *, draws: int, block_length: float, seed: int
) -> Iterator[Positions]:
    """Yield positions of the bars of all draws, a few draws (M, N) at a time.

    The same arguments give the same draws; fewer draws are the first of more.

    Args:
        num_bars: N.
        draws: number of draws.
        block_length: mean length of a block, in bars; 1 draws each bar by itself.
        seed: of the draws.
    """
    at_once = max(1, _BARS_AT_ONCE // num_bars)
    # A stream each for lengths and starts: how many draws are made at once changes none of them.
    streams = np.random.default_rng(seed).spawn(2)
    for first in range(0, draws, at_once):
        yield _positions(num_bars, min(at_once, draws - first), block_length, *streams)


def resampled_statistic(
    statistic: Callable[..., Floats],
    *columns: ArrayLike,
    draws: int = 2000,
    block_length: float | None = None,
    seed: int = 0,
) -> Floats:
    """Return a statistic of each draw, shape (draws, ...).

    Args:
        statistic: gets each column's draws (M, N), gives (M, ...): one result a row.
        columns: (N,) each, resampled together.
        draws: number of draws, at least 20.
        block_length: mean length of a block; unless given, `optimal_block_length` of the columns.
        seed: of the draws.

    Raises:
        ConfigError: on a setting outside what can work.
        DataError: on values that are not finite or columns of different lengths.
        TooFewBarsError: on fewer than 20 bars.
    """
    check_draws(draws, block_length)
    best = optimal_block_length(*columns)
    arrays = [np.asarray(column, dtype=np.float64) for column in columns]
    blocks = resampled_positions(
        len(arrays[0]), draws=draws, block_length=block_length or best, seed=seed
    )
    return np.concatenate([statistic(*(a.take(rows) for a in arrays)) for rows in blocks])


def percentile_interval(resampled: Floats, coverage: float) -> tuple[Floats, Floats]:
    """Return the ends (...) of percentile intervals of a statistic's draws (D, ...).

    Draws in which it is undefined (NaN) are left out; where it is in all, so are the ends.

    Raises:
        ConfigError: if the coverage is not inside (0, 1).
    """
    check_share(coverage, "a coverage")
    tail = (1 - coverage) / 2
    defined = ~np.isnan(resampled).all(axis=0)
    ends = np.full((2, *resampled.shape[1:]), np.nan)
    # The order statistics themselves: between two of them infinities have no middle.
    quantiles = np.nanquantile(resampled[:, defined], [tail, 1 - tail], axis=0, method="nearest")
    ends[:, defined] = quantiles
    return ends[0], ends[1]


def _positions(
    num_bars: int,
    rows: int,
    block_length: float,
    of_lengths: np.random.Generator,
    of_starts: np.random.Generator,
) -> Positions:
    """Return positions (rows, N)."""
    if block_length <= 1:
        return of_starts.integers(num_bars, size=(rows, num_bars), dtype=np.intp)
    expected = num_bars / block_length
    # Six standard deviations more blocks than a draw needs on average; the last fills it up.
    blocks = math.ceil(expected + 6 * math.sqrt(expected) + 10)
    times = of_lengths.standard_exponential((rows, blocks)) / -math.log1p(-1 / block_length)
    lengths = 1 + np.minimum(times, num_bars).astype(np.intp)
    ends = np.minimum(np.cumsum(lengths, axis=1), num_bars)
    ends[:, -1] = num_bars
    lengths = np.diff(ends, axis=1, prepend=0)
    starts = of_starts.integers(num_bars, size=(rows, blocks), dtype=np.intp)
    offsets = (starts - ends + lengths).ravel()
    positions = np.repeat(offsets, lengths.ravel()).reshape(rows, num_bars)
    positions += np.arange(num_bars)
    np.subtract(positions, num_bars, out=positions, where=positions >= num_bars)
    return positions
