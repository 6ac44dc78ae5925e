"""A trained one-dimensional conditional density for use, with exact quantiles."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from glow_bt.errors import FlowError
from glow_bt.fused.flow import FusedFlow
from glow_bt.fused.parts import AffineMap, CouplingPart, GlowParts, NetPart, NormalBase, TailPart

__all__ = ["FusedUnivariate"]

Array = npt.NDArray[np.floating[Any]]


class FusedUnivariate:
    """A frozen copy of a `glow_bt.flows.UnivariateFlow`, for use without torch.

    It is a flow of one tail layer, whose location and scale the context moves.

    Args:
        tails: what the flow is made of.
        context_features: C, 0 for none.
        dtype: "float64" or "float32", of arithmetic and results.

    Attributes:
        context_features: C.
        dtype: of arithmetic and results.
    """

    def __init__(
        self, tails: TailPart, context_features: int, dtype: npt.DTypeLike = "float64"
    ) -> None:
        nothing = AffineMap(np.zeros((2, 0)), np.zeros(2))
        top = CouplingPart("affine", NetPart((nothing,), input_bound=1.0), log_scale_bound=1.0)
        self._tails = tails
        self._flow = FusedFlow(
            GlowParts(1, context_features, tails, levels=(), top=top, base=NormalBase()), dtype
        )
        self.context_features = context_features
        self.dtype = self._flow.dtype

    def __reduce__(self) -> tuple[type[FusedUnivariate], tuple[TailPart, int, str]]:
        return type(self), (self._tails, self.context_features, self.dtype.name)

    def encode(
        self, y: npt.ArrayLike, context: npt.ArrayLike | None = None
    ) -> tuple[Array, Array]:
        """Return latents (N, 1) and log-densities (N,) of y (N, 1); see `FusedFlow.encode`."""
        return self._flow.encode(y, context)

    def scale(self, context: npt.ArrayLike | None = None) -> Array:
        """Return exp(s(c)) of each context, shape (N,); without context one value, (1,).

        Raises:
            FlowError: on a wrong context, or one that is not finite.
        """
        # The tail layer has slope 1 at 0, so only the scale is left of the determinant there.
        _, log_det = self._flow.inverse(self._zeros(context), context)
        return np.exp(log_det)

    def quantile(self, p: float, context: npt.ArrayLike | None = None) -> Array:
        """Return the p-quantile of y given each context, shape (N,); exact.

        Raises:
            FlowError: if p is outside (0, 1), or as `scale` does.
        """
        if not 0 < p < 1:
            raise FlowError(f"expected a probability inside (0, 1), found {p}")
        return self._flow.decode(self._zeros(context) + special.ndtri(p), context)[:, 0]

    def cdf(self, y: npt.ArrayLike, context: npt.ArrayLike | None = None) -> Array:
        """Return P(Y <= y | context) of each y (N, 1), shape (N,); exact.

        Raises:
            FlowError: as `FusedFlow.encode` does.
        """
        z, _ = self.encode(y, context)
        below: Array = special.ndtr(z[:, 0])
        return below

    def _zeros(self, context: npt.ArrayLike | None) -> Array:
        shape = () if context is None else np.shape(context)
        return np.zeros((shape[0] if shape else 1, 1), self.dtype)
