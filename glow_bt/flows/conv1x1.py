"""Mixing of features between couplings: learned (1x1 convolution) or fixed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from glow_bt.flows.base import Bijection, Context, PerRow, Rows

__all__ = ["InvertibleConv1x1", "Reverse"]


class InvertibleConv1x1(Bijection):
    """Invertible linear map z = W x with W = P L (U + diag(sign * exp(log_s))).

    On a vector a 1x1 convolution is a matrix (elsewhere LULinear, or generalized permutation).
    P is a fixed permutation, L unit lower and U strictly upper triangular; the sign of the
    diagonal is kept fixed. W starts as a random orthogonal matrix. log_det = sum(log_s), O(D); the
    inverse goes through two triangular solves, never through an inverted matrix. Kingma &
    Dhariwal 2018, sec. 3.2 (arXiv:1807.03039).
    """

    permutation: Tensor
    sign: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        rotation, _ = torch.linalg.qr(torch.randn(num_features, num_features))
        permutation, lower, upper = torch.linalg.lu(rotation)
        diagonal = upper.diagonal()
        self.register_buffer("permutation", permutation)
        self.register_buffer("sign", diagonal.sign())
        self.lower = nn.Parameter(lower.tril(-1))
        self.upper = nn.Parameter(upper.triu(1))
        self.log_s = nn.Parameter(diagonal.abs().log())

    def weight(self) -> Tensor:
        """Return W, shape (D, D)."""
        lower, upper = self._triangles()
        return self.permutation @ lower @ upper

    @torch.no_grad()
    def condition_number(self) -> float:
        """Return the ratio of W's largest to its smallest singular value; 1 at the start."""
        return float(torch.linalg.cond(self.weight().double()))

    def forward(self, x: Rows, context: Context | None = None) -> tuple[Rows, PerRow]:
        """Multiply each row by W."""
        return x @ self.weight().T, self.log_s.sum().expand(x.shape[0])

    def inverse(self, z: Rows, context: Context | None = None) -> tuple[Rows, PerRow]:
        """Solve W x = z for each row."""
        lower, upper = self._triangles()
        columns = self.permutation.T @ z.T
        columns = torch.linalg.solve_triangular(lower, columns, upper=False, unitriangular=True)
        columns = torch.linalg.solve_triangular(upper, columns, upper=True)
        return columns.T, -self.log_s.sum().expand(z.shape[0])

    def _triangles(self) -> tuple[Tensor, Tensor]:
        eye = torch.eye(self.num_features, dtype=self.lower.dtype, device=self.lower.device)
        lower = self.lower.tril(-1) + eye
        upper = self.upper.triu(1) + torch.diag(self.sign * self.log_s.exp())
        return lower, upper


class Reverse(Bijection):
    """Reversed order of features, the fixed mixing of NICE and RealNVP; log_det = 0."""

    def forward(self, x: Rows, context: Context | None = None) -> tuple[Rows, PerRow]:
        """Reverse the features."""
        return x.flip(1), x.new_zeros(x.shape[0])

    def inverse(self, z: Rows, context: Context | None = None) -> tuple[Rows, PerRow]:
        """Reverse them back."""
        return self.forward(z)
