import json

import numpy as np
import pytest

from glow_bt.errors import ConfigError
from glow_bt.features import (
    DEFAULT_SPEC,
    FEATURES,
    FeatureSpec,
    feature_array,
    last_features,
    volatility_array,
)

SPECS = [DEFAULT_SPEC, FeatureSpec(3, 10, 20), FeatureSpec(10, 40, 90)]


def test_default_columns():
    assert DEFAULT_SPEC.names == (
        "return_1",
        "return_5",
        "return_20",
        "return_60",
        "trend_20",
        "vol_5_20",
        "vol_20_60",
        "range_1",
        "range_20",
        "downside_20",
        "volume_1",
        "volume_5",
        "volume_20",
        "signed_volume_20",
        "place_20",
        "close_location",
    )
    assert DEFAULT_SPEC.min_bars == 62


def test_windows_are_in_names_and_needs():
    spec = FeatureSpec(10, 40, 90)
    assert {"return_40", "vol_10_40", "vol_40_90", "volume_10"} <= set(spec.names)
    assert len(set(spec.names)) == len(FEATURES) == 16
    assert spec.min_bars == 92
    assert set(spec.closes) == set(spec.names)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: str(spec.windows))
def test_declared_closes_are_those_used(markets, spec):
    """Each feature ends at its oldest declared bar: that one matters, the one before does not."""
    bars = markets["gapless"].to_numpy()[-2 * spec.min_bars :]
    before = last_features(bars[-spec.min_bars :], spec)

    def moved_by(age):
        changed = bars.copy()
        # A return, a range and a volume at that age, and nothing younger.
        changed[: len(bars) - age, :4] *= 1.01
        changed[len(bars) - age - 1, 4] *= 3.0
        changed[len(bars) - age - 1, 1] *= 1.02
        return feature_array(changed, spec)[-1] != before

    for column, name in enumerate(spec.names):
        closes = spec.closes[name]
        assert not moved_by(closes)[column], f"{name} looks beyond {closes} closes"
        assert moved_by(closes - 1)[column], f"{name} does not need {closes} closes"


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: str(spec.windows))
def test_json_round_trip(spec):
    again = FeatureSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    assert again.names == spec.names


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 0}, "found version 0"),
        ({"names": ["return_1"]}, "train again"),
        ({"short": 6}, "train again"),
        ({"margin": 1.0}, "another version of glow_bt"),
    ],
)
def test_a_spec_of_another_kind_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        FeatureSpec.from_dict(DEFAULT_SPEC.to_dict() | change)


def test_an_incomplete_spec_is_refused():
    settings = DEFAULT_SPEC.to_dict()
    del settings["sigma_floor"]
    with pytest.raises(ConfigError, match="expected a feature spec of"):
        FeatureSpec.from_dict(settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"short": 2}, "short >= 3"),
        ({"short": 3, "medium": 9}, "medium >= 10"),
        ({"short": 11}, "twice the one before"),
        ({"long": 39}, "twice the one before"),
        ({"long": 60.0}, "whole bars"),
        ({"short": True}, "whole bars"),
        ({"sigma_floor": 0.0}, "sigma_floor above 0"),
        ({"return_margin": float("nan")}, "return_margin above 0"),
        ({"volume_margin": -0.1}, "volume_margin above 0"),
        ({"volume_margin": "much"}, "volume_margin above 0"),
    ],
)
def test_settings_that_cannot_work(settings, message):
    with pytest.raises(ConfigError, match=message):
        FeatureSpec(**settings)


def smallest_share(matrix):
    singular = np.linalg.svd(matrix, compute_uv=False)
    return singular[-1] / singular[0]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: str(spec.windows))
def test_no_feature_is_a_linear_function_of_the_others(market, spec):
    features = feature_array(market.to_numpy(), spec)[spec.min_bars - 1 :]
    standardised = (features - features.mean(axis=0)) / features.std(axis=0)
    singular = np.linalg.svd(standardised / np.sqrt(len(features)), compute_uv=False)
    # 1 for independent columns, 0 for a column that is a sum of others.
    assert singular[-1] > 0.1


def raw_inputs(bars):
    """What a window of bars is made of, free of each other: (4, n) and the gaps (n,)."""
    open_, high, low, close = np.log(bars[:, :4]).T
    before = np.append(close[0], close[:-1])
    upper = high - np.maximum(open_, close)
    lower = np.minimum(open_, close) - low
    return np.stack([close, upper, lower, bars[:, 4]]), open_ - before


def bars_from(inputs, gaps):
    close, upper, lower, volume = inputs
    open_ = np.append(close[0], close[:-1]) + gaps
    high = np.maximum(open_, close) + upper
    low = np.minimum(open_, close) - lower
    return np.column_stack([np.exp(np.stack([open_, high, low, close], axis=1)), volume])


def jacobian(bars, spec):
    """Derivatives of the 16 features by closes, wicks and volumes of the window: (16, 4 n).

    Opens follow the closes before at their distance, so that a market without gaps stays one.
    """
    inputs, gaps = raw_inputs(bars)
    sigma = volatility_array(bars[:, 3], spec)[-1]
    inputs[1:3] += 0.1 * sigma  # off the edge where a close is the high
    size = np.array([sigma, sigma, sigma, inputs[3].mean()])
    derivatives = []
    for place in np.ndindex(inputs.shape):
        step = np.zeros_like(inputs)
        step[place] = 1e-5 * size[place[0]]
        after = last_features(bars_from(inputs + step, gaps), spec)
        before = last_features(bars_from(inputs - step, gaps), spec)
        derivatives.append((after - before) / 2e-5)
    return np.array(derivatives).T


@pytest.mark.parametrize("spec", [SPECS[0], SPECS[1]], ids=lambda spec: str(spec.windows))
def test_no_feature_is_any_function_of_the_others(market, spec):
    """A function among the features would be a direction that no input moves them in."""
    bars = market[market["volume"] > 0.0].to_numpy()
    spread = feature_array(bars, spec)[spec.min_bars - 1 :].std(axis=0)
    for end in np.random.default_rng(3).integers(spec.min_bars, len(bars), size=4):
        derivatives = jacobian(bars[end - spec.min_bars : end], spec) / spread[:, None]
        assert smallest_share(derivatives) > 1e-3


def test_the_rank_test_sees_a_dependent_feature(markets):
    bars = markets["gapless"].to_numpy()[:62]
    derivatives = jacobian(bars, DEFAULT_SPEC)
    state = last_features(bars)
    # d(x_0 x_5) by the product rule: a nonlinear function of two of the others.
    product = state[0] * derivatives[5] + state[5] * derivatives[0]
    assert smallest_share(np.vstack([derivatives, product])) < 1e-9
