import json
import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from glow_bt.errors import ConfigError, DataError, TooFewBarsError
from glow_bt.evaluation.metrics import daily_returns, performance


def series(values, *, freq="D", start="2020-01-01", tz="UTC", name="equity"):
    index = pd.date_range(start, periods=len(values), freq=freq, tz=tz, name="timestamp")
    return pd.Series(np.asarray(values, dtype=float), index=index, name=name)


@pytest.fixture(scope="module")
def random_equity():
    rng = np.random.default_rng(1)
    return series(10_000 * np.cumprod(1 + 0.01 * rng.standard_t(4, 800)))


def test_every_number_of_a_worked_example():
    # Returns 0, +10 %, -20 %, +25 %, -10 %.
    equity = series([100.0, 110.0, 88.0, 110.0, 99.0])
    exposure = pd.Series([0.0, 1.0, 1.0, -0.5, 0.0], index=equity.index)
    result = performance(equity, periods_per_year=10, exposure=exposure)
    mean = (0.1 - 0.2 + 0.25 - 0.1) / 5
    squares = [0.0, 0.1, -0.2, 0.25, -0.1]
    deviation = math.sqrt(sum((r - mean) ** 2 for r in squares) / 4)
    downside = math.sqrt((0.2**2 + 0.1**2) / 5)
    assert result.n_bars == 5
    assert result.total_return == pytest.approx(-0.01)
    assert result.annual_return == pytest.approx(0.99**2 - 1)
    assert result.annual_volatility == pytest.approx(deviation * math.sqrt(10))
    assert result.sharpe == pytest.approx(mean / deviation * math.sqrt(10))
    assert result.sortino == pytest.approx(mean / downside * math.sqrt(10))
    assert result.max_drawdown == pytest.approx(-0.2)
    assert result.calmar == pytest.approx((0.99**2 - 1) / 0.2)
    # In position over bars 2 to 4, and at the start of bar 5: two of the four won.
    assert result.win_rate == 0.5
    assert result.turnover == pytest.approx((1.0 + 0.0 + 1.5 + 0.5) / 5 * 10)
    assert result.time_in_market == pytest.approx(3 / 5)


def test_equal_to_quantstats(random_equity):
    quantstats_stats = pytest.importorskip("quantstats.stats")
    result = performance(random_equity, periods_per_year=252)
    returns = daily_returns(random_equity)
    assert result.total_return == pytest.approx(quantstats_stats.comp(returns), rel=1e-12)
    assert result.annual_return == pytest.approx(quantstats_stats.cagr(returns, periods=252))
    assert result.annual_volatility == pytest.approx(
        quantstats_stats.volatility(returns, periods=252)
    )
    assert result.sharpe == pytest.approx(quantstats_stats.sharpe(returns, periods=252))
    assert result.sortino == pytest.approx(quantstats_stats.sortino(returns, periods=252))
    assert result.calmar == pytest.approx(quantstats_stats.calmar(returns, periods=252))
    assert result.max_drawdown == pytest.approx(quantstats_stats.max_drawdown(returns))
    assert result.win_rate == pytest.approx(quantstats_stats.win_rate(returns))


def test_starting_equity_is_where_the_first_return_counts_from():
    equity = series([110.0, 99.0, 99.0])
    result = performance(equity, periods_per_year=3, starting_equity=100.0)
    assert result.total_return == pytest.approx(-0.01)
    assert result.annual_return == pytest.approx(-0.01)
    assert result.max_drawdown == pytest.approx(-0.1)
    assert daily_returns(equity, starting_equity=100.0).iloc[0] == pytest.approx(0.1)


def test_flat_equity_has_no_ratio():
    equity = series([5000.0] * 30)
    result = performance(equity, periods_per_year=365, exposure=equity * 0)
    assert (result.total_return, result.annual_return, result.max_drawdown) == (0.0, 0.0, 0.0)
    assert (result.annual_volatility, result.turnover, result.time_in_market) == (0.0, 0.0, 0.0)
    for ratio in (result.sharpe, result.sortino, result.calmar, result.win_rate):
        assert math.isnan(ratio)
    document = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert document["sharpe"] is None
    assert document["n_bars"] == 30


def test_constant_growth_has_no_sharpe():
    """Its standard deviation is a rounding error, not a risk."""
    equity = series(100 * 1.001 ** np.arange(1, 51))
    result = performance(equity, periods_per_year=252, starting_equity=100.0)
    assert math.isnan(result.sharpe)
    assert math.isnan(result.sortino)
    assert result.win_rate == 1.0


@pytest.mark.parametrize("low", [0.0, -30.0])
def test_ruin_is_minus_100_per_cent_for_good(low):
    equity = series([100.0, 120.0, low, 50.0, 200.0])
    result = performance(equity, periods_per_year=252)
    assert (result.total_return, result.annual_return, result.max_drawdown) == (-1.0, -1.0, -1.0)
    assert result.calmar == -1.0
    assert daily_returns(equity).tolist() == pytest.approx([0.0, 0.2, -1.0, 0.0, 0.0])


def test_a_huge_gain_within_two_bars_is_null_in_json():
    result = performance(series([100.0, 200.0]), periods_per_year=8760)
    assert result.annual_return == math.inf
    assert json.dumps(result.to_dict(), allow_nan=False)


@settings(deadline=None)
@given(arrays(np.float64, st.integers(2, 40), elements=st.just(-5.0) | st.floats(0.01, 300)))
def test_bounds_that_hold_for_any_equity(values):
    result = performance(series(values), periods_per_year=365, starting_equity=100.0)
    assert -1.0 <= result.max_drawdown <= 0.0
    assert result.max_drawdown <= result.total_return
    assert result.annual_return >= -1.0
    json.dumps(result.to_dict(), allow_nan=False)
    days = daily_returns(series(values), starting_equity=100.0)
    assert np.prod(1 + days) - 1 == pytest.approx(result.total_return)


def test_hours_become_utc_days_of_the_bar_open():
    equity = series(np.arange(1.0, 51.0), freq="h", start="2020-01-01 23:00")
    returns = daily_returns(equity)
    # 23:00 is the only bar of day 1, day 2 ends with bar 25 and day 3 with bar 49.
    assert returns.tolist() == pytest.approx([0.0, 25 / 1 - 1, 49 / 25 - 1, 50 / 49 - 1])
    assert returns.index.tz is None
    assert [str(day.date()) for day in returns.index] == [
        f"2020-01-0{day}" for day in (1, 2, 3, 4)
    ]
    local = equity.tz_convert("America/New_York")
    pd.testing.assert_series_equal(daily_returns(local), returns)
    pd.testing.assert_series_equal(daily_returns(equity.tz_localize(None)), returns)


def test_days_without_bars_are_left_out():
    equity = series([100.0, 101.0, 102.0], freq="3D")
    assert len(daily_returns(equity)) == 3


def test_wrong_input_is_named():
    good = series([1.0, 2.0, 3.0])
    with pytest.raises(TooFewBarsError, match="at least 2 bars, found 1"):
        performance(good[:1], periods_per_year=252)
    with pytest.raises(TooFewBarsError, match="daily returns"):
        daily_returns(good[:0])
    for periods in (0, -1, math.nan, math.inf):
        with pytest.raises(ConfigError, match="positive number of bars a year"):
            performance(good, periods_per_year=periods)
    with pytest.raises(ConfigError, match="positive starting equity"):
        performance(good, periods_per_year=252, starting_equity=0.0)
    with pytest.raises(DataError, match="finite equity, found 1 values that are not"):
        performance(series([1.0, math.nan, 2.0]), periods_per_year=252)
    with pytest.raises(DataError, match="ascending order"):
        daily_returns(good[::-1])
    with pytest.raises(DataError, match="DatetimeIndex"):
        daily_returns(good.reset_index(drop=True))
    with pytest.raises(DataError, match="exposure on the 3 stamps"):
        performance(good, periods_per_year=252, exposure=good[:2])


def test_the_package_and_its_metrics_stay_light():
    code = (
        "import sys, glow_bt.evaluation, glow_bt.evaluation.metrics; "
        "heavy = {'quantstats', 'matplotlib', 'torch', 'backtrader', 'ccxt'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
