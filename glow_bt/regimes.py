"""Regimes: clusters of latent space, as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from glow_bt.errors import ConfigError

__all__ = ["METHODS", "Regimes", "match_labels", "order_labels"]

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

METHODS = ("gmm", "kmeans")


@dataclass(frozen=True, eq=False)
class Regimes:
    """A mixture of K diagonal Gaussians over latents; a regime is a component.

    The latents of a perfect flow are one Gaussian, so what clusters there are is what the flow
    left over. A flow trained on a mixture base says more: its own components are the regimes.

    Attributes:
        weights: (K,), share of each regime.
        means: (K, D).
        scales: (K, D), standard deviations.

    Raises:
        ConfigError: if the shapes do not belong together, or a number is not finite or, among
            weights and scales, not positive.
    """

    weights: Floats
    means: Floats
    scales: Floats

    def __post_init__(self) -> None:
        shapes = (self.weights.shape, self.means.shape, self.scales.shape)
        sound = (
            self.means.ndim == 2
            and len(self.means) > 0
            and shapes == (self.means.shape[:1], self.means.shape, self.means.shape)
            and all(np.isfinite(a).all() for a in (self.weights, self.means, self.scales))
            and (self.weights > 0).all()
            and (self.scales > 0).all()
        )
        if not sound:
            raise ConfigError(
                "expected positive weights (K,), means (K, D) and positive scales (K, D), all "
                f"finite, found shapes {shapes} or numbers that are not; fit the regimes again"
            )

    @property
    def num_regimes(self) -> int:
        """K, how many regimes there are."""
        return len(self.weights)

    @classmethod
    def fit(cls, latents: Floats, num_regimes: int, method: str = "gmm", seed: int = 0) -> Regimes:
        """Cluster latents (N, D) by a Gaussian mixture ("gmm") or k-means ("kmeans").

        K-means is kept as a mixture of equal weights and unit scales, whose most likely
        component is the nearest centre.

        Raises:
            ConfigError: on an unknown method, or fewer rows than regimes.
        """
        if method not in METHODS:
            raise ConfigError(
                f"expected a regime method among {', '.join(METHODS)}, found {method!r}"
            )
        if not 1 <= num_regimes <= len(latents):
            raise ConfigError(
                f"expected between 1 and {len(latents)} regimes (one row each), "
                f"found {num_regimes}"
            )
        # Here, because whoever only reads a regime need not wait for scikit-learn.
        from sklearn.cluster import KMeans
        from sklearn.mixture import GaussianMixture

        if method == "kmeans":
            kmeans = KMeans(num_regimes, n_init=4, random_state=seed).fit(latents)
            centres = np.asarray(kmeans.cluster_centers_, dtype=np.float64)
            return cls(np.full(num_regimes, 1 / num_regimes), centres, np.ones_like(centres))
        mixture = GaussianMixture(
            num_regimes, covariance_type="diag", n_init=2, random_state=seed, reg_covar=1e-3
        ).fit(latents)
        return cls(mixture.weights_, mixture.means_, np.sqrt(mixture.covariances_))

    def posterior(self, latents: Floats) -> Floats:
        """Return P(regime | z) for each row of latents (N, D), shape (N, K)."""
        joint = self._log_joint(latents)
        joint -= joint.max(axis=1, keepdims=True)
        density = np.exp(joint)
        probability: Floats = density / density.sum(axis=1, keepdims=True)
        return probability

    def assign(self, latents: Floats) -> Labels:
        """Return the most likely regime of each row of latents (N, D), shape (N,)."""
        return np.asarray(self._log_joint(latents).argmax(axis=1), dtype=np.int64)

    def relabelled(self, order: Labels) -> Regimes:
        """Return the same regimes with new label k for old label order[k]."""
        return replace(
            self, weights=self.weights[order], means=self.means[order], scales=self.scales[order]
        )

    def _log_joint(self, latents: Floats) -> Floats:
        # Expanded squares: three matrix products instead of an (N, K, D) block.
        precision, pull, offset, constant = self._constants
        quadratic = latents**2 @ precision.T - 2 * latents @ pull.T + offset
        joint: Floats = constant - 0.5 * quadratic
        return joint

    @cached_property
    def _constants(self) -> tuple[Floats, Floats, Floats, Floats]:
        precision = self.scales**-2
        return (
            precision,
            self.means * precision,
            (self.means**2 * precision).sum(axis=1),
            np.log(self.weights) - np.log(self.scales).sum(axis=1),
        )


def order_labels(labels: Labels, statistic: Floats, num_regimes: int) -> Labels:
    """Return old labels sorted by the mean of a statistic (N,), smallest first, empty ones last.

    With volatility as the statistic, regime 0 is the calmest.
    """
    means = [
        statistic[labels == k].mean() if (labels == k).any() else np.inf
        for k in range(num_regimes)
    ]
    return np.argsort(means, kind="stable")


def match_labels(reference: Labels, labels: Labels, num_regimes: int) -> Labels:
    """Return, for each reference label, the label that names the same bars best.

    Both label the same bars (N,). The assignment maximises the number of bars that agree
    (Kuhn 1955), so that regime k keeps its meaning when a model is trained anew.
    """
    table = np.zeros((num_regimes, num_regimes))
    np.add.at(table, (reference, labels), 1)
    _, matched = linear_sum_assignment(-table)
    return np.asarray(matched, dtype=np.int64)
