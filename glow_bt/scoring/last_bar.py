"""One bar as it closes: its scores, and the error of its VaR from what they were made of."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glow_bt.scoring.risk_lines import Forecaster

__all__ = ["LastBar"]


@dataclass(frozen=True, eq=False)
class LastBar:
    """What is said of the last bar of a window.

    Attributes:
        scores: (7,) in the order of `SCORE_COLUMNS`.
        forecaster: whose last forecast is the bar's; None where no model is valid.
        var_level: probability of a loss beyond VaR.
        horizon: bars ahead that VaR is for.
    """

    scores: npt.NDArray[np.float64]
    forecaster: Forecaster | None
    var_level: float
    horizon: int

    def var_error(self) -> float:
        """Return the standard error of the VaR, as `Scorer.var_error` does; NaN without one."""
        own = self.forecaster
        if own is None:
            return math.nan
        return float(own.model.quantile_error(own.last, self.var_level, self.horizon)[0])
