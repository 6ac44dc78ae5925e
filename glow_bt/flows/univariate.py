"""A one-dimensional conditional density with exact quantiles."""

from __future__ import annotations

import math
from copy import deepcopy
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from glow_bt.errors import FlowError
from glow_bt.flows.base import Context, PerRow, Rows
from glow_bt.flows.nets import conditioner, soft_bound
from glow_bt.flows.priors import NormalPrior
from glow_bt.flows.quantiles import IncreasingFlow, check_level
from glow_bt.flows.tails import TailLayer

if TYPE_CHECKING:
    from glow_bt.fused import FusedUnivariate

__all__ = ["LOG_SCALE_BOUND", "UnivariateFlow"]

# With indices above 1 the mean exists; the margin keeps the shortfall integral well behaved.
_MIN_INDEX = 1.2
# The context moves the scale by factors between exp(-1) and exp(1).
LOG_SCALE_BOUND = 1.0
# Expected shortfall integrates over latents down to this far below the quantile's (or 0), where
# even at the smallest index the integrand is below 1e-30.
_ES_DEPTH = 30.0
_ES_NODES = 200


class UnivariateFlow(IncreasingFlow):
    """p(y | c) for one-dimensional y: a conditional affine layer over a tail layer.

    Towards the latent: u = (y - m) * exp(-s(c)), z = tail(u), z ~ N(0, 1). The log-scale s is a
    network of the context; the location m is one learned number, because a location that
    follows the context overfits returns. The map is increasing, so quantiles are exact: the
    normal quantile pushed through the inverse.

    Args:
        context_features: C, width of the context; 0 for one density, where None stands for the
            context and quantile, expected_shortfall and scale return one value, (1,).
        hidden_dim: width of the network's two hidden layers.
    """

    def __init__(self, context_features: int, hidden_dim: int = 32) -> None:
        super().__init__(1, context_features)
        self.config: dict[str, int] = {
            "context_features": context_features,
            "hidden_dim": hidden_dim,
        }
        self.location = nn.Parameter(torch.zeros(1))
        self.log_scale = nn.Parameter(torch.zeros(1))
        self.net = conditioner(context_features, hidden_dim, 1)
        self.tails = TailLayer(1, min_index=_MIN_INDEX, affine=False)
        self.prior = NormalPrior(1)

    def forward(self, x: Rows, context: Context | None = None) -> tuple[Rows, PerRow]:
        """Map y (N, 1) to its latent (N, 1)."""
        s = self._log_scale(x, context)
        z, log_det = self.tails((x - self.location) * (-s).exp())
        return z, log_det - s[:, 0]

    def inverse(self, z: Rows, context: Context | None = None) -> tuple[Rows, PerRow]:
        """Map a latent (N, 1) to y (N, 1)."""
        s = self._log_scale(z, context)
        u, log_det = self.tails.inverse(z)
        return u * s.exp() + self.location, log_det + s[:, 0]

    @torch.no_grad()
    def initialize(self, y: Tensor) -> None:
        """Set location, scale and tail indices from data y (N, 1), robustly, before training.

        Raises:
            FlowError: if y has values that are not finite, or half of them equal.
        """
        if not torch.isfinite(y).all():
            raise FlowError("expected finite values to start from, found some that are not")
        self.location.copy_(y.median())
        quartiles = torch.quantile(y, y.new_tensor([0.25, 0.75]))
        spread = (quartiles[1] - quartiles[0]) / 1.349
        if not spread > 0:
            raise FlowError(
                "expected values that vary, found half of them equal; "
                "give a history without so many repeated closes"
            )
        self.log_scale.copy_(spread.log())
        self.tails.fit((y - self.location) / spread)

    @torch.no_grad()
    def quantile(self, p: float, context: Context | None = None) -> PerRow:
        """Return the p-quantile of y given each context, shape (N,); exact.

        Raises:
            FlowError: if p is outside (0, 1).
        """
        return self.location + self.scale(context) * self.standard_quantile(p)

    @torch.no_grad()
    def expected_shortfall(self, p: float, context: Context | None = None) -> PerRow:
        """Return E[Y | Y <= p-quantile, context], shape (N,).

        Raises:
            FlowError: if p is outside (0, 1).
        """
        return self.location + self.scale(context) * self.standard_shortfall(p)

    @torch.no_grad()
    def scale(self, context: Context | None = None) -> PerRow:
        """Return exp(s(c)) of each context, shape (N,): y = location + scale * u."""
        rows = self.location.new_zeros(1 if context is None else context.shape[0], 1)
        self.check_rows(rows, context)
        return self._log_scale(rows, context)[:, 0].exp()

    def fused(self, dtype: str = "float64") -> FusedUnivariate:
        """Return a frozen copy for inference, without autograd, modules or torch.

        Args:
            dtype: "float64" or "float32", of its arithmetic and results.

        Raises:
            FlowError: on another dtype.
        """
        from glow_bt.flows.freeze import freeze_univariate
        from glow_bt.fused import FusedUnivariate

        return FusedUnivariate(freeze_univariate(self), self.context_features, dtype)

    def standard_quantile(self, p: float) -> float:
        """Return the p-quantile of u, which every context shares."""
        check_level(p)
        u, _ = self._tails64().inverse(_normal_quantile(p).reshape(1, 1))
        return float(u)

    def standard_shortfall(self, p: float) -> float:
        """Return E[U | U <= p-quantile], which every context shares.

        (1/p) * integral of the tail layer's inverse times the normal density below the
        p-quantile of the latent, by Gauss-Legendre quadrature (200 nodes). An interval that
        holds 0, where left and right tail meet, is cut there.
        """
        check_level(p)
        upper = float(_normal_quantile(p))
        turn = min(upper, 0.0)
        tails = self._tails64()
        pieces = pairwise([turn - _ES_DEPTH, turn, upper])
        return sum(_latent_integral(tails, low, high) for low, high in pieces) / p

    def _tails64(self) -> TailLayer:
        """Return the tail layer in float64: u grows like exp(z^2 / (2 index))."""
        return deepcopy(self.tails).double().requires_grad_(False)

    def _log_scale(self, like: Tensor, context: Tensor | None) -> Tensor:
        condition = like[:, :0] if context is None else context
        change: Tensor = soft_bound(self.net(condition), LOG_SCALE_BOUND)
        return self.log_scale + change


def _latent_integral(tails: TailLayer, low: float, high: float) -> float:
    """Return the integral of tails' inverse times the normal density from low to high."""
    nodes, weights = np.polynomial.legendre.leggauss(_ES_NODES)
    half = 0.5 * (high - low)
    z = torch.from_numpy(low + half * (nodes + 1.0))
    u, _ = tails.inverse(z[:, None])
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    return half * float((torch.from_numpy(weights) * u[:, 0] * density).sum())


def _normal_quantile(p: float) -> Tensor:
    z: Tensor = torch.special.ndtri(torch.tensor(p, dtype=torch.float64))
    return z
