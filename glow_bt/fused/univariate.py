"""A trained one-dimensional conditional density for use: numpy in, distributions out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glow_bt.errors import FlowError
from glow_bt.fused.knots import KnotSpline
from glow_bt.fused.one_row import parameters, prepare, quantile_spread
from glow_bt.fused.skewed_tails import SkewedTails, bent_body, quantile_body

__all__ = ["FusedUnivariate", "UnivariateParts"]

Floats = npt.NDArray[np.float64]

_BLOCK_ROWS = 4096


@dataclass(frozen=True, eq=False)
class UnivariateParts:
    """What a `glow_bt.flows.UnivariateFlow` of M members is made of.

    Attributes:
        layers: weights (M, in, out) and biases (M, out) of each layer of the networks; empty
            without context.
        line: (M, C) weights and (M,) biases of the straight lines.
        location: (M,).
        log_scale: (M,).
        log_excess: (M, 2).
        splines: of each member.
        spline: of the averaged parameters.
        context_bound: contexts are clipped to it.
        log_scale_bound: how far a context moves the log-scale.
        log_index_bound: how far it moves the log-excesses.
        min_index: least tail index.
    """

    layers: tuple[tuple[Floats, Floats], ...]
    line: tuple[Floats, Floats]
    location: Floats
    log_scale: Floats
    log_excess: Floats
    splines: tuple[KnotSpline, ...]
    spline: KnotSpline
    context_bound: float
    log_scale_bound: float
    log_index_bound: float
    min_index: float

    @property
    def context_features(self) -> int:
        """Width of the context, 0 for none."""
        return int(self.line[0].shape[1])

    @property
    def num_members(self) -> int:
        """M."""
        return len(self.location)


class FusedUnivariate:
    """A frozen copy of a `glow_bt.flows.UnivariateFlow`, in numpy and float64.

    Args:
        parts: what the flow is made of; `UnivariateFlow.fused()` gives them.

    Attributes:
        parts: the same.
        context_features: C, 0 for none.
        num_members: M.
    """

    def __init__(self, parts: UnivariateParts) -> None:
        self.parts = parts
        self.context_features = parts.context_features
        self.num_members = parts.num_members
        self._last: tuple[bytes, Floats] = (b"", np.empty(0))
        self._last_members: tuple[float, Floats] = (math.nan, np.empty((0, 5)))
        self._mean_location = float(parts.location.mean())
        self._mean_log_scale = float(parts.log_scale.mean())
        self._mean_log_excess: Floats = parts.log_excess.mean(axis=0)
        self._weights = _flat(parts)
        self._widths = np.array([self.context_features, *(len(b[0]) for _, b in parts.layers)])
        bounds = (parts.context_bound, parts.log_scale_bound, parts.log_index_bound)
        means = (self._mean_log_scale, *self._mean_log_excess)
        self._constants = np.array([*bounds, parts.min_index, *means])
        prepare()

    def distribution(self, context: npt.ArrayLike | None = None) -> SkewedTails:
        """Return the distribution of y given each context (N, C); without context one.

        Raises:
            FlowError: on a wrong context, or one that is not finite.
        """
        contexts = self._contexts(context)
        if contexts is not None and len(contexts) == 1:
            figures = self._row(contexts)[1]
            spline, location = self.parts.spline, self._mean_location
            return SkewedTails(figures[:1], figures[1:2], figures[2:], location, spline)
        return self._distribution(
            self._moves(contexts).mean(axis=0),
            self._mean_location,
            self._mean_log_scale,
            self._mean_log_excess,
            self.parts.spline,
        )

    def members(self, context: npt.ArrayLike | None = None) -> list[SkewedTails]:
        """Return the distributions that each member gives by itself.

        Raises:
            FlowError: as `distribution` does.
        """
        parts = self.parts
        own = zip(
            self._moves(self._contexts(context)),
            parts.location.tolist(),
            parts.log_scale.tolist(),
            parts.log_excess,
            parts.splines,
            strict=True,
        )
        return [self._distribution(*one) for one in own]

    def quantile_error(self, p: float, context: npt.ArrayLike | None = None) -> Floats:
        """Return (N,) the standard error of the p-quantile, from what the members say of it.

        Members that each leave out a block of the data make it the grouped jackknife,
        sqrt((M-1)/M sum_k (q_k - mean q)^2) (Efron & Tibshirani 1993, An introduction to the
        bootstrap, ch. 11). 0 for one member.

        Raises:
            FlowError: if p is outside (0, 1), or as `distribution` does.
        """
        contexts = self._contexts(context)
        if contexts is not None and len(contexts) == 1:
            # At a live bar's close its VaR comes first, then the error of it.
            last_key, moves = self._last
            if last_key != contexts.tobytes():
                moves = self._row(contexts)[0]
            spread = quantile_spread(moves, self._members_at(p), self._constants)
            return np.array([math.sqrt(self.num_members - 1) * spread])
        quantiles = self._member_quantiles(p, self._moves(contexts))
        error: Floats = np.sqrt((self.num_members - 1) * quantiles.var(axis=0))
        return error

    def _member_quantiles(self, p: float, moves: Floats) -> Floats:
        """Return (M, N) the p-quantile of each member: those of `members`, all in one go."""
        parts = self.parts
        body = np.array([quantile_body(spline, p) for spline in parts.splines])  # (M, 1)
        side = (body >= 0).astype(np.intp)[:, 0]
        members = np.arange(self.num_members)
        index = parts.min_index + np.exp(
            parts.log_excess[members, side][:, None]
            + _soft_bound(moves[members, :, 1 + side], parts.log_index_bound)
        )
        scale = np.exp(
            parts.log_scale[:, None] + _soft_bound(moves[:, :, 0], parts.log_scale_bound)
        )
        quantiles: Floats = scale * (parts.location[:, None] + bent_body(body, index))
        return quantiles

    def _distribution(
        self,
        moves: Floats,
        location: float,
        log_scale: float,
        log_excess: Floats,
        spline: KnotSpline,
    ) -> SkewedTails:
        parts = self.parts
        index = parts.min_index + np.exp(
            log_excess + _soft_bound(moves[:, 1:], parts.log_index_bound)
        )
        return SkewedTails(
            scale=np.exp(log_scale + _soft_bound(moves[:, 0], parts.log_scale_bound)),
            left=index[:, 0],
            right=index[:, 1],
            location=location,
            spline=spline,
        )

    def _contexts(self, context: npt.ArrayLike | None) -> Floats | None:
        """Return contexts (N, C) of the right shape; None for a flow without."""
        if not self.context_features:
            if context is not None:
                raise FlowError("expected no context, found one; leave it out")
            return None
        try:
            contexts = np.asarray(context, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise FlowError(f"expected contexts of numbers, found {context!r}") from error
        if contexts.ndim != 2 or contexts.shape[1] != self.context_features:
            raise FlowError(
                f"expected a context of shape (N, {self.context_features}), found "
                f"{'none' if context is None else contexts.shape}"
            )
        return contexts

    def _moves(self, contexts: Floats | None) -> Floats:
        """Return what the networks say of each context, (M, N, 3)."""
        if contexts is None:
            return np.zeros((self.num_members, 1, 3))
        if not np.isfinite(contexts).all():
            row = int((~np.isfinite(contexts)).any(axis=1).argmax())
            raise FlowError(
                f"expected finite contexts, found row {row}: {contexts[row].tolist()}; "
                "remove or repair it"
            )
        clipped = contexts.clip(-self.parts.context_bound, self.parts.context_bound)
        blocks = [clipped[i : i + _BLOCK_ROWS] for i in range(0, len(clipped), _BLOCK_ROWS)]
        if not blocks:
            return np.zeros((self.num_members, 0, 3))
        return np.concatenate([self._outputs(block) for block in blocks], axis=1)

    def _row(self, contexts: Floats) -> tuple[Floats, Floats]:
        """Return, of one context (1, C), what the networks say (M, 3) and the parameters (3,)."""
        moves = np.empty((self.num_members, 3))
        figures = parameters(
            np.array(contexts[0]), self._weights, self._widths, self._constants, moves
        )
        if math.isnan(figures[0]):
            self._moves(contexts)  # refuses what is not finite
        self._last = (contexts.tobytes(), moves)  # in one step: several threads may be here
        return moves, figures

    def _members_at(self, p: float) -> Floats:
        """Return what `quantile_spread` needs of each member at a level, (M, 5)."""
        last_p, members = self._last_members
        if last_p != p:
            parts = self.parts
            body = np.array([quantile_body(spline, p) for spline in parts.splines])  # (M, 1)
            columns = (parts.location[:, None], parts.log_scale[:, None], parts.log_excess)
            members = np.hstack([body, *columns])
            self._last_members = (p, members)
        return members

    def _outputs(self, contexts: Floats) -> Floats:
        """Return the outputs (M, N, 3) of all networks."""
        hidden = contexts[None]
        *inner, (weight, bias) = self.parts.layers
        for inner_weight, inner_bias in inner:
            before = hidden @ inner_weight + inner_bias[:, None, :]
            hidden = before / (1 + np.exp(-before))
        out: Floats = hidden @ weight + bias[:, None, :]
        line, shift = self.parts.line
        out[:, :, 0] += line @ contexts.T + shift[:, None]
        return out


def _flat(parts: UnivariateParts) -> Floats:
    """Return the weights in the order in which `parameters` reads them."""
    weights, biases = parts.line
    members = [
        np.concatenate(
            [
                *(own[m].ravel() for weight, bias in parts.layers for own in (bias, weight)),
                weights[m],
                biases[m : m + 1],
            ]
        )
        for m in range(parts.num_members)
    ]
    return np.concatenate(members).astype(np.float64)


def _soft_bound(x: Floats, bound: float) -> Floats:
    bounded: Floats = bound * np.tanh(x / bound)
    return bounded
