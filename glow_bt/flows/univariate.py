"""A one-dimensional conditional density with exact quantiles, alone or averaged over members."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from glow_bt.errors import FlowError
from glow_bt.flows.base import Context, PerRow, Rows, check_sizes
from glow_bt.flows.members import MemberNets
from glow_bt.flows.nets import soft_bound
from glow_bt.flows.priors import NormalPrior
from glow_bt.flows.quantiles import IncreasingFlow
from glow_bt.flows.spline import NUM_KNOT_PARAMETERS, spline_forward, spline_inverse
from glow_bt.flows.tail_fit import fit_margins
from glow_bt.flows.wallace import compress, stretch

if TYPE_CHECKING:
    from glow_bt.fused import FusedUnivariate

__all__ = ["LOG_INDEX_BOUND", "LOG_SCALE_BOUND", "MIN_INDEX", "UnivariateFlow"]

# With indices above 1 the mean exists; the margin keeps the shortfall integral well behaved.
MIN_INDEX = 1.2
# How far a context moves the log-scale, and the log of the excess of an index over its minimum.
LOG_SCALE_BOUND = 1.5
LOG_INDEX_BOUND = 0.5
# A few hundred rows say next to nothing of a tail, and calm ones the wrong thing. Returns over
# volatility have indices around 4 on most markets, which counts as much as so many rows.
_USUAL_INDEX = 4.0
_USUAL_ROWS = 500


class UnivariateFlow(IncreasingFlow):
    """p(y | c) for one-dimensional y: a scale and two tails that follow c, one shape for all.

    Towards the latent:

        u = y * exp(-s(c)) - m
        v = sign(u) * sqrt(a(c) * log(1 + u^2/a(c)))      a left or right index, by the sign
        z = spline(v) ~ N(0, 1)

    The log-scale s and both tail indices are functions of the context; the location m (in
    scales) and the knots of a rational-quadratic spline, which give the body its skewness and
    peak, are numbers, because a location that follows the context overfits returns. The map is
    increasing, so quantiles are exact: the normal quantile pushed through the inverse. The tail
    step is that of `glow_bt.flows.wallace` (power-law tails of that index), the spline that of
    `glow_bt.flows.spline` (the identity beyond 4).

    A flow can hold the parameters of several members, trained apart: what they say of a context,
    and their shapes, are averaged before they are used, which keeps one increasing map with
    exact quantiles. What they say apart measures how uncertain the estimate is.

    Args:
        context_features: C, width of the context; 0 for one density, where None stands for the
            context and quantile, expected_shortfall and scale return one value, (1,).
        hidden_dim: width of the two hidden layers of each member's network.
        num_members: M.

    Attributes:
        location: (M, 1), m in units of the scale.
        log_scale: (M, 1), s where the network says nothing.
        log_excess: (M, 2), log(a - 1.2), left and right, where the network says nothing.
        knots: (M, 23) parameters of the spline.
        net: (N, C) -> (M, N, 3), what a context adds to log-scale and log-excesses.

    Raises:
        FlowError: on a size below 1.
    """

    def __init__(self, context_features: int, hidden_dim: int = 16, num_members: int = 1) -> None:
        super().__init__(1, context_features)
        check_sizes(hidden_dim=hidden_dim, num_members=num_members)
        self.config: dict[str, int] = {
            "context_features": context_features,
            "hidden_dim": hidden_dim,
            "num_members": num_members,
        }
        self.location = nn.Parameter(torch.zeros(num_members, 1))
        self.log_scale = nn.Parameter(torch.zeros(num_members, 1))
        start = math.log(_USUAL_INDEX - MIN_INDEX)
        self.log_excess = nn.Parameter(torch.full((num_members, 2), start))
        self.knots = nn.Parameter(torch.zeros(num_members, NUM_KNOT_PARAMETERS))
        self.net = MemberNets(num_members, context_features, hidden_dim, 3)
        self.prior = NormalPrior(1)

    @property
    def index(self) -> Tensor:
        """Left and right tail index where the network says nothing, shape (2,)."""
        return MIN_INDEX + self.log_excess.detach().mean(dim=0).exp()

    @classmethod
    def averaged(cls, members: Sequence[UnivariateFlow]) -> UnivariateFlow:
        """Return one flow of all members' members, in the first one's type.

        Raises:
            FlowError: if there is none, or they differ in context or width.
        """
        settings = {(f.context_features, f.config["hidden_dim"]) for f in members}
        if len(settings) != 1:
            raise FlowError(
                "expected members of one context_features and hidden_dim, found "
                f"{sorted(settings)}; build them alike"
            )
        ((context_features, hidden_dim),) = settings
        count = sum(f.config["num_members"] for f in members)
        # Building a flow draws its starting weights, which must not move the caller's stream.
        with torch.random.fork_rng(devices=[]):
            flow = cls(context_features, hidden_dim, count).to(members[0].prior.dtype)
        states = [f.state_dict() for f in members]
        flow.load_state_dict(
            {
                name: torch.cat([state[name] for state in states])
                for name in states[0]
                if not name.startswith("prior.")
            },
            strict=False,  # the prior of width 1 has nothing to load
        )
        return flow.eval()

    def forward(self, x: Rows, context: Context | None = None) -> tuple[Rows, PerRow]:
        """Map y (N, 1) to its latent (N, 1)."""
        s, left, right = self._moved(x, context)
        u = x * (-s).exp() - self.location.mean()
        v, tail_slope = compress(u, torch.where(u < 0, left, right))
        z, body_slope = spline_forward(v, self._knots())
        return z, (tail_slope + body_slope - s)[:, 0]

    def inverse(self, z: Rows, context: Context | None = None) -> tuple[Rows, PerRow]:
        """Map a latent (N, 1) to y (N, 1)."""
        s, left, right = self._moved(z, context)
        v, body_slope = spline_inverse(z, self._knots())
        u, tail_slope = stretch(v, torch.where(v < 0, left, right))
        return (u + self.location.mean()) * s.exp(), (tail_slope + body_slope + s)[:, 0]

    @torch.no_grad()
    def initialize(self, y: Tensor) -> None:
        """Set location, scale and tail indices of every member from data y (N, 1).

        The most likely ones of the tail step by itself, see `glow_bt.flows.tail_fit`; with N rows
        the logarithms of the indices' excess then go 500 / (N + 500) of the way to that of 4.

        Raises:
            FlowError: if y has values that are not finite, or half of them equal.
        """
        if not torch.isfinite(y).all():
            raise FlowError("expected finite values to start from, found some that are not")
        quartiles = torch.quantile(y, y.new_tensor([0.25, 0.75]))
        if not quartiles[1] > quartiles[0]:
            raise FlowError(
                "expected values that vary, found half of them equal; "
                "give a history without so many repeated closes"
            )
        margins = fit_margins(y, MIN_INDEX)
        self.log_scale.copy_(margins.log_scale.expand_as(self.log_scale))
        self.location.copy_(
            (margins.location * (-margins.log_scale).exp()).expand_as(self.location)
        )
        usual = math.log(_USUAL_INDEX - MIN_INDEX)
        share = _USUAL_ROWS / (len(y) + _USUAL_ROWS)
        self.log_excess.copy_(
            torch.lerp(
                margins.log_excess[:, 0], torch.full_like(margins.log_excess[:, 0], usual), share
            ).expand_as(self.log_excess)
        )

    @torch.no_grad()
    def scale(self, context: Context | None = None) -> PerRow:
        """Return exp(s(c)) of each context, shape (N,): y = scale * (m + u)."""
        rows = self.location.new_zeros(1 if context is None else context.shape[0], 1)
        self.check_rows(rows, context)
        return self._moved(rows, context)[0][:, 0].exp()

    def fused(self) -> FusedUnivariate:
        """Return a frozen copy for inference in float64, without autograd, modules or torch."""
        from glow_bt.flows.freeze import freeze_univariate
        from glow_bt.fused import FusedUnivariate

        return FusedUnivariate(freeze_univariate(self))

    def _moved(self, like: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return log-scale, left and right index of each row, (N, 1) each."""
        condition = like[:, :0] if context is None else context
        s, left, right = self.net(condition).mean(dim=0).split(1, dim=1)
        start_left, start_right = self.log_excess.mean(dim=0)
        return (
            self.log_scale.mean() + soft_bound(s, LOG_SCALE_BOUND),
            MIN_INDEX + (start_left + soft_bound(left, LOG_INDEX_BOUND)).exp(),
            MIN_INDEX + (start_right + soft_bound(right, LOG_INDEX_BOUND)).exp(),
        )

    def _knots(self) -> Tensor:
        return self.knots.mean(dim=0)[None, None, :]
