"""Forecasts of the next return by several models, out of sample, on one history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from glow_bt.errors import DataError
from glow_bt.risk.forecasts import Forecasts

__all__ = ["RISK_LEVELS", "RiskStudy"]

RISK_LEVELS = (0.01, 0.025, 0.05, 0.95, 0.975, 0.99)


@dataclass(frozen=True, eq=False)
class RiskStudy:
    """What came of a walk-forward comparison.

    Attributes:
        stamps: (N,) bar open of the bar at whose close each forecast was made; the return that
            came true is that of the next bar.
        forecasts: by model, each of N rows; "flow" first, then "flow_recalibrated", then the
            baselines.
        bounds: first stamp of each test span, at which models estimated anew take over.
        manifest: where the numbers come from: data hash, versions, seed, settings.
    """

    stamps: pd.DatetimeIndex
    forecasts: Mapping[str, Forecasts]
    bounds: Sequence[pd.Timestamp]
    manifest: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {name: len(own) for name, own in self.forecasts.items()}
        if not lengths or set(lengths.values()) != {len(self.stamps)}:
            raise DataError(
                f"expected {len(self.stamps)} forecasts of each model, found {lengths}"
            )
