"""What regimes are: how often, what comes after them, how long they last, how stable they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from glow_bt.errors import DataError
from glow_bt.statistics.checked import checked_returns

__all__ = ["LabelStability", "RegimeRow", "RegimeTable", "label_stability", "regime_table"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class RegimeRow:
    """One regime. Returns are those of the bar after: a label is known at its bar's close.

    Attributes:
        regime: its label.
        num_bars: bars that carry it.
        share: of all labelled bars.
        mean_return: of the bars that follow one of it, whatever their own label; NaN without any.
        volatility: standard deviation (N - 1) of the same returns; NaN with fewer than two.
        num_following: number of these returns.
        num_spells: runs of neighbouring bars that carry it.
        mean_duration: bars in such a run. Runs that a gap or an end of the data cuts off count as
            they are.
    """

    regime: int
    num_bars: int
    share: float
    mean_return: float
    volatility: float
    num_following: int
    num_spells: int
    mean_duration: float


@dataclass(frozen=True, eq=False)
class RegimeTable:
    """Outcome of `regime_table`.

    Attributes:
        rows: one for each regime that occurs, by label.
        transition_counts: (K, K), neighbouring bars of regime i, then j, in the order of rows.
        transitions: (K, K), share of them among all that leave a bar of i for its neighbour; NaN
            where there are none.
        num_labelled: bars with a label.
        num_bars: all bars.
    """

    rows: tuple[RegimeRow, ...]
    transition_counts: Ints
    transitions: Floats
    num_labelled: int
    num_bars: int


@dataclass(frozen=True, eq=False)
class LabelStability:
    """Outcome of `label_stability`.

    Attributes:
        adjusted_rand: (R, R), 1 where two fits name the same groups, whatever the labels; about 0
            where they agree as by chance. NaN for fits without a bar in common.
        common_bars: (R, R), bars that both label.
        mean: over the pairs of different fits that have bars in common; NaN without any.
    """

    adjusted_rand: Floats
    common_bars: Ints
    mean: float


def regime_table(
    stamps_ms: ArrayLike,
    labels: ArrayLike,
    returns: ArrayLike,
    *,
    max_step_ms: int | None = None,
) -> RegimeTable:
    """Describe regimes by the labels of bars.

    Args:
        stamps_ms: (N,) bar opens in UTC epoch ms, ascending.
        labels: (N,) whole numbers; NaN where a bar has none.
        returns: (N,) each bar's own simple return.
        max_step_ms: bars further apart are no neighbours: no transition, no return that follows.
            Unless given, each bar is the neighbour of the one before.

    Raises:
        DataError: if shapes differ, stamps are not in ascending order, a label is no whole
            number, a return is not finite, or no bar has a label.
    """
    stamps, named, known = _labelled(stamps_ms, labels)
    earned = checked_returns(returns, min_bars=1, purpose="a table of regimes")
    if len(earned) != len(stamps):
        raise DataError(f"expected a return for each of {len(stamps)} bars, found {len(earned)}")
    if not known.any():
        raise DataError(f"expected labelled bars, found none among {len(stamps)}")
    near = np.full(len(stamps) - 1, True)
    if max_step_ms is not None:
        near = np.diff(stamps) <= max_step_ms
    joined = near & known[:-1] & known[1:]
    regimes, numbers = np.unique(named[known], return_inverse=True)
    index = np.full(len(stamps), -1)
    index[known] = numbers
    counts = np.zeros((len(regimes), len(regimes)), dtype=np.int64)
    np.add.at(counts, (index[:-1][joined], index[1:][joined]), 1)
    leaving = counts.sum(axis=1, keepdims=True)
    transitions = np.where(leaving > 0, counts / np.maximum(leaving, 1), np.nan)
    begins = known.copy()
    begins[1:] &= ~(joined & (index[1:] == index[:-1]))
    rows = []
    for number, regime in enumerate(regimes.tolist()):
        own = index == number
        following = earned[1:][own[:-1] & near]
        num_bars, num_spells = int(own.sum()), int((own & begins).sum())
        rows.append(
            RegimeRow(
                regime=regime,
                num_bars=num_bars,
                share=num_bars / len(numbers),
                mean_return=float(following.mean()) if following.size else np.nan,
                volatility=float(following.std(ddof=1)) if following.size > 1 else np.nan,
                num_following=following.size,
                num_spells=num_spells,
                mean_duration=num_bars / num_spells,
            )
        )
    return RegimeTable(tuple(rows), counts, transitions, len(numbers), len(stamps))


def label_stability(fits: Sequence[tuple[ArrayLike, ArrayLike]]) -> LabelStability:
    """Compare the labels that several fits give to the bars that they have in common.

    The adjusted Rand index of each pair: Hubert & Arabie 1985, Journal of Classification 2. It
    asks which bars are grouped together, not what groups are called.

    Args:
        fits: of each fit stamps (N,), bar opens in UTC epoch ms, ascending, and labels (N,), NaN
            where a bar has none.

    Raises:
        DataError: if there are fewer than two fits, shapes differ, stamps are not in ascending
            order, or a label is no whole number.
    """
    if len(fits) < 2:
        raise DataError(f"expected at least 2 fits to compare, found {len(fits)}")
    from sklearn.metrics import adjusted_rand_score  # slow to load

    cut = []
    for stamps_ms, labels in fits:
        stamps, named, known = _labelled(stamps_ms, labels)
        cut.append((stamps[known], named[known]))
    index = np.eye(len(cut))
    common = np.diag([len(stamps) for stamps, _ in cut]).astype(np.int64)
    for i, (first_stamps, first) in enumerate(cut):
        for j, (second_stamps, second) in enumerate(cut[:i]):
            both, at_first, at_second = np.intersect1d(
                first_stamps, second_stamps, assume_unique=True, return_indices=True
            )
            common[i, j] = common[j, i] = len(both)
            agreed = adjusted_rand_score(first[at_first], second[at_second]) if len(both) else None
            index[i, j] = index[j, i] = np.nan if agreed is None else float(agreed)
    index[np.diag_indices(len(cut))] = np.where(np.diag(common) > 0, 1.0, np.nan)
    pairs = index[np.tril_indices(len(cut), -1)]
    told = pairs[np.isfinite(pairs)]
    return LabelStability(index, common, float(told.mean()) if told.size else np.nan)


def _labelled(stamps_ms: ArrayLike, labels: ArrayLike) -> tuple[Ints, Ints, Flags]:
    """Return stamps, labels (0 where there is none) and which bars have one."""
    stamps = np.asarray(stamps_ms)
    named = np.asarray(labels, dtype=np.float64)
    if stamps.ndim != 1 or not stamps.size or named.shape != stamps.shape:
        raise DataError(
            f"expected stamps and labels of shape (N,), found {stamps.shape} and {named.shape}"
        )
    if not np.issubdtype(stamps.dtype, np.integer) or (np.diff(stamps) <= 0).any():
        raise DataError(
            "expected stamps as whole milliseconds in ascending order, each once, found others "
            f"({stamps.dtype}); sort the bars"
        )
    known = ~np.isnan(named)
    if not np.array_equal(named[known], np.round(named[known])) or np.isinf(named).any():
        raise DataError("expected whole numbers as labels, or NaN where a bar has none")
    return stamps.astype(np.int64), np.where(known, named, 0).astype(np.int64), known
