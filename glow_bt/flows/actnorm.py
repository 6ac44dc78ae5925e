"""Activation normalization."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from glow_bt.errors import FlowError
from glow_bt.flows.base import Bijection, Context, PerRow, Rows

__all__ = ["ActNorm"]

_MIN_STD = 1e-6


class ActNorm(Bijection):
    """Learned scale and shift a feature: z = x * exp(log_scale) + bias.

    The first batch in training mode sets both so that z has mean 0 and deviation 1: scale =
    1/std and bias = -mean/std. From then on they are ordinary parameters. Whether that has
    happened is a buffer, so it survives saving. log_det = sum(log_scale), the same for every
    row. Kingma & Dhariwal 2018, sec. 3.1 (arXiv:1807.03039).
    """

    initialized: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        self.log_scale = nn.Parameter(torch.zeros(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("initialized", torch.tensor(False))

    def forward(self, x: Rows, context: Context | None = None) -> tuple[Rows, PerRow]:
        """Scale and shift; the first training batch sets the parameters."""
        if not self.initialized:
            self._initialize(x)
        return x * self.log_scale.exp() + self.bias, self.log_scale.sum().expand(x.shape[0])

    def inverse(self, z: Rows, context: Context | None = None) -> tuple[Rows, PerRow]:
        """Undo `forward`."""
        if not self.initialized:
            raise FlowError(_UNTRAINED)
        return (z - self.bias) * (-self.log_scale).exp(), -self.log_scale.sum().expand(z.shape[0])

    @torch.no_grad()
    def _initialize(self, x: Tensor) -> None:
        if not self.training:
            raise FlowError(_UNTRAINED)
        if x.shape[0] < 2:
            raise FlowError(
                f"expected a first training batch of at least 2 rows, found {x.shape[0]}"
            )
        std = x.std(dim=0).clamp_min(_MIN_STD)
        if not torch.isfinite(std).all():
            raise FlowError("expected a finite first training batch, found NaN or infinite values")
        self.log_scale.copy_(-std.log())
        self.bias.copy_(-x.mean(dim=0) / std)
        self.initialized.fill_(True)


_UNTRAINED = (
    "expected an ActNorm that has seen a training batch, found an untrained one; call train() and "
    "pass a batch, or load trained parameters"
)
