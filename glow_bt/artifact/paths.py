"""Synthetic paths of log returns: the return flow fed with its own draws.

    r_t = min(volatility_t, max_volatility) * y_t,   y_t ~ flow(context of r_(t-window) .. r_(t-1))

A context sees ratios of variances, not their level, so that with a negligible floor the process is
scale-free: its volatility wanders without end, to nothing or to anything (as in an integrated
GARCH without constant; Nelson 1990, Econometric Theory 6). Two numbers hold it. The floor
`spec.least_volatility` is what volatility returns to: with v the weighted variance of the window,
E r^2 = s^2 (v + floor^2), a GARCH(1,1) with constant s^2 floor^2 where s^2 is what the flow says.
And no draw is scaled by more than `max_volatility`, because tails as heavy as an index near 2
let one draw raise the variance of the whole window; how often it binds is reported.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from glow_bt.artifact.path_starts import start_windows
from glow_bt.artifact.returns import ReturnModel
from glow_bt.errors import ArtifactError, ConfigError, TooFewBarsError
from glow_bt.features import ContextRows
from glow_bt.features.return_context import ReturnContext
from glow_bt.ohlcv import validate_bars

__all__ = ["PathModel", "Paths", "next_returns"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Paths:
    """Simulated paths.

    Attributes:
        returns: (K, T) log returns.
        capped: (K,) share of each path's bars whose volatility was cut to the model's limit.
    """

    returns: Floats
    capped: Floats

    @property
    def capped_paths(self) -> float:
        """Share of paths that were cut at least once."""
        return float((self.capped > 0).mean())

    @property
    def capped_bars(self) -> float:
        """Share of all bars that were cut."""
        return float(self.capped.mean())

    def prices(self, close: float = 1.0) -> Floats:
        """Return closes (K, T) that follow a last known one."""
        closes: Floats = close * np.exp(np.cumsum(self.returns, axis=1))
        return closes


@dataclass(frozen=True, eq=False)
class PathModel:
    """A return flow whose context is past returns alone, and the limit of its volatility.

    Attributes:
        returns: the model; of its horizons one bar is used.
        max_volatility: of one bar's log return, above the floor `returns.spec.least_volatility`.
        trained_from: stamp of the first bar that was learned from.
        trained_until: stamp of the last one.

    Raises:
        ConfigError: if the context needs more than returns.
        ArtifactError: if the limit is not above the floor.
    """

    returns: ReturnModel
    max_volatility: float
    trained_from: pd.Timestamp
    trained_until: pd.Timestamp

    def __post_init__(self) -> None:
        floor = self.returns.spec.least_volatility
        if not floor < self.max_volatility < math.inf:
            raise ArtifactError(
                f"expected max_volatility above the floor {floor:g}, found "
                f"{self.max_volatility}; fit the paths again"
            )
        _ = self._context

    @property
    def window(self) -> int:
        """Returns that the next one depends on."""
        return self.returns.spec.window

    def contexts(self, windows: Floats) -> ContextRows:
        """Return scaled contexts and volatility, uncut, of K windows of returns (window, K)."""
        rows = self._context(windows)
        return ContextRows(self.returns.scaler.transform(rows.values), rows.volatility)

    def simulate(
        self, num_paths: int, num_bars: int, *, start: pd.DataFrame | npt.ArrayLike, seed: int = 0
    ) -> Paths:
        """Draw paths; longer ones with the same seed and number begin as shorter ones do.

        Args:
            num_paths: K.
            num_bars: T.
            start: the state that paths start from. Bars, of which the last `window` returns
                count; (n,) log returns, likewise; or (N, window) windows of them, oldest first,
                of which each path draws one, such as `regime_windows` gives.
            seed: of the draws.

        Raises:
            ConfigError: if there is no path or bar, or the seed is negative.
            TooFewBarsError: if the start is shorter than the window; says how many bars it needs.
            DataError: if the start is not finite or breaks the contract of bars.
        """
        _check_counts(seed, num_paths=num_paths, num_bars=num_bars)
        rng = np.random.default_rng(seed)
        starts = start_windows(start, self.window)
        picked = starts[rng.integers(len(starts), size=num_paths)]
        # Time first: a window of all paths is one block of memory.
        history = np.empty((self.window + num_bars, num_paths))
        history[: self.window] = picked.T
        capped = np.zeros(num_paths)
        for bar in range(num_bars):
            rows = self.contexts(history[bar : bar + self.window])
            capped += rows.volatility > self.max_volatility
            cut = ContextRows(rows.values, np.minimum(rows.volatility, self.max_volatility))
            z = rng.standard_normal((num_paths, 1))
            history[bar + self.window] = self.returns.distribution(cut).at_latent(z)[:, 0]
        return Paths(np.ascontiguousarray(history[self.window :].T), capped / num_bars)

    @cached_property
    def _context(self) -> ReturnContext:
        return ReturnContext(self.returns.spec)


def next_returns(
    model: ReturnModel, bars: pd.DataFrame, num_draws: int, *, horizon: int = 1, seed: int = 0
) -> Floats:
    """Draw log returns (num_draws,) of the next `horizon` bars, given all that the model is told.

    Args:
        model: any return model, such as an artifact's `returns`.
        bars: a bar frame whose last bar is the state.
        num_draws: how many.
        horizon: one of the model's.
        seed: of the draws.

    Raises:
        ConfigError: if there is no draw, or the horizon is none of the model's.
        TooFewBarsError: if there are too few bars for a context.
        DataError: if a column is missing or bars break their contract.
    """
    _check_counts(seed, num_draws=num_draws)
    bars = validate_bars(bars)
    if len(bars) < model.min_bars:
        raise TooFewBarsError(model.min_bars, len(bars), "the state that returns follow")
    values, stamps_ns = model.inputs(bars.iloc[-model.min_bars :])
    distribution = model.distribution(model.contexts(values, stamps_ns), horizon)
    z = np.random.default_rng(seed).standard_normal(num_draws)
    draws: Floats = distribution.at_latent(z[None, :])[0]
    return draws


def _check_counts(seed: int, **counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ConfigError(f"expected {name} of at least 1, found {count}")
    if seed < 0:
        raise ConfigError(f"expected a seed of 0 or more, found {seed}")
