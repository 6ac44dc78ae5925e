"""What an account earned and risked, of one history or of many resampled ones at once.

The definitions are those of `glow_bt.evaluation.metrics`, which reports them; they stand here
alone. What a bar adds (its return, whether a position was held, what was traded) is worked out
once on the true history and resampled as one row: the seam between two blocks is no trade.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from glow_bt.errors import ConfigError, DataError
from glow_bt.statistics.bootstrap import (
    optimal_block_length,
    percentile_interval,
    resampled_positions,
)
from glow_bt.statistics.checked import NO_RISK, check_draws, check_share, checked_returns

__all__ = [
    "MEASURES",
    "Account",
    "Interval",
    "PerformanceIntervals",
    "account",
    "measures",
    "performance_intervals",
]

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

MEASURES = (
    "total_return",
    "annual_return",
    "annual_volatility",
    "sharpe",
    "sortino",
    "calmar",
    "max_drawdown",
    "win_rate",
    "turnover",
    "time_in_market",
)


@dataclass(frozen=True, eq=False)
class Account:
    """What each bar did to an account; the last axis is time, others are draws.

    Attributes:
        returns: (..., N) simple returns.
        log_returns: (..., N) log(1 + return), -inf where everything was lost.
        held: (..., N) whether there was a position at the bar's start or close; without an
            exposure, whether the return is other than 0.
        traded: (..., N) |exposure_t - exposure_{t-1}|; None without an exposure.
        in_market: (..., N) whether the bar closed with a position; None without an exposure.
    """

    returns: Floats
    log_returns: Floats
    held: Flags
    traded: Floats | None
    in_market: Flags | None

    def take(self, positions: npt.NDArray[np.intp]) -> Account:
        """Return the draws (M, N) whose bars stand at these positions."""
        return Account(
            self.returns.take(positions),
            self.log_returns.take(positions),
            self.held.take(positions),
            None if self.traded is None else self.traded.take(positions),
            None if self.in_market is None else self.in_market.take(positions),
        )


@dataclass(frozen=True)
class Interval:
    """An estimate and where it may lie.

    Attributes:
        estimate: on the history itself; NaN where it is undefined.
        low: lower end; NaN where the estimate is undefined.
        high: upper end.
        undefined: share of the draws in which the measure is undefined.
    """

    estimate: float
    low: float
    high: float
    undefined: float


@dataclass(frozen=True)
class PerformanceIntervals:
    """Outcome of `performance_intervals`.

    Attributes:
        accounts: of each account, intervals by the names of `MEASURES`.
        differences: of each account after the first, intervals of its measures minus those of the
            first on the same draws.
        coverage: of the intervals.
        block_length: mean length of a block, in bars.
        draws: number of draws.
        num_bars: N.
    """

    accounts: tuple[dict[str, Interval], ...]
    differences: tuple[dict[str, Interval], ...]
    coverage: float
    block_length: float
    draws: int
    num_bars: int


def account(returns: ArrayLike, exposure: ArrayLike | None = None) -> Account:
    """Work out what each bar did.

    Args:
        returns: (N,) simple returns of the account, at least -1.
        exposure: (N,) signed position value over equity at each bar's close; none before.

    Raises:
        DataError: if a value is not finite, a return is below -1, or the lengths differ.
        TooFewBarsError: if there are fewer than two bars.
    """
    earned = checked_returns(returns, min_bars=2, purpose="measuring performance")
    if earned.min() < -1:
        raise DataError(
            f"expected simple returns of at least -1, found {earned.min():g}; an account that "
            "touches zero returns -1, and 0 from there on"
        )
    with np.errstate(divide="ignore"):
        log_returns = np.log1p(earned)
    if exposure is None:
        return Account(earned, log_returns, earned != 0, None, None)
    position = checked_returns(
        exposure, min_bars=2, purpose="measuring performance", what="exposure"
    )
    if position.shape != earned.shape:
        raise DataError(
            f"expected an exposure for each of {earned.size} bars, found {position.size}"
        )
    before = np.concatenate([[0.0], position[:-1]])
    in_market = position != 0
    held = in_market | (before != 0)
    return Account(earned, log_returns, held, np.abs(position - before), in_market)


def measures(
    of: Account, *, periods_per_year: float, log_growth: Floats | None = None
) -> dict[str, Floats]:
    """Return each measure of `MEASURES` over the last axis, by its name.

    A ratio is NaN where it is undefined: see `glow_bt.evaluation.metrics.Performance`.

    Args:
        of: bars (..., N), N at least 2.
        periods_per_year: bars a year.
        log_growth: (..., N) log of the equity over the starting equity; unless given, the sum of
            the log returns up to each bar.

    Raises:
        ConfigError: if periods_per_year is not a positive number.
    """
    _check_periods(periods_per_year)
    returns = of.returns
    path = np.cumsum(of.log_returns, axis=-1) if log_growth is None else log_growth
    peak = np.maximum.accumulate(path, axis=-1)
    np.maximum(peak, 0.0, out=peak)  # the starting equity counts
    total = path[..., -1].copy()
    max_drawdown = np.expm1(-np.subtract(peak, path, out=peak).max(axis=-1))
    annual_return = _annual_growth(total, returns.shape[-1] / periods_per_year)
    deviation = returns.std(axis=-1, ddof=1)
    losses = np.minimum(returns, 0.0)
    downside = np.sqrt(np.einsum("...t,...t->...", losses, losses) / returns.shape[-1])
    annualised_mean = returns.mean(axis=-1) * math.sqrt(periods_per_year)
    num_held = np.count_nonzero(of.held, axis=-1)
    num_won = np.count_nonzero(of.held & (returns > 0), axis=-1)
    missing = np.full(returns.shape[:-1], np.nan)
    return {
        "total_return": np.expm1(np.minimum(total, 700.0)),
        "annual_return": annual_return,
        "annual_volatility": deviation * math.sqrt(periods_per_year),
        "sharpe": _ratio(annualised_mean, deviation),
        "sortino": _ratio(annualised_mean, downside),
        "calmar": _ratio(annual_return, -max_drawdown),
        "max_drawdown": max_drawdown,
        "win_rate": _ratio(num_won, num_held),
        "turnover": missing if of.traded is None else of.traded.mean(axis=-1) * periods_per_year,
        "time_in_market": missing
        if of.in_market is None
        else np.count_nonzero(of.in_market, axis=-1) / returns.shape[-1],
    }


def performance_intervals(
    accounts: Account | Sequence[Account],
    *,
    periods_per_year: float,
    draws: int = 2000,
    coverage: float = 0.95,
    block_length: float | None = None,
    seed: int = 0,
) -> PerformanceIntervals:
    """Measure accounts over the same bars, with intervals from the stationary bootstrap.

    All accounts are resampled by the same blocks, so that their differences are compared bar by
    bar: what moves both does not count.

    How often intervals cover a Sharpe ratio stands in `glow_bt.statistics.bootstrap`; the share of
    time in positions of 10 bars they covered in 88 % with 1000 bars. A maximum drawdown depends on
    the order of all bars, so that its interval says where those of like histories lie: with 250
    bars a nominal 95 % one held the drawdown of another history of the same process in 88 %, of a
    GARCH process in 74 %, because blocks are shorter than its memory of volatility.

    Args:
        accounts: one, or several over the same bars; the first is what others are compared with.
        periods_per_year: bars a year.
        draws: number of draws, at least 20.
        coverage: of each interval, in (0, 1).
        block_length: mean length of a block in bars; unless given, the longest that a column of
            the accounts needs, see `glow_bt.statistics.optimal_block_length`.
        seed: of the draws.

    Raises:
        ConfigError: on a setting outside what can work.
        DataError: if there is no account, or they have different numbers of bars.
        TooFewBarsError: if there are fewer than 20 bars.
    """
    several = [accounts] if isinstance(accounts, Account) else list(accounts)
    lengths = [len(one.returns) for one in several]
    if len(set(lengths)) != 1:
        raise DataError(
            f"expected accounts over the same bars, found {lengths} bars; cut them to what they "
            "share"
        )
    _check_periods(periods_per_year)
    check_draws(draws, block_length)
    check_share(coverage, "a coverage")
    longest = optimal_block_length(*(column for one in several for column in _columns(one)))
    block = longest if block_length is None else float(block_length)
    estimates = [_stacked(measures(one, periods_per_year=periods_per_year)) for one in several]
    drawn = [
        [_stacked(measures(one.take(rows), periods_per_year=periods_per_year)) for one in several]
        for rows in resampled_positions(lengths[0], draws=draws, block_length=block, seed=seed)
    ]
    resampled = [np.concatenate(parts) for parts in zip(*drawn, strict=True)]
    with np.errstate(invalid="ignore"):  # inf - inf is undefined
        pairs = list(zip(estimates[1:], resampled[1:], strict=True))
        differences = [(own - estimates[0], many - resampled[0]) for own, many in pairs]
    return PerformanceIntervals(
        tuple(_intervals(*pair, coverage) for pair in zip(estimates, resampled, strict=True)),
        tuple(_intervals(*pair, coverage) for pair in differences),
        coverage,
        block,
        draws,
        lengths[0],
    )


def _columns(of: Account) -> list[Floats]:
    """Return what the measures average, for the length of the blocks."""
    held = of.held.astype(np.float64)
    columns = [of.returns, held, held * (of.returns > 0)]
    if of.traded is not None and of.in_market is not None:
        columns += [of.traded, of.in_market.astype(np.float64)]
    return columns


def _stacked(by_name: dict[str, Floats]) -> Floats:
    return np.stack([by_name[name] for name in MEASURES], axis=-1)


def _intervals(estimate: Floats, resampled: Floats, coverage: float) -> dict[str, Interval]:
    low, high = np.where(np.isnan(estimate), np.nan, percentile_interval(resampled, coverage))
    undefined = np.isnan(resampled).mean(axis=0)
    table = np.column_stack([estimate, low, high, undefined]).tolist()
    return {name: Interval(*row) for name, row in zip(MEASURES, table, strict=True)}


def _annual_growth(log_total: Floats, years: float) -> Floats:
    growth = log_total / years
    # A gain within a few bars, compounded over a year, can leave the range of a float.
    return np.where(growth < 700.0, np.expm1(np.minimum(growth, 700.0)), np.inf)


def _ratio(gain: npt.ArrayLike, risk: npt.ArrayLike) -> Floats:
    over = np.asarray(risk, dtype=np.float64)
    sound = over > NO_RISK
    ratio = np.asarray(gain, dtype=np.float64) / np.where(sound, over, 1.0)
    return np.where(sound, ratio, np.nan)


def _check_periods(periods_per_year: float) -> None:
    if not (periods_per_year > 0 and math.isfinite(periods_per_year)):
        raise ConfigError(
            f"expected a positive number of bars a year, found {periods_per_year}; "
            "daily bars have 252 or 365, hourly ones 8760"
        )
