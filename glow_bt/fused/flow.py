"""A trained Glow for use: arrays in, arrays out, nothing but compiled code between."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import numpy.typing as npt

from glow_bt.errors import FlowError
from glow_bt.fused.machine import prepare, run
from glow_bt.fused.parts import BasePart, GlowParts, MixtureBase, StudentTBase
from glow_bt.fused.program import decoding, encoding
from glow_bt.fused.rows import as_rows, refuse

__all__ = ["FusedFlow"]

Array = npt.NDArray[np.floating[Any]]


class FusedFlow:
    """A frozen copy of a `glow_bt.flows.Glow`, with folded weights; needs no torch.

    Every step is one affine map and one small network, carried out in blocks of rows that stay
    in the cache, by code compiled for this machine. A row's result does not depend on the rows
    beside it, to rounding. It can be pickled and used by several threads at once.

    Args:
        parts: what the flow is made of; `Glow.fused()` gives them.
        dtype: "float64" or "float32", of arithmetic and results.

    Attributes:
        num_features: D.
        context_features: C, 0 for none.
        dtype: of arithmetic and results.

    Raises:
        FlowError: on another dtype.
    """

    def __init__(self, parts: GlowParts, dtype: npt.DTypeLike = "float64") -> None:
        self.num_features = parts.num_features
        self.context_features = parts.context_features
        self.dtype = _checked_dtype(dtype)
        self._parts = parts
        self._encoding = encoding(parts, self.dtype)
        self._decoding = decoding(parts, self.dtype)
        prepare(self.dtype)

    def __reduce__(self) -> tuple[type[FusedFlow], tuple[GlowParts, str]]:
        return type(self), (self._parts, self.dtype.name)

    @property
    def base(self) -> BasePart:
        """Distribution of the latents."""
        return self._parts.base

    def encode(
        self, x: npt.ArrayLike, context: npt.ArrayLike | None = None
    ) -> tuple[Array, Array]:
        """Return latents and log-densities.

        Args:
            x: rows (N, D).
            context: (N, C), or None when C is 0.

        Returns:
            z (N, D) and log_prob (N,) in nats.

        Raises:
            FlowError: on a wrong width, a missing context, or a row that is not finite.
        """
        rows = as_rows(x, self.num_features, self.dtype, "rows")
        given = self._contexts(context, len(rows))
        log_prob = np.empty(len(rows), self.dtype)
        program = self._encoding
        bad = run(program.table, program.weights, rows, given, log_prob)
        if bad >= 0:
            refuse(bad, x, context, self.dtype)
        return rows, log_prob

    def decode(self, z: npt.ArrayLike, context: npt.ArrayLike | None = None) -> Array:
        """Return the rows (N, D) of latents (N, D), the inverse of `encode`.

        Raises:
            FlowError: on a wrong width, a missing context, or latents that are not finite.
        """
        return self.inverse(z, context)[0]

    def inverse(
        self, z: npt.ArrayLike, context: npt.ArrayLike | None = None
    ) -> tuple[Array, Array]:
        """Return the rows x (N, D) of latents (N, D), and log |det dx/dz| (N,).

        Raises:
            FlowError: as `decode` does.
        """
        latents = as_rows(z, self.num_features, self.dtype, "latents")
        given = self._contexts(context, len(latents))
        log_det = np.empty(len(latents), self.dtype)
        program = self._decoding
        bad = run(program.table, program.weights, latents, given, log_det)
        if bad < 0 and np.isnan(latents).any():
            bad = int(np.isnan(latents).any(axis=1).argmax())
        if bad >= 0:
            refuse(bad, z, context, self.dtype, "latents")
        return latents, log_det

    def sample(self, n: int, context: npt.ArrayLike | None = None, seed: int = 0) -> Array:
        """Draw n rows, shape (n, D); the same ones for the same seed.

        Args:
            n: number of rows.
            context: (n, C), one a row; (1, C) is repeated.
            seed: of NumPy's default generator.

        Raises:
            FlowError: if n is below 1, or on a wrong context.
        """
        if n < 1:
            raise FlowError(f"expected to draw at least 1 row, found n={n}")
        if context is not None:
            context = np.asarray(context)
            if context.ndim == 2 and len(context) == 1:
                context = np.repeat(context, n, axis=0)
        rng = np.random.default_rng(seed)
        return self.decode(_draw(self._parts.base, n, self.num_features, rng, self.dtype), context)

    def _contexts(self, context: npt.ArrayLike | None, count: int) -> Array:
        if self.context_features == 0:
            if context is not None:
                raise FlowError(
                    "expected no context for a flow of context_features=0, found one; leave it out"
                )
            return np.empty((count, 0), self.dtype)
        if context is None:
            raise FlowError(
                f"expected a context of shape (N, {self.context_features}), found none"
            )
        contexts = as_rows(context, self.context_features, self.dtype, "contexts")
        if len(contexts) != count:
            raise FlowError(
                f"expected one context a row, found {len(contexts)} contexts for {count} rows"
            )
        return contexts


def _checked_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    with contextlib.suppress(TypeError):  # no dtype at all
        found = np.dtype(dtype)
        if found.name in ("float32", "float64"):
            return found.newbyteorder("=")
    raise FlowError(f"expected dtype 'float64' or 'float32', found {dtype!r}")


def _draw(
    base: BasePart, n: int, width: int, rng: np.random.Generator, dtype: np.dtype[Any]
) -> Array:
    """Draw latents (n, width)."""
    z: Array = rng.standard_normal((n, width), dtype=dtype.type)
    if isinstance(base, StudentTBase):
        chi2 = rng.chisquare(base.df, size=(n, width))
        return (z * np.sqrt(base.df / chi2)).astype(dtype)
    if isinstance(base, MixtureBase):
        weights = np.exp(base.log_weights)
        component = rng.choice(len(weights), size=n, p=weights / weights.sum())
        return (base.means[component] + z * np.exp(base.log_scales)[component]).astype(dtype)
    return z
