"""Heavy tails: an elementwise layer between power-law tails and Gaussian ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from glow_bt.errors import FlowError
from glow_bt.flows.base import Bijection, Context, PerRow, Rows

__all__ = ["TailLayer"]

# Tail indices tried at first: from heavier than Cauchy to next to Gaussian.
_INDEX_GRID = (0.3, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50, 100)
_START_INDEX = 30.0


class TailLayer(Bijection):
    """Elementwise z = sign(x) * sqrt(a * log(1 + x^2/a)), with a = left or right tail index.

    A flow of Lipschitz layers on a Gaussian base has Gaussian tails (Jaini et al. 2020,
    arXiv:1907.04481), so the layer nearest the data turns power-law tails into Gaussian ones:
    if z ~ N(0, 1), then P(|x| > u) falls like u^-a (times a root of a logarithm). The map is
    the normalizing transform of Student's t, t -> z, of Wallace 1959 (Ann. Math. Stat. 30,
    1124) without its constant factor. It is the identity around 0 for every index (slope 1,
    curvature 0), so both sides join smoothly. Inverse: x = sign(z) * sqrt(a * (exp(z^2/a) -
    1)). With w = log(1 + x^2/a): log dz/dx = -log(w * a / x^2) / 2 - w.

    Args:
        num_features: D.
        min_index: lower bound on the indices; above 1 every conditional mean is finite.

    Attributes:
        index: (2, D), left and right tail index, trained in log space above min_index.
    """

    def __init__(self, num_features: int, min_index: float = 0.1) -> None:
        super().__init__(num_features)
        if not 0 < min_index < _START_INDEX:
            raise FlowError(
                f"expected min_index above 0 and below {_START_INDEX:g}, found {min_index}"
            )
        self.min_index = min_index
        start = math.log(_START_INDEX - min_index)
        self.log_excess = nn.Parameter(torch.full((2, num_features), start))

    @property
    def index(self) -> Tensor:
        """Tail indices, shape (2, D): row 0 left, row 1 right."""
        return self.min_index + self.log_excess.exp()

    def forward(self, x: Rows, context: Context | None = None) -> tuple[Rows, PerRow]:
        """Compress heavy tails into Gaussian ones."""
        z, log_slope = _compress(x, self._index_of(x))
        return z, log_slope.sum(dim=1)

    def inverse(self, z: Rows, context: Context | None = None) -> tuple[Rows, PerRow]:
        """Stretch Gaussian tails into heavy ones."""
        x, log_slope = _stretch(z, self._index_of(z))
        return x, log_slope.sum(dim=1)

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Set each index to the most likely on a grid, feature by feature and side by side.

        The likelihood is that of `x` (N, D) under a standard normal latent; x should be
        centred at 0 with a body of unit scale. It is a start for training, not its end.
        """
        candidates = [float(a) for a in _INDEX_GRID if a > self.min_index]
        for side, keep in enumerate((x < 0, x >= 0)):
            for feature in range(self.num_features):
                values = x[keep[:, feature], feature]
                if len(values):
                    scores = [_marginal_log_likelihood(values, a) for a in candidates]
                    best = candidates[scores.index(max(scores))]
                    self.log_excess[side, feature] = math.log(best - self.min_index)

    def _index_of(self, x: Tensor) -> Tensor:
        left, right = self.index
        return torch.where(x < 0, left, right)


def _compress(x: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Return z and log dz/dx, elementwise."""
    u = x.square() / index
    w = torch.log1p(u)
    # log1p(u) / u tends to 1 at 0, and is 1 to the last bit below eps.
    eps = torch.finfo(u.dtype).eps
    half_log_ratio = 0.5 * torch.where(u > eps, w / u.clamp_min(eps), 1.0).log()
    return x * half_log_ratio.exp(), -half_log_ratio - w


def _stretch(z: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Return x and log dx/dz, elementwise."""
    w = z.square() / index
    # expm1(w) / w = exp(w) * shrink, so that only x itself can overflow.
    eps = torch.finfo(w.dtype).eps
    shrink = torch.where(w > eps, -torch.expm1(-w) / w.clamp_min(eps), 1.0)
    half_log = 0.5 * shrink.log()
    return z * torch.exp(0.5 * w + half_log), 0.5 * w - half_log


def _marginal_log_likelihood(values: Tensor, index: float) -> float:
    z, log_slope = _compress(values, values.new_tensor(index))
    return float((log_slope - 0.5 * z.square()).sum())
