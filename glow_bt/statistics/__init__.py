"""How sure the numbers of a backtest are, and what is left of them after a search.

Pure numpy and scipy on arrays; returns are simple ones of an account, one a bar, in order of time.
Sharpe ratios are of one bar unless a year's number of bars is asked for.
"""

from glow_bt.statistics.bootstrap import (
    optimal_block_length,
    percentile_interval,
    resampled_positions,
    resampled_statistic,
)
from glow_bt.statistics.comparison import SuperiorityResult, superiority_test
from glow_bt.statistics.long_run import long_run_variance, usual_lags
from glow_bt.statistics.overfitting import CRITERIA, OverfittingResult, backtest_overfitting
from glow_bt.statistics.performance import (
    MEASURES,
    Account,
    Interval,
    PerformanceIntervals,
    account,
    measures,
    performance_intervals,
)
from glow_bt.statistics.regime_table import (
    LabelStability,
    RegimeRow,
    RegimeTable,
    label_stability,
    regime_table,
)
from glow_bt.statistics.sharpe import (
    SharpeMoments,
    deflated_sharpe_ratio,
    dependent_sharpe_error,
    expected_maximum_sharpe,
    minimum_track_record_length,
    probabilistic_sharpe_ratio,
    sharpe_influence,
    sharpe_standard_error,
)
from glow_bt.statistics.sharpe_difference import SharpeDifferenceResult, sharpe_difference_test

__all__ = [
    "CRITERIA",
    "MEASURES",
    "Account",
    "Interval",
    "LabelStability",
    "OverfittingResult",
    "PerformanceIntervals",
    "RegimeRow",
    "RegimeTable",
    "SharpeDifferenceResult",
    "SharpeMoments",
    "SuperiorityResult",
    "account",
    "backtest_overfitting",
    "deflated_sharpe_ratio",
    "dependent_sharpe_error",
    "expected_maximum_sharpe",
    "label_stability",
    "long_run_variance",
    "measures",
    "minimum_track_record_length",
    "optimal_block_length",
    "percentile_interval",
    "performance_intervals",
    "probabilistic_sharpe_ratio",
    "regime_table",
    "resampled_positions",
    "resampled_statistic",
    "sharpe_difference_test",
    "sharpe_influence",
    "sharpe_standard_error",
    "superiority_test",
    "usual_lags",
]
