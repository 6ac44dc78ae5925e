"""What training looks at: states and what follows them, and which of them belong to a block."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from glow_bt import direction, likelihood
from glow_bt.direction import forward_scaled_return
from glow_bt.errors import ConfigError, TooFewBarsError
from glow_bt.features import ContextSpec, FeatureSpec, feature_array, volatility_array
from glow_bt.folds import Fold, chronological_split, split_at
from glow_bt.ohlcv import BAR_COLUMNS, utc_stamp
from glow_bt.training.config import TrainConfig
from glow_bt.training.returns import return_bars_needed

__all__ = ["TrainingData", "block_sizes", "divide", "prepare"]

Floats = npt.NDArray[np.float64]

# A flow of a few thousand weights learns nothing from fewer states.
_MIN_TRAIN_ROWS = 300


@dataclass(frozen=True, eq=False)
class TrainingData:
    """States and targets, row by row; rows before the first full state are left out.

    Attributes:
        first: position in the bars of row 0.
        features: (N, D) raw states.
        volatility: (N,) of one bar's log return.
        forward_return: (N,) scaled return to the direction's horizon; NaN at the end.
    """

    first: int
    features: Floats
    volatility: Floats
    forward_return: Floats

    def rows(self, block: range, ahead: int = 0) -> slice:
        """Return the rows of a block of bars whose next `ahead` bars are inside it too."""
        start = max(block.start - self.first, 0)
        return slice(start, max(block.stop - self.first - ahead, start))


def prepare(bars: pd.DataFrame, config: TrainConfig, spec: FeatureSpec) -> TrainingData:
    """Compute states and targets of valid bars, at least `spec.min_bars` of them."""
    array = bars[list(BAR_COLUMNS)].to_numpy()
    close = array[:, 3]
    volatility = volatility_array(close, spec)
    first = spec.min_bars - 1
    return TrainingData(
        first=first,
        features=feature_array(array, spec)[first:],
        volatility=volatility[first:],
        forward_return=forward_scaled_return(close, volatility, config.direction_horizon)[first:],
    )


def block_sizes(config: TrainConfig, spec: FeatureSpec) -> tuple[int, int]:
    """Return how many bars the training and the validation block need at least.

    Every state of a block is used, but for the last ones, whose returns end outside it; the
    direction readout looks at every `direction_horizon`-th of the rest. The return flow learns
    from all bars up to the end of the validation block.
    """
    horizon = config.direction_horizon
    train = max(_MIN_TRAIN_ROWS, direction.MIN_ROWS * horizon + 1, config.num_regimes)
    validation = max(likelihood.MIN_HELD_OUT + 1, direction.MIN_HELD_OUT_ROWS * horizon + 1)
    purge = spec.min_bars if config.purge is None else config.purge
    returns = return_bars_needed(ContextSpec(), config) - purge - validation
    return max(spec.min_bars - 1 + train, returns), validation


def divide(bars: pd.DataFrame, config: TrainConfig, spec: FeatureSpec) -> Fold:
    """Divide bars by the shares or the dates of a config.

    Raises:
        ConfigError: if the purge is below the longest feature window, or the dates leave too
            little to validate on.
        TooFewBarsError: if a block is too short; so many bars as it says suffice.
    """
    purge = spec.min_bars if config.purge is None else config.purge
    min_train, min_validation = block_sizes(config, spec)
    if config.train_until is None or config.validation_until is None:
        return chronological_split(
            len(bars),
            purge=purge,
            min_purge=spec.min_bars,
            fractions=config.fractions,
            min_train=min_train,
            min_validation=min_validation,
        )
    train_stop, validation_stop = (
        int(bars.index.searchsorted(utc_stamp(date)))
        for date in (config.train_until, config.validation_until)
    )
    fold = split_at(len(bars), train_stop, validation_stop, purge=purge, min_purge=spec.min_bars)
    if len(fold.train) < min_train:
        missing = min_train - len(fold.train)
        raise TooFewBarsError(
            len(bars) + missing, len(bars), f"training on bars before {config.train_until}"
        )
    if len(fold.validation) < min_validation:
        raise ConfigError(
            f"expected at least {purge + min_validation} bars from train_until to "
            f"validation_until, {purge} of them for the purge, found "
            f"{validation_stop - train_stop}; set {config.train_until} and "
            f"{config.validation_until} further apart"
        )
    return fold
