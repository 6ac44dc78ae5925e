"""Distributions of the latents."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from scipy import special
from torch import Tensor, nn

from glow_bt.errors import FlowError
from glow_bt.flows.base import PerRow, Rows

__all__ = ["GaussianMixturePrior", "NormalPrior", "Prior", "StudentTPrior", "make_prior"]

Floats = npt.NDArray[np.float64]

_LOG_2PI = math.log(2 * math.pi)
# Halvings of an interval until its ends are neighbours in float64.
_HALVINGS = 80
_POWER_LAW_BELOW = 1e-60


class Prior(nn.Module, ABC):
    """A density over latents z (N, D)."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features
        # Carries the dtype and device that samples are drawn in.
        self.register_buffer("_like", torch.zeros(()), persistent=False)

    _like: Tensor

    @property
    def dtype(self) -> torch.dtype:
        """Type of the parameters, and so of rows and latents."""
        return self._like.dtype

    @abstractmethod
    def log_prob(self, z: Rows) -> PerRow:
        """Return log p(z) of each row, shape (N,)."""

    @abstractmethod
    def sample(
        self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Rows:
        """Draw (n, D), with the spread multiplied by temperature."""

    @abstractmethod
    def cdf(self, z: Float[Tensor, "n 1"]) -> PerRow:
        """Return P(Z <= z) of latents of width 1, shape (N,)."""

    @abstractmethod
    def quantile(self, p: Floats) -> Floats:
        """Return the p-quantiles of a latent of width 1, in float64, shape as p."""

    def _normal(self, n: int, generator: torch.Generator | None) -> Tensor:
        like = self._like
        return torch.randn(
            n, self.num_features, generator=generator, dtype=like.dtype, device=like.device
        )


class NormalPrior(Prior):
    """z ~ N(0, I)."""

    def log_prob(self, z: Rows) -> PerRow:
        """Return -|z|^2/2 - D log(2 pi)/2."""
        return -0.5 * (z.square() + _LOG_2PI).sum(dim=1)

    def sample(
        self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Rows:
        """Draw from N(0, temperature^2 I)."""
        return self._normal(n, generator) * temperature

    def cdf(self, z: Float[Tensor, "n 1"]) -> PerRow:
        """Return Phi(z)."""
        below: Tensor = torch.special.ndtr(z[:, 0])
        return below

    def quantile(self, p: Floats) -> Floats:
        """Return the inverse of Phi."""
        z: Floats = special.ndtri(p)
        return z


class StudentTPrior(Prior):
    """Independent Student's t latents with learned degrees of freedom (Jaini et al. 2020)."""

    def __init__(self, num_features: int, start: float = 10.0) -> None:
        super().__init__(num_features)
        self.log_df = nn.Parameter(torch.full((num_features,), math.log(start)))

    def log_prob(self, z: Rows) -> PerRow:
        """Return the sum of t log-densities."""
        df = self.log_df.exp()
        constant = (
            torch.lgamma(0.5 * (df + 1)) - torch.lgamma(0.5 * df) - 0.5 * (df * math.pi).log()
        )
        return (constant - 0.5 * (df + 1) * torch.log1p(z.square() / df)).sum(dim=1)

    def sample(
        self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Rows:
        """Draw normal / sqrt(chi2 / df), a feature at a time."""
        df = self.log_df.exp().detach().expand(n, -1)
        chi2 = 2 * torch._standard_gamma(0.5 * df, generator=generator)
        return self._normal(n, generator) * (df / chi2).sqrt() * temperature

    def cdf(self, z: Float[Tensor, "n 1"]) -> PerRow:
        """Return the distribution function of t."""
        below = special.stdtr(self._df(), z[:, 0].detach().double().numpy())
        return torch.as_tensor(below, dtype=z.dtype)

    def quantile(self, p: Floats) -> Floats:
        """Return the inverse of the distribution function of t.

        Below 1e-60, where scipy's soon overflows, the tail is a power law.
        """
        df = self._df()
        near: Floats = special.stdtrit(df, np.maximum(p, _POWER_LAW_BELOW))
        return near * (_POWER_LAW_BELOW / np.minimum(p, _POWER_LAW_BELOW)) ** (1 / df)

    def _df(self) -> float:
        return float(self.log_df.detach().double().exp())


class GaussianMixturePrior(Prior):
    """A mixture of diagonal Gaussians trained with the flow; its posterior is a soft regime.

    (Izmailov et al. 2020, arXiv:1912.13025.)
    """

    def __init__(self, num_features: int, num_components: int = 4) -> None:
        super().__init__(num_features)
        if num_components < 1:
            raise FlowError(f"expected at least 1 mixture component, found {num_components}")
        self.logits = nn.Parameter(torch.zeros(num_components))
        # Small differences break the symmetry between components.
        self.means = nn.Parameter(0.1 * torch.randn(num_components, num_features))
        self.log_scales = nn.Parameter(torch.zeros(num_components, num_features))

    def log_prob(self, z: Rows) -> PerRow:
        """Return log sum_k w_k N(z; m_k, s_k)."""
        return torch.logsumexp(self._joint(z), dim=1)

    def posterior(self, z: Rows) -> Float[Tensor, "n k"]:
        """Return P(component | z), shape (N, K)."""
        return self._joint(z).softmax(dim=1)

    def sample(
        self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Rows:
        """Draw components by weight, then from them with spread times temperature."""
        weights = self.logits.detach().softmax(dim=0)
        component = torch.multinomial(weights, n, replacement=True, generator=generator)
        spread = self.log_scales.detach().exp()[component] * temperature
        return self.means.detach()[component] + self._normal(n, generator) * spread

    def cdf(self, z: Float[Tensor, "n 1"]) -> PerRow:
        """Return sum_k w_k Phi((z - m_k) / s_k)."""
        below = torch.special.ndtr((z - self.means.T) * (-self.log_scales.T).exp())
        mixed: Tensor = below @ self.logits.softmax(dim=0)
        return mixed

    @torch.no_grad()
    def quantile(self, p: Floats) -> Floats:
        """Bisect between the least and the greatest of the components' quantiles."""
        weights, means, scales = (
            t.double().numpy()
            for t in (self.logits.softmax(dim=0), self.means[:, 0], self.log_scales[:, 0].exp())
        )
        ends = means + scales * special.ndtri(np.asarray(p))[..., None]
        low, high = ends.min(axis=-1), ends.max(axis=-1)
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            below = special.ndtr((middle[..., None] - means) / scales) @ weights
            low, high = np.where(below < p, middle, low), np.where(below < p, high, middle)
        quantiles: Floats = 0.5 * (low + high)
        return quantiles

    def _joint(self, z: Tensor) -> Tensor:
        standard = (z[:, None, :] - self.means) * (-self.log_scales).exp()
        log_density = -0.5 * (standard.square() + _LOG_2PI) - self.log_scales
        return self.logits.log_softmax(dim=0) + log_density.sum(dim=2)


def make_prior(base: str, num_features: int, num_components: int) -> Prior:
    """Return the prior of that name: normal, student_t or mixture."""
    if base == "normal":
        return NormalPrior(num_features)
    if base == "student_t":
        return StudentTPrior(num_features)
    if base == "mixture":
        return GaussianMixturePrior(num_features, num_components)
    raise FlowError(f"expected base 'normal', 'student_t' or 'mixture', found {base!r}")
