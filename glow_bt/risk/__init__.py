"""Tests of risk forecasts. Pure numpy and scipy; knows no model and no market.

VaR is the lower quantile of the next bar's log return, a negative number; a violation at bar
t is r_{t+1} < VaR_t.
"""

from glow_bt.risk.backtests import (
    ChristoffersenResult,
    ConditionalCoverageResult,
    KupiecResult,
    christoffersen_test,
    conditional_coverage_test,
    kupiec_test,
    quantile_loss,
)

__all__ = [
    "ChristoffersenResult",
    "ConditionalCoverageResult",
    "KupiecResult",
    "christoffersen_test",
    "conditional_coverage_test",
    "kupiec_test",
    "quantile_loss",
]
