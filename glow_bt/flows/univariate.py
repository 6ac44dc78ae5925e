"""A one-dimensional conditional density with exact quantiles."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import torch
from torch import Tensor, nn

from glow_bt.errors import FlowError
from glow_bt.flows.base import Context, Flow, PerRow, Rows
from glow_bt.flows.nets import bounded_log_scale, conditioner
from glow_bt.flows.priors import NormalPrior
from glow_bt.flows.tails import TailLayer

__all__ = ["UnivariateFlow"]

# With indices above 1 the mean exists; the margin keeps the shortfall integral well behaved.
_MIN_INDEX = 1.2
# Expected shortfall integrates over latents down to this far below the quantile's, where even
# at the smallest index the integrand is below 1e-30.
_ES_DEPTH = 30.0
_ES_NODES = 200


class UnivariateFlow(Flow):
    """p(y | c) for one-dimensional y: a conditional affine layer over a tail layer.

    Towards the latent: u = (y - m) * exp(-s(c)), z = tail(u), z ~ N(0, 1). The log-scale s is a
    network of the context; the location m is one learned number, because a location that
    follows the context overfits returns. The map is increasing, so quantiles are exact: the
    normal quantile pushed through the inverse.

    Args:
        context_features: C, width of the context.
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
        self.tails = TailLayer(1, min_index=_MIN_INDEX)
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
        """Set location, scale and tail indices from data y (N, 1), robustly, before training."""
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
    def quantile(self, p: float, context: Context) -> PerRow:
        """Return the p-quantile of y given each context, shape (N,); exact.

        Raises:
            FlowError: if p is outside (0, 1).
        """
        _check_level(p)
        z = torch.special.ndtri(context.new_tensor(p)).expand(context.shape[0], 1)
        self.check_rows(z, context)
        return self.inverse(z, context)[0][:, 0]

    @torch.no_grad()
    def cdf(self, x: Rows, context: Context) -> PerRow:
        """Return P(Y <= x | context), shape (N,); exact."""
        self.check_rows(x, context)
        z, _ = self.forward(x, context)
        below: Tensor = torch.special.ndtr(z[:, 0])
        return below

    @torch.no_grad()
    def expected_shortfall(self, p: float, context: Context) -> PerRow:
        """Return E[Y | Y <= p-quantile, context], shape (N,).

        (1/p) * integral of the inverse map times the normal density below the p-quantile of
        the latent, by Gauss-Legendre quadrature (200 nodes). Location and scale factor out, so
        one integral serves every row.
        """
        _check_level(p)
        self.check_rows(context.new_zeros(context.shape[0], 1), context)
        upper = float(torch.special.ndtri(torch.tensor(p, dtype=torch.float64)))
        nodes, weights = np.polynomial.legendre.leggauss(_ES_NODES)
        half = 0.5 * _ES_DEPTH
        z = torch.from_numpy(upper + half * (nodes - 1.0))[:, None]
        # In float64 whatever the flow's own type is: u grows like exp(z^2 / (2 index)).
        u, _ = deepcopy(self.tails).double().inverse(z)
        density = NormalPrior(1).double().log_prob(z).exp()
        mean = float((torch.from_numpy(weights) * u[:, 0] * density).sum()) * half / p
        return mean * self._log_scale(context, context)[:, 0].exp() + self.location

    def _log_scale(self, like: Tensor, context: Tensor | None) -> Tensor:
        condition = like[:, :0] if context is None else context
        return self.log_scale + bounded_log_scale(self.net(condition))


def _check_level(p: float) -> None:
    if not 0 < p < 1:
        raise FlowError(f"expected a probability inside (0, 1), found {p}")
