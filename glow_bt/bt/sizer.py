"""Order sizes from the model's VaR."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import backtrader as bt

from glow_bt.bt.indicator import find_indicator
from glow_bt.bt.parameters import refuse_unknown
from glow_bt.errors import ConfigError
from glow_bt.policy import PolicyParams, entry_exposure, exposure_of, position_size

__all__ = ["GlowVaRSizer"]


class GlowVaRSizer(bt.Sizer):
    """Sizes ``self.buy()`` and ``self.sell()`` so that VaR and CVaR stay within their budgets.

    size = equity x min(risk_budget / (|VaR| + error_margin x its standard error),
    es_budget / |CVaR|, leverage_cap) / close (`glow_bt.policy.var_exposure_limit`), less what is
    already held on that side, so that repeated orders do not pile up. Zero outside the likelihood
    filter and without a VaR: Backtrader then places no order. The leverage cap is used up to
    99 %, which leaves room for the next open and the commission.

    Args:
        risk_budget: loss, as a fraction of equity, that the VaR may amount to.
        es_budget: the same of CVaR (expected shortfall); None for no such limit.
        error_margin: standard errors of the VaR added to it, for indicators that know one.
        leverage_cap: largest exposure; not above the commission scheme's leverage.
        qty_step: sizes are rounded down to multiples of it; 0 for any size.

    Raises:
        ConfigError: if a parameter cannot work, or (at the first order) if the strategy has no
            GlowIndicator on the ordered data.
    """

    params: ClassVar[Any] = (
        ("risk_budget", PolicyParams.risk_budget),
        ("es_budget", PolicyParams.es_budget),
        ("error_margin", PolicyParams.error_margin),
        ("leverage_cap", PolicyParams.leverage_cap),
        ("qty_step", 0.0),
    )

    def __init__(self, *args: object, **kwargs: object) -> None:
        refuse_unknown(self, args, kwargs)
        super().__init__()
        self.policy = PolicyParams(
            risk_budget=self.p.risk_budget,
            es_budget=self.p.es_budget,
            error_margin=self.p.error_margin,
            leverage_cap=self.p.leverage_cap,
        )

    def _getsizing(
        self,
        comminfo: bt.CommInfoBase,
        cash: float,
        data: bt.AbstractDataBase,
        isbuy: bool,
    ) -> float:
        indicator = find_indicator(self.strategy, data)
        if indicator is None:
            raise ConfigError(
                f"expected a GlowIndicator on data {data._name!r}, found none; create one in the "
                "strategy's __init__, or give the order a size"
            )
        equity, close = self.broker.getvalue(), data.close[0]
        side = 1.0 if isbuy else -1.0
        held = side * exposure_of(self.broker.getposition(data).size, close, equity)
        var = indicator.lines.var[0]
        # The standard error is asked for only where it counts: it may have to be worked out.
        error_counts = self.policy.error_margin > 0.0 and not math.isnan(var)
        exposure = entry_exposure(
            indicator.lines.in_distribution[0],
            var,
            held,
            self.policy,
            cvar=indicator.lines.cvar[0],
            var_error=indicator.var_error() if error_counts else 0.0,
        )
        return position_size(exposure, equity, close, self.p.qty_step)
