"""Networks of several members at once: each a small network beside a straight line."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from glow_bt.flows.nets import StackedLinear

__all__ = ["CONTEXT_BOUND", "MemberNets"]

# Contexts come scaled; what lies further out than this says no more than this.
CONTEXT_BOUND = 4.0


class MemberNets(nn.Module):
    """M networks (N, C) -> (M, N, out) of two hidden layers, with a line in the first output.

    W3 silu(W2 silu(W1 c + b1) + b2) + b3, with c clipped to [-4, 4], plus L c in output 0. The
    line learns what is nearly linear (the logarithm of a volatility in those of past ones), the
    network what bends. Outputs start at 0.

    Args:
        num_members: M.
        in_features: C; with 0 there are no parameters and every output is 0.
        hidden_dim: width of the hidden layers.
        out_features: width of the output.
    """

    def __init__(
        self, num_members: int, in_features: int, hidden_dim: int, out_features: int
    ) -> None:
        super().__init__()
        self.num_members = num_members
        self.out_features = out_features
        widths = [in_features, hidden_dim, hidden_dim, out_features] if in_features else []
        layers = [StackedLinear(num_members, *pair) for pair in itertools.pairwise(widths)]
        self.layers = nn.ModuleList(layers)
        self.line = StackedLinear(num_members, in_features, 1) if layers else None
        for layer in (layers[-1], self.line) if self.line is not None else ():
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, condition: Tensor) -> Tensor:
        """Return (M, N, out) of conditions (N, C)."""
        if self.line is None:
            return condition.new_zeros(self.num_members, len(condition), self.out_features)
        c = condition.clamp(-CONTEXT_BOUND, CONTEXT_BOUND).expand(self.num_members, -1, -1)
        *inner, last = self.layers
        hidden = c
        for layer in inner:
            hidden = nn.functional.silu(layer(hidden))
        out = last(hidden)
        return torch.cat([out[..., :1] + self.line(c), out[..., 1:]], dim=-1)
