"""Stress scenarios: unlikely under a flow, and still plausible, by a stated likelihood band.

A band is a pair of probabilities of the model's own log-likelihood. With L the log density of a
draw from the model, the band (0.001, 0.01) holds the draws whose log density lies between the
0.1 % and the 1 % quantile of L: less likely than 99 % of what the model draws, and not so far
out that the model itself would hardly ever draw it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from glow_bt.errors import ConfigError, DataError
from glow_bt.risk.covariance import check_weights

__all__ = [
    "LikelihoodBand",
    "StressResult",
    "StressScenarios",
    "StressedFlow",
    "likelihood_band",
    "stress_result",
    "stress_scenarios",
]

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[np.floating[Any]]

_BATCH = 20_000
# Reference draws below the lower end of a band: with fewer the end is noise.
_LEAST_BELOW = 10
# Scenarios that a shortfall is the mean of.
_LEAST_IN_TAIL = 10


class StressedFlow(Protocol):
    """What is needed of a flow; `glow_bt.fused.FusedFlow` has it."""

    def encode(
        self, x: npt.ArrayLike, context: npt.ArrayLike | None = None
    ) -> tuple[Array, Array]:
        """Return latents (N, D) and log densities (N,)."""
        ...

    def inverse(
        self, z: npt.ArrayLike, context: npt.ArrayLike | None = None
    ) -> tuple[Array, Array]:
        """Return rows (N, D) of latents, and log |det dx/dz| (N,)."""
        ...

    def sample(self, n: int, context: npt.ArrayLike | None = None, seed: int = 0) -> Array:
        """Draw rows (n, D)."""
        ...


@dataclass(frozen=True)
class LikelihoodBand:
    """Two quantiles of a model's own log-likelihood, given one context.

    Attributes:
        low: probability of the lower end, as asked for.
        high: probability of the upper end.
        log_prob_low: the lower end, nats.
        log_prob_high: the upper end, nats.
        num_reference: draws from the model that both were read from.
    """

    low: float
    high: float
    log_prob_low: float
    log_prob_high: float
    num_reference: int

    def holds(self, log_prob: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Return which log densities lie in the band, both ends included."""
        values = np.asarray(log_prob)
        return (values >= self.log_prob_low) & (values <= self.log_prob_high)


@dataclass(frozen=True, eq=False)
class StressScenarios:
    """Draws from a band, and how they came.

    Attributes:
        draws: (S, D).
        log_prob: (S,) log densities under the model, nats, all in the band.
        importance: (S,) weights that sum to 1: equal if draws came from the model itself.
        band: the likelihood band.
        num_proposed: draws that were looked at to find these.
    """

    draws: Floats
    log_prob: Floats
    importance: Floats
    band: LikelihoodBand
    num_proposed: int

    def __len__(self) -> int:
        return len(self.draws)

    @property
    def effective_size(self) -> float:
        """Return 1 / sum of squared weights: independent draws worth as much."""
        return float(1 / np.square(self.importance).sum())


@dataclass(frozen=True)
class StressResult:
    """What stress scenarios do to one portfolio, in simple returns on its equity.

    Attributes:
        level: of the shortfall.
        worst: lowest return.
        worst_row: which scenario it is.
        mean: mean return under the law of the scenarios.
        shortfall: mean of the share `level` of lowest returns.
        num_scenarios: how many there were.
    """

    level: float
    worst: float
    worst_row: int
    mean: float
    shortfall: float
    num_scenarios: int


def likelihood_band(
    flow: StressedFlow,
    band: tuple[float, float] = (0.001, 0.01),
    *,
    context: npt.ArrayLike | None = None,
    num_reference: int = 100_000,
    seed: int = 0,
) -> LikelihoodBand:
    """Return the log densities between which a draw from the model falls so seldom.

    Args:
        flow: a fused Glow, or what has its methods.
        band: probabilities of the lower and the upper end.
        context: (C,), the state that scenarios are given, or None for a flow without.
        num_reference: draws that the quantiles are read from; the true probability of an end
            read at p lies within sqrt(p (1 - p) / num_reference) of p, one standard error.
        seed: of these draws.

    Raises:
        ConfigError: unless 0 <= low < high <= 1, or if fewer than 10 reference draws fall below
            an end that is not 0.
        FlowError: on a context that the flow does not take.
    """
    low, high = band
    if not 0 <= low < high <= 1:
        raise ConfigError(
            f"expected a band of two ascending probabilities in [0, 1], found {band}; "
            "give such as (0.001, 0.01)"
        )
    least = min(p for p in (low, high) if p > 0)
    if least * num_reference < _LEAST_BELOW * (1 - 1e-9):
        raise ConfigError(
            f"expected at least {math.ceil(_LEAST_BELOW / least)} reference draws for a band "
            f"that ends at {least}, found {num_reference}; raise num_reference"
        )
    log_prob = np.concatenate(
        [log_prob for _, log_prob, _ in _proposals(flow, context, num_reference, seed, 1.0)]
    )
    ends = np.quantile(log_prob, [low, high])
    lowest = -math.inf if low == 0 else float(ends[0])
    highest = math.inf if high == 1 else float(ends[1])
    return LikelihoodBand(low, high, lowest, highest, num_reference)


def stress_scenarios(
    flow: StressedFlow,
    num_scenarios: int,
    band: LikelihoodBand | tuple[float, float] = (0.001, 0.01),
    *,
    context: npt.ArrayLike | None = None,
    inflation: float = 1.0,
    max_draws: int = 2_000_000,
    seed: int = 1,
) -> StressScenarios:
    """Draw scenarios from a likelihood band by accepting and rejecting.

    The law of what comes out, with A the band:

    - inflation 1: the model's own draws that fall into A are kept, so their law is the model's
      given A. About 1 in 1 / (high - low) is kept.
    - inflation s > 1: latents are drawn s times as wide, which lands in A more often, and kept
      if the log density **under the model** lies in A. Kept draws have the density of the wide
      proposal, q, restricted to A; `importance` is p(x) / q(x), scaled to sum to 1, under which
      means and shortfalls are those of the model given A again. The effective size says what is
      left of the number.

    Args:
        flow: a fused Glow, or what has its methods.
        num_scenarios: how many are asked for; all found in the last batch are handed back, so
            there may be more.
        band: a band, or its two probabilities, see `likelihood_band`.
        context: (C,), the state that scenarios are given, or None for a flow without.
        inflation: s, of the proposal.
        max_draws: proposals after which the search ends.
        seed: of the proposals; another than that of the reference draws.

    Raises:
        ConfigError: on a number below 1, an inflation below 1, or a band that cannot be.
        DataError: if fewer were found than asked for in max_draws; says how many.
        FlowError: on a context that the flow does not take.
    """
    if num_scenarios < 1:
        raise ConfigError(f"expected to draw at least 1 scenario, found {num_scenarios}")
    if not (math.isfinite(inflation) and inflation >= 1):
        raise ConfigError(f"expected an inflation of 1 or more, found {inflation}")
    if not isinstance(band, LikelihoodBand):
        band = likelihood_band(flow, band, context=context)
    kept: list[tuple[Floats, Floats, Floats]] = []
    found = proposed = 0
    for draws, log_prob, log_weight in _proposals(flow, context, max_draws, seed, inflation):
        inside = band.holds(log_prob)
        kept.append((draws[inside], log_prob[inside], log_weight[inside]))
        found, proposed = found + int(inside.sum()), proposed + len(draws)
        if found >= num_scenarios:
            break
    if found < num_scenarios:
        raise DataError(
            f"expected {num_scenarios} scenarios between the {band.low:.3%} and the "
            f"{band.high:.3%} least likely, found {found} in {proposed} draws; widen the band, "
            "raise max_draws or inflate the proposal"
        )
    draws, log_prob, log_weight = (np.concatenate(part) for part in zip(*kept, strict=True))
    weight = np.exp(log_weight - log_weight.max())
    return StressScenarios(draws, log_prob, weight / weight.sum(), band, proposed)


def stress_result(
    scenarios: npt.ArrayLike,
    weights: npt.ArrayLike,
    level: float,
    *,
    importance: npt.ArrayLike | None = None,
) -> StressResult:
    """Return worst case, mean and expected shortfall of a portfolio under stress scenarios.

    Args:
        scenarios: (S, N) log returns of the assets; draws of a flow over standardised returns
            are scaled back first.
        weights: (N,) shares of equity; returns are sum_i w_i (exp(r_i) - 1).
        level: share of lowest returns that the shortfall is the mean of, in (0, 1].
        importance: (S,) weights of the scenarios, as `StressScenarios` has; default equal.

    Raises:
        ConfigError: on a level outside (0, 1].
        DataError: if weights do not match, a value is not finite, or there are so few scenarios
            that the shortfall would be the mean of less than ten (of their effective number).
    """
    if not 0 < level <= 1:
        raise ConfigError(f"expected a level inside (0, 1], found {level}")
    rows = np.asarray(scenarios, dtype=np.float64)
    if rows.ndim != 2 or not rows.size or not np.isfinite(rows).all():
        raise DataError(
            f"expected finite scenarios of shape (S, N), found shape {rows.shape} or NaN in it"
        )
    returns = np.expm1(rows) @ check_weights(weights, rows.shape[1])
    share = _checked_importance(importance, len(rows))
    size = 1 / np.square(share).sum()
    if level * size < _LEAST_IN_TAIL * (1 - 1e-9):
        raise DataError(
            f"expected at least {math.ceil(_LEAST_IN_TAIL / level)} scenarios for a shortfall at "
            f"{level}, found {len(rows)} worth {size:.0f}; draw more, or raise the level"
        )
    order = np.argsort(returns, kind="stable")
    before = np.concatenate([[0.0], np.cumsum(share[order])[:-1]])
    part = np.clip(level - before, 0.0, share[order])
    return StressResult(
        level=level,
        worst=float(returns[order[0]]),
        worst_row=int(order[0]),
        mean=float(share @ returns),
        shortfall=float(part @ returns[order] / part.sum()),
        num_scenarios=len(rows),
    )


def _proposals(
    flow: StressedFlow,
    context: npt.ArrayLike | None,
    count: int,
    seed: int,
    inflation: float,
) -> Iterator[tuple[Floats, Floats, Floats]]:
    """Yield draws (n, D), their log densities (n,) and log importance p / q (n,) in batches."""
    given = None if context is None else np.asarray(context, dtype=np.float64).reshape(1, -1)
    for number, start in enumerate(range(0, count, _BATCH)):
        size = min(_BATCH, count - start)
        batch_seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        rows = None if given is None else np.repeat(given, size, axis=0)
        draws = flow.sample(size, rows, seed=batch_seed)
        latents, log_prob = flow.encode(draws, rows)
        if inflation == 1:
            yield draws.astype(np.float64), log_prob.astype(np.float64), np.zeros(size)
            continue
        wide = inflation * latents
        moved, log_det = flow.inverse(wide, rows)
        log_moved = flow.encode(moved, rows)[1]
        # A latent's own log density is that of its row plus log |det dx/dz|.
        at_wide = log_moved + log_det
        at_latent = log_prob + flow.inverse(latents, rows)[1]
        log_weight = at_wide - at_latent + latents.shape[1] * math.log(inflation)
        yield moved.astype(np.float64), log_moved.astype(np.float64), log_weight.astype(np.float64)


def _checked_importance(importance: npt.ArrayLike | None, count: int) -> Floats:
    if importance is None:
        return np.full(count, 1 / count)
    share = np.asarray(importance, dtype=np.float64)
    if share.shape != (count,) or not (np.isfinite(share).all() and (share >= 0).all()):
        raise DataError(
            f"expected {count} importance weights of 0 or more, one a scenario, found shape "
            f"{share.shape} or a value below 0 or not finite"
        )
    if not share.sum() > 0:
        raise DataError("expected some importance weight above 0, found none")
    scaled: Floats = share / share.sum()
    return scaled
