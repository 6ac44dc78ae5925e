"""Risk of a portfolio, and what each asset adds to it, from joint scenarios of its assets.

The return of a portfolio over a bar is R = sum_i w_i (exp(r_i) - 1): its profit over the equity
before, with weights w_i that are shares of equity (negative for short positions, the rest in
cash) and r_i the asset's log return. It is a **simple** return, exact, and in this module only:
simple returns add up over assets, log returns do not. So every measure below is homogeneous in
the weights, and parts of assets add up to the whole (Euler; Tasche 1999, "Risk contributions and
performance measurement"). Signs are those of `glow_bt.risk.forecasts`: VaR at p is the
p-quantile of R, a negative number, and the expected shortfall the mean below it.

Standard errors are those of independent scenarios; of evenly spread ones (a quasi-random bank)
the error is smaller.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glow_bt.errors import ConfigError, DataError
from glow_bt.risk.covariance import check_weights
from glow_bt.risk.measures import Estimate, expected_shortfall, value_at_risk
from glow_bt.risk.scenarios import Scenarios, tail_rank

__all__ = ["PortfolioRisk", "portfolio_risk", "portfolio_scenarios"]

Floats = npt.NDArray[np.float64]
_Pair = tuple[Floats, Floats]

# Half-width in ranks of the window around a quantile, as a multiple of S^0.8: wide enough for
# the regression inside, and ever narrower a share of all scenarios.
_WINDOW = 0.5


@dataclass(frozen=True, eq=False)
class PortfolioRisk:
    """Risk of one portfolio at one level before each of T bars, with Monte-Carlo errors.

    Attributes:
        level: p of the lower tail.
        weights: (N,) shares of equity.
        var: (T,) p-quantile of the portfolio's return.
        cvar: (T,) mean return below it.
        marginal_var: (T, N) d VaR / d w_i = E[R_i | R = VaR], R_i the asset's simple return.
        marginal_cvar: (T, N) d CVaR / d w_i = E[R_i | R <= VaR].
        stand_alone_var: (T, N) p-quantile of each position w_i R_i by itself.
        stand_alone_cvar: (T, N) mean below it.
    """

    level: float
    weights: Floats
    var: Estimate
    cvar: Estimate
    marginal_var: Estimate
    marginal_cvar: Estimate
    stand_alone_var: Floats
    stand_alone_cvar: Floats

    @property
    def component_var(self) -> Floats:
        """Return (T, N) w_i times the marginal VaR; the sum over assets is the VaR."""
        return self.weights * self.marginal_var.value

    @property
    def component_cvar(self) -> Floats:
        """Return (T, N) w_i times the marginal CVaR; the sum over assets is the CVaR."""
        return self.weights * self.marginal_cvar.value

    @property
    def var_diversification(self) -> Floats:
        """Return (T,) 1 - VaR over the sum of stand-alone VaRs; NaN if that sum is 0."""
        return _benefit(self.var.value, self.stand_alone_var)

    @property
    def cvar_diversification(self) -> Floats:
        """Return (T,) 1 - CVaR over the sum of stand-alone CVaRs; NaN if that sum is 0.

        It is never below 0 up to rounding where that sum is a loss: CVaR is subadditive.
        """
        return _benefit(self.cvar.value, self.stand_alone_cvar)


def portfolio_scenarios(log_returns: npt.ArrayLike, weights: npt.ArrayLike) -> Scenarios:
    """Return the portfolio's scenarios: simple returns (T, S), see above.

    The probability of a return at most x, P(R <= x), is `share(x, strict=False)` of it.

    Args:
        log_returns: (T, S, N), or (S, N) for one bar: joint scenarios of the next log returns.
        weights: (N,) shares of equity, in the order of the assets.

    Raises:
        DataError: if scenarios are of another shape or not finite, or the weights do not match.
    """
    moves, w = _checked(log_returns, weights)
    return Scenarios(np.expm1(moves) @ w)


def portfolio_risk(
    log_returns: npt.ArrayLike, weights: npt.ArrayLike, level: float
) -> PortfolioRisk:
    """Return VaR, CVaR and what each asset adds to them, with Monte-Carlo errors.

    The quantile is the ceil(pS)-th lowest scenario and the CVaR the mean of the share p of
    lowest ones, as in `glow_bt.risk.scenarios`; the marginal CVaR is each asset's mean over
    these same scenarios. The marginal VaR is a local linear regression of the asset's return on
    the portfolio's, over the scenarios within S^0.8 / 2 ranks of the quantile (but no more than
    half of the tail) with Epanechnikov weights, read at the quantile. Neither needs rescaling to
    add up: the first because means are linear, the second because the regression of the
    portfolio's return on itself is itself. Errors of VaR and CVaR are those of
    `glow_bt.risk.measures`; those of the marginals hold the regression's residuals, or the
    deviation of R_i - E[R_i | VaR] in the tail, and what an error in the VaR does to them.

    Sources: Rockafellar & Uryasev 2002, J. Banking & Finance 26; Tasche 1999; Hong 2009,
    Operations Research 57(1) for the conditional mean at the quantile.

    Args:
        log_returns: (T, S, N), or (S, N) for one bar: joint scenarios of the next log returns.
        weights: (N,) shares of equity, in the order of the assets.
        level: p of the lower tail, in (0, 0.5); for the upper one turn the weights' signs.

    Raises:
        ConfigError: on a level outside (0, 0.5), or less than ten scenarios in its tail.
        DataError: if scenarios are of another shape or not finite, or the weights do not match.
    """
    if not 0 < level < 0.5:
        raise ConfigError(
            f"expected a level inside (0, 0.5), found {level}; for gains as losses of a short "
            "position turn the signs of the weights"
        )
    moves, w = _checked(log_returns, weights)
    assets = np.expm1(moves)
    scenarios = Scenarios(assets @ w)
    var, cvar = value_at_risk(scenarios, level), expected_shortfall(scenarios, level)
    bars = zip(assets, scenarios.draws, var.standard_error, strict=True)
    margins = [_margins(*bar, level) for bar in bars]
    marginal_var, marginal_cvar = (
        Estimate(*(np.array(part) for part in zip(*each, strict=True)))
        for each in zip(*margins, strict=True)
    )
    alone = [Scenarios(np.ascontiguousarray((bar * w).T)) for bar in assets]
    return PortfolioRisk(
        level,
        w,
        var,
        cvar,
        marginal_var,
        marginal_cvar,
        np.array([each.quantile(level) for each in alone]),
        np.array([each.shortfall(level) for each in alone]),
    )


def _margins(assets: Floats, total: Floats, var_error: float, level: float) -> tuple[_Pair, _Pair]:
    """Return marginal VaR and CVaR (N,) of one bar, each with its error, of returns (S, N)."""
    order = np.argsort(total, kind="stable")
    ranked, moves = total[order], assets[order]
    size, rank = len(total), tail_rank(level, len(total))
    half = _half_window(rank, level * size, size)
    around = slice(rank - 1 - half, rank + half)
    at_var, slope, spread = _regress(moves[around], ranked[around], ranked[rank - 1])
    share = np.ones(rank)
    share[-1] = level * size - (rank - 1)
    below = share @ moves[:rank] / share.sum()
    error = _tail_error(moves[:rank] - at_var, level, size)
    return (at_var, np.hypot(spread, slope * var_error)), (below, error)


def _half_window(rank: int, in_tail: float, size: int) -> int:
    wanted = math.ceil(_WINDOW * size**0.8)
    half: int = max(1, min(wanted, int(in_tail / 2), rank - 1))
    return half


def _regress(moves: Floats, total: Floats, at: float) -> tuple[Floats, Floats, Floats]:
    """Return E[moves | total = at] (N,), its slope (N,) and standard error (N,).

    Local linear, with Epanechnikov weights over ranks. Where the totals are all one number the
    slope is 0 and the estimate the mean.
    """
    half = (len(total) - 1) / 2
    kernel = 1 - (np.arange(-half, half + 1) / (half + 1)) ** 2
    kernel /= kernel.sum()
    centre = kernel @ total
    x = total - centre
    variance = kernel @ x**2
    lever = x * kernel / variance if variance > 0 else np.zeros_like(x)
    slope = lever @ moves
    smoother = kernel + (at - centre) * lever
    estimate = smoother @ moves
    residual = moves - estimate - np.outer(total - at, slope)
    return estimate, slope, np.sqrt(smoother**2 @ residual**2)


def _tail_error(beyond: Floats, level: float, size: int) -> Floats:
    """Return the standard error of sum(beyond) / (p S), where the rest of S terms are 0."""
    first, second = beyond.sum(axis=0) / size, np.square(beyond).sum(axis=0) / size
    error: Floats = np.sqrt(np.maximum(second - first**2, 0) / size) / level
    return error


def _benefit(whole: Floats, parts: Floats) -> Floats:
    total = parts.sum(axis=1)
    benefit = np.full(len(whole), np.nan)
    np.divide(whole, total, out=benefit, where=total != 0)
    return 1 - benefit


def _checked(log_returns: npt.ArrayLike, weights: npt.ArrayLike) -> tuple[Floats, Floats]:
    moves = np.asarray(log_returns, dtype=np.float64)
    if moves.ndim == 2:
        moves = moves[None]
    if moves.ndim != 3 or not moves.size:
        raise DataError(
            "expected joint scenarios of log returns of shape (T, S, N) or (S, N), found "
            f"{np.shape(log_returns)}"
        )
    if not np.isfinite(moves).all():
        raise DataError("expected finite scenarios of log returns, found NaN or infinity")
    return moves, check_weights(weights, moves.shape[2])
