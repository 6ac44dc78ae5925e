"""Mixing of features between couplings: learned (1x1 convolution) or fixed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["InvertibleConv1x1", "Mixing", "Reverse"]


class Mixing(nn.Module, ABC):
    """Invertible matrices W, one for each of K steps, applied to rows as x W^T."""

    @abstractmethod
    def weights(self) -> Tensor:
        """Return W, (K, D, D)."""

    @abstractmethod
    def log_det(self) -> Tensor:
        """Return the sum of the steps' log |det W|, a scalar."""

    @abstractmethod
    def solver(self) -> Callable[[Tensor, int], Tensor]:
        """Return a function from rows (N, D) and a step to the x (N, D) with x W^T = rows."""


class InvertibleConv1x1(Mixing):
    """Learned W = P L (U + diag(exp(log_s))), for each of K steps.

    On a vector a 1x1 convolution is a matrix (elsewhere LULinear, or generalized permutation).
    P is a fixed random permutation, L unit lower and U strictly upper triangular; W starts as P.
    log_det = sum(log_s), O(D); the inverse goes through two triangular solves, never through an
    inverted matrix. Kingma & Dhariwal 2018, sec. 3.2 (arXiv:1807.03039), who start from a random
    rotation: dependence between features of a market state lies along their axes (|return| <=
    range), and rotations smear it, at 0.1 to 0.2 nats of held-out likelihood on hourly bars.

    Args:
        num_steps: K.
        num_features: D.
    """

    permutation: Tensor
    eye: Tensor

    def __init__(self, num_steps: int, num_features: int) -> None:
        super().__init__()
        permutation = torch.stack(
            [torch.eye(num_features)[torch.randperm(num_features)] for _ in range(num_steps)]
        )
        self.register_buffer("permutation", permutation)
        self.register_buffer("eye", torch.eye(num_features), persistent=False)
        self.lower = nn.Parameter(torch.zeros(num_steps, num_features, num_features))
        self.upper = nn.Parameter(torch.zeros(num_steps, num_features, num_features))
        self.log_s = nn.Parameter(torch.zeros(num_steps, num_features))

    def weights(self) -> Tensor:
        """Return W, (K, D, D)."""
        lower, upper = self._triangles()
        return self.permutation @ lower @ upper

    def log_det(self) -> Tensor:
        """Return the sum over steps and features of log_s."""
        return self.log_s.sum()

    @torch.no_grad()
    def condition_numbers(self) -> list[float]:
        """Return the ratio of largest to smallest singular value of each W; 1 at the start."""
        return [float(number) for number in torch.linalg.cond(self.weights().double())]

    def solver(self) -> Callable[[Tensor, int], Tensor]:
        """Return a function that solves by substitution."""
        lower, upper = self._triangles()

        def solve(rows: Tensor, step: int) -> Tensor:
            columns = torch.linalg.solve_triangular(
                lower[step], self.permutation[step].T @ rows.T, upper=False, unitriangular=True
            )
            solved: Tensor = torch.linalg.solve_triangular(upper[step], columns, upper=True)
            return solved.T

        return solve

    def _triangles(self) -> tuple[Tensor, Tensor]:
        lower = self.lower.tril(-1) + self.eye
        upper = self.upper.triu(1) + torch.diag_embed(self.log_s.exp())
        return lower, upper


class Reverse(Mixing):
    """Reversed order of features, the fixed mixing of NICE and RealNVP; log_det = 0."""

    matrix: Tensor

    def __init__(self, num_steps: int, num_features: int) -> None:
        super().__init__()
        matrix = torch.eye(num_features).flip(1).repeat(num_steps, 1, 1)
        self.register_buffer("matrix", matrix, persistent=False)

    def weights(self) -> Tensor:
        """Return the reversed identity K times, (K, D, D)."""
        return self.matrix

    def log_det(self) -> Tensor:
        """Return 0."""
        return self.matrix.new_zeros(())

    def solver(self) -> Callable[[Tensor, int], Tensor]:
        """Return a function that reverses the features back."""
        return lambda rows, _: rows.flip(1)
