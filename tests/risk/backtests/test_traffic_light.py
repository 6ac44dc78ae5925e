import numpy as np
import pytest
from scipy.stats import binom, norm

from glow_bt.errors import ConfigError, DataError, TooFewBarsError
from glow_bt.risk import traffic_light

# Basel Committee 1996, table 2: zone, violations in 250 bars at 1 %, increase in the multiplier,
# cumulative probability in per cent.
BASEL = [
    ("green", 0, 0.00, 8.11),
    ("green", 1, 0.00, 28.58),
    ("green", 2, 0.00, 54.32),
    ("green", 3, 0.00, 75.81),
    ("green", 4, 0.00, 89.22),
    ("yellow", 5, 0.40, 95.88),
    ("yellow", 6, 0.50, 98.63),
    ("yellow", 7, 0.65, 99.60),
    ("yellow", 8, 0.75, 99.89),
    ("yellow", 9, 0.85, 99.97),
    ("red", 10, 1.00, 99.99),
]


def light(count, num_bars, level):
    return traffic_light(np.arange(num_bars) < count, level)


@pytest.mark.parametrize(("zone", "count", "plus_factor", "cumulative"), BASEL)
def test_basels_table(zone, count, plus_factor, cumulative):
    result = light(count, 250, 0.01)
    assert (result.statistic, result.zone, result.plus_factor) == (count, zone, plus_factor)
    assert 100 * result.cumulative == pytest.approx(cumulative, abs=0.0051)
    assert result.pvalue == pytest.approx(1 - binom.cdf(count - 1, 250, 0.01), abs=1e-12)


def test_everything_beyond_ten_is_red():
    for count in (11, 50, 250):
        assert (light(count, 250, 0.01).zone, light(count, 250, 0.01).plus_factor) == ("red", 1.0)


def test_other_lengths_follow_the_reasoning_behind_the_table():
    for _, count, plus_factor, _ in BASEL[5:10]:
        by_formula = 3 * (norm.ppf(0.01) / norm.ppf(count / 250) - 1)
        assert by_formula == pytest.approx(plus_factor, abs=0.03)
        # A length and a level beside Basel's take the formula, not the table.
        result = light(count, 250, 0.0101)
        assert result.plus_factor == pytest.approx(by_formula, abs=0.02)
    yellow = light(17, 1000, 0.01)
    assert yellow.zone == "yellow"
    assert yellow.plus_factor == pytest.approx(3 * (norm.ppf(0.01) / norm.ppf(0.017) - 1))


@pytest.mark.parametrize(("num_bars", "level"), [(6, 0.01), (250, 0.05), (2000, 0.5), (33, 0.4)])
def test_zones_and_factors_rise_with_violations(num_bars, level):
    results = [light(count, num_bars, level) for count in range(num_bars + 1)]
    zones = ["green", "yellow", "red"]
    order = [zones.index(result.zone) for result in results]
    factors = [result.plus_factor for result in results]
    assert order == sorted(order)
    assert order[0] == 0
    assert order[-1] == 2
    assert factors == sorted(factors)
    assert (factors[0], factors[-1]) == (0.0, 1.0)


def test_a_right_forecast_is_seldom_yellow():
    """As often as the framework says of five violations and more, 10.8 %."""
    counts = np.random.default_rng(0).binomial(250, 0.01, 2000)
    seen, times = np.unique(counts, return_counts=True)
    zones = {count: light(count, 250, 0.01).zone for count in range(60)}
    not_green = sum(n for count, n in zip(seen, times, strict=True) if zones[count] != "green")
    expected = sum(binom.pmf(count, 250, 0.01) for count in zones if zones[count] != "green")
    assert expected == pytest.approx(0.108, abs=0.0005)
    assert not_green / 2000 == pytest.approx(expected, abs=3 * np.sqrt(0.108 * 0.892 / 2000))
    assert light(40, 1000, 0.01).zone == "red"  # four times too many


def test_what_has_no_zone():
    with pytest.raises(TooFewBarsError, match="traffic light needs at least 6 bars, found 5"):
        light(0, 5, 0.01)
    assert light(0, 6, 0.01).zone == "green"
    with pytest.raises(ConfigError, match=r"level in \(0, 0\.5\]"):
        light(0, 250, 0.99)
    with pytest.raises(DataError, match="booleans"):
        traffic_light([np.nan] * 250, 0.01)
