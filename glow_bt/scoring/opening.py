"""A scorer for whatever names a model."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Sequence

import pandas as pd

from glow_bt.artifact import Artifact, load_artifact
from glow_bt.errors import ConfigError
from glow_bt.risk.recalibration import Recalibration
from glow_bt.scoring.contract import BarScorer
from glow_bt.scoring.scorer import ScheduledScorer, Scorer

__all__ = ["Model", "open_scorer"]

ModelSource = str | os.PathLike[str] | Artifact
Schedule = Sequence[tuple[pd.Timestamp, ModelSource]]
Model = ModelSource | Schedule | BarScorer


def open_scorer(
    model: Model,
    *,
    var_level: float = 0.01,
    horizon: int = 1,
    recalibrate: bool | Recalibration = False,
    allow_training_bars: bool = False,
) -> BarScorer:
    """Return a scorer for whatever names a model.

    Args:
        model: an artifact or its folder; a walk-forward schedule, i.e. a list of (valid_from,
            artifact or folder); or a scorer, which is returned as it is.
        var_level: see `Scorer`.
        horizon: the same.
        recalibrate: the same.
        allow_training_bars: the same.

    Raises:
        ConfigError: if `model` is none of these.
        ArtifactError: if a folder holds no usable model.
    """
    if isinstance(model, BarScorer):
        return model
    if isinstance(model, str | os.PathLike | Artifact):
        return Scorer(
            _artifact_of(model),
            var_level=var_level,
            horizon=horizon,
            recalibrate=recalibrate,
            allow_training_bars=allow_training_bars,
        )
    try:
        schedule = [(pd.Timestamp(start), _artifact_of(source)) for start, source in model]
    except (TypeError, ValueError) as error:
        raise ConfigError(
            "expected model= an artifact folder, an Artifact, a list of (valid_from, artifact or "
            f"folder) or a scorer, found {reprlib.repr(model)}"
        ) from error
    return ScheduledScorer(
        schedule,
        var_level=var_level,
        horizon=horizon,
        recalibrate=recalibrate,
        allow_training_bars=allow_training_bars,
    )


def _artifact_of(source: ModelSource) -> Artifact:
    return source if isinstance(source, Artifact) else load_artifact(source)
