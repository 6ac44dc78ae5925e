"""The flow as nflows has it: MultiscaleCompositeTransform of ActNorm, LULinear and couplings."""

from __future__ import annotations

from collections.abc import Callable

import torch
from nflows.distributions.normal import StandardNormal
from nflows.flows.base import Flow
from nflows.nn.nets import MLP
from nflows.transforms import (
    ActNorm,
    AffineCouplingTransform,
    CompositeTransform,
    LULinear,
    MultiscaleCompositeTransform,
)
from torch import Tensor, nn

from benchmarks.speed.contender import Size

VARIANTS = ("",)


class _ContextFreeMLP(MLP):
    """nflows' MLP, in the place where its couplings also hand over a context."""

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        return super().forward(inputs)


def build(size: Size, variant: str) -> nn.Module:
    flow = MultiscaleCompositeTransform(size.levels)
    for width in size.widths():
        steps = [layer for _ in range(size.steps) for layer in _step(width, size.hidden)]
        flow.add_transform(CompositeTransform(steps), (width,))
    return Flow(flow, StandardNormal((size.features,)))


def encode(model: nn.Module) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Return latents with log-densities; `log_prob` alone keeps no latents."""

    def call(x: Tensor) -> tuple[Tensor, Tensor]:
        z, log_det = model._transform(x)
        return z, model._distribution.log_prob(z) + log_det

    return call


def sample(model: nn.Module) -> Callable[[int], Tensor]:
    return lambda n: model.sample(n)


def patch(model: nn.Module) -> None:
    """Let "initialized" be a plain True, so that no branch waits for a tensor's value."""
    for layer in model.modules():
        if isinstance(layer, ActNorm):
            del layer._buffers["initialized"]
            layer.initialized = True


def _step(width: int, hidden: int) -> list[nn.Module]:
    mask = torch.arange(width) >= width // 2

    def net(kept: int, parameters: int) -> nn.Module:
        return _ContextFreeMLP((kept,), (parameters,), [hidden, hidden])

    return [
        ActNorm(width),
        LULinear(width, using_cache=True),
        AffineCouplingTransform(mask.int(), net),
    ]
