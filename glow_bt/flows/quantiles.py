"""Quantiles and expected shortfall of one-dimensional flows, without sampling."""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from glow_bt.errors import FlowError
from glow_bt.flows.base import Context, Flow, PerRow, Rows, refuse_nan

__all__ = ["IncreasingFlow", "check_level"]

Floats = npt.NDArray[np.float64]

# The shortfall integral runs over s = log(p / u) of probabilities u below p. At its end u is
# about 1e-300 p, the least that float64 holds with all digits; pieces double in length.
_PIECES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 680.0)
_NODES = 24
# A mean exists if what the integral still gains at its end is below this share of it.
_VANISHING = 1e-9
_LEAST_PROBABILITY = np.finfo(np.float64).tiny
# Rows x nodes that go through the flow at once.
_CHUNK = 200_000


class IncreasingFlow(Flow):
    """A flow whose map increases when it has one feature, so that quantiles go through it."""

    @torch.no_grad()
    def quantile(self, p: float, context: Context | None = None) -> PerRow:
        """Return the p-quantile given each context, shape (N,); exact.

        The quantile of the latent pushed through the inverse. Without context one value, (1,).

        Raises:
            FlowError: if p is outside (0, 1), the flow has more than one feature, or the
                context is not what the flow takes.
        """
        check_level(p)
        self._check_one_feature()
        return self._pushed(np.array([p]), context)[:, 0].to(self.prior.dtype)

    @torch.no_grad()
    def cdf(self, x: Rows, context: Context | None = None) -> PerRow:
        """Return P(X <= x | context) of each row x (N, 1), shape (N,); exact.

        Raises:
            FlowError: if the flow has more than one feature, or as `log_prob` does.
        """
        self._check_one_feature()
        self.check_rows(x, context)
        z, _ = self.forward(x, context)
        below = self.prior.cdf(z)
        refuse_nan(below, x, "probability")
        return below

    @torch.no_grad()
    def expected_shortfall(self, p: float, context: Context | None = None) -> PerRow:
        """Return E[X | X <= p-quantile, context], shape (N,).

        (1/p) * integral of the quantile over (0, p), with u = p exp(-s) by Gauss-Legendre
        quadrature (12 pieces of 24 nodes). Minus infinity where the lower tail is so heavy that
        no mean exists, or that it is not reached within float64 (of a power law with an index
        below 1.03).

        Raises:
            FlowError: as `quantile` does.
        """
        check_level(p)
        self._check_one_feature()
        s, weights = _nodes()
        # Of a p that is tiny itself, what would underflow to 0 weighs nothing.
        quantiles = self._pushed(np.maximum(p * np.exp(-s), _LEAST_PROBABILITY), context)
        gains = quantiles * torch.from_numpy(np.exp(-s))
        total = gains @ torch.from_numpy(weights)
        # Not "not below": what is NaN or infinite does not vanish either.
        vanishes = gains[:, -1].abs() < _VANISHING * total.abs()
        return torch.where(vanishes, total, -torch.inf).to(self.prior.dtype)

    def _check_one_feature(self) -> None:
        if self.num_features != 1:
            raise FlowError(
                "expected a flow of one feature to have quantiles, found one of "
                f"{self.num_features}; draw scenarios instead"
            )

    def _pushed(self, p: Floats, context: Tensor | None) -> Tensor:
        """Return the quantiles at each p (M,) given each context: (N, M) in float64."""
        count = 1 if context is None else context.shape[0]
        self.check_rows(torch.zeros(count, 1, dtype=self.prior.dtype), context)
        # A quantile far out overflows float32 long before float64.
        flow = deepcopy(self).double() if self.prior.dtype != torch.float64 else self
        latents = torch.from_numpy(flow.prior.quantile(p))
        if context is None:
            return flow.inverse(latents[:, None])[0][:, 0][None, :]
        rows = []
        for block in torch.split(context.double(), max(_CHUNK // len(p), 1)):
            repeated = block.repeat_interleave(len(p), dim=0)
            z = latents.repeat(len(block))[:, None]
            rows.append(flow.inverse(z, repeated)[0].reshape(len(block), len(p)))
        return torch.cat(rows)


def check_level(p: float) -> None:
    """Refuse what is no probability.

    Raises:
        FlowError: if p is not inside (0, 1).
    """
    if not 0 < p < 1:
        raise FlowError(f"expected a probability inside (0, 1), found {p}")


def _nodes() -> tuple[Floats, Floats]:
    """Return nodes s in ascending order, and weights, of the composite Gauss-Legendre rule."""
    unit, weights = np.polynomial.legendre.leggauss(_NODES)
    pieces = [(0.5 * (b - a), 0.5 * (a + b)) for a, b in pairwise(_PIECES)]
    nodes = np.concatenate([middle + half * unit for half, middle in pieces])
    return nodes, np.concatenate([half * weights for half, _ in pieces])
