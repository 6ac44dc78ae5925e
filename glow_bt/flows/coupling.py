"""What a coupling does to half of a row: an elementwise map, given parameters from a network."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from glow_bt.flows.nets import bounded_log_scale, conditioner
from glow_bt.flows.spline import NUM_KNOT_PARAMETERS, spline_forward, spline_inverse

__all__ = ["COUPLINGS", "Additive", "Affine", "ConditionalAffine", "Coupling", "Spline"]


class Coupling(ABC):
    """An increasing map of each feature of y (N, D), with parameters raw (N, D * P).

    Parameters of 0 give the identity.
    """

    parameters_per_feature: int

    @abstractmethod
    def forward(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Return z (N, D) and log_det (N,)."""

    @abstractmethod
    def inverse(self, z: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Return y (N, D) and the log_det (N,) of this direction."""


class Additive(Coupling):
    """z = y + t, as in NICE; log_det = 0. Dinh et al. 2014, sec. 3.2 (arXiv:1410.8516)."""

    parameters_per_feature = 1

    def forward(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Shift."""
        return y + raw, y.new_zeros(y.shape[0])

    def inverse(self, z: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Shift back."""
        return z - raw, z.new_zeros(z.shape[0])


class Affine(Coupling):
    """z = y * exp(log_s) + t; log_det = sum(log_s).

    Dinh et al. 2017, sec. 3.2 (arXiv:1605.08803); Kingma & Dhariwal 2018, sec. 3.3. Parameters
    are those of all log_s, bounded by `bounded_log_scale`, then all t.
    """

    parameters_per_feature = 2

    def forward(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift."""
        raw_s, t = raw.chunk(2, dim=1)
        log_s = bounded_log_scale(raw_s)
        return y * log_s.exp() + t, log_s.sum(dim=1)

    def inverse(self, z: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Undo the shift, then the scale."""
        raw_s, t = raw.chunk(2, dim=1)
        log_s = bounded_log_scale(raw_s)
        return (z - t) * (-log_s).exp(), -log_s.sum(dim=1)


class Spline(Coupling):
    """A rational-quadratic spline with linear tails, then an affine map.

    Durkan et al. 2019, sec. 3 (arXiv:1906.04032), whose tails are the identity; the affine map
    lets them follow the condition too. Parameters are those of `Affine`, then each feature's
    knots (see `glow_bt.flows.spline`).
    """

    parameters_per_feature = Affine.parameters_per_feature + NUM_KNOT_PARAMETERS

    def __init__(self) -> None:
        self._affine = Affine()

    def forward(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Bend, then scale and shift."""
        affine, knots = self._parted(y, raw)
        bent, log_slope = spline_forward(y, knots)
        z, log_det = self._affine.forward(bent, affine)
        return z, log_det + log_slope.sum(dim=1)

    def inverse(self, z: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Undo the affine map, then the spline."""
        affine, knots = self._parted(z, raw)
        bent, log_det = self._affine.inverse(z, affine)
        y, log_slope = spline_inverse(bent, knots)
        return y, log_det + log_slope.sum(dim=1)

    def _parted(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        width = y.shape[1]
        affine, knots = raw.tensor_split([2 * width], dim=1)
        return affine, knots.reshape(-1, width, NUM_KNOT_PARAMETERS)


COUPLINGS: dict[str, Coupling] = {
    "affine": Affine(),
    "additive": Additive(),
    "spline": Spline(),
}


class ConditionalAffine(nn.Module):
    """`Affine` with a linear network of its own: (log_s, t) = net(condition).

    What standardises latents: at the splits, and at the end of a Glow.

    Args:
        num_features: width of y.
        condition_features: width of the condition; 0 makes log_s and t learned constants.
    """

    def __init__(self, num_features: int, condition_features: int) -> None:
        super().__init__()
        self.net = conditioner(
            condition_features, hidden_dim=0, out_features=2 * num_features, hidden_layers=0
        )

    def forward(self, y: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift y (N, D) given condition (N, K)."""
        return COUPLINGS["affine"].forward(y, self.net(condition))

    def inverse(self, z: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Undo `forward` under the same condition."""
        return COUPLINGS["affine"].inverse(z, self.net(condition))
