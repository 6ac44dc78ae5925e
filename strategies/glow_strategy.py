"""The GLOW strategy: likelihood filters, latent direction points, VaR sizes."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from glow_bt.bt.averaged import AveragedStrategy
from glow_bt.bt.indicator import GlowIndicator
from glow_bt.errors import ConfigError

__all__ = ["GlowStrategy"]


class GlowStrategy(AveragedStrategy):
    """Holds side x familiarity x VaR limit, the latter two by averages over the last bars.

    The side is the stance (by default: the asset is held) and what the model knows of direction,
    the familiarity how likely the last states were, the limit what their VaR allows. So by default
    it owns the asset, less of it the riskier or the stranger the market is, and trades seldom.

    The decision is `glow_bt.policy`, its parameters are those of
    `glow_bt.policy.PolicyParams`; all numbers, so that ``optstrategy`` can range over them. Every
    data feed is traded, with an equal share of the capital and the same model. In the warm-up
    and wherever a score is NaN it is flat.

    Args:
        model: an artifact folder, a walk-forward schedule or a scorer (`GlowIndicator`).
        var_level: probability of a loss beyond VaR.
        horizon: bars ahead that VaR and CVaR are for.
        recalibrate: correct VaR and CVaR by how earlier forecasts turned out.
        state: where an earlier run's recalibrations stood, to go on from: the indicators'
            `stream_state`, one for each data feed; None for the start.
        allow_training_bars: trade bars the model was trained on too.
        long_only: never short.
        risk_budget: loss, as a fraction of equity, that the VaR may amount to.
        es_budget: the same of CVaR (expected shortfall); None for no such limit.
        error_margin: standard errors of the VaR added to it, for indicators that know one.
        leverage_cap: largest |exposure|, of which 99 % is used.
        stance: side taken where the model has no evidence of a direction, in [-1, 1].
        half_life: of a bar's weight in the averages, in bars; 0 goes by the current bar alone.
        dead_band: how far exposure may be from the one wanted without an order, before costs.
        cost_rate: cost of trading one unit of notional one way; widens the dead-band.
        start: stamp (UTC) of the first bar at whose close an order may be placed.

    Attributes:
        glow: the indicator of each data feed, in order.
        rejected: orders that the broker did not take.

    Raises:
        ConfigError: if a setting cannot work.
    """

    params: ClassVar[Any] = (
        ("model", None),
        ("var_level", 0.01),
        ("horizon", 1),
        ("recalibrate", False),
        ("state", None),
        ("allow_training_bars", False),
    )

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.glow: list[GlowIndicator] = []
        model = self.p.model
        states = [None] * len(self.datas) if self.p.state is None else list(self.p.state)
        if len(states) != len(self.datas):
            raise ConfigError(
                f"expected one state for each of {len(self.datas)} data feeds, found "
                f"{len(states)}; give None for a feed that starts anew"
            )
        for data, state in zip(self.datas, states, strict=True):
            indicator = GlowIndicator(
                data,
                model=model,
                var_level=self.p.var_level,
                horizon=self.p.horizon,
                recalibrate=self.p.recalibrate,
                state=state,
                allow_training_bars=self.p.allow_training_bars,
            )
            model = indicator.scorer
            self.glow.append(indicator)
        self._error_counts = self.policy.error_margin > 0.0

    def next(self) -> None:
        """Take the bar's scores in, then rebalance."""
        for glow in self.glow:
            _, confidence, inside, direction, _, var, cvar = glow.current_scores()
            # The standard error is asked for only where it counts: it may have to be worked out.
            counts = self._error_counts and not math.isnan(var)
            error = glow.var_error() if counts else 0.0
            bar = len(glow.data)
            self.take_in(glow.data, bar, direction, confidence, inside, var, cvar, error)
        super().next()
