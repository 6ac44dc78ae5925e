"""Where synthetic paths start: the state at a bar, or the states of a regime."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from glow_bt.artifact.model import Artifact
from glow_bt.errors import ConfigError, DataError, TooFewBarsError
from glow_bt.features import feature_array
from glow_bt.ohlcv import BAR_COLUMNS, validate_bars

__all__ = ["NO_REGIME", "regime_labels", "regime_windows", "start_windows"]

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

# Label of bars that come before the first market state.
NO_REGIME = -1
# Fewer states than this repeat a few days rather than show a regime.
_LEAST_STARTS = 20


def start_windows(start: pd.DataFrame | npt.ArrayLike, window: int) -> Floats:
    """Return windows (N, window) of log returns, oldest first, that paths can start from.

    Args:
        start: bars or (n,) log returns, of which the last `window` returns count, or
            (N, window) windows.
        window: returns of a window.

    Raises:
        TooFewBarsError: if the start is shorter than a window.
        DataError: if it is not finite or breaks the contract of bars.
    """
    if isinstance(start, pd.DataFrame):
        start = np.diff(np.log(validate_bars(start)["close"].to_numpy()))
    windows = np.atleast_2d(np.asarray(start, dtype=np.float64))
    if windows.ndim != 2 or not len(windows):
        raise DataError(
            f"expected log returns of shape (n,) or (N, {window}) to start from, found "
            f"{np.shape(start)}"
        )
    if windows.shape[1] < window:
        found = windows.shape[1] + 1 if windows.size else 0
        raise TooFewBarsError(window + 1, found, "the state that paths start from")
    windows = windows[:, -window:]
    if not np.isfinite(windows).all():
        raise DataError(
            "expected finite returns to start from, found NaN or infinity; repair them"
        )
    return windows


def regime_labels(artifact: Artifact, bars: pd.DataFrame) -> Labels:
    """Return the regime (T,) of each bar; `NO_REGIME` before the first market state.

    Raises:
        TooFewBarsError: if no bar has a market state.
        DataError: if bars break their contract.
    """
    bars = validate_bars(bars)
    spec = artifact.spec
    if len(bars) < spec.min_bars:
        raise TooFewBarsError(spec.min_bars, len(bars), "the regime of a bar")
    states = feature_array(bars[list(BAR_COLUMNS)].to_numpy(), spec)[spec.min_bars - 1 :]
    labels = np.full(len(bars), NO_REGIME, dtype=np.int64)
    labels[spec.min_bars - 1 :] = artifact.read(artifact.scaler.transform(states)).regime
    return labels


def regime_windows(
    bars: pd.DataFrame,
    labels: npt.ArrayLike,
    regime: int,
    window: int,
    *,
    least: int = _LEAST_STARTS,
) -> Floats:
    """Return the windows (N, window) of log returns up to each bar of a regime.

    Args:
        bars: a bar frame.
        labels: (T,) regime of each bar, whole numbers; negative ones are no regime. What
            `regime_labels` gives, or any other division of the history.
        regime: the one that paths are to start in.
        window: returns of a window, `PathModel.window`.
        least: fewest windows that are enough.

    Raises:
        ConfigError: naming how many bars of each regime there are, if too few are of the one.
        DataError: if the labels are not one whole number a bar.
        TooFewBarsError: if no bar has a full window.
    """
    closes = validate_bars(bars)["close"].to_numpy()
    own = np.asarray(labels)
    if own.shape != closes.shape or own.dtype.kind not in "iu":
        raise DataError(
            f"expected one whole number a bar as labels, shape {closes.shape}, found "
            f"{own.dtype} of shape {own.shape}"
        )
    if len(closes) <= window:
        raise TooFewBarsError(window + 1, len(closes), "a state that paths start from")
    ready = own[window:]
    found = np.flatnonzero(ready == regime)
    if regime < 0 or len(found) < least:
        names, counts = np.unique(ready[ready >= 0], return_counts=True)
        there = ", ".join(f"{n} of regime {k}" for k, n in zip(names, counts, strict=True))
        raise ConfigError(
            f"expected at least {least} bars of regime {regime} with {window} returns up to "
            f"them, found {there or 'no bar of any regime'}; ask for another regime or give more "
            "bars"
        )
    windows = np.lib.stride_tricks.sliding_window_view(np.diff(np.log(closes)), window)
    return np.ascontiguousarray(windows[found])
