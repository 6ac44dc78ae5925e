"""Coupling layers: one half of a row is transformed given the other half and the context."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from glow_bt.flows.base import Bijection, Context, PerRow, Rows
from glow_bt.flows.nets import bounded_log_scale, conditioner

__all__ = ["AdditiveCoupling", "AffineCoupling", "ConditionalAffine"]


class ConditionalAffine(nn.Module):
    """z = y * exp(log_s) + t with (log_s, t) = net(condition); log_det = sum(log_s).

    The piece that couplings, splits and conditional densities share.

    Args:
        num_features: width of y.
        condition_features: width of the condition; 0 makes log_s and t learned constants.
        hidden_dim: width of the network's hidden layers.
        hidden_layers: their number; 0 makes the network linear.
    """

    def __init__(
        self, num_features: int, condition_features: int, hidden_dim: int, hidden_layers: int = 2
    ) -> None:
        super().__init__()
        self.net = conditioner(condition_features, hidden_dim, 2 * num_features, hidden_layers)

    def forward(self, y: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift y (N, D) given condition (N, K)."""
        log_s, t = self._scale_and_shift(condition)
        return y * log_s.exp() + t, log_s.sum(dim=1)

    def inverse(self, z: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Undo `forward` under the same condition."""
        log_s, t = self._scale_and_shift(condition)
        return (z - t) * (-log_s).exp(), -log_s.sum(dim=1)

    def _scale_and_shift(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        raw, t = self.net(condition).chunk(2, dim=1)
        return bounded_log_scale(raw), t


class _Coupling(Bijection):
    """Splits rows in two; the first num_features // 2 features pass unchanged.

    With num_features = 1 there is no first half: what is left depends on the context only.
    """

    def __init__(self, num_features: int, hidden_dim: int, context_features: int = 0) -> None:
        super().__init__(num_features, context_features)
        self.num_passed = num_features // 2
        self.num_changed = num_features - self.num_passed

    def _halves(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the passed half, the changed half, and what conditions the change."""
        passed, changed = x[:, : self.num_passed], x[:, self.num_passed :]
        condition = passed if context is None else torch.cat([passed, context], dim=1)
        return passed, changed, condition


class AffineCoupling(_Coupling):
    """Affine coupling: z_b = x_b * exp(log_s) + t, with (log_s, t) = net(x_a, context).

    x_a passes unchanged, so the Jacobian is triangular and log_det = sum(log_s). Dinh et al.
    2017, sec. 3.2 (arXiv:1605.08803); Kingma & Dhariwal 2018, sec. 3.3.
    """

    def __init__(self, num_features: int, hidden_dim: int, context_features: int = 0) -> None:
        super().__init__(num_features, hidden_dim, context_features)
        self.affine = ConditionalAffine(
            self.num_changed, self.num_passed + context_features, hidden_dim
        )

    def forward(self, x: Rows, context: Context | None = None) -> tuple[Rows, PerRow]:
        """Transform the second half given the first."""
        passed, changed, condition = self._halves(x, context)
        changed, log_det = self.affine(changed, condition)
        return torch.cat([passed, changed], dim=1), log_det

    def inverse(self, z: Rows, context: Context | None = None) -> tuple[Rows, PerRow]:
        """Undo `forward`: the first half is still there to compute the same scale and shift."""
        passed, changed, condition = self._halves(z, context)
        changed, log_det = self.affine.inverse(changed, condition)
        return torch.cat([passed, changed], dim=1), log_det


class AdditiveCoupling(_Coupling):
    """Additive coupling of NICE: z_b = x_b + t, with t = net(x_a, context); log_det = 0.

    Dinh et al. 2014, sec. 3.2 (arXiv:1410.8516).
    """

    def __init__(self, num_features: int, hidden_dim: int, context_features: int = 0) -> None:
        super().__init__(num_features, hidden_dim, context_features)
        self.net = conditioner(self.num_passed + context_features, hidden_dim, self.num_changed)

    def forward(self, x: Rows, context: Context | None = None) -> tuple[Rows, PerRow]:
        """Shift the second half given the first."""
        passed, changed, condition = self._halves(x, context)
        shifted = changed + self.net(condition)
        return torch.cat([passed, shifted], dim=1), x.new_zeros(x.shape[0])

    def inverse(self, z: Rows, context: Context | None = None) -> tuple[Rows, PerRow]:
        """Shift it back."""
        passed, changed, condition = self._halves(z, context)
        shifted = changed - self.net(condition)
        return torch.cat([passed, shifted], dim=1), z.new_zeros(z.shape[0])
