"""The flow made of zuko's parts: affine maps, linear maps and couplings.

zuko has no ActNorm and no multi-scale flow. An affine layer that has been set from data is what
an ActNorm is after its first batch; and a transformation of some features that leaves the rest
alone is its CouplingTransform with a constant inside.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import zuko
from torch import Tensor, nn
from zuko.flows import Flow, UnconditionalDistribution, UnconditionalTransform
from zuko.flows.coupling import GeneralCouplingTransform
from zuko.lazy import LazyComposedTransform, LazyTransform
from zuko.transforms import (
    ComposedTransform,
    CouplingTransform,
    DependentTransform,
    LULinearTransform,
    MonotonicAffineTransform,
    RotationTransform,
    Transform,
)

from benchmarks.speed.contender import Size

# Which linear map stands for the 1x1 convolution.
VARIANTS = ("LU", "rotation")


class _Onward(LazyTransform):
    """Later levels, applied to the features that go on; the others are latents already."""

    def __init__(self, levels: LazyTransform, leaving: int, width: int) -> None:
        super().__init__()
        self.levels, self.leaving, self.width = levels, leaving, width
        self.register_buffer("mask", torch.arange(width) < leaving)

    def forward(self, c: Tensor | None = None) -> Transform:
        levels = self.levels(c)
        return CouplingTransform(lambda latents: levels, self.mask)


def build(size: Size, variant: str) -> nn.Module:
    levels: LazyTransform | None = None
    for width in reversed(size.widths()):
        steps = [layer for _ in range(size.steps) for layer in _step(width, size.hidden, variant)]
        if levels is not None:
            steps.append(_Onward(levels, width // 2, width))
        levels = LazyComposedTransform(*steps)
    zero, one = torch.zeros(size.features), torch.ones(size.features)
    base = UnconditionalDistribution(zuko.distributions.DiagNormal, zero, one, buffer=True)
    return Flow(levels, base)


def encode(model: nn.Module) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Return latents with log-densities; the distribution, with its matrices, is built once."""
    flow = model()

    def call(x: Tensor) -> tuple[Tensor, Tensor]:
        z, log_det = flow.transform.call_and_ladj(x)
        return z, flow.base.log_prob(z) + log_det

    return call


def sample(model: nn.Module) -> Callable[[int], Tensor]:
    flow = model()
    return lambda n: flow.sample((n,))


def patch(model: nn.Module) -> None:
    """Build once what holds no matrices, and leave out checks that torch.compile cannot follow."""
    for layer in model.modules():
        if isinstance(layer, GeneralCouplingTransform):
            coupling = layer()
            layer.forward = lambda c=None, coupling=coupling: coupling
        elif isinstance(layer, LazyComposedTransform):
            layer.__class__ = _PatchedComposed
        elif isinstance(layer, _Onward):
            layer.__class__ = _PatchedOnward


class _RowTransforms(ComposedTransform):
    def __init__(self, *transforms: Transform) -> None:
        Transform.__init__(self)
        self.transforms = transforms
        self.domain_dim = self.codomain_dim = 1


class _PatchedComposed(LazyComposedTransform):
    def forward(self, c: Tensor | None = None) -> Transform:
        return _RowTransforms(*(transform(c) for transform in self.transforms))


class _OnwardTransform(CouplingTransform):
    def __init__(self, levels: Transform, leaving: int, width: int) -> None:
        Transform.__init__(self)
        self.meta = lambda latents: levels
        self.idx_a = torch.arange(leaving)
        self.idx_b = torch.arange(leaving, width)


class _PatchedOnward(_Onward):
    def forward(self, c: Tensor | None = None) -> Transform:
        return _OnwardTransform(self.levels(c), self.leaving, self.width)


def _step(width: int, hidden: int, variant: str) -> list[LazyTransform]:
    if variant == "rotation":
        linear = UnconditionalTransform(RotationTransform, torch.randn(width, width) / width)
    else:
        linear = UnconditionalTransform(LULinearTransform, torch.eye(width))
    return [
        UnconditionalTransform(_affine, torch.zeros(width), torch.zeros(width)),
        linear,
        GeneralCouplingTransform(
            width, mask=torch.arange(width) < width // 2, hidden_features=(hidden, hidden)
        ),
    ]


def _affine(shift: Tensor, scale: Tensor) -> Transform:
    return DependentTransform(MonotonicAffineTransform(shift, scale), 1)
