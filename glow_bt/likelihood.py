"""Reading a log-likelihood: is this state familiar, and how familiar?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from glow_bt.errors import ConfigError, TooFewBarsError

__all__ = ["MIN_HELD_OUT", "LikelihoodFilter"]

Floats = npt.NDArray[np.float64]

# Ranks are kept at steps of a thousandth.
_TABLE_SIZE = 1001
# Fewest held-out states that thresholds are taken from.
MIN_HELD_OUT = 50


@dataclass(frozen=True, eq=False)
class LikelihoodFilter:
    """Thresholds and ranks from the log-likelihood of held-out states.

    A state is in distribution if its log-likelihood lies between the rate/2 and 1 - rate/2
    quantiles of held-out ones: in a market that goes on as before, `false_alarm_rate` of bars
    fall outside. It is two-sided because a state more likely than nearly all others (a halted
    market, say) is as unusual as an unlikely one.

    Attributes:
        quantiles: (M,), ascending log-likelihoods (nats) at evenly spaced ranks from 0 to 1.
        false_alarm_rate: share of held-out states outside.

    Raises:
        ConfigError: if the rate is outside (0, 1) or the table is not ascending and finite.
    """

    quantiles: Floats
    false_alarm_rate: float

    def __post_init__(self) -> None:
        if not 0 < self.false_alarm_rate < 1:
            raise ConfigError(
                f"expected a false_alarm_rate inside (0, 1), found {self.false_alarm_rate}"
            )
        table = self.quantiles
        finite = table.ndim == 1 and len(table) > 1 and bool(np.isfinite(table).all())
        if not finite or (np.diff(table) < 0).any():
            raise ConfigError(
                "expected at least 2 finite log-likelihoods in ascending order, found a table "
                f"of shape {table.shape} that is not; fit the filter again on finite ones"
            )

    @classmethod
    def fit(cls, held_out: Floats, false_alarm_rate: float = 0.05) -> LikelihoodFilter:
        """Take thresholds and ranks from held-out log-likelihoods, shape (N,).

        Raises:
            TooFewBarsError: for fewer than 50 values.
            ConfigError: if the rate is outside (0, 1) or a value is not finite.
        """
        if len(held_out) < MIN_HELD_OUT:
            raise TooFewBarsError(MIN_HELD_OUT, len(held_out), "a likelihood filter")
        return cls(np.quantile(held_out, np.linspace(0, 1, _TABLE_SIZE)), false_alarm_rate)

    @cached_property
    def low(self) -> float:
        """Lower threshold, in nats."""
        return float(np.quantile(self.quantiles, self.false_alarm_rate / 2))

    @cached_property
    def high(self) -> float:
        """Upper threshold, in nats."""
        return float(np.quantile(self.quantiles, 1 - self.false_alarm_rate / 2))

    def contains(self, log_prob: Floats) -> npt.NDArray[np.bool_]:
        """Return whether each log-likelihood (N,) is in distribution."""
        return (log_prob >= self.low) & (log_prob <= self.high)

    def confidence(self, log_prob: Floats) -> Floats:
        """Return the rank of each log-likelihood (N,) among held-out ones, in [0, 1]."""
        return np.interp(log_prob, self.quantiles, self._ranks)

    @cached_property
    def _ranks(self) -> Floats:
        return np.linspace(0, 1, len(self.quantiles))
