"""What a baseline is, and how it is walked forward over a history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

from glow_bt.errors import ConfigError, DataError, TooFewBarsError
from glow_bt.risk.forecasts import Forecasts, check_levels

__all__ = ["Baseline", "DividedHistory", "check_request", "spread_of", "walk_forward"]

Floats = npt.NDArray[np.float64]
Span = tuple[slice | range, int, int]


class Baseline(Protocol):
    """A classical model of the next return."""

    @property
    def name(self) -> str:
        """Key in `BASELINES`."""
        ...

    @property
    def min_bars(self) -> int:
        """Returns that estimation needs."""
        ...

    @property
    def has_density(self) -> bool:
        """Whether `Forecasts.log_prob` is a number; NaN if not."""
        ...

    def forecast(
        self,
        returns: Floats,
        *,
        fit: slice | range,
        first: int,
        stop: int,
        levels: Sequence[float],
    ) -> Forecasts:
        """Forecast each return r_t with t in [first, stop) from r_0 .. r_{t-1}.

        Args:
            returns: (T,) log returns r_0 .. r_{T-1}.
            fit: positions that parameters are estimated on; ends at `first` or before.
            first: position of the first return that is forecast.
            stop: position after the last one.
            levels: of VaR and expected shortfall, ascending in (0, 1).

        Returns:
            Forecasts whose row i is about r_{first+i}. Parameters stay as estimated; the
            variance is filtered on through every bar.

        Raises:
            ConfigError: on levels or positions that cannot work.
            DataError: if returns are not finite, or do not vary where they have to.
            TooFewBarsError: if fewer than `min_bars` returns are fitted on.
            TrainingError: if estimation does not converge.
        """
        ...


class DividedHistory(Protocol):
    """A fold of `glow_bt.folds`: three ranges of positions, in order of time."""

    @property
    def train(self) -> range:
        """Positions that a model is trained on."""
        ...

    @property
    def validation(self) -> range:
        """Positions that validate; a baseline has nothing to validate and fits on them too."""
        ...

    @property
    def test(self) -> range:
        """Positions that are forecast."""
        ...


def walk_forward(
    baseline: Baseline,
    returns: Floats,
    folds: Sequence[Span | DividedHistory],
    levels: Sequence[float],
    progress: Callable[[int, int], None] | None = None,
) -> Forecasts:
    """Refit a baseline at each fold and join its forecasts.

    Args:
        baseline: the model.
        returns: (T,) log returns; positions of the folds are positions in them.
        folds: each (fit, first, stop), or a fold of `glow_bt.folds`, of which everything from the
            start of its train to the end of its validation block is fitted on.
        levels: of VaR and expected shortfall.
        progress: called with folds done and folds in all.

    Raises:
        ConfigError: if there is no fold, or they do not follow one another in time.
        DataError: as `Baseline.forecast`; TooFewBarsError and TrainingError too.
    """
    spans = [_span(fold) for fold in folds]
    if not spans or any(late[1] < early[2] for early, late in pairwise(spans)):
        raise ConfigError(
            "expected folds that follow one another in time, found "
            f"{[(first, stop) for _, first, stop in spans]} as [first, stop)"
        )
    parts = []
    for done, (fit, first, stop) in enumerate(spans, start=1):
        parts.append(baseline.forecast(returns, fit=fit, first=first, stop=stop, levels=levels))
        if progress is not None:
            progress(done, len(spans))
    return Forecasts.concatenate(parts)


def check_request(
    baseline: Baseline,
    returns: Floats,
    *,
    fit: slice | range,
    first: int,
    stop: int,
    levels: Sequence[float],
) -> range:
    """Refuse what no baseline can forecast; return the positions that are fitted on.

    Raises:
        ConfigError: on levels or positions that cannot work.
        DataError: if returns are not a row of finite numbers.
        TooFewBarsError: if fewer returns than the baseline needs are fitted on.
    """
    check_levels(levels)
    if np.ndim(returns) != 1:
        raise DataError(f"expected returns of shape (T,), found {np.shape(returns)}")
    if not np.isfinite(returns[:stop]).all():
        raise DataError(
            "expected finite returns, found NaN or infinity; "
            "give log returns of closes without the bars that have none"
        )
    chosen = range(*fit.indices(len(returns))) if isinstance(fit, slice) else fit
    if chosen.step != 1 or not 0 <= chosen.start <= chosen.stop <= first < stop <= len(returns):
        raise ConfigError(
            f"expected 0 <= fit <= first < stop <= {len(returns)}, found fit {chosen}, first "
            f"{first} and stop {stop}; nothing may be fitted on what is forecast"
        )
    if len(chosen) < baseline.min_bars:
        raise TooFewBarsError(baseline.min_bars, len(chosen), f"the baseline {baseline.name}")
    return chosen


def _span(fold: Span | DividedHistory) -> Span:
    if isinstance(fold, tuple):
        return fold
    return range(fold.train.start, fold.validation.stop), fold.test.start, fold.test.stop


def spread_of(baseline: Baseline, returns: Floats, fit: range) -> float:
    """Return the standard deviation of the returns that are fitted on.

    Raises:
        DataError: if they are all equal, up to the rounding of a log return.
    """
    spread = float(np.std(returns[fit.start : fit.stop]))
    if spread < 1e-12:
        raise DataError(
            f"the baseline {baseline.name} expected returns that vary, found {len(fit)} equal "
            f"ones at positions [{fit.start}, {fit.stop}); take out the time without trading"
        )
    return spread
