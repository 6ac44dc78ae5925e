"""N distributions of one number each: scale and tails of their own, one shape of the body."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import special

from glow_bt.errors import FlowError
from glow_bt.fused.knots import KnotSpline
from glow_bt.fused.one_row import mean_beyond, quantiles, values_at
from glow_bt.quadrature import normal_tail_nodes

__all__ = ["SkewedTails", "bent_body", "quantile_body"]

Floats = npt.NDArray[np.float64]

_LOG_2PI = math.log(2 * math.pi)
_BLOCK_ROWS = 2048
_LEAST_RATIO = 1e-16


@dataclass(frozen=True, eq=False)
class SkewedTails:
    """y = scale * (location + tail(spline^-1(z))), z ~ N(0, 1); a `ReturnDistribution`.

    See `glow_bt.flows.UnivariateFlow`, whose density this is.

    Attributes:
        scale: (N,) above 0.
        left: (N,) index of the lower tail.
        right: (N,) index of the upper tail.
        location: in scales.
        spline: of the body.
    """

    scale: Floats
    left: Floats
    right: Floats
    location: float
    spline: KnotSpline

    def __len__(self) -> int:
        return len(self.scale)

    @property
    def kinks(self) -> Floats:
        """Latents at which `at_latent` is continuous, but not smooth."""
        return _kinks(self.spline)

    def scaled(self, factor: Floats) -> SkewedTails:
        """Return the distributions of y times factors (N,) above 0."""
        # Field by field: `replace` asks the class for them, which a live bar feels.
        return SkewedTails(self.scale * factor, self.left, self.right, self.location, self.spline)

    def rows(self, rows: slice | npt.NDArray[np.bool_]) -> SkewedTails:
        """Return some of the distributions."""
        return replace(self, scale=self.scale[rows], left=self.left[rows], right=self.right[rows])

    def at_latent(self, z: Floats) -> Floats:
        """Return y for latents z: (K,) for all rows or (N, K), giving (N, K)."""
        if len(self) != 1:
            return self._at_body(self.spline.inverse(z))
        # A copy: compiled code tells read-only arrays and such with gaps from others.
        values = np.array(z, dtype=np.float64, order="C")
        values_at(values.reshape(-1), _knots(self.spline), *self._one())
        return np.atleast_2d(values)

    def _one(self) -> tuple[float, float, float, float]:
        """Return scale, left, right and location of the only row."""
        return (
            float(self.scale[0]),
            float(self.left[0]),
            float(self.right[0]),
            float(self.location),
        )

    def _at_body(self, v: Floats) -> Floats:
        index = np.where(v < 0, self.left[:, None], self.right[:, None])
        return self.scale[:, None] * (self.location + bent_body(v, index))

    def latent(self, y: Floats) -> Floats:
        """Return the latent z of each y (N,)."""
        return self._latent(y)[0]

    def quantile(self, p: float) -> Floats:
        """Return the p-quantiles (N,), exact."""
        body = float(quantile_body(self.spline, p)[0])
        scale, left, right = np.array(self.scale), np.array(self.left), np.array(self.right)
        return quantiles(body, scale, left, right, float(self.location))

    def shortfall(self, p: float) -> Floats:
        """Return (N,) the mean below the p-quantile, or above it where p > 1/2.

        (1/p) times the integral of y over latents below the normal quantile of p, by
        Gauss-Legendre quadrature (12 nodes in each piece between knots).
        """
        _check_probability(p)
        nodes = _tail_nodes(self.spline, p)
        if len(self) == 1:
            return np.array([mean_beyond(nodes, *self._one())])
        body, weights = nodes
        means = np.empty(len(self))
        for start in range(0, len(self), _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            means[rows] = self.rows(rows)._at_body(body) @ weights
        return means

    def cdf(self, returns: Floats) -> Floats:
        """Return (N,) P(Y <= y) of each y (N,)."""
        below: Floats = special.ndtr(self.latent(returns))
        return below

    def log_prob(self, returns: Floats) -> Floats:
        """Return (N,) log densities of y (N,)."""
        z, log_slope = self._latent(returns)
        log_prob: Floats = -0.5 * (z * z + _LOG_2PI) + log_slope
        return log_prob

    def _latent(self, y: Floats) -> tuple[Floats, Floats]:
        u = y / self.scale - self.location
        index = np.where(u < 0, self.left, self.right)
        w = np.log1p(u * u / index)
        root = np.where(
            w > _LEAST_RATIO, np.sqrt(w / np.maximum(u * u / index, _LEAST_RATIO)), 1.0
        )
        z, body_slope = self.spline.forward(u * root)
        return z, body_slope - np.log(root) - w - np.log(self.scale)


# What hangs on the spline and the level alone is found once, not at every bar of a live feed.


@lru_cache(maxsize=256)
def _kinks(spline: KnotSpline) -> Floats:
    centre = spline.forward(np.zeros(1))[0]  # where the left tail meets the right one
    return _kept(np.concatenate([spline.y, centre]))


@lru_cache(maxsize=256)
def quantile_body(spline: KnotSpline, p: float) -> Floats:
    """Return (1,) what the body's inverse makes of the normal p-quantile.

    Raises:
        FlowError: if p is outside (0, 1).
    """
    _check_probability(p)
    return _kept(spline.inverse(np.array([special.ndtri(p)])))


@lru_cache(maxsize=256)
def _tail_nodes(spline: KnotSpline, p: float) -> Floats:
    """Return (2, K) what the body's inverse makes of the tail's nodes, and their weights."""
    z, weights = normal_tail_nodes(p, _kinks(spline))
    return np.array([spline.inverse(z), weights])


@lru_cache(maxsize=256)
def _knots(spline: KnotSpline) -> Floats:
    """Return abscissas, ordinates and slopes (3, K)."""
    return np.array([spline.x, spline.y, spline.slope])


def _kept(values: Floats) -> Floats:
    values.flags.writeable = False
    return values


def bent_body(v: Floats, index: Floats) -> Floats:
    """Return the body's values v with the tails of an index, in scales; any shape."""
    bent: Floats = v * _stretch(v * v / index)
    return bent


def _stretch(w: Floats) -> Floats:
    """Return exp(w/2) sqrt((1 - exp(-w)) / w), which is 1 at w = 0."""
    safe = np.maximum(w, _LEAST_RATIO)
    return np.exp(0.5 * w) * np.sqrt(-np.expm1(-safe) / safe)


def _check_probability(p: float) -> None:
    if not 0 < p < 1:
        raise FlowError(f"expected a probability inside (0, 1), found {p}")
