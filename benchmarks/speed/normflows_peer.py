"""The flow as normflows has it: MultiscaleFlow of ActNorm, LULinearPermute and couplings."""

from __future__ import annotations

from collections.abc import Callable

import normflows
import torch
from torch import Tensor, nn

from benchmarks.speed.contender import Size

VARIANTS = ("",)


def build(size: Size, variant: str) -> nn.Module:
    """Return the flow; its last listed level is the first that a row meets."""
    levels, bases, merges = [], [], []
    for width in reversed(size.widths()):
        levels.append([layer for _ in range(size.steps) for layer in _step(width, size.hidden)])
        leaving = width if not bases else width // 2
        bases.append(normflows.distributions.DiagGaussian(leaving))
        if len(bases) > 1:
            merges.append(normflows.flows.Merge())
    return normflows.MultiscaleFlow(bases, levels, merges, class_cond=False)


def encode(model: nn.Module) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Return latents with log-densities; `log_prob` alone keeps no latents."""

    def call(x: Tensor) -> tuple[Tensor, Tensor]:
        latents, log_prob = model.inverse_and_log_det(x)
        for base, z in zip(model.q0, latents, strict=True):
            log_prob = log_prob + base.log_prob(z)
        return torch.cat(latents, dim=1), log_prob

    return call


def sample(model: nn.Module) -> Callable[[int], Tensor]:
    return lambda n: model.sample(n)[0]


def patch(model: nn.Module) -> None:
    """Turn each ActNorm that has seen data into the plain affine layer it now is."""
    for layer in model.modules():
        if isinstance(layer, normflows.flows.ActNorm):
            layer.__class__ = normflows.flows.AffineConstFlow


def _step(width: int, hidden: int) -> list[nn.Module]:
    """Return one step, last applied first: normflows lists layers from latent to data."""
    kept, changed = width - width // 2, width // 2
    net = normflows.nets.MLP([kept, hidden, hidden, 2 * changed])
    return [
        normflows.flows.AffineCouplingBlock(net),
        normflows.flows.LULinearPermute(width),
        normflows.flows.ActNorm(width),
    ]
