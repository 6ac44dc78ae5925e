"""What the GLOW strategy has to beat: the market, the market at constant risk, its own parts."""

from __future__ import annotations

import math
from array import array
from typing import TYPE_CHECKING, Any, ClassVar

import backtrader as bt
import numpy as np
import numpy.typing as npt
import pandas as pd

from glow_bt.bt.averaged import AveragedStrategy
from glow_bt.bt.exposure import ExposureStrategy
from glow_bt.bt.parameters import refuse_unknown
from glow_bt.bt.stamps import from_index
from glow_bt.errors import ConfigError, DataError
from glow_bt.policy import PolicyParams, usable_exposure

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BuyAndHold", "RealisedVolatility", "ScoredGlow", "VolatilityTarget"]

_SCORES = ("direction", "confidence", "in_distribution", "var", "cvar", "var_error")
_NO_SCORES = [math.nan] * len(_SCORES)


class BuyAndHold(ExposureStrategy):
    """Buys 99 % of the equity once and holds; the rest pays for the fill. There is no band.

    Args:
        start: stamp (UTC) of the bar at whose close it buys: give the first bar at which the
            strategy it is compared with could trade. None for the first bar.
    """

    params: ClassVar[Any] = (("dead_band", 0.0), ("cost_rate", 0.0))

    def target_exposure(self, data: bt.AbstractDataBase, current: float) -> float:
        """Return whatever is held, or the whole equity."""
        return current if current else usable_exposure(1.0, self.policy)


class VolatilityTarget(ExposureStrategy):
    """Holds target_volatility / realised volatility, long only, at most the leverage cap.

    Args:
        target_volatility: annual standard deviation aimed at.
        lookback: log returns in the realised volatility, the current bar's included.
        periods_per_year: bars a year (`glow_bt.ohlcv.periods_per_year`).
        start: as for `BuyAndHold`.
        leverage_cap: largest exposure, of which 99 % is used.
        dead_band: how far exposure may be from the one wanted without an order, before costs.
        cost_rate: cost of trading one unit of notional one way; widens the dead-band.

    Raises:
        ConfigError: if a parameter cannot work.
    """

    params: ClassVar[Any] = (
        ("target_volatility", 0.2),
        ("lookback", 60),
        ("periods_per_year", 365.0),
    )

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        if not self.p.target_volatility > 0.0:
            raise ConfigError(
                f"expected target_volatility above 0, found {self.p.target_volatility}; "
                "0.2 is 20 % a year"
            )
        self.volatility = [
            RealisedVolatility(
                data, lookback=self.p.lookback, periods_per_year=self.p.periods_per_year
            )
            for data in self.datas
        ]

    def target_exposure(self, data: bt.AbstractDataBase, current: float) -> float:
        """Return the exposure at which the realised volatility is the target."""
        realised = next(v.lines.volatility[0] for v in self.volatility if v.data is data)
        exposure = self.p.target_volatility / realised if realised > 0.0 else math.inf
        return usable_exposure(exposure, self.policy)


class ScoredGlow(AveragedStrategy):
    """Decides as `GlowStrategy` does, on scores of one feed that were worked out before.

    With a part of the decision taken out it shows what that part adds: see use_filter,
    use_direction and constant_limit of `glow_bt.policy.PolicyParams`. A bar without scores is
    flat.

    Args:
        scores: frame by bar open: direction, confidence, in_distribution, var, cvar, var_error.
        random_direction: seed of a fair coin that gives a direction of 1 or -1 instead of the
            model's, where the model gives one; None for the model's.
        toss_every: bars of the frame until the coin is tossed anew.
        long_only: see `glow_bt.policy.PolicyParams`; so for the rest.

    Raises:
        ConfigError: if there are no scores or a setting cannot work.
        DataError: if the scores lack a column.
    """

    params: ClassVar[Any] = (
        ("scores", None),
        ("random_direction", None),
        ("toss_every", 1),
        ("use_filter", PolicyParams.use_filter),
        ("use_direction", PolicyParams.use_direction),
        ("constant_limit", PolicyParams.constant_limit),
    )

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        scores = _checked_scores(self.p.scores)
        direction = scores["direction"].to_numpy()
        if self.p.random_direction is not None:
            tossed = _tosses(len(scores), self.p.toss_every, self.p.random_direction)
            direction = np.where(np.isnan(direction), np.nan, tossed)
        table = np.column_stack([direction, scores[list(_SCORES[1:])]])
        stamps = from_index(pd.DatetimeIndex(scores.index))
        self._scores: dict[float, list[float]] = dict(
            zip(stamps.tolist(), table.tolist(), strict=True)
        )

    def next(self) -> None:
        """Take the bar's scores in, then rebalance."""
        scores = self._scores.get(self.data.datetime[0], _NO_SCORES)
        for data in self.datas:
            self.take_in(data, len(self.data), *scores)
        super().next()


def _checked_scores(scores: object) -> pd.DataFrame:
    if not isinstance(scores, pd.DataFrame):
        raise ConfigError(
            f"expected scores=<frame of scores by bar open>, found {type(scores).__name__}; "
            "score the bars first, or use GlowStrategy"
        )
    missing = [name for name in _SCORES if name not in scores]
    if missing:
        raise DataError(
            f"expected scores with columns {', '.join(_SCORES)}, found none of "
            f"{', '.join(missing)}; add them"
        )
    return scores


def _tosses(count: int, every: int, seed: int) -> npt.NDArray[np.float64]:
    """Return (count,) 1 or -1, tossed anew after every so many."""
    if every < 1:
        raise ConfigError(f"expected toss_every of at least 1 bar, found {every}")
    tosses = np.random.default_rng(seed).choice([-1.0, 1.0], size=math.ceil(count / every))
    return np.repeat(tosses, every)[:count]


class RealisedVolatility(bt.Indicator):
    """Annualised root mean square of the last log returns, known at the bar's close.

    volatility = sqrt(periods_per_year x mean(r^2)); the mean return of a bar is taken for zero.

    Args:
        data: a feed with a line close.
        lookback: number of returns.
        periods_per_year: bars a year.
    """

    lines: ClassVar[Any] = ("volatility",)
    params: ClassVar[Any] = (("lookback", 60), ("periods_per_year", 365.0))

    def __init__(self, *args: object, **kwargs: object) -> None:
        refuse_unknown(self, args, kwargs)
        super().__init__()
        if self.p.lookback < 1 or not self.p.periods_per_year > 0.0:
            raise ConfigError(
                "expected lookback of at least 1 return and periods_per_year above 0, found "
                f"{self.p.lookback} and {self.p.periods_per_year}; hourly bars have 8760 a year"
            )
        self.addminperiod(self.p.lookback + 1)

    def oncestart(self, start: int, end: int) -> None:
        """Leave the first full bar to `once`."""

    def once(self, start: int, end: int) -> None:
        """Compute the whole history."""
        if end > self.p.lookback:
            values = self._volatility(self.data.close.array[:end])
            self.lines.volatility.array[self.p.lookback : end] = array("d", values.tolist())

    def next(self) -> None:
        """Compute the current bar's value."""
        closes = self.data.close.get(size=self.p.lookback + 1)
        self.lines.volatility[0] = self._volatility(closes)[0]

    def _volatility(self, closes: Sequence[float]) -> npt.NDArray[np.float64]:
        """Return the volatility at each close after the first `lookback`."""
        squares = np.diff(np.log(closes)) ** 2
        windows = np.lib.stride_tricks.sliding_window_view(squares, self.p.lookback)
        volatility: npt.NDArray[np.float64] = np.sqrt(
            self.p.periods_per_year * windows.mean(axis=1)
        )
        return volatility
