"""What a configuration gains at each bar of the validation spans of a search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from glow_bt.errors import ConfigError
from glow_bt.features import DEFAULT_SPEC
from glow_bt.folds import Fold, walk_forward_folds
from glow_bt.scoring import Scorer
from glow_bt.training.config import TrainConfig
from glow_bt.training.data import block_sizes
from glow_bt.training.fitter import Progress
from glow_bt.training.pipeline import train

__all__ = ["OBJECTIVES", "gains_by_fold", "search_folds", "validation_stamps"]

Floats = npt.NDArray[np.float64]

OBJECTIVES = ("likelihood", "quantile-loss")
# Levels of VaR whose losses are averaged.
_LEVELS = (0.01, 0.05)


def search_folds(
    bars: pd.DataFrame, config: TrainConfig, n_folds: int, validated: float
) -> list[Fold]:
    """Divide bars before the first test border; the test block of each fold validates here.

    A fold's own validation block stops its training, so that a block that a trial is judged by
    decides nothing about its model.

    Args:
        bars: valid, without any that will be tested.
        config: settings of every trial.
        n_folds: number of validation spans.
        validated: share of the bars in them.

    Raises:
        ConfigError, TooFewBarsError: as `walk_forward_folds` does.
    """
    min_train, min_validation = block_sizes(config, DEFAULT_SPEC)
    return walk_forward_folds(
        len(bars),
        n_folds,
        purge=DEFAULT_SPEC.min_bars if config.purge is None else config.purge,
        min_purge=DEFAULT_SPEC.min_bars,
        test_fraction=validated,
        min_train=min_train,
        min_validation=min_validation,
    )


def validation_stamps(bars: pd.DataFrame, folds: Sequence[Fold]) -> pd.DatetimeIndex:
    """Return the bars that a trial is judged at: all of the spans but the last of each."""
    rows = np.concatenate([np.arange(fold.test.start, fold.test.stop - 1) for fold in folds])
    return cast("pd.DatetimeIndex", bars.index[rows])


def gains_by_fold(
    bars: pd.DataFrame,
    folds: Sequence[Fold],
    config: TrainConfig,
    objective: str,
    progress: Progress | None = None,
) -> Iterator[Floats]:
    """Train on each fold and yield what the model gains at each bar of its validation span.

    "likelihood": log-density of the bar's state, in raw units, and of the next log return given
    its context, in nats. "quantile-loss": less the mean loss of VaR at 1 % and 5 %,
    (p - [r < q]) (r - q), in log returns (Koenker & Bassett 1978, Econometrica 46(1)).

    Raises:
        ConfigError: on another objective.
        Others as `train` does.
    """
    if objective not in OBJECTIVES:
        raise ConfigError(
            f"expected an objective among {', '.join(OBJECTIVES)}, found {objective!r}"
        )
    for fold in folds:
        settings = replace(
            config,
            train_until=bars.index[fold.train.stop].isoformat(),
            validation_until=bars.index[fold.validation.stop].isoformat(),
        )
        # With the first bar of the purge, whose stamp is the border; it is not learnt from.
        known = bars.iloc[fold.train.start : fold.validation.stop + 1]
        scorer = Scorer(train(known, settings, progress=progress))
        first = fold.test.start - (scorer.min_bars - 1)
        yield _gains(scorer, bars.iloc[first : fold.test.stop], objective)


def _gains(scorer: Scorer, span: pd.DataFrame, objective: str) -> Floats:
    """Return the gain at each bar after the warm-up of a span but the last."""
    close = span["close"].to_numpy()[scorer.min_bars - 1 :]
    returns = np.diff(np.log(close))
    forecasts = scorer.distribution(span.iloc[:-1])
    if objective == "quantile-loss":
        losses = []
        for level in _LEVELS:
            above = returns - forecasts.quantile(level)
            losses.append((level - (above < 0.0)) * above)
        gains: Floats = -np.mean(losses, axis=0)
        return gains
    states = scorer.score(span)["log_prob"].to_numpy()[scorer.min_bars - 1 : -1]
    total: Floats = states + forecasts.log_prob(returns)
    return total
