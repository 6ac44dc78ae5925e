"""Forecasts of returns out of sample: a model a fold, as it is and recalibrated online."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from glow_bt.artifact import ReturnModel
from glow_bt.errors import ConfigError
from glow_bt.features import ContextSpec
from glow_bt.folds import Fold
from glow_bt.fused import SkewedTails
from glow_bt.ohlcv import bar_interval, validate_bars
from glow_bt.risk.forecasts import Forecasts, forecasts_of
from glow_bt.risk.recalibration import Recalibrated, Recalibration
from glow_bt.threads import one_thread
from glow_bt.training.config import TrainConfig
from glow_bt.training.returns import ReturnFitter, member_names

__all__ = ["walk_forward_returns"]

Floats = npt.NDArray[np.float64]
Stamps = npt.NDArray[np.int64]
_Tell = Callable[[], None]


def walk_forward_returns(
    bars: pd.DataFrame,
    folds: Sequence[Fold],
    levels: Sequence[float],
    *,
    config: TrainConfig | None = None,
    spec: ContextSpec | None = None,
    recalibration: Recalibration | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[Forecasts, Forecasts]:
    """Forecast the return into each test bar, by a model that was fitted before the test span.

    Each fold's model learns from all bars from the beginning of its training block to the one
    before its test block. The recalibration goes on from fold to fold.

    Args:
        bars: a bar frame.
        folds: in order of time, with test blocks that follow one another.
        levels: ascending, inside (0, 1).
        config: the trainer's settings; whatever its horizons, the next bar is forecast.
        spec: which numbers make a context. Default: `ContextSpec.of` each fold's past.
        recalibration: where it starts. Default: `Recalibration()`.
        progress: called with "flow", members trained and members in all.

    Returns:
        The model's forecasts, and the recalibrated ones. Row i is about the log return from bar t
        to t + 1, known at the close of bar t, for t from the bar before the first test bar on.

    Raises:
        ConfigError: if there is no fold.
        TooFewBarsError: if a fold has too few bars to learn from; says how many are needed.
        DataError, FeatureError, TrainingError: as `ReturnFitter.fit` does.
    """
    if not folds:
        raise ConfigError("expected at least 1 fold, found none")
    config = replace(config or TrainConfig(), return_horizons=(1,))
    bars = validate_bars(bars)
    stamps_ns = cast("pd.DatetimeIndex", bars.index).as_unit("ns").asi8
    total = len(folds) * len(member_names(config))
    trained = 0

    def tell() -> None:
        nonlocal trained
        trained += 1
        if progress is not None:
            progress("flow", trained, total)

    parts: list[tuple[SkewedTails, Floats]] = []
    with one_thread():
        for fold in folds:
            model = _fitted(bars, stamps_ns, fold, config, spec, tell)
            parts.append(_tested(model, bars, fold))
    return _forecasts(parts, levels, recalibration or Recalibration())


def _fitted(
    bars: pd.DataFrame,
    stamps_ns: Stamps,
    fold: Fold,
    config: TrainConfig,
    spec: ContextSpec | None,
    tell: _Tell,
) -> ReturnModel:
    known = slice(fold.train.start, fold.test.start)
    past = bars.iloc[known]
    seconds = bar_interval(past).total_seconds()
    spec = ContextSpec.of(past, seconds) if spec is None else spec
    fitter = ReturnFitter(config, member_done=tell)
    array = past[list(spec.columns)].to_numpy()
    return fitter.fit(array, stamps_ns[known], seconds, spec)[0]


def _tested(model: ReturnModel, bars: pd.DataFrame, fold: Fold) -> tuple[SkewedTails, Floats]:
    """Return the distribution of the return into each test bar, and those returns."""
    warm_up = model.min_bars - 1
    span = bars.iloc[fold.test.start - 1 - warm_up : fold.test.stop]
    array, stamps = model.inputs(span)
    rows = model.contexts(array[:-1], stamps[:-1])
    return model.distribution(rows), np.diff(np.log(array[warm_up:, 3]))


def _forecasts(
    parts: Sequence[tuple[SkewedTails, Floats]],
    levels: Sequence[float],
    recalibration: Recalibration,
) -> tuple[Forecasts, Forecasts]:
    plain, recalibrated = [], []
    for distribution, returns in parts:
        plain.append(forecasts_of(distribution, returns, levels))
        trail, recalibration = recalibration.follow(distribution.latent(returns))
        corrected = Recalibrated(distribution, trail[:-1], recalibration.levels)
        recalibrated.append(forecasts_of(corrected, returns, levels))
    return Forecasts.concatenate(plain), Forecasts.concatenate(recalibrated)
