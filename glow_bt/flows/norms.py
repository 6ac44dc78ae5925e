"""Normalisation of features before they are mixed: learned (ActNorm) or by batch (BatchNorm)."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from glow_bt.errors import FlowError

__all__ = ["ActNorm", "BatchNorm", "Norm"]

_MIN_STD = 1e-6
_BATCH_EPSILON = 1e-5
_BATCH_MOMENTUM = 0.1


class Norm(nn.Module, ABC):
    """Scale and shift a feature, z = x * exp(log_scale) + shift, for each of K steps.

    Outside of what `observe` does a norm is a constant map, so that the matrix after it can
    take it in: one affine map a step. Parameters of all steps are stacked, (K, D).

    Args:
        num_steps: K.
        num_features: D.
    """

    def __init__(self, num_steps: int, num_features: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(num_steps, num_features))
        self.bias = nn.Parameter(torch.zeros(num_steps, num_features))

    @abstractmethod
    def observes(self) -> bool:
        """Say whether the next rows have to be seen step by step, see `observe`.

        Raises:
            FlowError: if they have to be, and this is no training.
        """

    @abstractmethod
    def observe(self, step: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """Take note of the rows x (N, D) that come to a step in training.

        Returns:
            log_scale (D,) and shift (D,) for these rows.
        """

    @abstractmethod
    def constants(self) -> tuple[Tensor, Tensor]:
        """Return log_scale and shift of all steps, (K, D) each.

        Raises:
            FlowError: if no rows were seen yet.
        """


class ActNorm(Norm):
    """Learned scale and shift that start from the first batch in training.

    That batch sets scale = 1/std and shift = -mean/std, so that it leaves each step with mean 0
    and deviation 1. From then on they are ordinary parameters. Whether that has happened is a
    buffer, so it survives saving. Kingma & Dhariwal 2018, sec. 3.1 (arXiv:1807.03039).
    """

    initialized: Tensor

    def __init__(self, num_steps: int, num_features: int) -> None:
        super().__init__(num_steps, num_features)
        self.register_buffer("initialized", torch.tensor(False))

    def observes(self) -> bool:
        """Return whether this is the first batch in training."""
        if torch.compiler.is_compiling() or self.initialized:  # compiled when initialized
            return False
        if not self.training:
            raise FlowError(_UNTRAINED)
        return True

    @torch.no_grad()
    def observe(self, step: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """Set a step's scale and shift from the rows that come to it."""
        if x.shape[0] < 2:
            raise FlowError(
                f"expected a first training batch of at least 2 rows, found {x.shape[0]}"
            )
        std = x.std(dim=0).clamp_min(_MIN_STD)
        if not torch.isfinite(std).all():
            raise FlowError("expected a finite first training batch, found NaN or infinite values")
        self.log_scale[step] = -std.log()
        self.bias[step] = -x.mean(dim=0) / std
        self.initialized.fill_(step == len(self.bias) - 1)
        return self.log_scale[step], self.bias[step]

    def constants(self) -> tuple[Tensor, Tensor]:
        """Return the parameters."""
        if not torch.compiler.is_compiling() and not self.initialized:
            raise FlowError(_UNTRAINED)
        return self.log_scale, self.bias


class BatchNorm(Norm):
    """Batch normalisation as a bijection, with learned scale and shift after it.

    While training, rows are standardised by mean and variance of their own batch, and log_det
    counts that step; else by running averages of them, so that then a row's result does not
    depend on its batch. Dinh et al. 2017, sec. 3.7 (arXiv:1605.08803).
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_steps: int, num_features: int) -> None:
        super().__init__(num_steps, num_features)
        self.register_buffer("running_mean", torch.zeros(num_steps, num_features))
        self.register_buffer("running_var", torch.ones(num_steps, num_features))

    def observes(self) -> bool:
        """Return whether this is training."""
        return self.training

    def observe(self, step: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """Move the running averages and return the batch's own scale and shift.

        Moments that overflow move nothing: training skips such a step, and one far row would
        spoil the averages for good.
        """
        if x.shape[0] < 2:
            raise FlowError(f"expected training batches of at least 2 rows, found {x.shape[0]}")
        mean, var = x.mean(dim=0), x.var(dim=0)
        if torch.isfinite(mean).all() and torch.isfinite(var).all():
            with torch.no_grad():
                self.running_mean[step] += _BATCH_MOMENTUM * (mean - self.running_mean[step])
                self.running_var[step] += _BATCH_MOMENTUM * (var - self.running_var[step])
        return _standardize(mean, var, self.log_scale[step], self.bias[step])

    def constants(self) -> tuple[Tensor, Tensor]:
        """Return what the running averages come to."""
        return _standardize(self.running_mean, self.running_var, self.log_scale, self.bias)


def _standardize(
    mean: Tensor, var: Tensor, log_scale: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Return log_scale and shift of (x - mean) / sqrt(var) * exp(log_scale) + bias."""
    total = log_scale - 0.5 * (var + _BATCH_EPSILON).log()
    return total, bias - mean * total.exp()


_UNTRAINED = (
    "expected an ActNorm that has seen a training batch, found an untrained one; call train() and "
    "pass a batch, or load trained parameters"
)
