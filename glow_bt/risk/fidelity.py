"""How true synthetic returns are: their statistics beside those of real, held-out returns.

Each statistic of the real returns comes with an interval from a stationary block bootstrap
(Politis & Romano 1994, JASA 89), and the same statistic of the synthetic paths is inside it or
not. The report is a list of what to look at, not a test: where both come from one law, 5 % should
lie outside, and where volatility is persistent more do, because one history holds few spells of
it. Measured with 1,500 returns of a GARCH(1,1) of 0.08 and 0.9 with t_6 shocks, intervals at 95 %
held the law's value 90 to 95 % of the time for mean, tail indices and leverage, 73 to 86 % for
spread, quantiles and autocorrelations, 68 % for the kurtosis. The `rank` of the real value among
the synthetic paths has no such weakness (inside 2.5 to 97.5 % of them 92 to 100 % of the time):
where it is not extreme, the real history is one that the model could have made. Statistics are
those that Cont 2001, "Empirical properties of asset returns", Quantitative Finance 1, lists as
stylised facts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from glow_bt.errors import ConfigError, DataError, TooFewBarsError
from glow_bt.statistics.bootstrap import resampled_positions

__all__ = ["FidelityReport", "Statistic", "fidelity_report"]

Floats = npt.NDArray[np.float64]

_QUANTILES = (0.01, 0.05, 0.95, 0.99)
# Share of each tail that Hill's index is read from, and the fewest values of it.
_HILL_SHARE = 0.05
_LEAST_IN_TAIL = 10
_MIN_RETURNS = 200


@dataclass(frozen=True)
class Statistic:
    """One statistic of real and of synthetic returns.

    Attributes:
        name: what it is; a number after "at lag" is k.
        real: of the real returns.
        low: lower end of the real one's bootstrap interval.
        high: upper end.
        synthetic: median over the synthetic paths of the same statistic.
        rank: share of synthetic paths whose statistic lies below the real one, ties by half.
    """

    name: str
    real: float
    low: float
    high: float
    synthetic: float
    rank: float

    @property
    def inside(self) -> bool:
        """Whether the synthetic value lies in the real one's interval."""
        return self.low <= self.synthetic <= self.high


@dataclass(frozen=True)
class FidelityReport:
    """Statistics of synthetic paths beside those of real returns.

    Attributes:
        statistics: all of them, in a fixed order.
        ks_statistic: two-sample Kolmogorov-Smirnov distance of all values.
        ks_pvalue: its p-value as if values were independent; volatility clusters make it too
            small, so that a large one is good news and a small one none.
        num_real: real returns.
        num_paths: synthetic paths.
        path_length: returns a path.
        coverage: of the intervals.
        block_length: mean block of the bootstrap.
        resamples: of the bootstrap.
    """

    statistics: tuple[Statistic, ...]
    ks_statistic: float
    ks_pvalue: float
    num_real: int
    num_paths: int
    path_length: int
    coverage: float
    block_length: float
    resamples: int

    def __getitem__(self, name: str) -> Statistic:
        """Return the statistic of that name.

        Raises:
            ConfigError: naming the statistics there are, if it is none of them.
        """
        for statistic in self.statistics:
            if statistic.name == name:
                return statistic
        names = ", ".join(own.name for own in self.statistics)
        raise ConfigError(f"expected one of the statistics {names}, found {name!r}")

    @property
    def outside(self) -> tuple[str, ...]:
        """Names of statistics whose synthetic value lies outside the real one's interval."""
        return tuple(own.name for own in self.statistics if not own.inside)

    @property
    def unlikely(self) -> tuple[str, ...]:
        """Names of statistics whose real value is extreme among the synthetic paths."""
        tail = (1 - self.coverage) / 2
        return tuple(own.name for own in self.statistics if not tail <= own.rank <= 1 - tail)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-ready values."""
        values = asdict(self)
        values["statistics"] = [asdict(own) | {"inside": own.inside} for own in self.statistics]
        return values | {"outside": list(self.outside), "unlikely": list(self.unlikely)}


def fidelity_report(
    synthetic: npt.ArrayLike,
    real: npt.ArrayLike,
    *,
    max_lag: int = 50,
    coverage: float = 0.95,
    block_length: float = 50.0,
    resamples: int = 500,
    seed: int = 0,
) -> FidelityReport:
    """Compare synthetic paths with real returns that nothing was fitted on.

    Mean, standard deviation, skewness, excess kurtosis; quantiles at 1, 5, 95 and 99 %; Hill's
    tail index of the 5 % of values farthest from the median on each side (Hill 1975, Annals of
    Statistics 3); autocorrelations of |r| and r^2 at lags 1 to max_lag; the leverage effect
    corr(r_t, |r_{t+k}|) at the same lags. The synthetic value is the median over paths, cut
    to the real length, so that what short samples do to a statistic they do to both. A
    resample joins blocks whose lengths are geometric with mean block_length; lags reach over a
    joint, which pulls the bootstrap's autocorrelations towards 0: lag k by about
    k / block_length of itself. Intervals are therefore moved to be centred at the real value
    (the basic spread of the resamples around their own mean).

    Args:
        synthetic: (K, T) paths, or (T,) one; cut to the length of the real returns.
        real: (R,) held-out returns of the same kind, in order of time.
        max_lag: longest lag.
        coverage: of the intervals, in (0, 1).
        block_length: mean length of a bootstrap block, in returns.
        resamples: of the bootstrap, at least 20.
        seed: of the bootstrap.

    Raises:
        ConfigError: on a setting outside what can work.
        DataError: on returns that are not finite, of another shape, or constant.
        TooFewBarsError: below 200 returns, or 4 max_lag, in a path or in the real ones.
    """
    _check_settings(max_lag, coverage, block_length, resamples)
    paths = _as_paths(synthetic, "synthetic", max_lag)
    own = _as_paths(real, "real", max_lag)
    if len(own) != 1:
        raise DataError(f"expected real returns of shape (R,), found {np.shape(real)}")
    paths = paths[:, : own.shape[1]]
    statistics_of = _statistics(max_lag)
    at_real, at_paths = statistics_of(own)[0], statistics_of(paths)
    rank = 0.5 * ((at_paths < at_real).mean(axis=0) + (at_paths <= at_real).mean(axis=0))
    draws = resampled_positions(
        own.shape[1], draws=resamples, block_length=block_length, seed=seed
    )
    resampled = np.concatenate([statistics_of(own[0].take(rows)) for rows in draws])
    tail = (1 - coverage) / 2
    ends = np.quantile(resampled - resampled.mean(axis=0), [tail, 1 - tail], axis=0)
    centre = np.median(at_paths, axis=0)
    table = np.column_stack([at_real, *(at_real + ends), centre, rank]).tolist()
    test = stats.ks_2samp(paths.ravel(), own[0])
    return FidelityReport(
        statistics=tuple(
            Statistic(name, *row) for name, row in zip(_names(max_lag), table, strict=True)
        ),
        ks_statistic=float(test.statistic),
        ks_pvalue=float(test.pvalue),
        num_real=own.shape[1],
        num_paths=len(paths),
        path_length=paths.shape[1],
        coverage=coverage,
        block_length=block_length,
        resamples=resamples,
    )


def _names(max_lag: int) -> list[str]:
    names = ["mean", "standard deviation", "skewness", "excess kurtosis"]
    names += [f"quantile {p:g}" for p in _QUANTILES]
    names += ["left tail index", "right tail index"]
    lags = range(1, max_lag + 1)
    for of in ("autocorrelation of |r|", "autocorrelation of r^2", "leverage"):
        names += [f"{of} at lag {lag}" for lag in lags]
    return names


def _statistics(max_lag: int) -> Callable[[Floats], Floats]:
    def of(paths: Floats) -> Floats:
        """Return (K, M) statistics of paths (K, T), columns in the order of `_names`."""
        centred = paths - paths.mean(axis=1, keepdims=True)
        spread = np.sqrt(np.square(centred).mean(axis=1))
        z = centred / spread[:, None]
        size = np.abs(paths)
        columns = [paths.mean(axis=1), spread, (z**3).mean(axis=1), (z**4).mean(axis=1) - 3]
        columns += [*np.quantile(paths, _QUANTILES, axis=1)]
        from_median = paths - np.median(paths, axis=1, keepdims=True)
        columns += [_hill(-from_median), _hill(from_median)]
        lags = range(1, max_lag + 1)
        for first, second in ((size, size), (paths**2, paths**2), (paths, size)):
            columns += [*_lagged(first, second, lags)]
        return np.column_stack(columns)

    return of


def _hill(values: Floats) -> Floats:
    """Return Hill's index (K,) of the largest values of each row (K, T)."""
    count = max(_LEAST_IN_TAIL, round(_HILL_SHARE * values.shape[1]))
    top = -np.partition(-values, count, axis=1)[:, : count + 1]
    # Where prices stood still most of the time the threshold is 0: no tail, an index of 0.
    ordered = np.sort(np.maximum(top, np.finfo(np.float64).tiny), axis=1)
    excess = np.log(ordered[:, 1:] / ordered[:, :1]).mean(axis=1)
    index: Floats = 1 / np.maximum(excess, np.finfo(np.float64).tiny)
    return index


def _lagged(first: Floats, second: Floats, lags: range) -> list[Floats]:
    """Return (K,) correlations of first_t with second_{t+k} for each lag k, about whole means."""
    a, b = (own - own.mean(axis=1, keepdims=True) for own in (first, second))
    scale = np.sqrt(np.square(a).sum(axis=1) * np.square(b).sum(axis=1))
    return [np.einsum("kt,kt->k", a[:, :-lag], b[:, lag:]) / scale for lag in lags]


def _as_paths(returns: npt.ArrayLike, kind: str, max_lag: int) -> Floats:
    paths = np.atleast_2d(np.asarray(returns, dtype=np.float64))
    if paths.ndim != 2 or not len(paths):
        raise DataError(
            f"expected {kind} returns of shape (K, T) or (T,), found {np.shape(returns)}"
        )
    needed = max(_MIN_RETURNS, 4 * max_lag)
    if paths.shape[1] < needed:
        raise TooFewBarsError(needed, paths.shape[1], f"a fidelity report on {kind} returns")
    if not np.isfinite(paths).all():
        raise DataError(f"expected finite {kind} returns, found NaN or infinity; remove them")
    if (np.ptp(paths, axis=1) == 0).any():
        raise DataError(f"expected {kind} returns that vary, found a path of constant ones")
    return paths


def _check_settings(max_lag: int, coverage: float, block_length: float, resamples: int) -> None:
    if max_lag < 1:
        raise ConfigError(f"expected max_lag of at least 1, found {max_lag}")
    if not 0 < coverage < 1:
        raise ConfigError(f"expected coverage inside (0, 1), found {coverage}")
    if not block_length >= 1:
        raise ConfigError(f"expected block_length of 1 or more, found {block_length}")
    if resamples < 20:
        raise ConfigError(f"expected at least 20 resamples, found {resamples}")
