"""Scoring: bars in, what the model says of them out; a whole history or the latest bar.

Row t depends on bars t - min_bars + 1 to t alone, unless VaR is recalibrated: then it also
depends on how earlier forecasts turned out. Returns are log returns; `var` is the `var_level`
quantile of the next bar's log return, or of that over `horizon` bars (a negative number), and
`cvar` the mean below.
"""

from glow_bt.scoring.contract import SCORE_COLUMNS, BarScorer, check_interval
from glow_bt.scoring.last_bar import LastBar
from glow_bt.scoring.opening import Model, open_scorer
from glow_bt.scoring.scorer import ScheduledScorer, Scorer
from glow_bt.scoring.stream import ScoreStream, StreamState

__all__ = [
    "SCORE_COLUMNS",
    "BarScorer",
    "LastBar",
    "Model",
    "ScheduledScorer",
    "ScoreStream",
    "Scorer",
    "StreamState",
    "check_interval",
    "open_scorer",
]
