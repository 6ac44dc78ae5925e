"""A Glow between joint returns and a spherical Student-t, fused for use."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from glow_bt.flows import Glow
from glow_bt.fused import FusedFlow
from glow_bt.fused.scenarios import ScenarioBank
from glow_bt.risk.spherical import SphericalT

__all__ = ["SphericalGlow", "TrainedGlow"]

Floats = npt.NDArray[np.float64]

_LOG_2PI = math.log(2 * math.pi)


class SphericalGlow(Glow):
    """A Glow in training whose latents follow a spherical Student-t in place of a normal.

    One radius is shared by all latents, so that they are far out together. There is no tail
    layer: couplings and scales are bounded, so data have tails of the t's index and, with more
    than two degrees of freedom, a variance.

    Args:
        radius: the spherical t, held fixed.
        num_features: D.
        context_features: C.
        settings: of `Glow`.
    """

    def __init__(
        self,
        radius: SphericalT,
        num_features: int,
        context_features: int,
        **settings: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(num_features, context_features=context_features, tails=False, **settings)
        self.radius = radius

    def objective(
        self,
        x: Tensor,
        context: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return the negative log-density of rows (N, D), shape (N,), in nats."""
        self.check_rows(x, context)
        z, log_det = self.forward(x, context)
        n, df, scale = self.num_features, self.radius.df, self.radius.scale
        constant = math.lgamma((df + n) / 2) - math.lgamma(df / 2)
        constant -= n / 2 * math.log(df * math.pi) + n * math.log(scale)
        u = z.square().sum(dim=1) / scale**2
        return (df + n) / 2 * torch.log1p(u / df) - constant - log_det

    def plain(self) -> Glow:
        """Return a Glow of these weights in float64, which does not know of the t."""
        glow = Glow(**self.config)  # type: ignore[arg-type]
        glow.load_state_dict(self.state_dict())
        return glow.double().eval().requires_grad_(False)


class TrainedGlow:
    """A trained `SphericalGlow` without torch: density and draws given a context.

    Args:
        flow: its fused `SphericalGlow.plain`.
        radius: the spherical t of its latents.
    """

    def __init__(self, flow: FusedFlow, radius: SphericalT) -> None:
        self.flow = flow
        self.radius = radius

    def log_prob(self, x: Floats, context: Floats) -> Floats:
        """Return log densities (M,) of rows x (M, D) given contexts (M, C), in nats."""
        z, under_normal = self.flow.encode(x, context)
        log_det = under_normal + 0.5 * (np.square(z) + _LOG_2PI).sum(axis=1)
        log_prob: Floats = self.radius.log_prob(z.astype(np.float64)) + log_det
        return log_prob

    def draw(self, normal: Floats, context: Floats) -> Floats:
        """Return rows (S, D) of standard normal points (S, D), all given one context (C,)."""
        return self._decode(self.radius.inverse(normal), context)

    def scenarios(self, bank: ScenarioBank, contexts: Floats) -> Floats:
        """Return a bank's rows (M, S, D), given each of contexts (M, C)."""
        latents = self.radius.inverse(bank.latents(self.flow.base))
        return np.stack([self._decode(latents, context) for context in contexts])

    def _decode(self, latents: Floats, context: Floats) -> Floats:
        given = np.broadcast_to(context, (len(latents), context.size))
        return self.flow.decode(latents, given).astype(np.float64)
