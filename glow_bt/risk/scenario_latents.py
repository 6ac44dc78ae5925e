"""Scenarios as increasing functions of a normal latent, so that they can be recalibrated."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import special

from glow_bt.risk.scenarios import Scenarios

__all__ = ["ScenarioLatents"]

Floats = npt.NDArray[np.float64]


class ScenarioLatents:
    """N distributions of equally likely draws, a `glow_bt.risk.recalibration.LatentDistribution`.

    The s-th lowest of S draws stands at the latent Phi^-1((s - 1/2) / S); between neighbours the
    function is a straight line, beyond the outermost draws it stays there. So no quantile and
    no mean reaches farther out than the draws do.

    Args:
        scenarios: N distributions of S draws.
    """

    def __init__(self, scenarios: Scenarios) -> None:
        self.scenarios = scenarios

    def at_latent(self, z: Floats) -> Floats:
        """Return the values (N, K) at latents z (N, K)."""
        values: Floats = np.stack(
            [np.interp(own, self._grid, row) for own, row in zip(z, self._sorted, strict=True)]
        )
        return values

    def latent(self, y: Floats) -> Floats:
        """Return the latent (N,) of each value (N,), that of an outermost draw beyond it."""
        return np.array(
            [np.interp(own, row, self._grid) for own, row in zip(y, self._sorted, strict=True)]
        )

    def log_prob(self, returns: Floats) -> Floats:
        """Return NaN (N,): draws have no density."""
        return np.full(len(returns), np.nan)

    def rows(self, rows: slice) -> ScenarioLatents:
        """Return some of the distributions."""
        return ScenarioLatents(Scenarios(self.scenarios.draws[rows]))

    @cached_property
    def _sorted(self) -> Floats:
        return np.sort(self.scenarios.draws, axis=1)

    @cached_property
    def _grid(self) -> Floats:
        size = self.scenarios.num_scenarios
        grid: Floats = special.ndtri((np.arange(size) + 0.5) / size)
        return grid
