import pytest

from glow_bt.errors import ConfigError
from glow_bt.microstructure import MicrostructureSpec, step_of


@pytest.mark.parametrize(
    ("text", "step_ms"),
    [("500ms", 500), ("10s", 10_000), ("1m", 60_000), ("4h", 14_400_000), ("1d", 86_400_000)],
)
def test_a_length_of_bars_is_read(text, step_ms):
    assert step_of(text) == step_ms


@pytest.mark.parametrize("text", ["", "1", "m", "0m", "-1m", "1.5m", "1M", "1 m", "400d", "1m "])
def test_another_text_is_refused(text):
    with pytest.raises(ConfigError, match="expected a length of bars such as 500ms"):
        step_of(text)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"step_ms": 0}, "step_ms from 1 on, found 0"),
        ({"levels": 0}, "levels from 1 on"),
        ({"window": 2}, "window from 3 on, found 2"),
        ({"buckets": 0}, "buckets from 1 on"),
        ({"vwap_reference": "open"}, "vwap_reference among close, mid, found 'open'"),
        ({"impact": "cubic"}, "impact among linear, sqrt"),
        ({"classification": "tick"}, "classification among sides, bulk"),
        ({"interval_ms": 700}, "interval_ms to divide bars of 1000 ms, found 700"),
        ({"interval_ms": 0}, "interval_ms to divide"),
        ({"bucket_volume": 0.0}, "bucket_volume above 0, found 0"),
        ({"bucket_volume": float("nan")}, "bucket_volume above 0, found nan"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        MicrostructureSpec(**({"step_ms": 1000} | settings))


def test_intervals_are_bars_unless_told():
    assert MicrostructureSpec(1000).intervals_per_bar == 1
    assert MicrostructureSpec(1000, interval_ms=250).intervals_per_bar == 4
