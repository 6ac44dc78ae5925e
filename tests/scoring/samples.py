"""Models and bars that the tests of scoring share."""

import functools
import itertools

import numpy as np
import pytest

from glow_bt.training import train
from tests.models import SMALL_BARS, small_config, sp500_bars

# Bars before the first that is scored without a recalibration.
WARM_UP = 120
# Bars after the training of the models.
COUNT = 240
FIRST_NEW = 560
EVERY_RISK = [
    pytest.param({"horizon": horizon, "recalibrate": recalibrate}, id=f"{horizon=} {recalibrate=}")
    for horizon, recalibrate in itertools.product([1, 5], [False, True])
]


@functools.cache
def model_of_two_horizons():
    """A model of the first 560 bars for returns over 1 and 5 bars."""
    return train(sp500_bars(0, SMALL_BARS), small_config(return_horizons=(1, 5), max_epochs=1))


@functools.cache
def later_model():
    """A model trained 100 bars later, which other windows and thresholds tell apart."""
    config = small_config(seed=1, false_alarm_rate=0.2, return_horizons=(1, 5), max_epochs=1)
    bars = sp500_bars(100, SMALL_BARS + 100)
    return train(bars, config, previous=model_of_two_horizons())


def with_funding(bars):
    """The bars with a funding rate that follows the last return."""
    rng = np.random.default_rng(0)
    rate = 1e-4 + 0.01 * bars["close"].pct_change().fillna(0.0)
    return bars.assign(funding_rate=rate + rng.normal(0, 1e-5, len(bars)))


@functools.cache
def model_of_funding():
    """A model that was told of funding rates."""
    return train(with_funding(sp500_bars(0, SMALL_BARS)), small_config(max_epochs=1))


def arrays(bars):
    """Stamps and bars as `score_arrays` takes them."""
    return bars.index.as_unit("ns").asi8, bars.to_numpy()
