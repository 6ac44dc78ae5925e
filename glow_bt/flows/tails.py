"""Heavy tails: an elementwise layer between power-law tails and Gaussian ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from glow_bt.errors import FlowError
from glow_bt.flows.base import Bijection, Context, PerRow, Rows
from glow_bt.flows.nets import conditioner, soft_bound
from glow_bt.flows.tail_fit import fit_margins
from glow_bt.flows.wallace import compress, stretch

__all__ = ["LOCATION_BOUND", "LOG_INDEX_BOUND", "LOG_SCALE_BOUND", "TailLayer"]

_START_INDEX = 30.0
# How far a context moves the location (in scales), the log-scale and the log of the index.
LOCATION_BOUND = 0.5
LOG_SCALE_BOUND = 1.0
LOG_INDEX_BOUND = 0.5


class TailLayer(Bijection):
    """u = (x - m) * exp(-s), then z = sign(u) * sqrt(a * log(1 + u^2/a)), elementwise.

    a is the left index where u < 0 and the right one elsewhere. A flow of Lipschitz layers on a
    Gaussian base has Gaussian tails (Jaini et al. 2020, arXiv:1907.04481), so the layer nearest
    the data turns power-law tails into Gaussian ones: if z ~ N(0, 1), then P(|u| > v) falls like
    v^-a (times a root of a logarithm). The map is that of `glow_bt.flows.wallace`; around 0 it
    is the identity for every index (slope 1, curvature 0), so both sides join smoothly. With
    w = log(1 + u^2/a):

        forward    log |dz/dx| = -log(w * a / u^2) / 2 - w - s
        inverse    u = sign(z) * sqrt(a * (exp(z^2/a) - 1)), x = m + u * exp(s)

    With a context c a small network, of no effect at the start, moves all three, each within
    bounds: m by up to half a scale, s by up to 1, log(a - min_index) by up to 1/2. The bound on
    m is narrow because a location that follows the context overfits returns.

    Student's t with nu degrees of freedom is fitted best by indices a little below nu (0.36,
    0.79, 1.7 and 30 for nu = 0.5, 1, 2 and 30), which make up for the root of a logarithm over
    the range that data reach; the divergence from it is then below 0.003 nats.

    Args:
        num_features: D.
        context_features: C, width of the context; 0 for none.
        min_index: lower bound on the indices; above 1 every mean is finite.
        hidden_dim: width of the two hidden layers of the context's network.
        affine: whether there are m and s; without them they are 0, and there is no context.
        trained: whether s and the indices are trained on, or stay as `fit` found them.

    Attributes:
        location: (D,) buffer m, set by `fit`; in units of the data, so never trained.
        log_scale: (D,) parameter s; None (like location) without affine.
        log_excess: (2, D) parameter log(a - min_index), left and right.
        net: (N, C) -> (N, 4 D), moves of m, s, left and right log_excess; None without context.

    Raises:
        FlowError: on a min_index outside (0, 30), or a context without affine.
    """

    location: Tensor | None

    def __init__(
        self,
        num_features: int,
        context_features: int = 0,
        min_index: float = 0.1,
        hidden_dim: int = 32,
        *,
        affine: bool = True,
        trained: bool = True,
    ) -> None:
        super().__init__(num_features, context_features)
        if not 0 < min_index < _START_INDEX:
            raise FlowError(
                f"expected min_index above 0 and below {_START_INDEX:g}, found {min_index}"
            )
        if context_features and not affine:
            raise FlowError(
                f"expected no context without the affine step, found {context_features=}; "
                "leave affine on"
            )
        self.min_index = min_index
        start = math.log(_START_INDEX - min_index)
        self.register_buffer("location", torch.zeros(num_features) if affine else None)
        self.log_scale = nn.Parameter(torch.zeros(num_features), trained) if affine else None
        self.log_excess = nn.Parameter(torch.full((2, num_features), start), trained)
        self.net = (
            conditioner(context_features, hidden_dim, 4 * num_features)
            if context_features
            else None
        )

    @property
    def index(self) -> Tensor:
        """Tail indices before a context moves them, shape (2, D): row 0 left, row 1 right."""
        return self.min_index + self.log_excess.exp()

    def forward(self, x: Rows, context: Context | None = None) -> tuple[Rows, PerRow]:
        """Compress heavy tails into Gaussian ones."""
        m, s, left, right = self._settings(context)
        u = x if m is None else (x - m) * (-s).exp()
        z, log_slope = compress(u, torch.where(u < 0, left, right))
        return z, (log_slope - s).sum(dim=1)

    def inverse(self, z: Rows, context: Context | None = None) -> tuple[Rows, PerRow]:
        """Stretch Gaussian tails into heavy ones."""
        m, s, left, right = self._settings(context)
        u, log_slope = stretch(z, torch.where(z < 0, left, right))
        x = u if m is None else m + u * s.exp()
        return x, (log_slope + s).sum(dim=1)

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Set location, log-scale and indices to the most likely for x (N, D) by itself.

        Each feature by its own likelihood under a standard normal latent, see
        `glow_bt.flows.tail_fit.fit_margins`. Without affine only the indices move, and x should
        be centred at 0 with a body of unit scale. It is a start for training, not its end.

        Raises:
            FlowError: if x has no rows, or values that are not finite.
        """
        margins = fit_margins(x, self.min_index, affine=self.log_scale is not None)
        if self.location is not None and self.log_scale is not None:
            self.location.copy_(margins.location)
            self.log_scale.copy_(margins.log_scale)
        self.log_excess.copy_(margins.log_excess)

    def _settings(self, context: Tensor | None) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
        """Return m, s, left and right index, each (D,) or with a context (N, D)."""
        m, left, right = self.location, self.log_excess[0], self.log_excess[1]
        s = left.new_zeros(1) if self.log_scale is None else self.log_scale
        if self.net is not None and m is not None:
            shift, stretched, *moves = self.net(context).chunk(4, dim=1)
            m = m + soft_bound(shift, LOCATION_BOUND) * s.exp()
            s = s + soft_bound(stretched, LOG_SCALE_BOUND)
            left = left + soft_bound(moves[0], LOG_INDEX_BOUND)
            right = right + soft_bound(moves[1], LOG_INDEX_BOUND)
        return m, s, self.min_index + left.exp(), self.min_index + right.exp()
