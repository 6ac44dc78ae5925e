"""Forecasts of returns, bar by bar, beside what came true.

Sign convention of the whole package: everything is a log return of the asset. VaR at level p is
the p-quantile of the return, so that for p below one half it is a negative number, the loss of a
long position; for p above one half it is the upper tail, the loss of a short one. The expected
shortfall (CVaR) at p is the mean return below that quantile, above it for p above one half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

from glow_bt.errors import ConfigError, DataError

__all__ = ["Forecasts", "ReturnDistribution", "check_levels", "forecasts_of"]

Floats = npt.NDArray[np.float64]


class ReturnDistribution(Protocol):
    """N distributions of one return each: what every risk measure is read from."""

    def quantile(self, p: float) -> Floats:
        """Return the p-quantiles (N,)."""
        ...

    def shortfall(self, p: float) -> Floats:
        """Return (N,) the mean below the p-quantile, or above it where p > 1/2."""
        ...

    def cdf(self, returns: Floats) -> Floats:
        """Return (N,) the probability of a return at most as high as each of returns (N,)."""
        ...

    def log_prob(self, returns: Floats) -> Floats:
        """Return (N,) log densities at returns (N,), in nats; NaN for a model without any."""
        ...


@dataclass(frozen=True, eq=False)
class Forecasts:
    """What one model said of N returns before they came, and the returns.

    Attributes:
        levels: (L,) probabilities in ascending order, each inside (0, 1) and none 1/2.
        returns: (N,) the log returns that came true.
        log_prob: (N,) log density that the model gave them, nats; NaN for a model without one.
        pit: (N,) probability integral transform: the model's probability of at most that return.
        quantiles: (N, L) VaR at each level.
        shortfalls: (N, L) expected shortfall at each level.

    Raises:
        ConfigError: on levels that are none.
        DataError: if shapes do not belong together.
    """

    levels: tuple[float, ...]
    returns: Floats
    log_prob: Floats
    pit: Floats
    quantiles: Floats
    shortfalls: Floats

    def __post_init__(self) -> None:
        check_levels(self.levels)
        count = len(self.returns)
        expected = {
            "log_prob": (count,),
            "pit": (count,),
            "quantiles": (count, len(self.levels)),
            "shortfalls": (count, len(self.levels)),
        }
        for name, shape in expected.items():
            found = np.shape(getattr(self, name))
            if found != shape:
                raise DataError(
                    f"expected {name} of shape {shape} for {count} returns and "
                    f"{len(self.levels)} levels, found {found}"
                )

    def __len__(self) -> int:
        return len(self.returns)

    def quantile(self, level: float) -> Floats:
        """Return the VaR (N,) at one of the levels.

        Raises:
            ConfigError: naming the levels there are, if it is none of them.
        """
        return self.quantiles[:, self._column(level)]

    def shortfall(self, level: float) -> Floats:
        """Return the expected shortfall (N,) at one of the levels.

        Raises:
            ConfigError: naming the levels there are, if it is none of them.
        """
        return self.shortfalls[:, self._column(level)]

    def rows(self, rows: slice | npt.NDArray[np.bool_]) -> Forecasts:
        """Return some of the rows."""
        return Forecasts(
            self.levels,
            self.returns[rows],
            self.log_prob[rows],
            self.pit[rows],
            self.quantiles[rows],
            self.shortfalls[rows],
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Forecasts]) -> Forecasts:
        """Join forecasts of following spans of time into one.

        Raises:
            DataError: if there is none, or their levels differ.
        """
        if not parts:
            raise DataError("expected forecasts to join, found none")
        levels = parts[0].levels
        if any(part.levels != levels for part in parts):
            raise DataError(
                "expected forecasts of equal levels, found "
                f"{sorted({part.levels for part in parts})}"
            )
        return cls(
            levels,
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("returns", "log_prob", "pit", "quantiles", "shortfalls")
            ),
        )

    def _column(self, level: float) -> int:
        for column, own in enumerate(self.levels):
            if abs(own - level) < 1e-12:
                return column
        raise ConfigError(
            f"expected one of the levels {', '.join(f'{own:g}' for own in self.levels)}, "
            f"found {level}"
        )


def forecasts_of(
    distribution: ReturnDistribution, returns: Floats, levels: Sequence[float]
) -> Forecasts:
    """Read forecasts at some levels off N distributions, beside the returns (N,) that came true.

    Raises:
        ConfigError: on levels that are none.
    """
    check_levels(levels)
    return Forecasts(
        tuple(levels),
        returns,
        distribution.log_prob(returns),
        distribution.cdf(returns),
        np.column_stack([distribution.quantile(p) for p in levels]),
        np.column_stack([distribution.shortfall(p) for p in levels]),
    )


def check_levels(levels: Sequence[float]) -> None:
    """Refuse what are no levels of tails.

    Raises:
        ConfigError: unless they ascend strictly inside (0, 1), without 1/2.
    """
    ascending = all(low < high for low, high in pairwise(levels))
    if not levels or not ascending or not all(0 < p < 1 and p != 0.5 for p in levels):
        raise ConfigError(
            "expected levels in ascending order inside (0, 1), none of them 0.5, found "
            f"{tuple(levels)}; give such as (0.01, 0.05, 0.95, 0.99)"
        )
