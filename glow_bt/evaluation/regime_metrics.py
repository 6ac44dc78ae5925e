"""What the regimes of a study are, and whether refits see the same ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from glow_bt.artifact import Artifact
from glow_bt.evaluation.walk_forward import FoldModel
from glow_bt.ohlcv import bar_interval
from glow_bt.scoring import SCORE_COLUMNS, Scorer
from glow_bt.statistics import RegimeTable, label_stability, regime_table

__all__ = ["regime_metrics"]

# Exchanges of daily bars were closed for up to a week; beyond, bars are no neighbours.
_MOST_INTERVALS = 10
# Bars that all refits are asked to label; more change the agreement little.
_MOST_COMPARED = 5000

Floats = npt.NDArray[np.float64]


def regime_metrics(
    states: pd.DataFrame, span: pd.DataFrame, models: Sequence[FoldModel] | Artifact
) -> dict[str, Any] | None:
    """Describe the regimes of unseen bars; JSON-ready.

    Args:
        states: close and regime by bar.
        span: bars, the states' own and the warm-up before them.
        models: a walk-forward's models, or one artifact.

    Returns:
        rows (regime, bars, share, mean_return and volatility of the bar after, mean_duration in
        bars, spells), transitions (rows sum to 1) and stability: the mean adjusted Rand index of
        the labels that refits give to the same bars, the last 5,000; None with one model. None
        at all where no bar has a regime.
    """
    if states["regime"].isna().all():
        return None
    table = regime_table(
        _stamps_ms(states),
        states["regime"].to_numpy(),
        states["close"].pct_change().fillna(0.0).to_numpy(),
        max_step_ms=_MOST_INTERVALS * int(bar_interval(span).total_seconds() * 1000),
    )
    return {
        "rows": _rows(table),
        "transitions": [[_known(share) for share in row] for row in table.transitions.tolist()],
        "stability": None if isinstance(models, Artifact) else _stability(span, models),
    }


def _rows(table: RegimeTable) -> list[dict[str, Any]]:
    return [
        {
            "regime": row.regime,
            "bars": row.num_bars,
            "share": row.share,
            "mean_return": _known(row.mean_return),
            "volatility": _known(row.volatility),
            "mean_duration": row.mean_duration,
            "spells": row.num_spells,
        }
        for row in table.rows
    ]


def _stability(span: pd.DataFrame, models: Sequence[FoldModel]) -> dict[str, Any] | None:
    """Let every model label the same bars, also those that it was trained on."""
    if len(models) < 2:
        return None
    warm_up = max(fold.artifact.min_bars for fold in models) - 1
    compared = span.iloc[-(_MOST_COMPARED + warm_up) :]
    regime = SCORE_COLUMNS.index("regime")
    fits = []
    for fold in models:
        scorer = Scorer(fold.artifact, allow_training_bars=True)
        stamps = cast("pd.DatetimeIndex", compared.index).as_unit("ns").asi8
        bars = compared[list(scorer.columns)].to_numpy()
        labels = scorer.state_scores(stamps, bars, warm_up)[:, regime]
        fits.append((_stamps_ms(compared), labels))
    found = label_stability(fits)
    return {
        "mean_adjusted_rand": _known(found.mean),
        "adjusted_rand": [[_known(one) for one in row] for row in found.adjusted_rand.tolist()],
        "bars": int(found.common_bars.max()),
    }


def _stamps_ms(frame: pd.DataFrame) -> npt.NDArray[np.int64]:
    return cast("pd.DatetimeIndex", frame.index).as_unit("ms").asi8


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
