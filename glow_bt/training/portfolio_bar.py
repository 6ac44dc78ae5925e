"""The joint density of one bar's log returns, with the methods of a fused flow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from glow_bt.errors import FlowError
from glow_bt.fused import FusedFlow
from glow_bt.risk.spherical import SphericalT

__all__ = ["NextBar"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class NextBar:
    """Density of one bar's joint log returns, given the bars before it.

    It can be drawn from, and stressed (`glow_bt.risk.stress.stress_scenarios`). Its latents are
    the rows y that the Glows of the mixture share, close to N(0, I).

    Attributes:
        flows: Glows of the mixture.
        radius: shared radius, between x and y.
        root: (N, N) map A, r = A x.
        context: (C,) scaled context.
    """

    flows: Sequence[FusedFlow]
    radius: SphericalT
    root: Floats
    context: Floats

    def encode(
        self, x: npt.ArrayLike, context: npt.ArrayLike | None = None
    ) -> tuple[Floats, Floats]:
        """Return latents (M, N) and log densities (M,) of log returns (M, N).

        Raises:
            FlowError: on a context, which the bar has already, or rows that are not finite.
        """
        _refuse_context(context)
        rows = np.linalg.solve(self.root, np.asarray(x, dtype=np.float64).T).T
        y, change = self.radius.forward(rows.astype(np.float64))
        return y, self._log_mixture(y) + change - np.linalg.slogdet(self.root)[1]

    def inverse(
        self, z: npt.ArrayLike, context: npt.ArrayLike | None = None
    ) -> tuple[Floats, Floats]:
        """Return log returns (M, N) of latents (M, N), and log |det dr/dy| (M,)."""
        _refuse_context(context)
        x = self.radius.inverse(np.asarray(z, dtype=np.float64))
        log_det = np.linalg.slogdet(self.root)[1] - self.radius.forward(x)[1]
        return x @ self.root.T, log_det

    def sample(self, n: int, context: npt.ArrayLike | None = None, seed: int = 0) -> Floats:
        """Draw log returns (n, N), each from a flow of the mixture drawn at random."""
        _refuse_context(context)
        rng = np.random.default_rng(seed)
        counts = rng.multinomial(n, np.full(len(self.flows), 1 / len(self.flows)))
        seeds = rng.integers(2**32, size=len(self.flows))
        drawn = [
            flow.sample(int(count), self.context[None], seed=int(own))
            for flow, count, own in zip(self.flows, counts, seeds, strict=True)
            if count
        ]
        y = rng.permutation(np.concatenate(drawn)).astype(np.float64)
        return self.radius.inverse(y) @ self.root.T

    def _log_mixture(self, y: Floats) -> Floats:
        context = np.broadcast_to(self.context, (len(y), self.context.size))
        each = [flow.encode(y, context)[1] for flow in self.flows]
        mixed: Floats = special.logsumexp(each, axis=0) - np.log(len(each))
        return mixed


def _refuse_context(context: npt.ArrayLike | None) -> None:
    if context is not None:
        raise FlowError("expected no context for a bar that has its own, found one; leave it out")
