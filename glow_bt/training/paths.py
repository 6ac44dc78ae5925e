"""Fits the return flow that synthetic paths are drawn from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import pandas as pd

from glow_bt.artifact.paths import PathModel
from glow_bt.errors import ConfigError
from glow_bt.features import ContextSpec, context_rows
from glow_bt.features.return_context import returns_only
from glow_bt.ohlcv import bar_interval, validate_bars
from glow_bt.threads import one_thread
from glow_bt.training.config import TrainConfig
from glow_bt.training.returns import ReturnFitter, member_names

__all__ = ["VOLATILITY_FLOORS", "fit_paths"]

# Floors of the volatility that are tried, over the standard deviation of all returns. None is
# near 0: without a floor a path's volatility has no level to return to.
VOLATILITY_FLOORS = (0.25, 0.5, 1.0)
# A path's volatility stays below so many times the largest of the training bars.
_LARGEST = 2.0


def fit_paths(
    bars: pd.DataFrame,
    config: TrainConfig | None = None,
    *,
    spec: ContextSpec | None = None,
    floors: Sequence[float] = VOLATILITY_FLOORS,
    progress: Callable[[int, int], None] | None = None,
) -> PathModel:
    """Fit a `PathModel` to bars, all of which it may learn from.

    One model for each floor of the volatility; the one whose members give the blocks that they
    left out the highest likelihood is kept.

    Args:
        bars: a bar frame.
        config: the trainer's settings; of the horizons one bar is fitted.
        spec: windows and half-lives; what needs more than closes is left out of it, and its
            floor is replaced.
        floors: over the standard deviation of the returns; at least one, above 0.
        progress: called with members trained and members in all.

    Raises:
        ConfigError: if there is no floor, or one is not above 0.
        TooFewBarsError, DataError, FeatureError, TrainingError: as `ReturnFitter.fit` does.
    """
    if not floors or not all(0 < floor < np.inf for floor in floors):
        raise ConfigError(f"expected one or more floors above 0, found {tuple(floors)}")
    bars = validate_bars(bars)
    config = replace(config or TrainConfig(), return_horizons=(1,))
    spec = returns_only(spec or ContextSpec())
    values = bars[list(spec.columns)].to_numpy()
    stamps_ns = cast("pd.DatetimeIndex", bars.index).as_unit("ns").asi8
    seconds = bar_interval(bars).total_seconds()
    spread = max(float(np.diff(np.log(values[:, 3])).std()), spec.least_volatility)
    total, trained = len(floors) * len(member_names(config)), 0

    def tell() -> None:
        nonlocal trained
        trained += 1
        if progress is not None:
            progress(trained, total)

    fitter = ReturnFitter(config, member_done=tell)
    fits = []
    with one_thread():
        for floor in floors:
            own = replace(spec, least_volatility=floor * spread)
            model, held_out = fitter.fit(values, stamps_ns, seconds, own)
            fits.append((float(held_out[1].log_prob.mean()), model))
    model = max(fits, key=lambda fit: fit[0])[1]
    rows = context_rows(values, stamps_ns, seconds, model.spec)
    return PathModel(
        returns=model,
        max_volatility=_LARGEST * float(rows.volatility.max()),
        trained_from=bars.index[0],
        trained_until=bars.index[-1],
    )
