"""The Basel traffic light: how many violations a supervisor bears, and what the rest costs.

Basel Committee on Banking Supervision, January 1996, "Supervisory framework for the use of
'backtesting' in conjunction with the internal models approach to market risk capital
requirements".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from numpy.typing import ArrayLike
from scipy.stats import binom, norm

from glow_bt.risk.backtests.tails import check_violation_level, hits_of

__all__ = ["TrafficLightResult", "Zone", "traffic_light"]

Zone = Literal["green", "yellow", "red"]

# Where the yellow and the red zone begin: the probability of at most so many violations.
_YELLOW, _RED = 0.95, 0.9999
# Basel's table 2, for 250 bars at 1 %, by the number of violations.
_BASEL_BARS, _BASEL_LEVEL = 250, 0.01
_BASEL_PLUS = {5: 0.40, 6: 0.50, 7: 0.65, 8: 0.75, 9: 0.85}
# The multiplier that the plus factor is added to.
_MULTIPLIER = 3.0


@dataclass(frozen=True)
class TrafficLightResult:
    """Outcome of `traffic_light`.

    Attributes:
        statistic: number of violations.
        pvalue: probability of so many violations or more under the null.
        cumulative: probability of so many violations or fewer, which decides the zone.
        zone: green (below 95 %), yellow (below 99.99 %) or red.
        plus_factor: what is added to the multiplier 3 of the capital charge, from 0 to 1.
        level: the tail probability that was claimed.
        num_bars: number of forecasts.
    """

    statistic: int
    pvalue: float
    cumulative: float
    zone: Zone
    plus_factor: float
    level: float
    num_bars: int


def traffic_light(violations: ArrayLike, level: float) -> TrafficLightResult:
    """Sort a number of violations into Basel's zones.

    With x violations in N bars, X binomial(N, p): green while P(X <= x) < 95 %, red from
    P(X <= x) >= 99.99 % on, yellow between. With 250 bars at 1 % the plus factor is Basel's
    table (0 up to 4 violations, then 0.40, 0.50, 0.65, 0.75, 0.85, and 1 from 10 on). For other
    lengths and levels the yellow zone takes the reasoning behind the table: the factor by which
    a normal quantile at the rate found must grow to reach the claimed level,
    3 (z_p / z_(x/N) - 1), between 0 and 1; at 250 bars and 1 % that is within 0.03 of the table.
    Counts are discrete: a right forecast leaves the green zone more often than 5 % of the time,
    10.8 % with 250 bars at 1 %.

    Args:
        violations: (N,) booleans, one a forecast.
        level: claimed probability p of a violation, in (0, 0.5].

    Raises:
        ConfigError: if the level is outside (0, 0.5].
        DataError: if violations are not a row of booleans.
        TooFewBarsError: if no violation at all would not be green.
    """
    check_violation_level(level)
    needed = math.floor(math.log(_YELLOW) / math.log1p(-level)) + 1
    hits = hits_of(violations, min_bars=needed, purpose="the traffic light")
    count, num_bars = int(hits.sum()), hits.size
    cumulative = float(binom.cdf(count, num_bars, level))
    zone: Zone = "green" if cumulative < _YELLOW else "yellow" if cumulative < _RED else "red"
    return TrafficLightResult(
        statistic=count,
        pvalue=float(binom.sf(count - 1, num_bars, level)),
        cumulative=cumulative,
        zone=zone,
        plus_factor=_plus_factor(zone, count, num_bars, level),
        level=float(level),
        num_bars=num_bars,
    )


def _plus_factor(zone: Zone, count: int, num_bars: int, level: float) -> float:
    if zone != "yellow":
        return 0.0 if zone == "green" else 1.0
    if num_bars == _BASEL_BARS and math.isclose(level, _BASEL_LEVEL):
        return _BASEL_PLUS[count]
    if 2 * count >= num_bars:
        return 1.0  # no scale moves a quantile across the median
    wanted, found = norm.ppf(level), norm.ppf(count / num_bars)
    return float(min(max(_MULTIPLIER * (wanted / found - 1.0), 0.0), 1.0))
