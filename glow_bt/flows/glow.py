"""GLOW for vectors: tail layer, then levels of ActNorm, 1x1 convolution and coupling."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from glow_bt.errors import FlowError
from glow_bt.flows.base import Context, PerRow, Rows, check_sizes
from glow_bt.flows.conv1x1 import InvertibleConv1x1
from glow_bt.flows.coupling import COUPLINGS, ConditionalAffine
from glow_bt.flows.level import MIXINGS, NORMS, GlowLevel
from glow_bt.flows.priors import make_prior
from glow_bt.flows.quantiles import IncreasingFlow
from glow_bt.flows.split import Split
from glow_bt.flows.tails import TailLayer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from glow_bt.fused import FusedFlow

__all__ = ["Glow"]


class Glow(IncreasingFlow):
    """GLOW, Kingma & Dhariwal 2018 (arXiv:1807.03039), on vectors of any width.

    Level by level, num_steps steps of (ActNorm, 1x1 convolution, coupling), then a split that
    sends half of the features out as latents, standardised by a prior learned from the other
    half. Latents come back as one row, first level first, on one scale: N(0, I) under the model
    when base is "normal". A context enters the tail layer, every coupling and every prior. With
    one feature the map is increasing, so that quantiles given a context are exact.

    Args:
        num_features: D, width of a row; any width from 1.
        num_levels: number of levels L.
        num_steps: steps a level, K.
        hidden_dim: width of the two hidden layers in each coupling.
        context_features: C, width of the context that every coupling and prior sees.
        base: distribution of the latents: "normal", "student_t" or "mixture".
        coupling: "affine", "additive" as in NICE, or "spline" (rational-quadratic).
        permutation: "conv1x1" (learned), or "reverse" (fixed) as in RealNVP.
        norm: "actnorm", or "batchnorm" as in RealNVP.
        tails: whether a `TailLayer` comes first, so that power-law tails can be learned.
        num_components: components of base "mixture".

    Raises:
        FlowError: on a size below 1 or an unknown name.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> flow = Glow(num_features=4, num_levels=2, num_steps=2, hidden_dim=16)
        >>> x = torch.randn(64, 4)
        >>> flow.log_prob(x).shape  # the first training batch sets the ActNorms
        torch.Size([64])
    """

    def __init__(
        self,
        num_features: int,
        num_levels: int = 3,
        num_steps: int = 4,
        hidden_dim: int = 128,
        context_features: int = 0,
        base: str = "normal",
        *,
        coupling: str = "affine",
        permutation: str = "conv1x1",
        norm: str = "actnorm",
        tails: bool = True,
        num_components: int = 4,
    ) -> None:
        super().__init__(num_features, context_features)
        check_sizes(num_levels=num_levels, num_steps=num_steps, hidden_dim=hidden_dim)
        _check_choice("coupling", coupling, COUPLINGS)
        _check_choice("permutation", permutation, MIXINGS)
        _check_choice("norm", norm, NORMS)
        self.config: dict[str, int | str | bool] = {
            "num_features": num_features,
            "num_levels": num_levels,
            "num_steps": num_steps,
            "hidden_dim": hidden_dim,
            "context_features": context_features,
            "base": base,
            "coupling": coupling,
            "permutation": permutation,
            "norm": norm,
            "tails": tails,
            "num_components": num_components,
        }
        self.tails = TailLayer(num_features, context_features) if tails else None
        widths = _level_widths(num_features, num_levels)
        self.levels = nn.ModuleList(
            GlowLevel(
                width,
                num_steps,
                hidden_dim,
                context_features,
                coupling=coupling,
                permutation=permutation,
                norm=norm,
            )
            for width in widths
        )
        self.splits = nn.ModuleList(Split(width, context_features) for width in widths[:-1])
        self.top = ConditionalAffine(widths[-1], context_features)
        self.prior = make_prior(base, num_features, num_components)

    def forward(self, x: Rows, context: Context | None = None) -> tuple[Rows, PerRow]:
        """Map data (N, D) to latents (N, D), with log |det dz/dx| (N,)."""
        h, log_det = x, x.new_zeros(x.shape[0])
        if self.tails is not None:
            h, log_det = self.tails(h, context)
        latents = []
        for level, split in self._stages():
            h, change = level(h, context)
            log_det = log_det + change
            if split is not None:
                h, change = split(h, context)
                log_det = log_det + change
                latents.append(h[:, : split.num_latent])
                h = h[:, split.num_latent :]
        h, change = self.top(h, _or_empty(context, h))
        return torch.cat([*latents, h], dim=1), log_det + change

    def inverse(self, z: Rows, context: Context | None = None) -> tuple[Rows, PerRow]:
        """Map latents (N, D) to data (N, D), with log |det dx/dz| (N,)."""
        stages = self._stages()
        sizes = [split.num_latent for _, split in stages if split is not None]
        *latents, h = torch.split(z, [*sizes, self.num_features - sum(sizes)], dim=1)
        h, log_det = self.top.inverse(h, _or_empty(context, h))
        for level, split in reversed(stages):
            if split is not None:
                h, change = split.inverse(torch.cat([latents.pop(), h], dim=1), context)
                log_det = log_det + change
            h, change = level.inverse(h, context)
            log_det = log_det + change
        if self.tails is not None:
            h, change = self.tails.inverse(h, context)
            log_det = log_det + change
        return h, log_det

    def fused(self, dtype: str = "float64") -> FusedFlow:
        """Return a frozen copy for inference, without autograd, modules or torch.

        Args:
            dtype: "float64" or "float32", of its arithmetic and results.

        Raises:
            FlowError: on another dtype, or if an ActNorm has not seen data.

        Example:
            >>> import torch
            >>> flow = Glow(num_features=4, num_levels=2, num_steps=2, hidden_dim=16)
            >>> x = torch.randn(64, 4)
            >>> _ = flow.log_prob(x)
            >>> z, log_prob = flow.fused("float32").encode(x.numpy())
            >>> bool(abs(log_prob - flow.log_prob(x).detach().numpy()).max() < 1e-4)
            True
        """
        from glow_bt.flows.freeze import freeze_glow
        from glow_bt.fused import FusedFlow

        return FusedFlow(freeze_glow(self), dtype)

    def condition_numbers(self) -> list[float]:
        """Return the condition number of each 1x1 convolution, in order.

        Above about 1e4 a float32 inverse loses half of its digits.
        """
        mixings = [m for m in self.modules() if isinstance(m, InvertibleConv1x1)]
        return [number for mixing in mixings for number in mixing.condition_numbers()]

    def _stages(self) -> list[tuple[GlowLevel, Split | None]]:
        """Return each level with the split after it, if any."""
        levels = cast("list[GlowLevel]", list(self.levels))
        splits = cast("list[Split]", list(self.splits))
        return list(zip_longest(levels, splits))


def _level_widths(num_features: int, num_levels: int) -> list[int]:
    """Return the width of each level; there are fewer than asked for once one feature is left."""
    widths = [num_features]
    while len(widths) < num_levels and widths[-1] > 1:
        widths.append(widths[-1] - widths[-1] // 2)
    return widths


def _or_empty(context: Tensor | None, like: Tensor) -> Tensor:
    return like[:, :0] if context is None else context


def _check_choice(name: str, value: str, choices: Mapping[str, object]) -> None:
    if value not in choices:
        raise FlowError(f"expected {name} to be one of {', '.join(choices)}, found {value!r}")
