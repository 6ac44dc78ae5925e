"""One level of a Glow: steps of normalisation, mixing and coupling at one width."""

from __future__ import annotations

import torch
from torch import Tensor

from glow_bt.flows.base import Bijection, Context, PerRow, Rows
from glow_bt.flows.conv1x1 import InvertibleConv1x1, Mixing, Reverse
from glow_bt.flows.coupling import COUPLINGS
from glow_bt.flows.level_autograd import is_compiled_for, take_steps
from glow_bt.flows.nets import StackedNet
from glow_bt.flows.norms import ActNorm, BatchNorm, Norm

__all__ = ["MIXINGS", "NORMS", "GlowLevel"]

MIXINGS: dict[str, type[InvertibleConv1x1 | Reverse]] = {
    "conv1x1": InvertibleConv1x1,
    "reverse": Reverse,
}
NORMS: dict[str, type[ActNorm | BatchNorm]] = {"actnorm": ActNorm, "batchnorm": BatchNorm}


class GlowLevel(Bijection):
    """num_steps steps of GLOW, Kingma & Dhariwal 2018, sec. 3 (arXiv:1807.03039).

    A step is one affine map and one small network: h <- W (h * exp(log_scale) + shift), then
    the first D//2 features pass and tell the network how the coupling changes the others. With
    one feature there is no first half, and nothing to mix: what is left depends on the context
    only. Parameters of all steps are stacked, and the affine maps of a level are made at once.

    Args:
        num_features: D.
        num_steps: K.
        hidden_dim: width of the networks' two hidden layers.
        context_features: C.
        coupling: a name of `COUPLINGS`.
        permutation: a name of `MIXINGS`.
        norm: a name of `NORMS`.
    """

    norm: Norm
    mixing: Mixing | None

    def __init__(
        self,
        num_features: int,
        num_steps: int,
        hidden_dim: int,
        context_features: int = 0,
        *,
        coupling: str = "affine",
        permutation: str = "conv1x1",
        norm: str = "actnorm",
    ) -> None:
        super().__init__(num_features, context_features)
        self.num_passed = num_features // 2
        self.coupling = COUPLINGS[coupling]
        self.norm = NORMS[norm](num_steps, num_features)
        self.mixing = MIXINGS[permutation](num_steps, num_features) if num_features > 1 else None
        self.nets = StackedNet(
            num_steps,
            self.num_passed + context_features,
            hidden_dim,
            (num_features - self.num_passed) * self.coupling.parameters_per_feature,
        )

    def forward(self, x: Rows, context: Context | None = None) -> tuple[Rows, PerRow]:
        """Take the steps in order."""
        if self.norm.observes():
            return self._observing(x, context)
        matrices, shifts, constant = self.affine_maps()
        if self.training and is_compiled_for(x, context, self.coupling, self.nets):
            h, change = take_steps(x, context, matrices, shifts, self.coupling, self.nets)
            return h, change + constant
        h, log_det = x, constant.expand(x.shape[0])
        for matrix, shift, net in zip(
            matrices.unbind(), shifts.unbind(), self.nets.unbind(), strict=True
        ):
            h, change = self._couple(torch.addmm(shift, h, matrix), net, context)
            log_det = log_det + change
        return h, log_det

    def inverse(self, z: Rows, context: Context | None = None) -> tuple[Rows, PerRow]:
        """Undo them in reverse order."""
        log_scales, shifts = self.norm.constants()
        nets = self.nets.unbind()
        solve = None if self.mixing is None else self.mixing.solver()
        h, log_det = z, -self._constant(log_scales).expand(z.shape[0])
        for step in reversed(range(len(nets))):
            passed, changed = h.tensor_split([self.num_passed], dim=1)
            raw = StackedNet.apply_one(nets[step], _joined(passed, context))
            changed, change = self.coupling.inverse(changed, raw)
            log_det = log_det + change
            h = torch.cat([passed, changed], dim=1)
            if solve is not None:
                h = solve(h, step)
            h = (h - shifts[step]) * (-log_scales[step]).exp()
        return h, log_det

    def affine_maps(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return what stands before each coupling: h @ matrix + shift.

        Returns:
            matrices (K, D, D), shifts (K, D), and the sum of all steps' log_det, a scalar.
        """
        log_scales, shifts = self.norm.constants()
        scales = log_scales.exp()
        constant = self._constant(log_scales)
        if self.mixing is None:
            return torch.diag_embed(scales), shifts, constant
        transposed = self.mixing.weights().transpose(1, 2)
        mixed = torch.bmm(shifts[:, None], transposed)[:, 0]
        return scales[:, :, None] * transposed, mixed, constant

    def _constant(self, log_scales: Tensor) -> Tensor:
        """Return the part of log_det that is the same for every row."""
        total = log_scales.sum()
        return total if self.mixing is None else total + self.mixing.log_det()

    def _observing(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Take the steps one by one, for a norm that looks at what comes to each."""
        h, log_det = x, x.new_zeros(x.shape[0])
        weights = None if self.mixing is None else self.mixing.weights()
        for step, net in enumerate(self.nets.unbind()):
            log_scale, shift = self.norm.observe(step, h)
            h = h * log_scale.exp() + shift
            if weights is not None:
                h = h @ weights[step].T
            h, change = self._couple(h, net, context)
            log_det = log_det + log_scale.sum() + change
        return h, log_det if self.mixing is None else log_det + self.mixing.log_det()

    def _couple(
        self, h: Tensor, net: tuple[Tensor, ...], context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        passed, changed = h.tensor_split([self.num_passed], dim=1)
        raw = StackedNet.apply_one(net, _joined(passed, context))
        changed, log_det = self.coupling.forward(changed, raw)
        return torch.cat([passed, changed], dim=1), log_det


def _joined(passed: Tensor, context: Tensor | None) -> Tensor:
    return passed if context is None else torch.cat([passed, context], dim=1)
