import numpy as np
import pytest

from glow_bt.artifact.path_starts import (
    NO_REGIME,
    regime_labels,
    regime_windows,
    start_windows,
)
from glow_bt.errors import ConfigError, DataError, TooFewBarsError
from glow_bt.features import compute_features
from tests.models import small_artifact, sp500_bars


def test_regimes_of_bars_are_those_of_their_states():
    artifact, bars = small_artifact(), sp500_bars(0, 200)
    labels = regime_labels(artifact, bars)
    warm_up = artifact.spec.min_bars - 1
    assert (labels[:warm_up] == NO_REGIME).all()
    states = compute_features(bars, artifact.spec).to_numpy()[-1:]
    assert labels[-1] == artifact.read(artifact.scaler.transform(states)).regime[0]
    assert set(labels[warm_up:]) <= set(range(artifact.regimes.num_regimes))
    # A bar's regime does not look ahead.
    np.testing.assert_array_equal(regime_labels(artifact, bars.iloc[:150]), labels[:150])


def test_windows_of_a_regime_end_at_its_bars_and_no_others():
    bars = sp500_bars(0, 100)
    labels = np.zeros(100, dtype=int)
    at = [3, 40, 77, 99]
    labels[at] = 2
    windows = regime_windows(bars, labels, 2, 10, least=3)
    returns = np.diff(np.log(bars["close"].to_numpy()))
    # Bar 3 has no ten returns before its close.
    expected = [returns[bar - 10 : bar] for bar in at[1:]]
    np.testing.assert_array_equal(windows, expected)


def test_too_few_bars_of_a_regime_name_how_many_there_are_of_each():
    bars = sp500_bars(0, 100)
    labels = np.repeat([NO_REGIME, 0, 1, 2], [20, 50, 25, 5])
    told = (
        "at least 20 bars of regime 2 with 30 returns up to them, found 40 of regime 0, "
        "25 of regime 1, 5 of regime 2"
    )
    with pytest.raises(ConfigError, match=told):
        regime_windows(bars, labels, 2, 30)
    with pytest.raises(ConfigError, match=r"bars of regime 7 .* 40 of regime 0"):
        regime_windows(bars, labels, 7, 30)
    with pytest.raises(ConfigError, match="bars of regime -1"):
        regime_windows(bars, labels, NO_REGIME, 10)
    with pytest.raises(ConfigError, match="found no bar of any regime"):
        regime_windows(bars, np.full(100, NO_REGIME), 0, 30)


def test_labels_that_do_not_fit_the_bars_are_refused():
    bars = sp500_bars(0, 100)
    with pytest.raises(DataError, match=r"shape \(100,\), found int64 of shape \(99,\)"):
        regime_windows(bars, np.zeros(99, dtype=np.int64), 0, 10)
    with pytest.raises(DataError, match="found float64"):
        regime_windows(bars, np.zeros(100), 0, 10)
    with pytest.raises(TooFewBarsError, match="needs at least 101 bars, found 100"):
        regime_windows(bars, np.zeros(100, dtype=np.int64), 0, 100)
    with pytest.raises(TooFewBarsError, match="needs at least 62 bars, found 40"):
        regime_labels(small_artifact(), bars.iloc[:40])


def test_a_start_is_bars_returns_or_windows():
    bars = sp500_bars(0, 50)
    returns = np.diff(np.log(bars["close"].to_numpy()))
    for start in (bars, returns, returns[None]):
        np.testing.assert_array_equal(start_windows(start, 9), returns[None, -9:])
    assert start_windows(np.zeros((5, 12)), 9).shape == (5, 9)
