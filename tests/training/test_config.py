import json
from dataclasses import fields

import pytest

from glow_bt.errors import ConfigError
from glow_bt.ohlcv import utc_stamp
from glow_bt.training import TrainConfig
from tests.models import utc


def test_settings_survive_json():
    config = TrainConfig(fractions=(0.5, 0.3, 0.2), base="mixture", regime_method="base", seed=7)
    again = TrainConfig(**json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert hash(again) == hash(config)


def test_only_settings_that_are_given_reach_the_flow():
    assert TrainConfig().flow_settings() == {"hidden_dim": 32}
    config = TrainConfig(flow="realnvp", num_steps=2, base="student_t", norm="batchnorm")
    assert config.flow_settings() == {
        "num_steps": 2,
        "hidden_dim": 32,
        "base": "student_t",
        "norm": "batchnorm",
    }


def test_names_are_those_of_the_settings():
    assert TrainConfig.names() == tuple(f.name for f in fields(TrainConfig))
    assert set(TrainConfig.names()) == set(TrainConfig().to_dict())


WHOLE = (
    "num_levels",
    "num_steps",
    "hidden_dim",
    "return_hidden_dim",
    "max_epochs",
    "patience",
    "direction_horizon",
    "num_regimes",
)


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("value", [0, -3, 2.0, "3", None, True])
def test_sizes_that_are_no_whole_number_above_0_are_refused(name, value):
    if value is None and name in {"num_levels", "num_steps"}:
        assert name not in TrainConfig(**{name: value}).flow_settings()  # the family's own
        return
    with pytest.raises(ConfigError, match=f"expected {name} to be a whole number"):
        TrainConfig(**{name: value})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 1}, "batch_size to be a whole number of at least 2"),
        ({"seed": -1}, "seed to be a whole number of at least 0"),
        ({"seed": 2**32}, "seed of at most 4294967295"),
        ({"purge": -1}, "purge to be a whole number of at least 0"),
        ({"embargo": -1}, "embargo to be a whole number of at least 0"),
        ({"purge": 62.0}, "purge to be a whole number of at least 0"),
        ({"learning_rate": 0.0}, r"learning_rate inside \(0, inf\)"),
        ({"learning_rate": float("nan")}, r"learning_rate inside \(0, inf\)"),
        ({"learning_rate": "fast"}, r"learning_rate inside \(0, inf\), found 'fast'"),
        ({"clip_norm": float("inf")}, r"clip_norm inside \(0, inf\)"),
        ({"weight_decay": -1e-4}, "weight_decay of 0 or more"),
        ({"weight_decay": float("nan")}, "weight_decay of 0 or more"),
        ({"false_alarm_rate": 0.0}, "false_alarm_rate inside"),
        ({"false_alarm_rate": 1.0}, "false_alarm_rate inside"),
        ({"weight_decay": None}, "weight_decay of 0 or more and below inf, found None"),
        ({"fractions": 0.7}, "fractions such as"),
        ({"fractions": ("most", "some", "rest")}, "fractions such as"),
        ({"fractions": (0.7, 0.2, 0.2)}, "sum to 1"),
        ({"fractions": (0.7, 0.3)}, "sum to 1"),
        ({"return_members": 1}, "return_members to be a whole number of at least 2, found 1"),
        ({"return_members": 2.0}, "return_members to be a whole number of at least 2"),
        ({"return_horizons": 5}, r"return_horizons such as \(1, 24\), found 5"),
        ({"return_horizons": None}, r"return_horizons such as \(1, 24\), found None"),
        ({"return_horizons": ("a",)}, r"return_horizons such as \(1, 24\), found"),
        ({"return_horizons": (0,)}, r"whole numbers from 1 on, found \(0, 1\)"),
        ({"return_horizons": (-3, 5)}, "whole numbers from 1 on"),
        ({"return_horizons": (2.5,)}, "whole numbers from 1 on"),
        ({"base": "cauchy"}, "base among normal, student_t, mixture"),
        ({"coupling": "cubic"}, "coupling among affine, additive, spline, found 'cubic'"),
        ({"norm": "layernorm"}, "norm among actnorm, batchnorm"),
        ({"flow": "planar"}, "flow among glow, realnvp, nice, .*found 'planar'"),
        ({"flow": None}, "flow among glow, .*found None"),
        (
            {"flow": "nice", "coupling": "affine"},
            "no coupling with flow 'nice', found coupling='affine'; leave it out",
        ),
        ({"regime_method": "hmm"}, "regime_method among gmm, kmeans, base"),
        ({"regime_method": "base"}, "base 'mixture' with regime_method 'base'"),
        ({"train_until": "2020-01-01"}, "together, found only one"),
        ({"validation_until": "2020-01-01"}, "together, found only one"),
        ({"train_until": "2020-01-01", "validation_until": "soon"}, "ISO 8601"),
        (
            {"train_until": "2020-01-01", "validation_until": "2019-01-01"},
            "train_until before validation_until",
        ),
        (
            {"train_until": "2020-01-01T01:00+01:00", "validation_until": "2020-01-01"},
            "train_until before validation_until",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**settings)


def test_horizons_are_in_order_and_the_next_bar_is_among_them():
    for given in ((5,), [5, 1], (5, 5, 1), {1, 5}):
        assert TrainConfig(return_horizons=given).return_horizons == (1, 5)
    assert TrainConfig().return_horizons == TrainConfig(return_horizons=()).return_horizons == (1,)


def test_horizons_survive_json():
    config = TrainConfig(return_horizons=(24, 5))
    again = TrainConfig(**json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert again.return_horizons == (1, 5, 24)


def test_dates_without_a_zone_are_utc():
    assert utc_stamp("2020-01-01") == utc("2020-01-01")
    assert utc_stamp("2020-01-01T02:00+02:00") == utc("2020-01-01")
    TrainConfig(train_until="2020-01-01", validation_until="2020-01-01T00:00:01+00:00")
