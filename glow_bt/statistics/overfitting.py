"""How often does the best configuration of one half of the bars fail on the other half?

Combinatorially symmetric cross-validation. Bailey, Borwein, Lopez de Prado & Zhu 2017, "The
probability of backtest overfitting", Journal of Computational Finance 20(4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from glow_bt.errors import ConfigError
from glow_bt.statistics.checked import NO_RISK, checked_columns

__all__ = ["CRITERIA", "OverfittingResult", "backtest_overfitting"]

Floats = npt.NDArray[np.float64]

CRITERIA = ("sharpe", "mean")

# The number of halves grows as 2^S: 184,756 for 20 blocks.
_MOST_BLOCKS = 20


@dataclass(frozen=True, eq=False)
class OverfittingResult:
    """Outcome of `backtest_overfitting`. A split is one choice of half of the blocks.

    Attributes:
        probability: share of splits in which the configuration that is best in sample is no better
            than the median out of sample: its logit is at most 0.
        logits: (C,) log(w / (1 - w)), w being the chosen configuration's rank out of sample over
            K + 1.
        in_sample: (C,) score of the chosen configuration where it was chosen.
        out_of_sample: (C,) its score on the other half.
        chosen: (C,) which configuration it was.
        slope: of the line of out_of_sample on in_sample; below 0, the better in sample the worse
            out of it. NaN where in_sample does not vary.
        intercept: of that line.
        r_squared: share of the variance that the line explains.
        loss_probability: share of splits in which the chosen one's score out of sample is below 0.
        first_order: whether the chosen scores out of sample dominate those of a configuration
            taken at random: at no level is the share of scores below it larger.
        second_order: whether that holds of the shares' integral up to each level; follows from
            first_order.
        advantage: mean score out of sample of the chosen ones minus that of all.
        num_blocks: S.
        num_configurations: K.
        num_bars: N.
    """

    probability: float
    logits: Floats
    in_sample: Floats
    out_of_sample: Floats
    chosen: npt.NDArray[np.intp]
    slope: float
    intercept: float
    r_squared: float
    loss_probability: float
    first_order: bool
    second_order: bool
    advantage: float
    num_blocks: int
    num_configurations: int
    num_bars: int


def backtest_overfitting(
    gains: ArrayLike, *, num_blocks: int = 16, criterion: str = "sharpe"
) -> OverfittingResult:
    """Measure how much of a choice among configurations is overfitting.

    The bars are divided into S blocks. For each way to choose S/2 of them, the configuration with
    the best score on these is looked for on the others. Where none is better than another the
    probability is 1/2 on average, or somewhat more if K is odd, since the median counts as
    failing; in a single sample it is far from it (standard deviation 0.20 with K = 20, S = 10).
    The line slopes down then (-0.5 on average), because what a configuration has earned in one
    half it lacks in the other.

    Args:
        gains: (N, K) what each of K configurations gained at each bar: returns, or losses of a
            forecast with the sign changed; higher is better. In order of time.
        num_blocks: S, even; 16 give 12,870 splits. Blocks differ by at most one bar.
        criterion: "sharpe", mean over standard deviation of a bar (0 where nothing varies, as
            without a trade), or "mean".

    Raises:
        ConfigError: if S is odd or not within 2 and 20, or the criterion is unknown.
        DataError: on fewer than two configurations or gains that are not finite.
        TooFewBarsError: if a block would have fewer than two bars.
    """
    if num_blocks % 2 or not 2 <= num_blocks <= _MOST_BLOCKS:
        raise ConfigError(
            f"expected an even number of blocks from 2 to {_MOST_BLOCKS}, found {num_blocks}; "
            "16 are usual"
        )
    if criterion not in CRITERIA:
        raise ConfigError(f"expected a criterion among {', '.join(CRITERIA)}, found {criterion!r}")
    values = checked_columns(
        gains, min_bars=2 * num_blocks, purpose="cross-validation of backtests", what="gains"
    )
    num_bars, num_configurations = values.shape
    if num_configurations < 2:
        raise ConfigError(
            f"expected at least 2 configurations to choose from, found {num_configurations}"
        )
    scores_in, scores_out = _scores(values, num_blocks, criterion)
    splits = np.arange(len(scores_in))
    chosen = scores_in.argmax(axis=1)
    in_sample, out_of_sample = scores_in[splits, chosen], scores_out[splits, chosen]
    ranks = rankdata(scores_out, axis=1)[splits, chosen]
    logits = np.log(ranks / (num_configurations + 1 - ranks))
    slope, intercept, r_squared = _line(in_sample, out_of_sample)
    first_order, second_order = _dominance(out_of_sample, scores_out)
    return OverfittingResult(
        probability=float((logits <= 0).mean()),
        logits=logits,
        in_sample=in_sample,
        out_of_sample=out_of_sample,
        chosen=chosen,
        slope=slope,
        intercept=intercept,
        r_squared=r_squared,
        loss_probability=float((out_of_sample < 0).mean()),
        first_order=first_order,
        second_order=second_order,
        advantage=float(out_of_sample.mean() - scores_out.mean()),
        num_blocks=num_blocks,
        num_configurations=num_configurations,
        num_bars=num_bars,
    )


def _scores(values: Floats, num_blocks: int, criterion: str) -> tuple[Floats, Floats]:
    """Return (C, K) scores of each split's own blocks and of the others.

    A half's sums are sums of its blocks', so that no bar is touched twice.
    """
    centre = values.mean(axis=0)
    centred = values - centre
    edges = np.linspace(0, len(values), num_blocks + 1).astype(np.intp)[:-1]
    sums = np.add.reduceat(centred, edges, axis=0)
    squares = np.add.reduceat(centred**2, edges, axis=0)
    lengths = np.diff(edges, append=len(values)).astype(np.float64)
    picked = np.zeros((math.comb(num_blocks, num_blocks // 2), num_blocks))
    for row, blocks in zip(picked, combinations(range(num_blocks), num_blocks // 2), strict=True):
        row[list(blocks)] = 1.0
    found = []
    for own in (picked, 1.0 - picked):
        count = (own @ lengths)[:, None]
        mean = own @ sums / count
        score = mean + centre
        if criterion == "sharpe":
            variance = (own @ squares - count * mean**2) / (count - 1)
            deviation = np.sqrt(np.maximum(variance, 0.0))
            risky = deviation > NO_RISK
            score = np.where(risky, score / np.where(risky, deviation, 1.0), 0.0)
        found.append(score)
    return found[0], found[1]


def _line(x: Floats, y: Floats) -> tuple[float, float, float]:
    """Return slope, intercept and R^2 of y on x."""
    dx, dy = x - x.mean(), y - y.mean()
    spread = float(dx @ dx)
    if spread <= NO_RISK**2 * x.size:
        return math.nan, math.nan, math.nan
    slope = float(dx @ dy) / spread
    total = float(dy @ dy)
    r_squared = slope**2 * spread / total if total > 0 else math.nan
    return slope, float(y.mean() - slope * x.mean()), r_squared


def _dominance(chosen: Floats, everyone: Floats) -> tuple[bool, bool]:
    """Return whether chosen scores dominate all scores to first and to second order.

    Both distributions are steps, so that it is enough to look where either has one.
    """
    own, others = np.sort(chosen), np.sort(everyone, axis=None)
    levels = np.union1d(own, others)
    below_own = np.searchsorted(own, levels, side="right") / own.size
    below_others = np.searchsorted(others, levels, side="right") / others.size
    ahead = below_others - below_own
    rounding = 1e-12
    area = np.cumsum(ahead[:-1] * np.diff(levels))
    scale = float(levels[-1] - levels[0])
    return bool((ahead >= -rounding).all()), bool((area >= -rounding * scale).all())
