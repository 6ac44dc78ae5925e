"""VaR and CVaR of a span of bars, by one model or several, as they are or recalibrated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from glow_bt.artifact import ReturnModel
from glow_bt.features import ContextRows
from glow_bt.fused import SkewedTails
from glow_bt.risk.recalibration import Recalibrated, Recalibration
from glow_bt.scoring.blocks import blocks_of

__all__ = ["Forecaster", "RiskLines", "contexts_of"]

Floats = npt.NDArray[np.float64]
Stamps = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Forecaster:
    """A model's forecasts of some bars of a span.

    Attributes:
        first: position of its first bar.
        model: of returns.
        distribution: of the return over the horizon, for bars first, first + 1, ...
        last: context of the last of them.
    """

    first: int
    model: ReturnModel
    distribution: SkewedTails
    last: ContextRows

    @classmethod
    def over(
        cls,
        model: ReturnModel,
        bars: Floats,
        stamps_ns: Stamps,
        first: int,
        stop: int,
        horizon: int,
    ) -> Forecaster:
        """Forecast at bars first .. stop - 1, from the window of bars that ends at each."""
        parts = []
        for _, rows in contexts_of(model, bars, stamps_ns, first, stop):
            parts.append(model.distribution(rows, horizon))
            last = rows.rows(slice(-1, None))
        return cls(first, model, _joined(parts), last)


def contexts_of(
    model: ReturnModel, bars: Floats, stamps_ns: Stamps, first: int, stop: int
) -> Iterator[tuple[int, ContextRows]]:
    """Yield the contexts of bars first .. stop - 1 block by block, with each block's first bar."""
    for start, end in blocks_of(first, stop):
        history = slice(start - model.min_bars + 1, end)
        yield (
            start,
            model.contexts(bars[history, : len(model.spec.columns)], stamps_ns[history]),
        )


class RiskLines:
    """What several forecasters say of following bars, corrected by a recalibration or not.

    Args:
        forecasters: in order of time, with bars that follow one another.
        close: (N,) closes of the whole span.
        horizon: bars ahead that they forecast.
        recalibration: as it stood before the first forecast; None for none.
    """

    def __init__(
        self,
        forecasters: Sequence[Forecaster],
        close: Floats,
        horizon: int,
        recalibration: Recalibration | None,
    ) -> None:
        self.first = forecasters[0].first
        self.distributions: list[SkewedTails | Recalibrated] = []
        self.recalibration = recalibration
        if recalibration is None:
            self.distributions += [own.distribution for own in forecasters]
            return
        latents = np.concatenate([_known_latents(own, close, horizon) for own in forecasters])
        trail, self.recalibration = recalibration.follow(latents)
        for own in forecasters:
            made = own.first - self.first + np.arange(len(own.distribution))
            offsets = trail[np.maximum(made - horizon + 1, 0)]
            self.distributions.append(
                Recalibrated(own.distribution, offsets, recalibration.levels)
            )

    def quantile(self, p: float) -> Floats:
        """Return the p-quantile at each forecast bar."""
        return np.concatenate([own.quantile(p) for own in self.distributions])

    def shortfall(self, p: float) -> Floats:
        """Return the mean below the p-quantile (above it where p > 1/2) at each forecast bar."""
        return np.concatenate([own.shortfall(p) for own in self.distributions])


def _joined(parts: list[SkewedTails]) -> SkewedTails:
    """Return the distributions of one model after one another."""
    if len(parts) == 1:
        return parts[0]
    return replace(
        parts[0],
        scale=np.concatenate([part.scale for part in parts]),
        left=np.concatenate([part.left for part in parts]),
        right=np.concatenate([part.right for part in parts]),
    )


def _known_latents(own: Forecaster, close: Floats, horizon: int) -> Floats:
    """Return the latents of the returns that came true within the span."""
    log_close = np.log(close[own.first :])
    count = min(len(own.distribution), len(log_close) - horizon)
    if count <= 0:
        return np.empty(0)
    known = slice(0, count)
    returns = log_close[horizon : horizon + count] - log_close[known]
    return own.distribution.rows(known).latent(returns)
