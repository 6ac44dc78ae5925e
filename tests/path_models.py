"""Path models whose law is known: flows that do not look at their context."""

import math

import pandas as pd
import torch

from glow_bt.artifact import ReturnModel
from glow_bt.artifact.paths import PathModel
from glow_bt.features import ContextSpec, Scaler
from glow_bt.features.return_context import returns_only
from glow_bt.flows.univariate import MIN_INDEX, UnivariateFlow


def known_model(scale, *, index=4.0, floor=0.01, max_volatility=1e30, window=30):
    """A model of r = min(volatility, max_volatility) * scale * y, y of these tail indices."""
    spec = returns_only(ContextSpec(window=window, least_volatility=floor))
    flow = UnivariateFlow(len(spec.names), hidden_dim=4).double()
    with torch.no_grad():
        for parameter in flow.net.parameters():
            parameter.zero_()
        flow.log_scale.fill_(math.log(scale))
        flow.log_excess.fill_(math.log(index - MIN_INDEX))
    width = len(spec.names)
    return PathModel(
        returns=ReturnModel(
            spec=spec,
            scaler=Scaler(spec.names, (0.0,) * width, (1.0,) * width),
            bar_seconds=86_400.0,
            flows={1: flow.eval().requires_grad_(False)},
        ),
        max_volatility=max_volatility,
        trained_from=pd.Timestamp("2020-01-01", tz="UTC"),
        trained_until=pd.Timestamp("2021-01-01", tz="UTC"),
    )
