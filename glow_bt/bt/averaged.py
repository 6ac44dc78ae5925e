"""From scores to a wanted exposure, by averages over the last bars."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from glow_bt.bt.exposure import ExposureStrategy
from glow_bt.errors import ConfigError
from glow_bt.policy import PolicyParams, ScoreAverage, target_exposure

if TYPE_CHECKING:
    import backtrader as bt

__all__ = ["AveragedStrategy"]


class AveragedStrategy(ExposureStrategy):
    """Wants what `glow_bt.policy` makes of the scores that a subclass takes in at every bar.

    Args:
        long_only: see `glow_bt.policy.PolicyParams`; so for every parameter named there.
        risk_budget: the same.
        es_budget: the same.
        error_margin: the same.
        stance: the same.
        half_life: the same.
    """

    params: ClassVar[Any] = (
        ("long_only", PolicyParams.long_only),
        ("risk_budget", PolicyParams.risk_budget),
        ("es_budget", PolicyParams.es_budget),
        ("error_margin", PolicyParams.error_margin),
        ("stance", PolicyParams.stance),
        ("half_life", PolicyParams.half_life),
    )

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._averages = {id(data): ScoreAverage(self.policy) for data in self.datas}
        self._said: dict[int, tuple[float, ...]] = {}

    def take_in(
        self, data: bt.AbstractDataBase, bar: int, direction: float, *scores: float
    ) -> None:
        """Take in what is said of a feed's current bar.

        Args:
            data: the feed.
            bar: number of the bar.
            direction: in [-1, 1].
            scores: confidence, in_distribution, var, cvar and var_error.
        """
        self._said[id(data)] = (direction, *self._averages[id(data)].update(bar, *scores))

    def target_exposure(self, data: bt.AbstractDataBase, current: float) -> float:
        """Return the policy's exposure for the feed's scores up to its current bar."""
        direction, confidence, inside, var, cvar, var_error = self._said[id(data)]
        return target_exposure(
            direction, confidence, inside, var, self.policy, cvar=cvar, var_error=var_error
        )

    def save_state(self) -> dict[str, Any]:
        """Return what bars and account do not tell, the averages included."""
        averages = [self._averages[id(data)].state for data in self.datas]
        return super().save_state() | {"averages": averages}

    def load_state(self, values: dict[str, Any]) -> None:
        """Go on from `save_state`.

        Raises:
            ConfigError: if it was of a strategy that had no averages, which decided otherwise.
        """
        super().load_state(values)
        if "averages" not in values:
            raise ConfigError(
                "expected a state with averages of the last bars, found one without, of an "
                "earlier version that decided otherwise; start anew in another folder"
            )
        for data, state in zip(self.datas, values["averages"], strict=True):
            self._averages[id(data)].state = state
