"""Scenarios from a fixed bank of quasi-random numbers, so that what is read off them repeats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from scipy import special

from glow_bt.errors import FlowError
from glow_bt.fused.flow import FusedFlow
from glow_bt.fused.parts import BasePart, MixtureBase, StudentTBase
from glow_bt.fused.rows import as_rows, refuse

__all__ = ["ScenarioBank"]

Array = npt.NDArray[np.floating[Any]]
Floats = npt.NDArray[np.float64]

# Scrambled points are multiples of 2^-30; half of that keeps them off 0.
_HALF_STEP = 2.0**-31


@dataclass(frozen=True, eq=False)
class ScenarioBank:
    """Points spread evenly over the unit cube, kept for every call.

    Scrambled Sobol points (Owen 1998; Joe & Kuo 2008) fill the cube far more evenly than random
    ones: the error of a mean over S of them falls almost like 1/S, not 1/sqrt(S). The same bank
    under every context makes scenarios of neighbouring bars differ by what the market did, not
    by the draw.

    Attributes:
        points: (S, D + 1) in (0, 1); the last column picks the component of a mixture.

    Example:
        >>> import torch
        >>> from glow_bt.flows import Glow
        >>> flow = Glow(3, num_levels=1, num_steps=2, hidden_dim=8, context_features=2)
        >>> _ = flow.log_prob(torch.randn(64, 3), torch.randn(64, 2))
        >>> bank = ScenarioBank.sobol(1024, num_features=3)
        >>> bank.scenarios(flow.fused(), context=[[0.0, 1.0], [1.0, 0.0]]).shape
        (2, 1024, 3)
    """

    points: Floats

    @classmethod
    def sobol(cls, num_scenarios: int, num_features: int, seed: int = 0) -> ScenarioBank:
        """Return a bank of scrambled Sobol points.

        Args:
            num_scenarios: S, a power of 2 (only then are the points even).
            num_features: D, width of a scenario: bars of a path, or assets of a portfolio.
            seed: of the scrambling; the same seed gives the same bank.

        Raises:
            FlowError: if num_scenarios is no power of 2, or num_features is below 1.
        """
        if num_scenarios < 1 or num_scenarios & (num_scenarios - 1):
            raise FlowError(
                f"expected a number of scenarios that is a power of 2, found {num_scenarios}; "
                "take such as 1024 or 4096"
            )
        if num_features < 1:
            raise FlowError(f"expected num_features of at least 1, found {num_features}")
        # Here, because scipy.stats takes long to load and few draw scenarios.
        from scipy.stats import qmc

        sobol = qmc.Sobol(num_features + 1, scramble=True, rng=seed)
        return cls(sobol.random(num_scenarios) + _HALF_STEP)

    @property
    def num_features(self) -> int:
        """D, width of a scenario."""
        return int(self.points.shape[1]) - 1

    def latents(self, base: BasePart) -> Floats:
        """Return the points as latents (S, D) of a flow's base."""
        points, last = self.points[:, :-1], self.points[:, -1]
        if isinstance(base, StudentTBase):
            return cast("Floats", special.stdtrit(base.df, points))
        z: Floats = special.ndtri(points)
        if isinstance(base, MixtureBase):
            weights = np.exp(base.log_weights)
            borders = np.cumsum(weights / weights.sum())[:-1]
            component = np.searchsorted(borders, last, side="right")
            z = base.means[component] + z * np.exp(base.log_scales)[component]
        return z

    def scenarios(self, flow: FusedFlow, context: npt.ArrayLike | None = None) -> Array:
        """Return the bank's scenarios under a flow.

        Args:
            flow: of as many features as the bank.
            context: (N, C), or None for a flow without.

        Returns:
            (N, S, D); without context N is 1.

        Raises:
            FlowError: on another width, or a context that the flow does not take or that is
                not finite.
        """
        if flow.num_features != self.num_features:
            raise FlowError(
                f"expected a flow of {self.num_features} features, as the bank has, found one "
                f"of {flow.num_features}; make a bank for it"
            )
        latents = self.latents(flow.base)
        if context is None or not flow.context_features:
            return flow.decode(latents, context)[None]
        contexts = as_rows(context, flow.context_features, flow.dtype, "contexts")
        if not np.isfinite(contexts).all():
            refuse(0, contexts, None, flow.dtype, "contexts")
        scenarios = np.empty((len(contexts), *latents.shape), flow.dtype)
        for drawn, own in zip(scenarios, contexts, strict=True):
            drawn[:] = flow.decode(latents, np.broadcast_to(own, (len(latents), own.size)))
        return scenarios
