"""How sure a study's numbers are: intervals, deflated Sharpe ratio, tests of differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from glow_bt.evaluation.metrics import bar_returns
from glow_bt.statistics import (
    Account,
    Interval,
    PerformanceIntervals,
    SharpeMoments,
    account,
    deflated_sharpe_ratio,
    expected_maximum_sharpe,
    minimum_track_record_length,
    performance_intervals,
    probabilistic_sharpe_ratio,
    sharpe_difference_test,
    sharpe_standard_error,
    superiority_test,
)

__all__ = ["COVERAGE", "DRAWS", "study_statistics"]

Floats = npt.NDArray[np.float64]

DRAWS = 1000
COVERAGE = 0.95
# Below, nothing can be said; see `glow_bt.statistics`.
_MIN_BARS = 20
# A standard deviation below this is rounding.
_NO_RISK = 1e-12


def study_statistics(
    states: Mapping[str, pd.DataFrame],
    *,
    periods_per_year: float,
    starting_equity: float,
    benchmark: str = "buy_and_hold",
    num_trials: int = 1,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any] | None:
    """Say how sure the measures of accounts over the same bars are.

    All accounts are resampled by the same blocks. Ablations, benchmarks and the like are no
    trials: nobody picks among them. The deflated Sharpe ratio counts what a search tried, of
    which no test returns are known, so that the variance of the trials' Sharpe ratios is taken
    to be the estimation error of one without skill, 1 / (N - 1). Hansen's test compares returns
    over their own standard deviation: Sharpe ratios, whatever the size of positions.

    Args:
        states: by contender equity and exposure by bar; what the first is worth is asked.
        periods_per_year: bars a year.
        starting_equity: of each account.
        benchmark: the contender that the others are to be superior to.
        num_trials: configurations that were tried before the first was chosen.
        draws: of each bootstrap.
        seed: of each bootstrap.

    Returns:
        bootstrap (method, coverage, block_length, draws, seed, bars); intervals by contender and
        measure; differences of the first from each other one; sharpe by contender (of one bar:
        standard error, probabilistic, min_track_record_bars); deflated_sharpe of the first;
        sharpe_difference of the first from each other one (Ledoit-Wolf); superiority over the
        benchmark (Hansen, White). What is undefined is None. None at all below 20 bars.
    """
    if len(next(iter(states.values()))) < _MIN_BARS:
        return None
    accounts = {
        name: account(
            bar_returns(own["equity"], starting_equity=starting_equity),
            own["exposure"].to_numpy(),
        )
        for name, own in states.items()
    }
    found = performance_intervals(
        list(accounts.values()),
        periods_per_year=periods_per_year,
        draws=draws,
        coverage=COVERAGE,
        seed=seed,
    )
    names = list(accounts)
    returns = {name: own.returns for name, own in accounts.items()}
    return {
        "bootstrap": {
            "method": "stationary bootstrap, percentile intervals",
            "coverage": COVERAGE,
            "block_length": found.block_length,
            "draws": draws,
            "seed": seed,
            "bars": found.num_bars,
        },
        "intervals": _by_measure(names, found.accounts),
        "differences": _differences(names, found),
        "sharpe": {name: _sharpe(own) for name, own in returns.items()},
        "deflated_sharpe": _deflated(returns[names[0]], num_trials),
        "sharpe_difference": {
            name: _sharpe_difference(
                returns[names[0]], returns[name], periods_per_year, draws, seed
            )
            for name in names[1:]
        },
        "superiority": _superiority(accounts, benchmark, draws, seed),
    }


def _by_measure(
    names: Sequence[str], intervals: Sequence[Mapping[str, Interval]]
) -> dict[str, Any]:
    return {
        name: {
            measure: {key: _known(value) for key, value in asdict(interval).items()}
            for measure, interval in own.items()
        }
        for name, own in zip(names, intervals, strict=True)
    }


def _differences(names: Sequence[str], found: PerformanceIntervals) -> dict[str, Any]:
    """Return the first one's measures minus each other's; they come the other way round."""
    turned = [
        {
            measure: Interval(-own.estimate, -own.high, -own.low, own.undefined)
            for measure, own in difference.items()
        }
        for difference in found.differences
    ]
    return _by_measure(names[1:], turned)


def _sharpe(returns: Floats) -> dict[str, Any] | None:
    if not _varies(returns):
        return None
    moments = SharpeMoments.of(returns)
    return {
        "per_bar": moments.sharpe,
        "standard_error": sharpe_standard_error(moments),
        "skewness": moments.skewness,
        "kurtosis": moments.kurtosis,
        "probabilistic": probabilistic_sharpe_ratio(moments),
        "min_track_record_bars": _known(minimum_track_record_length(moments)),
    }


def _deflated(returns: Floats, num_trials: int) -> dict[str, Any]:
    variance = 1 / (len(returns) - 1)
    probability = None
    if _varies(returns):
        probability = deflated_sharpe_ratio(
            SharpeMoments.of(returns), num_trials=num_trials, sharpe_variance=variance
        )
    return {
        "probability": probability,
        "num_trials": num_trials,
        "sharpe_variance": variance,
        "expected_maximum_per_bar": expected_maximum_sharpe(num_trials, variance),
    }


def _sharpe_difference(
    returns: Floats, other: Floats, periods_per_year: float, draws: int, seed: int
) -> dict[str, Any] | None:
    if not (_varies(returns) and _varies(other)):
        return None
    found = sharpe_difference_test(returns, other, draws=draws, seed=seed)
    yearly = math.sqrt(periods_per_year)
    return {
        "difference": found.difference * yearly,
        "standard_error": found.standard_error * yearly,
        "pvalue": found.pvalue,
        "hac_pvalue": found.hac_pvalue,
        "block_length": found.block_length,
    }


def _superiority(
    accounts: Mapping[str, Account], benchmark: str, draws: int, seed: int
) -> dict[str, Any] | None:
    others = [name for name in accounts if name != benchmark]
    if benchmark not in accounts or not others:
        return None
    gains = {name: _at_unit_risk(own.returns) for name, own in accounts.items()}
    columns = np.column_stack([gains[name] for name in others])
    differences = columns - gains[benchmark][:, None]
    if not any(_varies(column) for column in differences.T):
        return None
    found = superiority_test(gains[benchmark], columns, draws=draws, seed=seed)
    return {
        "benchmark": benchmark,
        "contenders": others,
        "best": others[found.best],
        "pvalue": found.pvalue,
        "lower": found.lower,
        "upper": found.upper,
        "reality_check": found.reality_check,
        "block_length": found.block_length,
    }


def _at_unit_risk(returns: Floats) -> Floats:
    return returns / returns.std(ddof=1) if _varies(returns) else returns


def _varies(returns: Floats) -> bool:
    return bool(returns.std() > _NO_RISK)


def _known(value: float) -> float | None:
    return float(value) + 0.0 if math.isfinite(value) else None  # -0.0 is 0.0
