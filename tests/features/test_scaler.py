import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from glow_bt.errors import FeatureError
from glow_bt.features import DEFAULT_SPEC, Scaler, compute_features

NAMES = ("a", "b", "c")


def sample(count=4001, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_t(3, (count, 3)) * [1e-4, 1.0, 1e6] + [0.1, -7.0, 1e7]


def test_centre_and_scale():
    x = sample()
    scaler = Scaler.fit(x, NAMES)
    z = scaler.transform(x)
    np.testing.assert_allclose(np.median(z, axis=0), 0.0, atol=1e-9)
    quartiles = np.quantile(z, [0.25, 0.75], axis=0)
    np.testing.assert_allclose(quartiles[1] - quartiles[0], 1.3489795, rtol=1e-6)
    # 0.6745 is the upper quartile of a standard normal variable.
    np.testing.assert_allclose(
        Scaler.fit(np.array([[-0.67449], [0], [0.67449]]) * 4, "x").scale, 2, rtol=1e-4
    )


def test_extremes_move_nothing_and_are_not_clipped():
    x = sample()
    wild = x.copy()
    wild[x[:, 1].argmax(), 1] = 1e9
    assert Scaler.fit(wild, NAMES) == Scaler.fit(x, NAMES)
    assert Scaler.fit(wild, NAMES).transform(wild).max() > 1e8


def test_log_det_is_that_of_the_jacobian():
    scaler = Scaler.fit(sample(), NAMES)
    unit = scaler.transform(np.eye(3)) - scaler.transform(np.zeros((3, 3)))
    assert scaler.log_det == pytest.approx(np.linalg.slogdet(unit)[1], abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(float, (4, 3), elements=st.floats(-1e6, 1e6)))
def test_inverse(z):
    scaler = Scaler.fit(sample() - [0.1, -7.0, 1e7], NAMES)
    x = scaler.inverse(z)
    np.testing.assert_allclose(scaler.transform(x), z, rtol=1e-12, atol=1e-9)
    np.testing.assert_array_equal(scaler.inverse(z[0]), x[0])


def test_mostly_one_value_falls_back_to_the_standard_deviation():
    x = np.zeros((100, 1))
    x[:20] = 3.0
    scaler = Scaler.fit(x, ["spiky"])
    assert scaler.centre == (0.0,)
    assert scaler.scale[0] == pytest.approx(x.std())


@pytest.mark.parametrize("value", [0.0, 0.1, -1e9, 1e-9])
def test_a_constant_column_is_named(value):
    x = sample()
    x[:, 1] = value
    with pytest.raises(FeatureError, match=r"that vary, found b at .* in all 4001 training rows"):
        Scaler.fit(x, NAMES)


def test_rounding_of_a_constant_is_no_variation():
    x = sample()
    x[:, 2] = 0.1 + 1e-15 * np.arange(len(x)) / len(x)
    with pytest.raises(FeatureError, match=r"found c at 0\.1"):
        Scaler.fit(x, NAMES)


def test_bars_without_volume_are_refused_by_name(markets):
    bars = markets["gapless"].assign(volume=0.0)
    rows = compute_features(bars).dropna()
    with pytest.raises(FeatureError, match=r"found volume_1 at 0 .*a feed without volume\?"):
        Scaler.fit(rows, DEFAULT_SPEC.names)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_counted(value):
    x = sample()
    x[5:8, 2] = value
    with pytest.raises(FeatureError, match="found 3 values of c that are not"):
        Scaler.fit(x, NAMES)


@pytest.mark.parametrize("shape", [(10, 2), (10, 4), (1, 3), (0, 3), (3,)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(FeatureError, match="at least 2 rows of 3 features"):
        Scaler.fit(np.zeros(shape), NAMES)


def test_every_bit_survives_json(market):
    rows = compute_features(market).dropna()
    scaler = Scaler.fit(rows, DEFAULT_SPEC.names)
    again = Scaler.from_dict(json.loads(json.dumps(scaler.to_dict())))
    assert again == scaler
    assert again.transform(rows).tobytes() == scaler.transform(rows).tobytes()


def test_frames_and_arrays_are_fitted_alike():
    x = sample()
    assert Scaler.fit(pd.DataFrame(x, columns=list("xyz")), NAMES) == Scaler.fit(x, NAMES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": [1.0, 0.0, 1.0]}, "column b with centre 0.0 and scale 0.0"),
        ({"scale": [1.0, -1.0, 1.0]}, "scale above 0"),
        ({"scale": [1.0, float("nan"), 1.0]}, "scale above 0"),
        ({"centre": [0.0, 0.0, float("inf")]}, "finite centre"),
        ({"centre": [0.0, 0.0]}, "3 names, 2 centres and 3 scales"),
        ({"clip": 5.0}, "expected a scaler of"),
    ],
)
def test_numbers_that_are_no_scaler(change, message):
    numbers = {"names": list(NAMES), "centre": [0.0] * 3, "scale": [1.0] * 3}
    assert Scaler.from_dict(numbers).log_det == 0.0
    with pytest.raises(FeatureError, match=message):
        Scaler.from_dict(numbers | change)
