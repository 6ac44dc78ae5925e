import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glow_bt.errors import ConfigError, FeatureError, TooFewBarsError
from glow_bt.features import ContextSpec, context_rows
from tests.features.conftest import simulate_gapless

HOUR = 3600.0
FULL = ContextSpec(calendar=True, funding=True)
SHORT = ContextSpec(
    window=15,
    half_lives=(1, 3),
    range_half_lives=(2,),
    downside_half_life=4,
    return_half_lives=(2, 5),
    volume_half_lives=(3,),
    reference_half_life=6,
    calendar=True,
    funding=True,
)
MARKET = simulate_gapless(700).assign(
    funding_rate=np.random.default_rng(1).normal(0, 1e-4, 700).round(6)
)


def rows_of(frame, spec, bar_seconds=HOUR):
    bars = frame[list(spec.columns)].to_numpy()
    return context_rows(bars, frame.index.as_unit("ns").asi8, bar_seconds, spec)


def bent(value):
    return 3 * math.tanh(value / 3)


def context_by_the_book(frame, spec):
    """Return context and volatility of the last bar, number by number from the formulas."""
    past = frame.iloc[-spec.window - 1 :]
    close, volume = past["close"].tolist(), past["volume"].tolist()
    steps = range(1, len(past))
    returns = [math.log(close[i] / close[i - 1]) for i in steps]
    high = [max(past["high"].iloc[i], close[i - 1]) for i in steps]
    low = [min(past["low"].iloc[i], close[i - 1]) for i in steps]
    ranges = [math.log(h / lo) ** 2 / (4 * math.log(2)) for h, lo in zip(high, low, strict=True)]
    squares = [r * r for r in returns]

    def ewma(values, half_life):
        newest_first = values[::-1]
        weights = [2 ** (-i / half_life) for i in range(spec.window)]
        return math.fsum(map(math.prod, zip(weights, newest_first, strict=True))) / sum(weights)

    margin = spec.variance_margin * ewma(squares, spec.window / 4) + spec.least_volatility**2
    reference = ewma(squares, spec.reference_half_life) + margin
    volatility = math.sqrt(reference)
    falls = ewma(
        [s if r < 0 else 0 for r, s in zip(returns, squares, strict=True)], spec.downside_half_life
    )
    around = ewma(squares, spec.downside_half_life)
    last = bent(returns[-1] / volatility)
    numbers = [math.log((ewma(squares, h) + margin) / reference) for h in spec.half_lives]
    numbers += [math.log((ewma(ranges, h) + margin) / reference) for h in spec.range_half_lives]
    numbers += [(falls - (around - falls)) / (around + margin)]
    numbers += [
        bent(ewma(returns, h) * math.sqrt(2 * h) / volatility) for h in spec.return_half_lives
    ]
    numbers += [last, math.sqrt(-last) if last < 0 else 0.0]
    numbers += [math.log((squares[-1] + margin) / reference)]
    if spec.volume:
        long = ewma(volume[1:], spec.window / 4)
        small = spec.volume_margin * long
        parts = [volume[-1], *(ewma(volume[1:], h) for h in spec.volume_half_lives)]
        numbers += [math.log((part + small) / (long + small)) for part in parts]
    if spec.calendar:
        opens = past.index[-1] + pd.Timedelta(hours=1)
        day = (opens - opens.normalize()) / pd.Timedelta(days=1)
        for share in (day, (opens.day_of_week + day) / 7):
            for k in (1, 2, 3):
                numbers += [math.sin(2 * math.pi * k * share), math.cos(2 * math.pi * k * share)]
        numbers += [float(opens.day_of_week >= 5)]
    if spec.funding:
        numbers += [past["funding_rate"].iloc[-1]]
    return numbers, volatility


@pytest.mark.parametrize(
    "spec", [FULL, SHORT, ContextSpec(), ContextSpec(volume=False)], ids=["full", "short", "", "-"]
)
def test_every_number_is_its_formula(spec):
    found = rows_of(MARKET, spec)
    assert found.values.shape == (700 - spec.window, len(spec.names))
    for row in (0, 1, 77, 300, len(found.volatility) - 1):
        values, volatility = context_by_the_book(MARKET.iloc[: spec.min_bars + row], spec)
        np.testing.assert_allclose(found.values[row], values, rtol=1e-10, atol=1e-12)
        assert found.volatility[row] == pytest.approx(volatility, rel=1e-12)


def test_real_markets_have_their_formulas_too(markets):
    for name in ("sp500", "nasdaq"):
        frame = markets[name][:600]
        spec = ContextSpec.of(frame, 86_400.0)
        found = rows_of(frame, spec, 86_400.0)
        for row in (0, 200, len(found.volatility) - 1):
            values, _ = context_by_the_book(frame[: spec.min_bars + row], spec)
            np.testing.assert_allclose(found.values[row], values, rtol=1e-10, atol=1e-12)


def test_names_say_what_stands_where():
    assert SHORT.names[:5] == ("variance_1", "variance_3", "range_2", "downside_4", "return_2")
    assert SHORT.names[5:9] == ("return_5", "return_last", "fall_last", "variance_last")
    assert SHORT.names[9:12] == ("volume_last", "volume_3", "day_sin_1")
    assert SHORT.names[-2:] == ("weekend", "funding_rate")
    assert len(set(FULL.names)) == len(FULL.names) == rows_of(MARKET, FULL).values.shape[1]


@given(st.integers(0, 579), st.integers(0, 100))
def test_a_row_is_that_of_its_own_window_alone_wherever_the_history_starts(row, extra):
    whole = rows_of(MARKET, FULL)
    start = max(row - extra, 0)
    part = rows_of(MARKET.iloc[start : row + FULL.min_bars], FULL)
    np.testing.assert_allclose(part.values[-1], whole.values[row], rtol=1e-12, atol=1e-12)
    assert part.volatility[-1] == pytest.approx(whole.volatility[row], rel=1e-12)


@settings(max_examples=40)
@given(st.integers(0, 578), st.integers(0, 10**6))
def test_later_bars_change_no_earlier_row(row, seed):
    rng = np.random.default_rng(seed)
    changed, later = MARKET.copy(), row + SHORT.min_bars
    count = len(MARKET) - later
    changed.iloc[later:, :4] *= np.exp(rng.normal(0, 0.5, (count, 1)))
    changed.iloc[later:, 4:] *= rng.lognormal(0, 2, (count, 2))
    before, after = rows_of(MARKET, SHORT), rows_of(changed, SHORT)
    np.testing.assert_array_equal(after.values[: row + 1], before.values[: row + 1])
    np.testing.assert_array_equal(after.volatility[: row + 1], before.volatility[: row + 1])
    assert (after.values[row + 1] != before.values[row + 1]).any()


def test_bars_older_than_the_window_change_nothing_and_the_oldest_in_it_does():
    whole = rows_of(MARKET, SHORT).values[-1]
    for age, same in ((SHORT.min_bars, True), (SHORT.min_bars - 1, False)):
        changed = MARKET.copy()
        changed.iloc[: len(MARKET) - age, :5] *= 1.1
        assert np.array_equal(rows_of(changed, SHORT).values[-1], whole) is same


@pytest.mark.parametrize("spec", [FULL, SHORT])
def test_warm_up_is_exact(spec):
    assert spec.min_bars == spec.window + 1
    exact = rows_of(MARKET[: spec.min_bars], spec)
    assert exact.values.shape == (1, len(spec.names))
    assert np.isfinite(exact.values).all()
    with pytest.raises(TooFewBarsError, match=f"at least {spec.min_bars} bars, found") as error:
        rows_of(MARKET[: spec.min_bars - 1], spec)
    assert error.value.needed == spec.min_bars


@pytest.mark.parametrize("price", [1e-6, 3.7, 1e5])
@pytest.mark.parametrize("volume", [1e-9, 7.3, 1e12])
def test_units_of_price_and_volume_do_not_matter(price, volume):
    scaled = MARKET * [price, price, price, price, volume, 1.0]
    expected, found = rows_of(MARKET, FULL), rows_of(scaled, FULL)
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(found.volatility, expected.volatility, rtol=1e-9)


def test_rows_hardly_know_how_volatile_the_market_is_and_the_volatility_does():
    twice = MARKET.copy()
    twice.iloc[:, :4] = np.exp(2 * np.log(MARKET.iloc[:, :4]))
    expected, found = rows_of(MARKET, FULL), rows_of(twice, FULL)
    np.testing.assert_allclose(found.volatility, 2 * expected.volatility, rtol=1e-4)
    np.testing.assert_allclose(found.values, expected.values, atol=1e-3)


def halted(count, *, volume):
    frame = MARKET.copy()
    still = slice(300, 300 + count)
    frame.iloc[still, :4] = frame["close"].iloc[299]
    frame.iloc[still, 4] = volume
    later = frame.iloc[300 + count :, :4] / MARKET["open"].iloc[300 + count]
    frame.iloc[300 + count :, :4] = later * frame["close"].iloc[299]
    return frame


@pytest.mark.parametrize("count", [1, 20, 120, 121, 300])
@pytest.mark.parametrize("volume", [0.0, 1.0])
def test_a_halted_market_has_a_context(count, volume):
    found = rows_of(halted(count, volume=volume), FULL)
    assert np.isfinite(found.values).all()
    assert np.isfinite(found.volatility).all()
    assert (found.volatility >= FULL.least_volatility).all()
    assert np.abs(found.values).max() < 40


def test_when_nothing_has_moved_in_the_window_nothing_is_said():
    frame = halted(130, volume=0.0)
    spec = ContextSpec()
    found = rows_of(frame, spec)
    row = 300 + 130 - 1 - spec.window
    np.testing.assert_array_equal(found.values[row], 0.0)
    assert found.volatility[row] == spec.least_volatility


def test_without_volume_throughout_it_says_0():
    found = rows_of(MARKET.assign(volume=0.0), ContextSpec())
    volumes = [name.startswith("volume") for name in ContextSpec().names]
    assert sum(volumes) == 3
    np.testing.assert_array_equal(found.values[:, volumes], 0.0)


def calendar_at(stamp, bar_seconds):
    """Return the calendar of the return that follows the bar which opens at `stamp`."""
    frame = MARKET[: SHORT.min_bars]
    step = pd.Timedelta(seconds=bar_seconds)
    index = pd.date_range(end=stamp, periods=len(frame), freq=step, tz="UTC")
    values = rows_of(frame.set_axis(index), SHORT, bar_seconds).values[-1]
    named = dict(zip(SHORT.names, values, strict=True))
    return {name: named[name] for name in named if name.startswith(("day_", "week"))}


def test_the_calendar_is_that_of_the_bar_to_come():
    # The bar of Sunday 23:00 is followed by that of Monday 0:00.
    monday = calendar_at("2024-01-07 23:00", HOUR)
    for part in ("day", "week"):
        for k in (1, 2, 3):
            assert monday[f"{part}_sin_{k}"] == pytest.approx(0, abs=1e-12)
            assert monday[f"{part}_cos_{k}"] == pytest.approx(1)
    assert monday["weekend"] == 0
    assert calendar_at("2024-01-07 22:00", HOUR)["weekend"] == 1
    assert calendar_at("2024-01-05 23:00", HOUR)["weekend"] == 1  # followed by Saturday 0:00
    assert calendar_at("2024-01-05 22:00", HOUR)["weekend"] == 0
    # Thursday 12:00 is half a day and half a week from Monday 0:00.
    thursday = calendar_at("2024-01-04 08:00", 4 * HOUR)
    assert thursday["day_cos_1"] == thursday["week_cos_1"] == pytest.approx(-1)
    assert thursday["day_cos_2"] == thursday["week_cos_2"] == pytest.approx(1)
    assert calendar_at("2024-01-04 05:45", 900.0)["day_sin_1"] == pytest.approx(1)


def test_calendars_before_1970_and_of_a_week_later_are_the_same():
    names = [calendar_at(stamp, HOUR) for stamp in ("1962-03-07 05:00", "2024-01-03 05:00")]
    assert names[0] == pytest.approx(names[1], abs=1e-9)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_funding_rate_is_used_as_it_is_and_never_missing(bad):
    found = rows_of(MARKET, FULL).values[:, -1]
    np.testing.assert_array_equal(found, MARKET["funding_rate"][FULL.window :])
    broken = MARKET.copy()
    broken.iloc[[FULL.window - 1, 400, 401], -1] = bad  # the first of them in no row
    with pytest.raises(FeatureError, match="funding rate for every bar, found 2 that are not"):
        rows_of(broken, FULL)


def test_what_does_not_vary_is_left_out():
    spec = ContextSpec.of(MARKET, HOUR)
    assert (spec.volume, spec.calendar, spec.funding) == (True, True, True)
    assert spec.columns[-1] == "funding_rate"
    spec = ContextSpec.of(MARKET.assign(volume=0.0, funding_rate=1e-4), 4 * HOUR)
    assert (spec.volume, spec.calendar, spec.funding) == (False, True, False)
    daily = ContextSpec.of(MARKET.drop(columns="funding_rate"), 86_400.0)
    assert (daily.volume, daily.calendar, daily.funding) == (True, False, False)
    assert "funding_rate" not in daily.columns
    assert not any(name.startswith(("day", "week")) for name in daily.names)
    assert ContextSpec.of(MARKET.assign(funding_rate=np.nan), HOUR).funding is False


@pytest.mark.parametrize("spec", [FULL, SHORT, ContextSpec(volume=False, half_lives=())])
def test_a_spec_goes_through_json(spec):
    back = ContextSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert back == spec
    assert back.names == spec.names


def test_a_spec_of_other_formulas_is_refused():
    written = FULL.to_dict()
    for change in ({"version": 0}, {"names": written["names"][::-1]}, {"calendar": False}):
        with pytest.raises(ConfigError, match="expected a context of version 1"):
            ContextSpec.from_dict(written | change)
    with pytest.raises(ConfigError, match=r"expected a context of \[.*found"):
        ContextSpec.from_dict({key: written[key] for key in written if key != "window"})
    with pytest.raises(ConfigError, match="another version of glow_bt"):
        ContextSpec.from_dict(written | {"more": 1})


@pytest.mark.parametrize(
    "wrong",
    [
        {"window": 0},
        {"window": 120.0},
        {"window": "120"},
        {"half_lives": (4.0, 0.5)},
        {"range_half_lives": (math.nan,)},
        {"return_half_lives": (math.inf,)},
        {"volume_half_lives": ("2",)},
        {"downside_half_life": 0.0},
        {"reference_half_life": math.nan},
    ],
    ids=str,
)
def test_bad_spans_are_refused(wrong):
    with pytest.raises(ConfigError, match="half-lives of at least 1 bar, found"):
        ContextSpec(**wrong)


@pytest.mark.parametrize("name", ["variance_margin", "volume_margin", "least_volatility"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, None])
def test_bad_margins_are_refused(name, value):
    with pytest.raises(ConfigError, match="margins and a floor above 0, found"):
        replace(FULL, **{name: value})


def test_bars_that_are_none_are_refused():
    stamps = MARKET.index.as_unit("ns").asi8
    bars = MARKET.to_numpy()
    for wrong in (bars[:, :5], bars[:, :1], np.column_stack([bars, bars])):
        with pytest.raises(
            FeatureError, match=r"shape \(N, 6\) in the order open, .* funding_rate"
        ):
            context_rows(wrong, stamps, HOUR, FULL)
    broken = bars.copy()
    broken[200, 3] = np.nan
    with pytest.raises(FeatureError, match="found bar 200 with"):
        context_rows(broken, stamps, HOUR, FULL)


def test_rows_are_cut_together():
    found = rows_of(MARKET, SHORT)
    some = found.rows(slice(3, 9))
    np.testing.assert_array_equal(some.values, found.values[3:9])
    np.testing.assert_array_equal(some.volatility, found.volatility[3:9])
