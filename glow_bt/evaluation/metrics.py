"""Performance of an equity curve, by definitions that are stated and tested.

They are worked out in `glow_bt.statistics.performance`, which gives intervals for them too.

Returns here are simple returns, equity_t / equity_{t-1} - 1, one a bar; the risk-free rate is
zero. The first bar's return counts from the starting equity. An account whose equity touches
zero is ruined for good: that bar's return is -1, and 0 from there on.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from glow_bt.errors import ConfigError, DataError, TooFewBarsError
from glow_bt.statistics import MEASURES, account, measures

__all__ = ["Performance", "bar_returns", "daily_returns", "performance"]


@dataclass(frozen=True)
class Performance:
    """What an equity curve earned and risked. Fractions, not per cent.

    A ratio is NaN where it is undefined: Sharpe of a constant equity, Sortino without a losing
    bar, Calmar without a drawdown, win rate without a position. `to_dict` gives None there.

    Attributes:
        n_bars: number of bars.
        total_return: last equity over starting equity, minus 1.
        annual_return: the constant yearly growth that gives the same total (CAGR).
        annual_volatility: standard deviation of bar returns (N - 1) times sqrt(bars a year).
        sharpe: mean over standard deviation of bar returns, times sqrt(bars a year).
        sortino: mean over downside deviation, times sqrt(bars a year). The downside deviation
            is the root mean square of min(return, 0) over all bars, winning ones included
            (Sortino & Price 1994, "Performance measurement in a downside risk framework").
        calmar: annual_return over the size of max_drawdown.
        max_drawdown: lowest equity over the highest before it, minus 1; -0.2 is 20 % lost.
        win_rate: share of winning bars among bars with a position at their start or close;
            without an exposure series, among bars with a return other than 0.
        turnover: sum of |exposure_t - exposure_{t-1}| a year, starting from none; 2.0 is the
            whole equity bought and sold once a year. It includes drift of the exposure with the
            price. NaN without an exposure series.
        time_in_market: share of bars that close with a position; NaN without an exposure series.
    """

    n_bars: int
    total_return: float
    annual_return: float
    annual_volatility: float
    sharpe: float
    sortino: float
    calmar: float
    max_drawdown: float
    win_rate: float
    turnover: float
    time_in_market: float

    def to_dict(self) -> dict[str, float | int | None]:
        """Return the numbers by name, ready for JSON: what is not finite becomes None."""
        return {
            name: value if math.isfinite(value) else None for name, value in asdict(self).items()
        }


def performance(
    equity: pd.Series[float],
    *,
    periods_per_year: float,
    exposure: pd.Series[float] | None = None,
    starting_equity: float | None = None,
) -> Performance:
    """Measure an equity curve.

    Args:
        equity: (N,) account value at each bar's close, in time order.
        periods_per_year: bars a year, see `glow_bt.ohlcv.periods_per_year`.
        exposure: (N,) signed position value over equity at each bar's close, same index.
        starting_equity: account value before the first bar. Default: the first value.

    Raises:
        ConfigError: if periods_per_year or starting_equity is not a positive number.
        DataError: if a value is NaN or infinite, stamps are not in order, or the two series
            have different stamps.
        TooFewBarsError: if there are fewer than two bars.
    """
    _check_series(equity, "equity")
    if len(equity) < 2:
        raise TooFewBarsError(2, len(equity), "measuring performance")
    values = _with_start(equity, starting_equity)
    position = None if exposure is None else _exposure_values(exposure, equity)
    with np.errstate(divide="ignore"):
        log_growth = np.log(values[1:] / values[0])
    found = measures(
        account(_simple_returns(values), position),
        periods_per_year=periods_per_year,
        log_growth=log_growth,
    )
    return Performance(n_bars=len(equity), **{name: float(found[name]) + 0.0 for name in MEASURES})


def bar_returns(
    equity: pd.Series[float], *, starting_equity: float | None = None
) -> NDArray[np.float64]:
    """Return the simple return of each bar, (N,).

    Args:
        equity: (N,) account value at each bar's close, in time order.
        starting_equity: account value before the first bar. Default: the first value.

    Raises:
        ConfigError: if starting_equity is not a positive number.
        DataError: if a value is NaN or infinite or stamps are not in order.
        TooFewBarsError: if there is no bar.
    """
    _check_series(equity, "equity")
    if equity.empty:
        raise TooFewBarsError(1, 0, "returns")
    return _simple_returns(_with_start(equity, starting_equity))


def daily_returns(
    equity: pd.Series[float], *, starting_equity: float | None = None
) -> pd.Series[float]:
    """Return simple returns by UTC day.

    A bar belongs to the day it opens on, and a day ends with its last bar. Days without a bar
    are left out, never filled.

    Args:
        equity: (N,) account value at each bar's close; index of bar opens, naive ones are UTC.
        starting_equity: account value before the first bar. Default: the first value.

    Returns:
        (D,) returns with a time-zone-naive index of days, named as the equity is.

    Raises:
        ConfigError: if starting_equity is not a positive number.
        DataError: if a value is NaN or infinite or stamps are not in order.
        TooFewBarsError: if there is no bar.
    """
    _check_series(equity, "equity")
    if equity.empty:
        raise TooFewBarsError(1, 0, "daily returns")
    values = _with_start(equity, starting_equity)
    stamps = pd.DatetimeIndex(equity.index)
    if stamps.tz is not None:
        stamps = stamps.tz_convert("UTC").tz_localize(None)
    days = stamps.normalize()
    last_of_day = np.append(days[1:] != days[:-1], True)
    returns = _simple_returns(np.concatenate([values[:1], values[1:][last_of_day]]))
    return pd.Series(returns, index=days[last_of_day].rename("date"), name=equity.name)


def _check_series(series: pd.Series[float], name: str) -> None:
    if not isinstance(series.index, pd.DatetimeIndex):
        raise DataError(
            f"expected {name} indexed by bar stamps, found an index of "
            f"{type(series.index).__name__}; give a Series with a DatetimeIndex"
        )
    if not (series.index.is_monotonic_increasing and series.index.is_unique):
        raise DataError(
            f"expected {name} with stamps in ascending order, each once, found others; sort it"
        )
    bad = ~np.isfinite(series.to_numpy(dtype=np.float64))
    if bad.any():
        raise DataError(
            f"expected finite {name}, found {int(bad.sum())} values that are not, first at "
            f"{series.index[int(bad.argmax())]}; cut the series to the bars that were recorded"
        )


def _with_start(equity: pd.Series[float], starting_equity: float | None) -> NDArray[np.float64]:
    """Starting equity, then each bar's; zero from the first bar at or below zero on."""
    values = equity.to_numpy(dtype=np.float64)
    start = float(values[0]) if starting_equity is None else float(starting_equity)
    if not (start > 0 and math.isfinite(start)):
        raise ConfigError(
            f"expected a positive starting equity, found {start}; give the account's first value"
        )
    values = np.concatenate([[start], values])
    ruined = np.maximum.accumulate(values <= 0)
    return np.where(ruined, 0.0, values)


def _simple_returns(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N+1,) values to (N,) returns; 0 where there was nothing left to earn on."""
    before, after = values[:-1], values[1:]
    alive = before > 0
    return np.where(alive, after / np.where(alive, before, 1.0) - 1.0, 0.0)


def _exposure_values(exposure: pd.Series[float], equity: pd.Series[float]) -> NDArray[np.float64]:
    _check_series(exposure, "exposure")
    if not exposure.index.equals(equity.index):
        raise DataError(
            f"expected exposure on the {len(equity)} stamps of the equity, found "
            f"{len(exposure)} stamps of its own; reindex it first"
        )
    return np.asarray(exposure, dtype=np.float64)
