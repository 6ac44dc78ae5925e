"""Are losses beyond the quantile as many and as large as said? Acerbi and Szekely's Z1 and Z2.

Their p-values are simulated from the forecasts. A simulation is needed in the tail only, so it
is given as an (S, N) array of returns or as a rule that draws returns of a bar's tail:
`distribution_tail` reads it off distributions, `exponential_tail` makes it from quantile and
shortfall alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from glow_bt.errors import ConfigError, DataError
from glow_bt.risk.backtests.tails import (
    check_level,
    check_shortfalls,
    equal_bars,
    lower_tail,
    resampled_pvalue,
)
from glow_bt.risk.forecasts import ReturnDistribution

__all__ = [
    "Z2_CRITICAL_VALUE",
    "AcerbiSzekelyResult",
    "TailDraws",
    "acerbi_szekely_test",
    "distribution_tail",
    "exponential_tail",
]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]

# (bars (M,), u (M,) in [0, 1)) -> returns (M,): of each bar the return beyond its quantile that
# is further out than a share u of all returns beyond.
TailDraws = Callable[[Ints, Floats], Floats]

# 5 % critical value of Z2 for 250 bars at the 2.5 % level, hardly different for normal and
# Student t forecasts (Acerbi & Szekely 2014); simulated here: -0.70 normal, -0.76 with 4 degrees.
Z2_CRITICAL_VALUE = -0.70

# Uniform numbers drawn at once.
_BLOCK = 2**20
_Draws = tuple[Ints, Floats, int]  # path and ratio r / ES of each violation, number of paths


@dataclass(frozen=True)
class AcerbiSzekelyResult:
    """Outcome of `acerbi_szekely_test`.

    Attributes:
        statistic: Z2, zero in expectation under the null, below it where risk is underestimated:
            too many violations, or too large ones.
        pvalue: one-sided, share of simulated Z2 that are as low.
        z1: Z1, about the size of violations alone; None without a violation.
        z1_pvalue: one-sided, share of simulated Z1 that are as low; None without a violation.
        num_violations: violations found.
        num_bars: number of forecasts.
        num_simulations: simulated paths.
    """

    statistic: float
    pvalue: float
    z1: float | None
    z1_pvalue: float | None
    num_violations: int
    num_bars: int
    num_simulations: int

    @property
    def below_critical_value(self) -> bool:
        """Whether Z2 is below the published -0.70, which is for 250 bars at 2.5 % alone."""
        return self.statistic < Z2_CRITICAL_VALUE


def acerbi_szekely_test(
    returns: ArrayLike,
    quantile: ArrayLike,
    shortfall: ArrayLike,
    level: float,
    simulated: ArrayLike | TailDraws,
    *,
    simulations: int = 1000,
    seed: int = 0,
) -> AcerbiSzekelyResult:
    """Test expected shortfall by the losses beyond the quantile.

    With I_t = 1[violation at t], M = sum I_t and ES_t the forecast mean beyond the quantile,

        Z1 = 1 - (1/M) sum I_t r_t / ES_t          Z2 = 1 - sum I_t r_t / ES_t / (N p)

    (r and ES have one sign, so that this is the authors' definition with their signs.) Both are
    zero in expectation under the null. Z1 takes the violations as given and asks for their
    size, over simulated paths that have any; Z2 asks for number and size. Acerbi & Szekely 2014,
    "Backtesting expected shortfall", Risk, December, sections 3.1 and 3.2. Their Z3 is not here:
    it needs N^2 quantiles for each simulated path.

    Args:
        returns: (N,) returns that came true.
        quantile: (N,) forecasts of their quantile, or one for all.
        shortfall: (N,) forecasts of the mean return beyond it, or one for all.
        level: probability below the quantile, in (0, 1); upper tails are above 0.5.
        simulated: (S, N) returns drawn from the forecasts, or what draws from their tails.
        simulations: paths to draw, if they are not given.
        seed: of the drawing; equal input and seed give an equal p-value.

    Raises:
        ConfigError: if the level is outside (0, 1), or simulations are below 1.
        DataError: if shapes differ, a value is not finite, or a shortfall is no loss.
        TooFewBarsError: if there is no return.
    """
    check_level(level)
    bars = equal_bars(returns, quantile, shortfall, min_bars=1, purpose="the Acerbi-Szekely test")
    probability, (realised, var, cvar) = lower_tail(level, *bars)
    check_shortfalls(cvar)
    if simulations < 1:
        raise ConfigError(f"expected at least one simulation, found {simulations}; 1000 is usual")
    if callable(simulated):
        blocks = _drawn(simulated, bars[2], probability, simulations, seed)
    else:
        blocks = _given(np.asarray(simulated, dtype=np.float64), var, cvar, level)
    expected = probability * realised.size
    null = [_z_statistics(block, expected) for block in blocks]
    z1_null, z2_null = (np.concatenate(values) for values in zip(*null, strict=True))
    beyond = np.flatnonzero(realised < var)
    found = (np.zeros_like(beyond), realised[beyond] / cvar[beyond], 1)
    (z1,), (z2,) = _z_statistics(found, expected)
    z1_null = z1_null[np.isfinite(z1_null)]
    return AcerbiSzekelyResult(
        statistic=float(z2),
        pvalue=resampled_pvalue(z2_null <= z2),
        z1=float(z1) if beyond.size else None,
        z1_pvalue=resampled_pvalue(z1_null <= z1) if beyond.size else None,
        num_violations=beyond.size,
        num_bars=realised.size,
        num_simulations=z2_null.size,
    )


def distribution_tail(
    distribution: ReturnDistribution, level: float, *, strata: int = 200
) -> TailDraws:
    """Draw from the tails of N distributions beyond their quantile at a level.

    The tail is cut into strata of equal probability, each of which stands for its median.

    Raises:
        ConfigError: if the level is outside (0, 1), or strata are below 1.
    """
    check_level(level)
    if strata < 1:
        raise ConfigError(f"expected at least one stratum, found {strata}; 200 is usual")
    outside = (strata - np.arange(strata) - 0.5) / strata * min(level, 1.0 - level)
    probabilities = outside if level <= 0.5 else 1.0 - outside
    table = np.stack([distribution.quantile(float(p)) for p in probabilities])

    def draw(bars: Ints, u: Floats) -> Floats:
        return np.asarray(table[(u * strata).astype(np.intp), bars])

    return draw


def exponential_tail(quantile: ArrayLike, shortfall: ArrayLike, level: float) -> TailDraws:
    """Draw from exponential tails that have the forecast quantile and shortfall.

    A return beyond the quantile is q + (ES - q) E with E exponential of mean 1: of all tails
    that begin at q and have the mean ES the one of the largest entropy, the limit of all whose
    far tail is neither bounded nor a power law. Z2 hardly depends on the shape, because it varies
    mostly with the number of violations: at a nominal 5 % a right forecast with these tails taken
    for its own is rejected 5 % of the time if it is normal, 5.5 % if it is a Student t of 4
    degrees and 6 to 7 % with 3. Z1 does depend on it (3.5 %, 10 % and 13 %): read it only with
    draws from the forecast itself.

    Args:
        quantile: (N,) forecasts of the quantile.
        shortfall: (N,) forecasts of the mean return beyond it.
        level: probability below the quantile, in (0, 1); upper tails are above 0.5.

    Raises:
        ConfigError: if the level is outside (0, 1).
        DataError: if shapes differ, a value is not finite, or a shortfall is nearer to the
            middle than its quantile.
        TooFewBarsError: if there is no bar.
    """
    check_level(level)
    start, mean = equal_bars(quantile, shortfall, min_bars=1, purpose="an exponential tail")
    excess = mean - start
    _, (outwards,) = lower_tail(level, -excess)
    if (outwards < 0.0).any():
        raise DataError(
            f"expected shortfalls beyond their quantiles, found {int((outwards < 0.0).sum())} of "
            f"{outwards.size} nearer to the middle; a mean of a tail lies inside the tail"
        )

    def draw(bars: Ints, u: Floats) -> Floats:
        return np.asarray(start[bars] - excess[bars] * np.log1p(-u))

    return draw


def _given(simulated: Floats, var: Floats, cvar: Floats, level: float) -> Iterator[_Draws]:
    """Yield the violations in simulated paths (S, N)."""
    if simulated.ndim != 2 or simulated.shape[1:] != var.shape or not len(simulated):
        raise DataError(
            f"expected simulated returns of shape (S, {var.size}), found {simulated.shape}; "
            "give one row a path"
        )
    if not np.isfinite(simulated).all():
        raise DataError("expected finite simulated returns, found NaN or infinity")
    _, (paths,) = lower_tail(level, simulated)
    rows, bars = np.nonzero(paths < var)
    yield rows, paths[rows, bars] / cvar[bars], len(paths)


def _drawn(
    draw: TailDraws, shortfall: Floats, probability: float, simulations: int, seed: int
) -> Iterator[_Draws]:
    """Yield the violations in paths whose bars are violated independently."""
    rng = np.random.default_rng(seed)
    size = max(_BLOCK // shortfall.size, 1)
    for done in range(0, simulations, size):
        count = min(size, simulations - done)
        rows, bars = np.nonzero(rng.random((count, shortfall.size)) < probability)
        yield rows, draw(bars, rng.random(rows.size)) / shortfall[bars], count


def _z_statistics(draws: _Draws, expected: float) -> tuple[Floats, Floats]:
    """Return Z1 and Z2 (S,) of each path; Z1 is NaN in a path without a violation."""
    rows, ratios, count = draws
    hits = np.bincount(rows, minlength=count)
    totals = np.bincount(rows, weights=ratios, minlength=count)
    z1 = 1.0 - np.divide(totals, hits, out=np.full(count, np.nan), where=hits > 0)
    return z1, 1.0 - totals / expected
