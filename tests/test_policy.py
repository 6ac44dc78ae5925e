import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glow_bt.errors import ConfigError
from glow_bt.policy import (
    FILL_RESERVE,
    PolicyParams,
    ScoreAverage,
    entry_exposure,
    exposure_of,
    position_size,
    rebalanced_exposure,
    round_to_step,
    target_exposure,
    trade_band,
    usable_exposure,
    var_exposure_limit,
)

NAN = math.nan
DEFAULTS = PolicyParams(risk_budget=0.02)
# Goes by the direction alone.
BOTH_WAYS = replace(DEFAULTS, stance=0.0)

directions = st.floats(-1.0, 1.0)
unit = st.floats(0.0, 1.0)
variances = st.floats(-1.0, 1.0)
errors = st.floats(0.0, 1.0)
losses = st.floats(-1.0, -1e-9)
exposures = st.floats(-20.0, 20.0)
policies = st.builds(
    PolicyParams,
    risk_budget=st.floats(1e-4, 0.5),
    leverage_cap=st.floats(0.1, 10.0),
    dead_band=st.floats(0.0, 1.0),
    long_only=st.booleans(),
    cost_rate=st.floats(0.0, 0.01),
    es_budget=st.none() | st.floats(1e-4, 0.5),
    error_margin=st.floats(0.0, 4.0),
    stance=st.floats(-1.0, 1.0),
    half_life=st.just(0.0) | st.floats(0.1, 1000.0),
)
reduced_policies = st.builds(
    replace,
    policies,
    use_filter=st.booleans(),
    use_direction=st.booleans(),
    constant_limit=st.none() | st.floats(1e-3, 20.0),
)
# Products and quotients of a few floats.
ROUNDING = 1.0 + 1e-12


@pytest.mark.parametrize(
    ("var", "limit"),
    [(-0.04, 0.5), (-0.02, 1.0), (-0.001, 1.0), (0.0, 1.0), (0.04, 0.5), (-5e-324, 1.0)],
)
def test_var_limit_spends_the_risk_budget_up_to_the_cap(var, limit):
    assert var_exposure_limit(var, DEFAULTS) == limit


def test_no_var_has_no_limit():
    assert math.isnan(var_exposure_limit(NAN, DEFAULTS))


@pytest.mark.parametrize(
    ("var", "cvar", "error", "limit"),
    [
        (-0.04, -0.05, 0.0, 0.5),  # 0.02 / 0.04
        (-0.04, -0.08, 0.0, 0.375),  # 0.03 / 0.08
        (-0.04, -0.05, 0.005, 0.4),  # 0.02 / (0.04 + 2 x 0.005)
        (-0.04, -0.12, 0.005, 0.25),  # 0.03 / 0.12
        (-0.001, -0.001, 0.0, 1.0),  # the cap
        (0.0, 0.0, 0.0, 1.0),
        (0.0, 0.0, 0.02, 0.5),  # 0.02 / (2 x 0.02)
        (0.04, 0.12, 0.0, 0.25),
        (-math.inf, -math.inf, 0.0, 0.0),
        (-0.04, -math.inf, 0.0, 0.0),
        (-0.04, -0.05, math.inf, 0.0),
    ],
)
def test_limit_is_the_smallest_of_var_shortfall_and_cap(var, cvar, error, limit):
    params = PolicyParams(risk_budget=0.02, es_budget=0.03, error_margin=2.0)
    found = var_exposure_limit(var, params, cvar=cvar, var_error=error)
    assert found == pytest.approx(limit, rel=1e-14)


def test_what_the_policy_does_not_count_may_be_anything():
    exact = replace(DEFAULTS, error_margin=0.0)
    for cvar, error in [(NAN, NAN), (-math.inf, math.inf), (-0.5, -1.0)]:
        assert var_exposure_limit(-0.04, exact, cvar=cvar, var_error=error) == 0.5
    assert var_exposure_limit(-0.04, DEFAULTS, cvar=-math.inf) == 0.5


@pytest.mark.parametrize(
    "numbers",
    [
        {"var": NAN, "cvar": -0.05},
        {"var": -0.04, "cvar": NAN},
        {"var": -0.04},
        {"var": -0.04, "cvar": -0.05, "var_error": NAN},
    ],
)
def test_no_limit_and_no_position_without_a_number_that_counts(numbers):
    params = replace(DEFAULTS, es_budget=0.03)
    assert math.isnan(var_exposure_limit(params=params, **numbers))
    assert target_exposure(1.0, 1.0, 1.0, params=params, **numbers) == 0.0
    assert entry_exposure(1.0, held=0.0, params=params, **numbers) == 0.0


def test_a_negative_standard_error_is_refused():
    with pytest.raises(ConfigError, match=r"of the VaR of 0 or more, found -0\.01"):
        var_exposure_limit(-0.04, DEFAULTS, var_error=-0.01)


@given(losses, errors, losses, policies)
def test_a_long_loses_no_more_than_the_budgets(var, error, cvar, params):
    exposure = var_exposure_limit(var, params, cvar=cvar, var_error=error)
    lowest = var - params.error_margin * error
    assert 0.0 <= exposure <= params.leverage_cap
    assert exposure * -math.expm1(var) <= params.risk_budget * ROUNDING
    assert exposure * -math.expm1(lowest) <= params.risk_budget * ROUNDING
    if params.es_budget is not None:
        assert exposure * -math.expm1(cvar) <= params.es_budget * ROUNDING


@given(st.lists(losses, min_size=1, max_size=20), policies)
def test_a_long_loses_no_more_than_the_es_budget_on_average_beyond_the_var(returns, params):
    cvar = math.fsum(returns) / len(returns)
    exposure = var_exposure_limit(max(returns), params, cvar=cvar)
    loss = exposure * math.fsum(-math.expm1(r) for r in returns) / len(returns)
    assert params.es_budget is None or loss <= params.es_budget * ROUNDING


@given(st.sampled_from([-1.0, 1.0]), losses, errors, losses, policies)
def test_a_move_of_the_price_against_either_side_stays_within_the_budgets(
    side, var, error, cvar, params
):
    exposure = side * var_exposure_limit(var, params, cvar=cvar, var_error=error)
    # As fractions of the price: up by as much as the VaR says that it falls, or by |VaR|.
    for size in (-math.expm1(var), -var, -var + params.error_margin * error):
        profit = exposure * -side * size
        assert -params.risk_budget * ROUNDING <= profit <= 0.0
    if params.es_budget is not None:
        assert exposure * -side * -cvar >= -params.es_budget * ROUNDING


def test_a_short_at_the_mirrored_log_return_overdraws_by_the_factor_told():
    exposure = var_exposure_limit(-0.03, replace(DEFAULTS, leverage_cap=2.0))
    assert exposure * math.expm1(0.03) / 0.02 == pytest.approx(1.015, abs=5e-4)
    assert exposure * -math.expm1(-0.03) < 0.02


@given(variances, variances, variances, variances, errors, errors, policies)
def test_more_risk_or_a_larger_error_is_never_more_exposure(
    var, other_var, cvar, other_cvar, error, other_error, params
):
    def limit(var, cvar, error):
        return var_exposure_limit(var, params, cvar=cvar, var_error=error)

    var, other_var = sorted([var, other_var], key=abs)
    cvar, other_cvar = sorted([cvar, other_cvar], key=abs)
    error, other_error = sorted([error, other_error])
    base = limit(var, cvar, error)
    assert limit(other_var, cvar, error) <= base
    assert limit(var, other_cvar, error) <= base
    assert limit(var, cvar, other_error) <= base
    assert base <= limit(var, cvar, 0.0)
    assert base <= var_exposure_limit(var, replace(params, es_budget=None), var_error=error)


@given(st.sampled_from([-1.0, 1.0]), variances, variances, errors, policies)
def test_target_and_entry_take_the_same_limit(side, var, cvar, error, params):
    risk = {"cvar": cvar, "var_error": error}
    limit = usable_exposure(var_exposure_limit(var, params, **risk), params)
    held = target_exposure(side, 1.0, 1.0, var, replace(params, stance=0.0), **risk)
    assert held == (0.0 if params.long_only and side < 0.0 else side * limit)
    assert entry_exposure(1.0, var, 0.0, params, **risk) == limit
    assert entry_exposure(1.0, var, 0.25 * limit, params, **risk) == pytest.approx(0.75 * limit)


def test_exposure_is_side_times_twice_the_confidence_times_limit():
    assert target_exposure(-0.5, 0.4, 1.0, -0.04, BOTH_WAYS) == pytest.approx(-0.5 * 0.8 * 0.5)


@pytest.mark.parametrize(
    ("stance", "direction", "side"),
    [
        (1.0, 0.0, 1.0),
        (1.0, 0.7, 1.0),
        (1.0, -0.3, 0.7),
        (1.0, -1.0, 0.0),
        (0.0, -0.3, -0.3),
        (-1.0, 0.0, -1.0),
        (-1.0, 0.4, -0.6),
        (0.5, -0.8, -0.3),
    ],
)
def test_the_direction_moves_the_stance(stance, direction, side):
    params = replace(DEFAULTS, stance=stance)
    assert target_exposure(direction, 0.5, 1.0, -0.04, params) == pytest.approx(side * 0.5)


@pytest.mark.parametrize("confidence", [0.5, 0.8, 1.0])
def test_bars_as_usual_as_the_held_out_ones_are_no_reason_to_hold_less(confidence):
    assert target_exposure(0.0, confidence, 1.0, -0.04, DEFAULTS) == 0.5


def test_a_full_position_leaves_the_fill_reserve():
    assert target_exposure(1.0, 1.0, 1.0, -0.001, DEFAULTS) == 0.99
    assert target_exposure(-1.0, 1.0, 1.0, 0.0, replace(BOTH_WAYS, leverage_cap=3.0)) == -0.99 * 3


def test_long_only_is_flat_where_it_would_be_short():
    long_only = replace(BOTH_WAYS, long_only=True)
    assert target_exposure(-0.7, 1.0, 1.0, -0.04, long_only) == 0.0
    assert target_exposure(0.7, 1.0, 1.0, -0.04, long_only) == pytest.approx(0.35)


@given(directions, unit, unit, variances, policies)
def test_more_confidence_is_never_less_exposure(direction, one, other, var, params):
    low, high = sorted([one, other])
    less = target_exposure(direction, low, 1.0, var, params, cvar=var)
    more = target_exposure(direction, high, 1.0, var, params, cvar=var)
    assert abs(less) <= abs(more)


@given(directions, unit, unit, unit, policies)
def test_more_value_at_risk_is_never_more_exposure(direction, confidence, one, other, params):
    mild, severe = sorted([one, other])
    calm = target_exposure(direction, confidence, 1.0, -mild, params, cvar=-mild)
    risky = target_exposure(direction, confidence, 1.0, -severe, params, cvar=-severe)
    assert abs(risky) <= abs(calm)


@given(directions, unit, variances, policies)
def test_nothing_is_held_outside_the_filter(direction, confidence, var, params):
    assert target_exposure(direction, confidence, 0.0, var, params) == 0.0
    assert target_exposure(direction, confidence, False, var, params) == 0.0


@given(directions, unit, variances, policies)
def test_exposure_keeps_to_the_cap_the_budget_and_the_side(direction, confidence, var, params):
    exposure = target_exposure(direction, confidence, 1.0, var, params, cvar=var)
    assert abs(exposure) <= FILL_RESERVE * params.leverage_cap
    assert abs(exposure * var) <= params.risk_budget * (1 + 1e-12)
    assert exposure * (params.stance + direction) >= 0.0
    assert not (params.long_only and exposure < 0.0)


@pytest.mark.parametrize("position", range(4))
def test_any_nan_is_flat(position):
    scores = [0.5, 0.5, 1.0, -0.02]
    scores[position] = NAN
    assert target_exposure(*scores, DEFAULTS) == 0.0


@given(exposures, directions, policies)
def test_trading_ends_just_inside_the_band(current, share, params):
    target = usable_exposure(share * params.leverage_cap, params)
    new, band = rebalanced_exposure(current, target, params), trade_band(params)
    if target == 0.0 or abs(current) > params.leverage_cap:
        assert new == target
    elif abs(target - current) <= band:
        assert new == current
    else:
        assert abs(new - target) == pytest.approx(0.8 * band, abs=1e-12)
        assert min(current, target) <= new <= max(current, target)
        assert abs(new - current) >= 0.2 * band * (1.0 - 1e-9)
        assert rebalanced_exposure(new, target, params) == new


@given(st.floats(-1.0, 1.0), policies)
def test_leaving_the_filter_always_trades_to_flat(current, params):
    assert rebalanced_exposure(current, 0.0, params) == 0.0


@given(exposures, directions, policies)
def test_rebalancing_never_leaves_more_than_the_cap(current, share, params):
    target = usable_exposure(share * params.leverage_cap, params)
    assert abs(rebalanced_exposure(current, target, params)) <= params.leverage_cap


def test_ruin_is_left_even_inside_the_band():
    assert rebalanced_exposure(math.inf, 0.5, DEFAULTS) == 0.5


@given(exposures, policies)
def test_without_a_band_every_change_is_traded_in_full(target, params):
    free = replace(params, dead_band=0.0, cost_rate=0.0)
    assert rebalanced_exposure(0.0, target, free) == target


@given(st.floats(0.0, 0.1), st.floats(0.0, 0.1))
def test_costs_widen_the_band(one, other):
    low, high = sorted([one, other])
    narrow = trade_band(replace(DEFAULTS, cost_rate=low))
    wide = trade_band(replace(DEFAULTS, cost_rate=high))
    assert DEFAULTS.dead_band <= narrow <= wide


def test_band_of_a_taker_fee():
    # (3/32 x 0.00055)^(1/3) = 0.0372: a no-trade region of nearly 4 % of equity on each side.
    params = replace(DEFAULTS, dead_band=0.0, cost_rate=0.00055)
    assert trade_band(params) == pytest.approx(0.03722, abs=1e-5)
    assert trade_band(replace(params, cost_rate=0.0)) == 0.0


def test_entry_adds_what_the_limit_leaves():
    assert entry_exposure(1.0, -0.04, 0.0, DEFAULTS) == 0.5
    assert entry_exposure(1.0, -0.04, 0.2, DEFAULTS) == pytest.approx(0.3)
    assert entry_exposure(1.0, -0.04, 0.8, DEFAULTS) == 0.0
    assert entry_exposure(1.0, -0.04, -0.8, DEFAULTS) == 0.5
    assert entry_exposure(1.0, -0.001, 0.0, DEFAULTS) == 0.99


@pytest.mark.parametrize(("inside", "var"), [(0.0, -0.02), (NAN, -0.02), (1.0, NAN)])
def test_no_entry_outside_the_filter_or_without_a_var(inside, var):
    assert entry_exposure(inside, var, 0.0, DEFAULTS) == 0.0


def test_exposure_of_a_position():
    assert exposure_of(-2.0, 50.0, 400.0) == -0.25
    assert exposure_of(0.0, 50.0, 0.0) == 0.0
    assert exposure_of(-2.0, 50.0, -1.0) == -math.inf


@given(st.floats(-5.0, 5.0), st.floats(1.0, 1e9), st.floats(1e-6, 1e6))
def test_position_size_undoes_exposure(exposure, equity, price):
    size = position_size(exposure, equity, price)
    assert exposure_of(size, price, equity) == pytest.approx(exposure, rel=1e-12)


def test_a_used_up_account_holds_nothing():
    assert position_size(0.5, 0.0, 100.0) == 0.0
    assert position_size(0.5, -10.0, 100.0) == 0.0


@pytest.mark.parametrize(
    ("size", "step", "rounded"),
    [(0.3, 0.1, 0.3), (0.39, 0.1, 0.3), (-0.39, 0.1, -0.3), (0.05, 0.1, 0.0), (7.0, 0.0, 7.0)],
)
def test_sizes_are_rounded_towards_zero(size, step, rounded):
    assert round_to_step(size, step) == rounded


@given(st.floats(-1e6, 1e6), st.sampled_from([0.001, 0.01, 0.1, 1.0, 5.0]))
def test_rounding_never_adds_and_leaves_less_than_a_step(size, step):
    rounded = round_to_step(size, step)
    assert abs(rounded) <= abs(size) * (1 + 1e-14)
    assert abs(size - rounded) < step * (1 + 1e-8)
    assert rounded * size >= 0.0
    assert round_to_step(rounded, step) == rounded


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"risk_budget": 0.0}, "risk_budget above 0"),
        ({"risk_budget": NAN}, "risk_budget above 0"),
        ({"leverage_cap": -1.0}, "leverage_cap above 0"),
        ({"dead_band": -0.1}, "dead_band of 0 or more"),
        ({"cost_rate": math.inf}, "cost_rate of 0 or more"),
        ({"cost_rate": 5.5}, "cost_rate below 1"),
        ({"es_budget": 0.0}, "es_budget above 0"),
        ({"es_budget": math.inf}, "es_budget above 0"),
        ({"error_margin": -1.0}, "error_margin of 0 or more"),
        ({"error_margin": NAN}, "error_margin of 0 or more"),
        ({"stance": 1.5}, r"stance in \[-1, 1\], found 1.5"),
        ({"stance": NAN}, r"stance in \[-1, 1\]"),
        ({"half_life": -1.0}, "half_life of 0 or more"),
        ({"half_life": math.inf}, "half_life of 0 or more"),
    ],
)
def test_settings_that_cannot_work_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        PolicyParams(**setting)


def test_without_the_filter_the_likelihood_does_not_count():
    params = replace(BOTH_WAYS, use_filter=False)
    whole = target_exposure(0.5, 1.0, 1.0, -0.04, BOTH_WAYS)
    assert target_exposure(0.5, 0.2, 0.0, -0.04, params) == whole == 0.25
    assert target_exposure(0.5, 0.2, 0.0, -0.04, BOTH_WAYS) == 0.0
    assert entry_exposure(0.0, -0.04, 0.1, params) == pytest.approx(0.4)


def test_without_the_direction_the_stance_alone_counts():
    params = replace(DEFAULTS, use_direction=False, long_only=True)
    for direction in (-1.0, 0.0, 0.3):
        assert target_exposure(direction, 0.5, 1.0, -0.04, params) == 0.5
    assert target_exposure(0.3, 0.5, 0.0, -0.04, params) == 0.0


@pytest.mark.parametrize("var", [-0.5, -0.04, 0.0, -math.inf])
def test_a_constant_limit_stands_for_that_of_var_up_to_the_cap(var):
    assert var_exposure_limit(var, replace(DEFAULTS, constant_limit=0.6)) == 0.6
    assert var_exposure_limit(var, replace(DEFAULTS, constant_limit=6.0)) == 1.0


@given(params=reduced_policies, which=st.integers(0, 3))
def test_a_bar_of_which_the_model_says_nothing_is_flat_whatever_is_left_out(params, which):
    known = [0.5, 0.5, 1.0, -0.02]
    known[which] = NAN
    assert target_exposure(*known, params, cvar=-0.03) == 0.0


def test_a_constant_limit_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="constant_limit above 0"):
        PolicyParams(constant_limit=0.0)


scores = st.tuples(unit, st.sampled_from([0.0, 1.0]), losses, losses, errors)


@given(st.lists(scores, min_size=1, max_size=30), st.floats(0.1, 100.0))
def test_averages_weigh_a_bar_by_half_every_half_life(bars, half_life):
    params = replace(DEFAULTS, half_life=half_life, es_budget=0.03)
    average = ScoreAverage(params)
    found = [average.update(number, *bar) for number, bar in enumerate(bars)][-1]
    weights = [0.5 ** ((len(bars) - 1 - k) / half_life) for k in range(len(bars))]
    inside = [bar[0] * bar[1] for bar in bars]
    for mean, values in zip(
        (found[0], *found[2:]),
        (inside, *([bar[i] for bar in bars] for i in (2, 3, 4))),
        strict=True,
    ):
        expected = math.fsum(w * v for w, v in zip(weights, values, strict=True))
        assert mean == pytest.approx(expected / math.fsum(weights), rel=1e-9, abs=1e-12)
    assert found[1] == float(found[0] > 0.0)


@given(st.lists(scores, min_size=1, max_size=10), directions, reduced_policies)
def test_without_a_half_life_the_current_bar_decides(bars, direction, params):
    params = replace(params, half_life=0.0)
    average = ScoreAverage(params)
    for number, (confidence, inside, var, cvar, error) in enumerate(bars):
        averaged = average.update(number, confidence, inside, var, cvar, error)
        usual, kept, *risk = averaged
        alone = target_exposure(
            direction, confidence, inside, var, params, cvar=cvar, var_error=error
        )
        found = target_exposure(
            direction, usual, kept, risk[0], params, cvar=risk[1], var_error=risk[2]
        )
        assert found == pytest.approx(alone, rel=1e-9, abs=1e-12)


@given(st.lists(scores, min_size=2, max_size=10), policies)
def test_a_bar_that_is_still_forming_may_be_given_again(bars, params):
    once, often = ScoreAverage(params), ScoreAverage(params)
    for number, bar in enumerate(bars):
        for forming in bars[:3]:
            often.update(number, *forming)
        assert often.update(number, *bar) == once.update(number, *bar)


@given(st.lists(scores, min_size=2, max_size=10), st.integers(1, 9), policies)
def test_averages_go_on_from_a_state(bars, cut, params):
    whole, first, second = ScoreAverage(params), ScoreAverage(params), ScoreAverage(params)
    cut = min(cut, len(bars) - 1)
    for number, bar in enumerate(bars[:cut]):
        whole.update(number, *bar)
        first.update(number, *bar)
    second.state = first.state
    for number, bar in enumerate(bars[cut:], start=cut):
        assert second.update(number, *bar) == whole.update(number, *bar)


@pytest.mark.parametrize("which", range(5))
@pytest.mark.parametrize("value", [NAN, -math.inf])
def test_a_bar_without_a_number_that_counts_is_flat_and_leaves_the_averages_alone(which, value):
    params = replace(DEFAULTS, es_budget=0.03)
    average = ScoreAverage(params)
    average.update(0, 0.8, 1.0, -0.03, -0.04, 0.001)
    known, broken = average.state, [0.8, 1.0, -0.03, -0.04, 0.001]
    broken[which] = value
    found = average.update(1, *broken)
    assert average.state == known
    assert found == pytest.approx(tuple(broken), nan_ok=True)


def test_numbers_that_do_not_count_may_be_unknown():
    average = ScoreAverage(replace(DEFAULTS, error_margin=0.0))
    usual, inside, var, _, _ = average.update(0, 0.8, 1.0, -0.03, NAN, NAN)
    assert (usual, inside, var) == (0.8, 1.0, -0.03)


def test_one_strange_bar_lessens_a_position_and_does_not_end_it():
    average = ScoreAverage(DEFAULTS)
    for bar in range(100):
        usual, inside, var, _, _ = average.update(bar, 0.5, 1.0, -0.03)
    calm = target_exposure(0.0, usual, inside, var, DEFAULTS)
    usual, inside, var, _, _ = average.update(100, 0.01, 0.0, -0.06)
    assert 0.9 * calm < target_exposure(0.0, usual, inside, var, DEFAULTS) < calm
