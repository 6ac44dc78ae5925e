"""The decision: from what the model says about the last bars to the exposure worth holding.

Exposure is signed position value over equity: 0.5 is half of the equity long, -1 all of it
short. Every threshold of a trading decision stands here, and everything here is a function of
numbers known at the bar's close; orders then fill at the next bar's open.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from glow_bt.errors import ConfigError

__all__ = [
    "FILL_RESERVE",
    "PolicyParams",
    "ScoreAverage",
    "entry_exposure",
    "exposure_of",
    "position_size",
    "rebalanced_exposure",
    "round_to_step",
    "target_exposure",
    "trade_band",
    "usable_exposure",
    "var_exposure_limit",
]

# Share of the leverage cap that is used. An order is sized at a bar's close and pays at the
# next open plus commission; at the full cap either would exceed the account.
FILL_RESERVE = 0.99
# Where an order ends, in half-widths of the band from its middle. At the edge itself, 1, the next
# breath of the price would ask for another order (benchmarks/select_policy.md).
_REACH = 0.8
# A few rounding errors, so that 0.3 is three steps of 0.1 although 0.3 / 0.1 < 3 in floats.
_ROUNDING = 8 * 2.0**-52


@dataclass(frozen=True)
class PolicyParams:
    """Thresholds of the decision.

    Attributes:
        risk_budget: loss, as a fraction of equity, that the VaR may amount to.
        leverage_cap: largest |exposure|, whatever the VaR.
        dead_band: how far exposure may be from the one wanted without an order, before costs.
        long_only: never short; what would be short is flat.
        cost_rate: cost of trading one unit of notional one way (commission + slippage).
        es_budget: loss, as a fraction of equity, that the expected shortfall may amount to;
            None for no such limit.
        error_margin: standard errors of the VaR that are added to it; 0 takes it as it is.
        stance: side that is taken where the model has no evidence of a direction, in [-1, 1]:
            1 holds the asset, 0 stays out. The direction is added to it.
        half_life: bars after which a bar's weight in the averages of confidence, VaR and expected
            shortfall has halved (`ScoreAverage`); 0 goes by the current bar alone.
        use_filter: whether the likelihood counts. If not, confidence is 1 at every bar and none
            is left out.
        use_direction: whether the direction counts. If not, the stance alone is taken.
        constant_limit: |exposure| that stands for the limits that VaR and expected shortfall set,
            up to the leverage cap; None for theirs.

    The last three take a part out of the decision, to see what it adds. A bar of which the model
    says nothing (NaN) is flat all the same.
    """

    risk_budget: float = 0.01
    leverage_cap: float = 1.0
    dead_band: float = 0.1
    long_only: bool = False
    cost_rate: float = 0.0
    es_budget: float | None = None
    error_margin: float = 1.0
    stance: float = 1.0
    half_life: float = 24.0
    use_filter: bool = True
    use_direction: bool = True
    constant_limit: float | None = None

    def __post_init__(self) -> None:
        for name in ("risk_budget", "leverage_cap", "es_budget", "constant_limit"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0.0):
                raise ConfigError(f"expected {name} above 0, found {value}; 0.02 is 2 % of equity")
        for name in ("dead_band", "cost_rate", "error_margin", "half_life"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0.0):
                raise ConfigError(
                    f"expected {name} of 0 or more, found {value}; 0 switches it off"
                )
        if not -1.0 <= self.stance <= 1.0:
            raise ConfigError(
                f"expected a stance in [-1, 1], found {self.stance}; 1 holds the asset where the "
                "model has no evidence of a direction, 0 stays out"
            )
        if self.cost_rate >= 1.0:
            raise ConfigError(
                f"expected cost_rate below 1, found {self.cost_rate}; "
                "give a fraction of the notional, 0.00055 for 5.5 basis points"
            )


def var_exposure_limit(
    var: float,
    params: PolicyParams,
    *,
    cvar: float = math.nan,
    var_error: float = 0.0,
) -> float:
    """Return the |exposure| at which VaR and expected shortfall stay within their budgets.

    limit = min(risk_budget / (|var| + error_margin var_error), es_budget / |cvar|, leverage_cap).

    A move of the price by the fraction |var| (error_margin standard errors more included) costs
    at most the risk budget, a move by the fraction |cvar| at most the ES budget. A long loses
    exposure x (1 - e^r) at a log return r, which is less than the fraction -r: at the VaR, and on
    average beyond it, it loses less than the budgets. Only the lower tail is known and stands for
    the upper one: a short is taken to face rises as large, in fractions of the price, as the
    falls that a long faces. A log return of +|var| is a larger rise and would cost a short up to
    (e^|var| - 1) / |var| budgets, 1.015 at |var| = 3 %.

    A VaR or a shortfall above zero is no loss of a long but one of a short: its size counts.
    A constant_limit takes the place of the budgets.

    Args:
        var: lower quantile of the log return that the model forecasts, such as -0.031.
        params: the budgets, error_margin and leverage_cap are used.
        cvar: mean log return below it; used only with an ES budget.
        var_error: standard error of the VaR; used only with an error_margin above 0.

    Returns:
        0 where a loss is infinite, NaN where a number that is used is NaN.

    Raises:
        ConfigError: if the standard error is below 0.
    """
    loss = abs(var)
    if params.error_margin > 0.0:
        if var_error < 0.0:
            raise ConfigError(
                f"expected a standard error of the VaR of 0 or more, found {var_error}; "
                "give 0 where none is known"
            )
        loss += params.error_margin * var_error
    limit = _affordable(params.risk_budget, loss, params.leverage_cap)
    if params.es_budget is not None:
        within_shortfall = _affordable(params.es_budget, abs(cvar), params.leverage_cap)
        limit = math.nan if math.isnan(within_shortfall) else min(limit, within_shortfall)
    if math.isnan(limit) or params.constant_limit is None:
        return limit
    return min(params.constant_limit, params.leverage_cap)


def _affordable(budget: float, loss: float, cap: float) -> float:
    """Return the largest exposure up to the cap that loses no more than the budget.

    Args:
        budget: what may be lost, as a fraction of equity.
        loss: of an exposure of 1; NaN gives NaN.
        cap: largest exposure.
    """
    if math.isnan(loss):
        return math.nan
    return cap if loss * cap <= budget else budget / loss


def usable_exposure(exposure: float, params: PolicyParams) -> float:
    """Clip an exposure to what an order at the next open can still pay for.

    That is `FILL_RESERVE` of the leverage cap.
    """
    cap = FILL_RESERVE * params.leverage_cap
    return min(max(exposure, -cap), cap)


def target_exposure(
    direction: float,
    confidence: float,
    in_distribution: float,
    var: float,
    params: PolicyParams,
    *,
    cvar: float = math.nan,
    var_error: float = 0.0,
) -> float:
    """Return side x familiarity x VaR limit; zero outside the filter or with any NaN.

    The side is stance + direction, clipped to [-1, 1]. The familiarity is min(1, 2 confidence):
    where bars are as usual as the held-out ones that confidence is a rank among, it is uniform on
    [0, 1], and twice its average is 1; 0.94 on average with 5 % of bars outside the filter and a
    half-life of 24 bars. Hand over averages, from `ScoreAverage`, for that.

    Args:
        direction: in [-1, 1], negative for falling.
        confidence: in [0, 1], how usual the market state is.
        in_distribution: 1 (or True) inside the likelihood filter, 0 outside.
        var: lower quantile of the log return that the model forecasts.
        params: everything but the dead-band.
        cvar: see `var_exposure_limit`; NaN counts only with an ES budget.
        var_error: see `var_exposure_limit`; NaN counts only with an error_margin above 0.

    Returns:
        The exposure to hold, at most `FILL_RESERVE` of the leverage cap in size.
    """
    limit = var_exposure_limit(var, params, cvar=cvar, var_error=var_error)
    if any(math.isnan(value) for value in (direction, confidence, in_distribution, limit)):
        return 0.0
    if not params.use_filter:
        confidence = in_distribution = 1.0
    side = params.stance + (direction if params.use_direction else 0.0)
    if not in_distribution or (params.long_only and side < 0.0):
        return 0.0
    side = min(max(side, -1.0), 1.0)
    return usable_exposure(side * min(1.0, 2.0 * confidence) * limit, params)


class ScoreAverage:
    """Averages of what the model says about the bars so far, the last ones above all.

    average_t = sum_k w^k x_(t-k) / sum_k w^k with w = 2^(-1 / half_life), over all bars seen (of
    several feeds, those since all of them have begun). A
    state that is unusual, or a VaR that is wide, for a bar or two is no reason to pay for a trade;
    one that stays so is. Outside the filter a bar's confidence counts as 0.

    Bars of which the model says nothing (NaN), or that have an infinite loss, are handed back as
    they are and do not enter the averages. A bar that is still forming may be given again.

    Args:
        params: half_life, and which numbers count (es_budget, error_margin).
    """

    def __init__(self, params: PolicyParams) -> None:
        self._counts = (params.es_budget is not None, params.error_margin > 0.0)
        self._keeps = 2.0 ** (-1.0 / params.half_life) if params.half_life > 0.0 else 0.0
        self._bar = -1
        self._before: tuple[float, ...] = (0.0,) * 5
        self._now: tuple[float, ...] = (0.0,) * 5

    @property
    def state(self) -> list[float]:
        """Weight and averages after the last bar, to go on from in another run."""
        return list(self._now)

    @state.setter
    def state(self, values: list[float]) -> None:
        self._now = tuple(values)

    def update(
        self,
        bar: int,
        confidence: float,
        in_distribution: float,
        var: float,
        cvar: float = math.nan,
        var_error: float = 0.0,
    ) -> tuple[float, float, float, float, float]:
        """Take a bar in.

        Args:
            bar: number of the bar; the same number again replaces what was said of it before.
            confidence: in [0, 1], how usual the market state is.
            in_distribution: 1 (or True) inside the likelihood filter, 0 outside.
            var: lower quantile of the log return that the model forecasts.
            cvar: mean log return below it; counts only with an ES budget.
            var_error: standard error of the VaR; counts only with an error_margin above 0.

        Returns:
            Averages of confidence, in_distribution (1 if any confidence is left, else 0), var,
            cvar and var_error.
        """
        es_counts, error_counts = self._counts
        inside = confidence * in_distribution
        tail = cvar if es_counts else 0.0
        error = var_error if error_counts else 0.0
        if bar != self._bar:
            self._bar, self._before = bar, self._now
        if not math.isfinite(inside + var + tail + error):
            self._now = self._before
            return confidence, in_distribution, var, cvar, var_error
        weight, mean_inside, mean_var, mean_tail, mean_error = self._before
        weight = weight * self._keeps + 1.0
        mean_inside += (inside - mean_inside) / weight
        mean_var += (var - mean_var) / weight
        mean_tail += (tail - mean_tail) / weight
        mean_error += (error - mean_error) / weight
        self._now = (weight, mean_inside, mean_var, mean_tail, mean_error)
        return mean_inside, float(mean_inside > 0.0), mean_var, mean_tail, mean_error


def entry_exposure(
    in_distribution: float,
    var: float,
    held: float,
    params: PolicyParams,
    *,
    cvar: float = math.nan,
    var_error: float = 0.0,
) -> float:
    """Return how much exposure may be added on one side: the VaR limit, less what is held there.

    Args:
        in_distribution: 1 (or True) inside the likelihood filter, 0 outside.
        var: lower quantile of the log return that the model forecasts.
        held: exposure on the side of the order, negative when the position is on the other one.
        params: the budgets, error_margin and leverage_cap are used.
        cvar: see `var_exposure_limit`; NaN counts only with an ES budget.
        var_error: see `var_exposure_limit`; NaN counts only with an error_margin above 0.

    Returns:
        0 or more; 0 outside the filter or with any NaN.
    """
    limit = var_exposure_limit(var, params, cvar=cvar, var_error=var_error)
    if math.isnan(in_distribution) or math.isnan(limit):
        return 0.0
    if params.use_filter and not in_distribution:
        return 0.0
    return max(usable_exposure(limit, params) - max(held, 0.0), 0.0)


def trade_band(params: PolicyParams) -> float:
    """Return how far exposure may be from the target before trading is worth what it costs.

    band = dead_band + (3/32 cost_rate)^(1/3). The second term is the half-width of the no-trade
    region under proportional costs, (3/(2p) x^2 (1-x)^2 cost)^(1/3), where it is widest (x = 1/2)
    for log utility (p = 1): Janeček & Shreve 2004, "Asymptotic analysis for optimal investment
    and consumption with transaction costs", Finance and Stochastics 8(2).
    """
    return params.dead_band + math.cbrt(3.0 / 32.0 * params.cost_rate)


def rebalanced_exposure(current: float, target: float, params: PolicyParams) -> float:
    """Return the exposure to hold next: the current one, or one just inside the band.

    Within the band around the target nothing is traded, from outside little further than to its
    nearer edge: under proportional costs more is not worth them (Davis & Norman 1990, "Portfolio
    selection with transaction costs", Mathematics of Operations Research 15(4), theorem 5.1). An
    order ends 0.8 half-widths from the target, so that none is smaller than a fifth of one. There
    is no band around leaving the market (target 0: no side, or nothing known of the bar) nor for
    an exposure that drifted above the leverage cap.

    Args:
        current: exposure held, at the bar's close.
        target: from `target_exposure`.
        params: dead_band, cost_rate and leverage_cap are used.
    """
    if target == 0.0 or abs(current) > params.leverage_cap:
        return target
    band = trade_band(params)
    if abs(target - current) <= band:
        return current
    return target + math.copysign(_REACH * band, current - target)


def exposure_of(size: float, price: float, equity: float) -> float:
    """Return signed position value over equity; infinite when the equity is used up."""
    if size == 0.0:
        return 0.0
    return size * price / equity if equity > 0.0 else math.copysign(math.inf, size)


def position_size(exposure: float, equity: float, price: float, step: float = 0.0) -> float:
    """Return the signed quantity whose value is exposure times equity.

    Args:
        exposure: signed position value over equity.
        equity: account value; nothing is held when it is 0 or below.
        price: of one unit.
        step: quantities are multiples of it, rounded towards zero; 0 for any quantity.
    """
    if equity <= 0.0:
        return 0.0
    return round_to_step(exposure * equity / price, step)


def round_to_step(size: float, step: float) -> float:
    """Round a signed quantity towards zero to a multiple of step; step 0 leaves it alone."""
    if step == 0.0:
        return size
    steps = math.floor(abs(size) / step * (1.0 + _ROUNDING))
    # The product carries a rounding error (3 * 0.1), which a venue would refuse.
    return math.copysign(round(steps * step, 12), size)
