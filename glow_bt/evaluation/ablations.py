"""What the contenders need in which a part of the decision is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd

from glow_bt.artifact import Artifact
from glow_bt.evaluation.walk_forward import FoldModel
from glow_bt.ohlcv import BAR_COLUMNS
from glow_bt.policy import PolicyParams, usable_exposure, var_exposure_limit
from glow_bt.scoring import SCORE_COLUMNS, BarScorer, ScheduledScorer, Scorer

__all__ = ["scores_with_errors", "usual_var_limit"]

# Bars before the first unseen one that the usual limit is taken from, and the fewest.
_PAST_BARS = 2000
_LEAST_PAST_BARS = 100


def scores_with_errors(
    scores: pd.DataFrame, span: pd.DataFrame, scorer: BarScorer, policy: Mapping[str, Any]
) -> pd.DataFrame:
    """Return the scores of a run with the column var_error; no bar is scored anew.

    Args:
        scores: frame by bar open with the columns of `glow_bt.scoring.SCORE_COLUMNS`.
        span: the bars of the run, warm-up included.
        scorer: what the scores come from.
        policy: parameters of the strategy; the error is 0 where it does not count.
    """
    margin = policy.get("error_margin", PolicyParams.error_margin)
    known = scores[list(SCORE_COLUMNS)]
    if not (margin > 0.0 and isinstance(scorer, Scorer | ScheduledScorer)):
        return known.assign(var_error=0.0)
    errors = scorer.var_error(_stamps_ns(span), _array(span, scorer))
    return known.assign(var_error=pd.Series(errors, index=span.index).reindex(scores.index))


def usual_var_limit(
    bars: pd.DataFrame,
    models: Sequence[FoldModel] | Artifact,
    params: PolicyParams,
    *,
    horizon: int = 1,
) -> float:
    """Return the median |exposure| that the VaR allows on bars before the first unseen one.

    A position of that size, whatever the VaR says, is as large as usual and knows nothing of
    test spans. It is taken from the first model and the last 2,000 bars that it was trained or
    validated on; where there are fewer than 100 such bars, the largest usable exposure is
    returned.
    """
    artifact = models if isinstance(models, Artifact) else models[0].artifact
    past = bars.loc[: artifact.training.trained_until]
    scorer = Scorer(artifact, horizon=horizon, allow_training_bars=True)
    past = past.iloc[-(_PAST_BARS + scorer.min_bars - 1) :]
    if len(past) < scorer.min_bars + _LEAST_PAST_BARS - 1:
        return usable_exposure(params.leverage_cap, params)
    stamps, array = _stamps_ns(past), _array(past, scorer)
    scores = scorer.score_arrays(stamps, array)[scorer.min_bars - 1 :]
    errors = np.zeros(len(scores))
    if params.error_margin > 0.0:
        errors = scorer.var_error(stamps, array)[scorer.min_bars - 1 :]
    var, cvar = (scores[:, SCORE_COLUMNS.index(name)] for name in ("var", "cvar"))
    limits = [
        var_exposure_limit(quantile, params, cvar=shortfall, var_error=error)
        for quantile, shortfall, error in np.column_stack([var, cvar, errors]).tolist()
    ]
    return float(np.nanmedian(limits))


def _stamps_ns(bars: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.int64]]:
    return cast("pd.DatetimeIndex", bars.index).as_unit("ns").asi8


def _array(bars: pd.DataFrame, scorer: BarScorer) -> np.ndarray[Any, np.dtype[np.float64]]:
    return bars[list(getattr(scorer, "columns", BAR_COLUMNS))].to_numpy(dtype=np.float64)
