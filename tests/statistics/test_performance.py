import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from glow_bt.errors import ConfigError, DataError, TooFewBarsError
from glow_bt.statistics import MEASURES, account, measures, performance_intervals
from tests.statistics.processes import autoregressive, garch


def by_hand(returns, exposure, periods):
    """Work out each measure bar by bar."""
    equity, peak, drawdown, won, held, traded, at_start = 1.0, 1.0, 0.0, 0, 0, 0.0, 0.0
    for gain, close in zip(returns, exposure, strict=True):
        equity *= 1 + gain
        peak = max(peak, equity)
        drawdown = min(drawdown, equity / peak - 1)
        if at_start != 0 or close != 0:
            held += 1
            won += gain > 0
        traded += abs(close - at_start)
        at_start = close
    count = len(returns)
    mean = sum(returns) / count
    deviation = math.sqrt(sum((gain - mean) ** 2 for gain in returns) / (count - 1))
    downside = math.sqrt(sum(min(gain, 0) ** 2 for gain in returns) / count)
    annual = equity ** (periods / count) - 1
    return {
        "total_return": equity - 1,
        "annual_return": annual,
        "annual_volatility": deviation * math.sqrt(periods),
        "sharpe": mean / deviation * math.sqrt(periods),
        "sortino": mean / downside * math.sqrt(periods),
        "calmar": annual / -drawdown,
        "max_drawdown": drawdown,
        "win_rate": won / held,
        "turnover": traded / count * periods,
        "time_in_market": sum(close != 0 for close in exposure) / count,
    }


@pytest.fixture(scope="module")
def traded():
    """Returns of positions that last, about 400 bars."""
    rng = np.random.default_rng(0)
    exposure = np.repeat(rng.choice([-1.0, 0.0, 0.5], 40), 10)
    before = np.concatenate([[0.0], exposure[:-1]])
    return 0.01 * (rng.standard_t(4, 400) + 0.1) * before, exposure


def test_every_measure_equals_a_loop_over_the_bars(traded):
    returns, exposure = traded
    found = measures(account(returns, exposure), periods_per_year=365)
    expected = by_hand(returns, exposure, 365)
    assert tuple(found) == MEASURES == tuple(expected)
    assert {name: float(value) for name, value in found.items()} == pytest.approx(expected)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_many_draws_at_once_equal_each_alone(seed):
    rng = np.random.default_rng(seed)
    exposure = rng.choice([0.0, 1.0], 30)
    bars = account(0.1 * rng.uniform(-1, 1, 30) * exposure, exposure)
    positions = rng.integers(30, size=(4, 30))
    together = measures(bars.take(positions), periods_per_year=52)
    for row, own in enumerate(positions):
        alone = measures(bars.take(own), periods_per_year=52)
        for name in MEASURES:
            assert together[name][row] == pytest.approx(alone[name], rel=1e-12, nan_ok=True)


def test_a_seam_between_blocks_is_no_trade():
    """One position, opened and closed once: draws trade as often on average, not at each seam."""
    exposure = np.zeros(400)
    exposure[100:300] = 1.0
    rng = np.random.default_rng(1)
    bars = account(0.01 * rng.standard_normal(400), exposure)
    found = performance_intervals(bars, periods_per_year=400, block_length=4.0, draws=500)
    turnover = found.accounts[0]["turnover"]
    assert turnover.estimate == 2.0
    assert turnover.high <= 6.0  # a trade at each seam would be 50


def test_no_trade_has_no_ratio_and_an_interval_of_nothing():
    found = performance_intervals(
        account(np.zeros(50), np.zeros(50)), periods_per_year=365, draws=50
    ).accounts[0]
    for name in ("sharpe", "sortino", "calmar", "win_rate"):
        assert np.isnan([found[name].estimate, found[name].low, found[name].high]).all()
        assert found[name].undefined == 1.0
    for name in ("total_return", "annual_volatility", "max_drawdown", "turnover"):
        assert (found[name].estimate, found[name].low, found[name].high) == (0.0, 0.0, 0.0)
        assert found[name].undefined == 0.0


def test_without_an_exposure_bars_with_a_return_count_as_held():
    found = measures(account([0.0, 0.1, -0.1, 0.2]), periods_per_year=4)
    assert found["win_rate"] == pytest.approx(2 / 3)
    assert np.isnan(found["turnover"])
    assert np.isnan(found["time_in_market"])


def test_ratios_undefined_in_a_few_draws_are_told():
    returns = np.full(40, 0.01)
    returns[3] = -0.02
    found = performance_intervals(account(returns), periods_per_year=40, draws=400).accounts[0]
    # The losing bar is missing from a draw with probability (1 - 1/40)^40.
    assert found["sortino"].undefined == pytest.approx((39 / 40) ** 40, abs=0.08)
    assert found["sortino"].low <= found["sortino"].estimate <= found["sortino"].high


def test_ruin_is_for_good_in_every_draw_that_meets_it():
    returns = 0.01 * np.random.default_rng(2).standard_normal(60)
    returns[30:] = 0.0
    returns[29] = -1.0
    found = performance_intervals(account(returns), periods_per_year=60, draws=200).accounts[0]
    for name in ("total_return", "annual_return", "max_drawdown", "calmar"):
        assert (found[name].estimate, found[name].low) == (-1.0, -1.0)
    assert found["total_return"].high > -0.5  # draws without that bar


def test_a_gain_beyond_what_a_float_holds_is_infinite():
    found = performance_intervals(
        account(np.full(30, 1e3) + np.arange(30)), periods_per_year=8760, draws=30
    ).accounts[0]
    assert found["annual_return"].estimate == math.inf
    assert found["annual_return"].high == math.inf
    assert np.isfinite(found["total_return"].high)


@settings(deadline=None, max_examples=40)
@given(
    arrays(np.float64, 25, elements=st.just(-1.0) | st.floats(-0.9, 5)),
    arrays(np.float64, 25, elements=st.sampled_from([-1.0, 0.0, 2.0])),
)
def test_ends_stay_in_the_range_of_their_measure(returns, exposure):
    found = performance_intervals(
        account(returns, exposure), periods_per_year=365, draws=20, block_length=2.0
    ).accounts[0]
    ranges = {"max_drawdown": (-1, 0), "win_rate": (0, 1), "time_in_market": (0, 1)}
    ranges |= {"annual_return": (-1, math.inf), "turnover": (0, math.inf)}
    for name, (low, high) in ranges.items():
        own = found[name]
        assert math.isnan(own.estimate) or low <= own.low <= own.high <= high


def test_accounts_are_compared_on_the_same_draws(traded):
    returns, exposure = traded
    first = account(returns, exposure)
    twice = account(2 * returns, 2 * exposure)
    found = performance_intervals([first, first, twice], periods_per_year=365, draws=100)
    assert len(found.accounts) == 3
    same, doubled = found.differences
    for name in MEASURES:
        assert (same[name].estimate, same[name].low, same[name].high) == (0.0, 0.0, 0.0)
    assert doubled["sharpe"].high == pytest.approx(0.0, abs=1e-9)
    assert doubled["turnover"].estimate == pytest.approx(found.accounts[0]["turnover"].estimate)
    alone = performance_intervals(
        first, periods_per_year=365, draws=100, block_length=found.block_length
    )
    assert alone.accounts[0] == found.accounts[0]


@pytest.mark.parametrize(
    ("draw", "covers"),
    [
        (lambda rng: rng.standard_normal((200, 250)), 0.94),
        (lambda rng: autoregressive(rng, 200, 250, 0.2), 0.92),
        (lambda rng: garch(rng, 200, 250), 0.935),
    ],
    ids=["independent", "autoregressive", "garch"],
)
def test_intervals_of_the_sharpe_ratio_cover_it_nearly_as_often_as_they_say(draw, covers):
    """Within three standard errors of what longer simulations found (the module tells it)."""
    samples = 0.01 * (draw(np.random.default_rng(3)) + 0.1)
    true = 0.1 * math.sqrt(252)
    covered = 0
    for seed, returns in enumerate(samples):
        found = performance_intervals(
            account(returns), periods_per_year=252, draws=200, seed=seed
        ).accounts[0]["sharpe"]
        covered += found.low <= true <= found.high
    assert covered / 200 == pytest.approx(covers, abs=3 * math.sqrt(covers * (1 - covers) / 200))


def test_intervals_of_shares_of_lasting_positions_cover_them():
    """Positions last 10 bars: 88 %, where blocks of 2, as returns need, would cover in 62 %."""
    rng = np.random.default_rng(4)
    covered = 0
    for seed in range(100):
        changes = rng.random(1000) < 0.1
        exposure = (np.cumsum(changes) % 2).astype(float)
        bars = account(0.01 * rng.standard_normal(1000), exposure)
        found = performance_intervals(bars, periods_per_year=365, draws=100, seed=seed)
        interval = found.accounts[0]["time_in_market"]
        covered += interval.low <= 0.5 <= interval.high
    assert covered >= 78


def test_what_cannot_be_measured(traded):
    returns, exposure = traded
    with pytest.raises(TooFewBarsError, match="performance needs at least 2 bars, found 1"):
        account([0.1])
    with pytest.raises(
        DataError, match="finite returns, found 1 that are not, the first at bar 1"
    ):
        account([0.1, np.nan])
    with pytest.raises(DataError, match="finite exposure"):
        account([0.1, 0.1], [0.0, np.inf])
    with pytest.raises(DataError, match=r"simple returns of at least -1, found -1\.5"):
        account([0.1, -1.5])
    with pytest.raises(DataError, match="exposure for each of 400 bars, found 399"):
        account(returns, exposure[1:])
    with pytest.raises(ConfigError, match="positive number of bars a year, found 0"):
        measures(account(returns), periods_per_year=0)
    with pytest.raises(ConfigError, match="positive number of bars a year, found nan"):
        performance_intervals(account(returns), periods_per_year=math.nan)
    with pytest.raises(DataError, match=r"accounts over the same bars, found \[400, 399\]"):
        performance_intervals([account(returns), account(returns[1:])], periods_per_year=365)
    with pytest.raises(DataError, match=r"same bars, found \[\] bars"):
        performance_intervals([], periods_per_year=365)
    with pytest.raises(ConfigError, match=r"a coverage inside \(0, 1\), found 1"):
        performance_intervals(account(returns), periods_per_year=365, coverage=1)
    with pytest.raises(TooFewBarsError, match="needs at least 20 bars, found 19"):
        performance_intervals(account(returns[:19]), periods_per_year=365)
