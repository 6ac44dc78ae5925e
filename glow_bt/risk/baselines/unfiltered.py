"""Baselines without a model of variance: static Gaussian and historical simulation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from glow_bt.errors import ConfigError
from glow_bt.risk.baselines.walking import check_request, spread_of
from glow_bt.risk.distributions import LocationScale, NormalShape
from glow_bt.risk.forecasts import Forecasts, forecasts_of
from glow_bt.risk.scenarios import Scenarios

__all__ = ["GaussianBaseline", "HistoricalSimulation"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class GaussianBaseline:
    """r_t ~ N(m, s^2), mean and standard deviation of the returns that are fitted on."""

    name: str = "gaussian"
    min_bars: int = 30
    has_density: bool = True

    def forecast(
        self,
        returns: Floats,
        *,
        fit: slice | range,
        first: int,
        stop: int,
        levels: Sequence[float],
    ) -> Forecasts:
        """Forecast each return in [first, stop) by the same normal distribution."""
        fit = check_request(self, returns, fit=fit, first=first, stop=stop, levels=levels)
        spread = spread_of(self, returns, fit)
        mean = float(np.mean(returns[fit.start : fit.stop]))
        count = stop - first
        distribution = LocationScale(np.full(count, mean), np.full(count, spread), NormalShape())
        return forecasts_of(distribution, returns[first:stop], levels)


@dataclass(frozen=True)
class HistoricalSimulation:
    """The last `window` returns before each bar, equally likely; it has no density.

    Nothing is estimated on `fit`; the window rolls on at every bar. With fewer than `window`
    bars before the first forecast, the window is as long as those. Quantile and shortfall as in
    `Scenarios`.

    Attributes:
        window: returns that are looked back on.
    """

    window: int = 1000
    name: str = "historical"
    min_bars: int = 100
    has_density: bool = False

    def __post_init__(self) -> None:
        if self.window < self.min_bars:
            raise ConfigError(
                f"expected a window of {self.min_bars} returns or more, found {self.window}"
            )

    def forecast(
        self,
        returns: Floats,
        *,
        fit: slice | range,
        first: int,
        stop: int,
        levels: Sequence[float],
    ) -> Forecasts:
        """Forecast each return in [first, stop) by the returns right before it."""
        check_request(self, returns, fit=fit, first=first, stop=stop, levels=levels)
        window = min(self.window, first)
        # The window that ends before return t starts at t - window.
        windows = sliding_window_view(returns[first - window : stop - 1], window)
        return forecasts_of(Scenarios(windows), returns[first:stop], levels)
