"""Does the best of many strategies beat a benchmark by more than the search for it explains?

Of two forecasts, `glow_bt.risk.diebold_mariano_test` tells which is better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike
from scipy.fft import irfft, next_fast_len, rfft

from glow_bt.errors import DataError
from glow_bt.statistics.bootstrap import optimal_block_length, resampled_positions
from glow_bt.statistics.checked import NO_RISK, check_draws, checked_columns, checked_returns

__all__ = ["SuperiorityResult", "superiority_test"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SuperiorityResult:
    """Outcome of `superiority_test`: small p-values where a strategy beats the benchmark.

    Attributes:
        reality_check: p-value of White's test, on differences as they are.
        pvalue: of Hansen's test, consistent: strategies that are clearly worse than the benchmark
            do not count.
        lower: of Hansen's test, were the worse ones not to count at all; at most pvalue.
        upper: of Hansen's test, were all as good as the benchmark; at least pvalue.
        statistic: the largest t-statistic, at least 0.
        t_statistics: (K,) of each strategy's mean difference; NaN where it never differs.
        mean_differences: (K,) of each strategy's gains over the benchmark's.
        best: which strategy has the largest t-statistic.
        block_length: mean length of a block, in bars.
        draws: number of draws.
        num_bars: N.
    """

    reality_check: float
    pvalue: float
    lower: float
    upper: float
    statistic: float
    t_statistics: Floats
    mean_differences: Floats
    best: int
    block_length: float
    draws: int
    num_bars: int


def superiority_test(
    benchmark: ArrayLike,
    strategies: ArrayLike,
    *,
    draws: int = 2000,
    block_length: float | None = None,
    seed: int = 0,
) -> SuperiorityResult:
    """Test whether no strategy has a larger expected gain than the benchmark.

    White 2000, "A reality check for data snooping", Econometrica 68(5); Hansen 2005, "A test for
    superior predictive ability", Journal of Business & Economic Statistics 23(4), with the
    stationary bootstrap and its own variance. Gains are compared by their mean, not for their
    risk: divide returns by their volatility first to compare Sharpe ratios. A p-value is
    (1 + draws that reach the data's statistic) / (1 + draws). Simulated on ten strategies as good
    as the benchmark, a nominal 5 % of Hansen's test is 8 % with 100 independent bars and 5 % with
    250; where eight of them are far worse, White's test rejects in 1 to 2 %, Hansen's in 5 %.

    Args:
        benchmark: (N,) gain at each bar, higher is better: returns, or losses of a forecast with
            the sign changed. In order of time.
        strategies: (N, K) gains of the strategies that were tried, all of them.
        draws: number of draws, at least 20.
        block_length: mean length of a block in bars; unless given, the longest that a strategy's
            difference needs.
        seed: of the draws.

    Raises:
        ConfigError: on a setting outside what can work.
        DataError: if shapes differ, a gain is not finite, or no strategy differs from the
            benchmark by an amount that varies.
        TooFewBarsError: if there are fewer than 20 bars.
    """
    check_draws(draws, block_length)
    purpose = "a test for superiority"
    base = checked_returns(benchmark, min_bars=20, purpose=purpose, what="benchmark gains")
    tried = checked_columns(strategies, min_bars=20, purpose=purpose, what="strategies' gains")
    if len(tried) != len(base):
        raise DataError(
            f"expected strategies over the benchmark's {len(base)} bars, found {len(tried)}"
        )
    differences = tried - base[:, None]
    num_bars = len(base)
    block = optimal_block_length(*differences.T) if block_length is None else block_length
    means = differences.mean(axis=0)
    errors = np.sqrt(_variances(differences, block) / num_bars)
    # Strategies that are the benchmark itself, or differ from it by the same at every bar.
    told = errors > NO_RISK * np.maximum(1.0, np.abs(means))
    if not told.any():
        raise DataError(
            "expected a strategy whose difference from the benchmark varies, found none among "
            f"{tried.shape[1]}; leave out the ones that copy it"
        )
    drawn = _resampled_means(differences[:, told], draws, block, seed) - means[told]
    statistics = means[told] / errors[told]
    t_statistics = np.full(len(means), np.nan)
    t_statistics[told] = statistics
    return SuperiorityResult(
        reality_check=_share_reaching(drawn.max(axis=1), float(means[told].max())),
        **_hansen(statistics, drawn / errors[told], num_bars),
        statistic=max(float(statistics.max()), 0.0),
        t_statistics=t_statistics,
        mean_differences=means,
        best=int(np.nanargmax(t_statistics)),
        block_length=float(block),
        draws=draws,
        num_bars=num_bars,
    )


def _hansen(statistics: Floats, studentised: Floats, num_bars: int) -> dict[str, float]:
    """Return the three p-values; the draws (D, K) are centred at 0."""
    threshold = -math.sqrt(2 * math.log(math.log(num_bars)))
    centres = {
        "lower": np.minimum(statistics, 0.0),
        "pvalue": np.where(statistics >= threshold, 0.0, statistics),
        "upper": np.zeros_like(statistics),
    }
    largest = max(float(statistics.max()), 0.0)
    return {
        name: _share_reaching(np.maximum((studentised + centre).max(axis=1), 0.0), largest)
        for name, centre in centres.items()
    }


def _variances(differences: Floats, block_length: float) -> Floats:
    """Return what the stationary bootstrap's variance of sqrt(N) times a mean is, (K,).

    gamma_0 + 2 sum_i k_i gamma_i with k_i = (1 - i/N) q^i + i/N q^(N - i), q = 1 - 1/block length
    (Politis & Romano 1994, lemma 1), gamma_i over N.
    """
    num_bars = len(differences)
    centred = differences - differences.mean(axis=0)
    spectrum = np.abs(rfft(centred, next_fast_len(2 * num_bars, real=True), axis=0)) ** 2
    products = irfft(spectrum, next_fast_len(2 * num_bars, real=True), axis=0)[:num_bars]
    lag = np.arange(num_bars)
    stay = 1 - 1 / block_length
    kernel = (1 - lag / num_bars) * stay**lag + lag / num_bars * stay ** (num_bars - lag)
    kernel[0] = 0.5
    variances: Floats = np.maximum(2 * kernel @ products / num_bars, 0.0)
    return variances


def _resampled_means(columns: Floats, draws: int, block_length: float, seed: int) -> Floats:
    """Return means (draws, K) of each draw: how often it has each bar, times the bars."""
    num_bars = len(columns)
    means = []
    for rows in resampled_positions(num_bars, draws=draws, block_length=block_length, seed=seed):
        flat = (rows + num_bars * np.arange(len(rows))[:, None]).ravel()
        counts = np.bincount(flat, minlength=rows.size).reshape(rows.shape)
        means.append(counts @ columns / num_bars)
    return np.concatenate(means)


def _share_reaching(drawn: Floats, value: float) -> float:
    return (1 + int(np.count_nonzero(drawn >= value))) / (1 + len(drawn))
