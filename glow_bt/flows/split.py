"""The multi-scale split: part of a row becomes latent, the rest goes on to the next level."""

from __future__ import annotations

import torch

from glow_bt.errors import FlowError
from glow_bt.flows.base import Bijection, Context, PerRow, Rows
from glow_bt.flows.coupling import ConditionalAffine

__all__ = ["Split"]


class Split(Bijection):
    """Standardise the first num_features // 2 features by a prior learned from the rest.

    The rest h predicts mean and deviation of the leaving part y, p(y | h) = N(mu(h), sigma(h)),
    and y leaves as z = (y - mu) / sigma, which is N(0, I) under the model; log_det counts that
    step. So latents of all levels are on one scale. The learned prior is that of Kingma &
    Dhariwal 2018 (their multi-scale prior; linear, starting at N(0, I)).

    Attributes:
        num_latent: how many features leave, num_features // 2.
    """

    def __init__(self, num_features: int, context_features: int = 0) -> None:
        super().__init__(num_features, context_features)
        if num_features < 2:
            raise FlowError(f"expected at least 2 features to split, found {num_features}")
        self.num_latent = num_features // 2
        num_onward = num_features - self.num_latent
        self.standardize = ConditionalAffine(self.num_latent, num_onward + context_features)

    def forward(self, x: Rows, context: Context | None = None) -> tuple[Rows, PerRow]:
        """Return the row with its first part standardised; the rest is unchanged."""
        latent, onward = x[:, : self.num_latent], x[:, self.num_latent :]
        condition = onward if context is None else torch.cat([onward, context], dim=1)
        z, log_det = self.standardize(latent, condition)
        return torch.cat([z, onward], dim=1), log_det

    def inverse(self, z: Rows, context: Context | None = None) -> tuple[Rows, PerRow]:
        """Undo `forward`."""
        latent, onward = z[:, : self.num_latent], z[:, self.num_latent :]
        condition = onward if context is None else torch.cat([onward, context], dim=1)
        x, log_det = self.standardize.inverse(latent, condition)
        return torch.cat([x, onward], dim=1), log_det
