import itertools
import math
import tracemalloc

import numpy as np
import pandas as pd
import pytest

from glow_bt.errors import FeatureError, TooFewBarsError
from glow_bt.features import (
    DEFAULT_SPEC,
    FeatureSpec,
    compute_features,
    feature_array,
    last_features,
    volatility_array,
)


def state_by_the_book(bars, spec):
    """The 16 formulas written out for the last bar, window by window, in plain Python."""
    _, high, low, close, volume = (column.tolist() for column in np.asarray(bars).T)
    short, medium, long = spec.windows
    returns = [math.log(after / before) for before, after in itertools.pairwise(close)]
    squares = [r * r for r in returns]
    ranges = [math.log(h / lo) ** 2 for h, lo in zip(high, low, strict=True)]

    def mean(values):
        return math.fsum(values) / len(values)

    def ratio(above, below, margin):
        return math.log((above + margin) / (below + margin))

    sigma = max(math.sqrt(mean(squares[-long - 1 : -1])), spec.sigma_floor)
    m, mc = (spec.return_margin * sigma) ** 2, spec.return_margin * sigma * close[-1]
    mv = spec.volume_margin * mean(volume[-long:]) or 1.0
    signed = [np.sign(r) * v for r, v in zip(returns, volume[1:], strict=True)][-medium:]
    falls = [r * r if r < 0 else 0.0 for r in returns[-medium:]]
    rises = [r * r if r > 0 else 0.0 for r in returns[-medium:]]
    mean_volume = mean(volume[-medium:])
    mean_log_close = mean([math.log(c) for c in close[-medium:]])
    return [
        returns[-1] / sigma,
        math.log(close[-1] / close[-1 - short]) / sigma / math.sqrt(short),
        math.log(close[-1] / close[-1 - medium]) / sigma / math.sqrt(medium),
        math.log(close[-1] / close[-1 - long]) / sigma / math.sqrt(long),
        (math.log(close[-1]) - mean_log_close) / sigma / math.sqrt(medium),
        ratio(mean(squares[-short:]), mean(squares[-medium:-short]), m) / 2,
        ratio(mean(squares[-medium:]), mean(squares[-long:-medium]), m) / 2,
        ratio(ranges[-1], mean(ranges[-medium:-1]), m) / 2,
        ratio(mean(ranges[-medium:]) / (4 * math.log(2)), mean(squares[-medium:]), m) / 2,
        ratio(mean(falls), mean(rises), m),
        ratio(volume[-1], mean(volume[-medium:-1]), mv),
        ratio(mean(volume[-short:]), mean(volume[-medium:-short]), mv),
        ratio(mean_volume, mean(volume[-long:-medium]), mv),
        math.atanh(mean(signed) / (mean_volume + mv)),
        ratio(close[-1] - min(low[-medium:]), max(high[-medium:]) - close[-1], mc),
        ratio(close[-1] - low[-1], high[-1] - close[-1], mc),
    ]


@pytest.mark.parametrize("spec", [DEFAULT_SPEC, FeatureSpec(4, 11, 31)])
def test_formulas(market, spec):
    bars = market.to_numpy()
    states = feature_array(bars, spec)
    for row in np.random.default_rng(0).integers(spec.min_bars - 1, len(bars), 50):
        expected = state_by_the_book(bars[: row + 1], spec)
        np.testing.assert_allclose(states[row], expected, rtol=1e-9, atol=1e-11)


def test_frame(markets):
    bars = markets["sp500"]
    features = compute_features(bars)
    assert features.index.equals(bars.index)
    assert tuple(features.columns) == DEFAULT_SPEC.names
    np.testing.assert_array_equal(features.to_numpy(), feature_array(bars.to_numpy()))
    extended = bars[bars.columns[::-1]].assign(funding_rate=np.nan)
    pd.testing.assert_frame_equal(compute_features(extended), features)


@pytest.mark.parametrize("spec", [DEFAULT_SPEC, FeatureSpec(3, 10, 20)])
def test_warm_up_is_exact(market, spec):
    features = compute_features(market, spec).to_numpy()
    assert np.isnan(features[: spec.min_bars - 1]).all()
    assert np.isfinite(features[spec.min_bars - 1 :]).all()
    assert np.isfinite(compute_features(market[: spec.min_bars], spec).to_numpy()[-1]).all()
    with pytest.raises(TooFewBarsError, match=f"at least {spec.min_bars} bars") as error:
        compute_features(market[: spec.min_bars - 1], spec)
    assert error.value.needed == spec.min_bars


@pytest.mark.parametrize("count", [0, 1, 2, 61])
def test_arrays_shorter_than_warm_up_are_all_warm_up(markets, count):
    bars = markets["gapless"].to_numpy()[:count]
    states = feature_array(bars)
    assert states.shape == (count, 16)
    assert np.isnan(states).all()
    with pytest.raises(TooFewBarsError):
        last_features(bars)


def test_last_features_is_the_last_row_to_the_bit(market):
    bars = market.to_numpy()
    states = feature_array(bars)
    for end in (62, 63, 500, len(bars)):
        for start in (end - 62, max(end - 100, 0), 0):
            np.testing.assert_array_equal(last_features(bars[start:end]), states[end - 1])


@pytest.mark.parametrize("price", [1e-6, 3.7, 1e5])
@pytest.mark.parametrize("volume", [1e-9, 7.3, 1e12])
def test_units_of_price_and_volume_do_not_matter(market, price, volume):
    scaled = market.to_numpy() * [price, price, price, price, volume]
    features = feature_array(market.to_numpy())
    np.testing.assert_allclose(feature_array(scaled), features, rtol=1e-9, atol=1e-9)


def usual_bars(count, seed=0):
    rng = np.random.default_rng(seed)
    close = 50.0 * np.exp(np.cumsum(0.01 * rng.standard_normal(count)))
    open_ = np.append(50.0, close[:-1])
    wicks = np.exp(0.002 * rng.random((2, count)))
    high, low = np.maximum(open_, close) * wicks[0], np.minimum(open_, close) / wicks[1]
    return np.stack([open_, high, low, close, rng.lognormal(size=count)], axis=1)


def test_equal_closes_and_flat_bars():
    flat = np.tile([50.0, 50.0, 50.0, 50.0, 0.0], (100, 1))
    bars = np.concatenate([usual_bars(80), flat, usual_bars(80)])
    states = feature_array(bars)[61:]
    assert np.isfinite(states).all()
    # A hundred bars without a move or a trade say nothing, and that is what the state says.
    np.testing.assert_allclose(states[80 + 99 - 61], 0.0, atol=1e-9)


@pytest.mark.parametrize("run", [1, 5, 20, 60, 300])
def test_no_volume(run):
    bars = usual_bars(300)
    bars[100 : 100 + run, 4] = 0.0
    states = feature_array(bars)[61:]
    assert np.isfinite(states).all()
    bars[:, 4] = 0.0
    volumes = [name.startswith(("volume", "signed")) for name in DEFAULT_SPEC.names]
    assert (feature_array(bars)[61:, volumes] == 0.0).all()


def test_a_close_at_its_high_has_no_fixed_value():
    bars = usual_bars(500)
    bars[:, 1] = np.maximum(bars[:, 0], bars[:, 3])
    at_high = (bars[:, 3] == bars[:, 1])[61:]
    locations = feature_array(bars)[61:, -1][at_high]
    assert len(np.unique(locations)) == len(locations) > 100


def test_crashes_stay_finite_and_keep_their_size():
    bars = usual_bars(200)
    bars[100:, :4] *= 0.01
    bars[100, 0:2] = bars[99, 3]
    states = feature_array(bars)[61:]
    assert np.isfinite(states).all()
    assert states[100 - 61, 0] < -300.0, "nothing is clipped"


def test_memory_is_linear_with_a_small_constant():
    bars = usual_bars(20_000)
    tracemalloc.start()
    feature_array(bars)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 * bars[:, 0].nbytes


def test_volatility(market):
    close = market["close"].to_numpy()
    volatility = volatility_array(close)
    assert np.isnan(volatility[:60]).all()
    returns = np.diff(np.log(close))
    for row in (60, 61, 1000, len(close) - 1):
        expected = math.sqrt(np.mean(returns[row - 60 : row] ** 2))
        assert volatility[row] == pytest.approx(expected, rel=1e-12)
    assert np.isnan(volatility_array(close[:60])).all()


def test_volatility_has_a_floor():
    assert volatility_array(np.full(61, 7.0))[-1] == 1e-5
    assert volatility_array(np.full(61, 7.0), FeatureSpec(sigma_floor=0.1))[-1] == 0.1


@pytest.mark.parametrize("close", [np.ones((3, 2)), [1.0, np.nan], [1.0, 0.0], [1.0, np.inf]])
def test_volatility_refuses(close):
    with pytest.raises(FeatureError, match="finite and above 0"):
        volatility_array(np.asarray(close))


def test_refusals(markets):
    bars = markets["sp500"]
    with pytest.raises(FeatureError, match=r"found no high, volume.*validate_bars"):
        compute_features(bars.drop(columns=["high", "volume"]))
    broken = bars.copy()
    broken.iloc[200, 3] = np.nan
    with pytest.raises(FeatureError, match="found bar 200 with"):
        compute_features(broken)
