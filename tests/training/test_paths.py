import numpy as np
import pytest

from glow_bt.errors import ConfigError, TooFewBarsError
from glow_bt.features import ContextSpec
from glow_bt.training.paths import fit_paths
from tests.models import small_config, sp500_bars

CONFIG = small_config(return_members=2)


def test_the_floor_is_a_share_of_the_spread_and_the_limit_above_all_that_was_seen():
    bars = sp500_bars(0, 600)
    steps = []
    model = fit_paths(
        bars, CONFIG, floors=(0.5,), progress=lambda done, total: steps.append((done, total))
    )
    closes = bars["close"].to_numpy()
    spread = np.diff(np.log(closes)).std()
    assert model.returns.spec.least_volatility == pytest.approx(0.5 * spread)
    values, stamps = model.returns.inputs(bars)
    largest = model.returns.contexts(values, stamps).volatility.max()
    assert model.max_volatility == pytest.approx(2 * largest)
    assert steps == [(1, 2), (2, 2)]
    assert (model.trained_from, model.trained_until) == (bars.index[0], bars.index[-1])


def test_the_floor_of_the_highest_held_out_likelihood_is_kept():
    # A floor of fifty deviations says that nothing depends on the past's volatility.
    bars = sp500_bars(2200, 2900)
    spec = ContextSpec(window=40)
    together = fit_paths(bars, CONFIG, spec=spec, floors=(50.0, 0.5))
    alone = fit_paths(bars, CONFIG, spec=spec, floors=(0.5,))
    assert together.returns.spec == alone.returns.spec
    assert together.window == 40
    assert together.returns.scaler == alone.returns.scaler


@pytest.mark.parametrize("floors", [(), (0.0,), (0.5, -1.0), (float("nan"),)])
def test_floors_that_are_none_are_refused(floors):
    with pytest.raises(ConfigError, match="expected one or more floors above 0"):
        fit_paths(sp500_bars(0, 600), CONFIG, floors=floors)


def test_too_few_bars_say_how_many_are_needed():
    with pytest.raises(TooFewBarsError, match="needs at least 321 bars, found 300"):
        fit_paths(sp500_bars(0, 300), CONFIG)
