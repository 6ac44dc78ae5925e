"""The joint density of one bar's log returns, with the methods of a fused flow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from glow_bt.errors import FlowError
from glow_bt.training.spherical_glow import TrainedGlow

__all__ = ["NextBar"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class NextBar:
    """Density of one bar's joint log returns, given the bars before it.

    It can be drawn from, and stressed (`glow_bt.risk.stress.stress_scenarios`). Latents are the
    standardised returns x, r = A x, which all flows of the mixture share.

    Attributes:
        flows: the mixture.
        root: (N, N) map A.
        context: (C,) scaled context.
    """

    flows: Sequence[TrainedGlow]
    root: Floats
    context: Floats

    def encode(
        self, x: npt.ArrayLike, context: npt.ArrayLike | None = None
    ) -> tuple[Floats, Floats]:
        """Return standardised returns (M, N) and log densities (M,) of log returns (M, N).

        Raises:
            FlowError: on a context, which the bar has already, or rows that are not finite.
        """
        _refuse_context(context)
        rows = np.linalg.solve(self.root, np.asarray(x, dtype=np.float64).T).T.astype(np.float64)
        given = np.broadcast_to(self.context, (len(rows), self.context.size))
        each = [flow.log_prob(rows, given) for flow in self.flows]
        mixed: Floats = special.logsumexp(each, axis=0) - np.log(len(each))
        return rows, mixed - self._log_scale

    def inverse(
        self, z: npt.ArrayLike, context: npt.ArrayLike | None = None
    ) -> tuple[Floats, Floats]:
        """Return log returns (M, N) of standardised ones (M, N), and log |det dr/dx| (M,)."""
        _refuse_context(context)
        rows = np.asarray(z, dtype=np.float64)
        return rows @ self.root.T, np.full(len(rows), self._log_scale)

    def sample(self, n: int, context: npt.ArrayLike | None = None, seed: int = 0) -> Floats:
        """Draw log returns (n, N), each from a flow of the mixture drawn at random."""
        _refuse_context(context)
        rng = np.random.default_rng(seed)
        counts = rng.multinomial(n, np.full(len(self.flows), 1 / len(self.flows)))
        drawn = [
            flow.draw(rng.standard_normal((int(count), len(self.root))), self.context)
            for flow, count in zip(self.flows, counts, strict=True)
            if count
        ]
        rows: Floats = rng.permutation(np.concatenate(drawn)) @ self.root.T
        return rows

    @property
    def _log_scale(self) -> float:
        return float(np.linalg.slogdet(self.root)[1])


def _refuse_context(context: npt.ArrayLike | None) -> None:
    if context is not None:
        raise FlowError("expected no context for a bar that has its own, found one; leave it out")
