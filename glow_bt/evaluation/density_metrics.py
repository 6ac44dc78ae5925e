"""Is the model's density of returns better than a classical one, on the same test spans?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from glow_bt.artifact import Artifact
from glow_bt.errors import DataError, TrainingError
from glow_bt.evaluation.walk_forward import FoldModel
from glow_bt.ohlcv import BAR_COLUMNS
from glow_bt.risk import BASELINES, diebold_mariano_test, walk_forward
from glow_bt.scoring import ScheduledScorer, Scorer
from glow_bt.scoring.risk_lines import RiskLines

__all__ = ["DENSITY_BASELINE", "density_metrics"]

Floats = npt.NDArray[np.float64]

DENSITY_BASELINE = "garch_t"


def density_metrics(
    bars: pd.DataFrame,
    start: pd.Timestamp,
    models: Sequence[FoldModel] | Artifact,
    *,
    recalibrate: bool = False,
) -> dict[str, Any]:
    """Compare log densities of the next bar's return, out of sample; JSON-ready.

    The baseline is a GARCH(1,1) with Student's t innovations, estimated anew before each test
    span on the bars from the first that the span's model knew up to the span, and filtered on
    within it. Diebold and Mariano's test, of the negative log densities.

    Args:
        bars: the whole history.
        start: the first bar at whose close a forecast is compared.
        models: a walk-forward's models, or one artifact.
        recalibrate: compare the recalibrated density.

    Returns:
        baseline, n, model_nll, baseline_nll, difference (below 0 where the model is better),
        statistic, pvalue (two-sided), model_better (one-sided); or baseline and skipped, which
        says why there is no comparison.
    """
    returns = np.diff(np.log(bars["close"].to_numpy(dtype=np.float64)))
    first = int(bars.index.get_indexer(pd.DatetimeIndex([start]))[0])
    try:
        other = walk_forward(
            BASELINES[DENSITY_BASELINE], returns, _spans(bars, first, models), (0.01,)
        )
    except (DataError, TrainingError) as error:
        return _skipped(str(error))
    own = _log_densities(bars, first, models, returns, recalibrate)
    known = np.isfinite(own) & np.isfinite(other.log_prob)
    if known.sum() < 20:
        return _skipped(f"{int(known.sum())} forecasts are too few to compare")
    test = diebold_mariano_test(-own[known], -other.log_prob[known])
    return {
        "baseline": DENSITY_BASELINE,
        "n": int(known.sum()),
        "model_nll": float(-own[known].mean()),
        "baseline_nll": float(-other.log_prob[known].mean()),
        "difference": test.difference,
        "statistic": test.statistic,
        "pvalue": test.pvalue,
        "model_better": test.first_better,
    }


def _skipped(why: str) -> dict[str, Any]:
    return {"baseline": DENSITY_BASELINE, "skipped": why}


def _spans(
    bars: pd.DataFrame, first: int, models: Sequence[FoldModel] | Artifact
) -> list[tuple[range, int, int]]:
    """Return which returns are fitted on and which are forecast, model by model.

    Return t is that from bar t to bar t + 1, forecast at the close of bar t.
    """
    index = bars.index
    if isinstance(models, Artifact):
        starts, artifacts = [first], [models]
    else:
        starts = [max(int(index.searchsorted(fold.valid_from)), first) for fold in models]
        artifacts = [fold.artifact for fold in models]
    stops = [*starts[1:], len(index) - 1]
    spans = []
    for artifact, begin, stop in zip(artifacts, starts, stops, strict=True):
        known_from = int(index.searchsorted(artifact.training.trained_from))
        if begin < stop:
            spans.append((range(min(known_from, begin), begin), begin, stop))
    return spans


def _log_densities(
    bars: pd.DataFrame,
    first: int,
    models: Sequence[FoldModel] | Artifact,
    returns: Floats,
    recalibrate: bool,
) -> Floats:
    """Return the model's log densities of returns first, first + 1, ..."""
    scorer: Scorer | ScheduledScorer
    if isinstance(models, Artifact):
        scorer = Scorer(models, recalibrate=recalibrate)
    else:
        schedule = [(fold.valid_from, fold.artifact) for fold in models]
        scorer = ScheduledScorer(schedule, recalibrate=recalibrate)
    columns = list(getattr(scorer, "columns", BAR_COLUMNS))
    stamps = cast("pd.DatetimeIndex", bars.index).as_unit("ns").asi8
    array = bars[columns].to_numpy(dtype=np.float64)
    forecasters = scorer.forecasters(stamps, array, first)
    lines = RiskLines(forecasters, array[:, 3], 1, scorer.recalibration)
    densities = np.full(len(returns), np.nan)
    for own, distribution in zip(forecasters, lines.distributions, strict=True):
        told = returns[own.first : own.first + len(own.distribution)]
        densities[own.first : own.first + len(told)] = distribution.rows(
            slice(0, len(told))
        ).log_prob(told)
    return densities[first:]
