"""Walk-forward training: one model a fold, each trained on its own past only."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pandas as pd

from glow_bt.artifact import Artifact, load_artifact, save_artifact
from glow_bt.errors import ArtifactError
from glow_bt.features import DEFAULT_SPEC, FeatureSpec
from glow_bt.folds import Fold, walk_forward_folds
from glow_bt.ohlcv import bars_sha256, validate_bars
from glow_bt.training import Progress, TrainConfig, block_sizes, train

__all__ = ["FoldModel", "divide_walk_forward", "train_walk_forward"]


@dataclass(frozen=True, eq=False)
class FoldModel:
    """A fold's model and the span that it is tested on.

    Attributes:
        number: from 1.
        valid_from: stamp of the first test bar.
        valid_until: stamp of the last.
        artifact: trained on bars before valid_from only.
    """

    number: int
    valid_from: pd.Timestamp
    valid_until: pd.Timestamp
    artifact: Artifact


def divide_walk_forward(
    bars: pd.DataFrame,
    config: TrainConfig | None = None,
    *,
    n_folds: int | None = None,
    test_fraction: float = 0.6,
    test_every: int | str | None = None,
    validation_fraction: float = 0.2,
    expanding: bool = True,
    spec: FeatureSpec | None = None,
) -> list[Fold]:
    """Divide valid bars as `train_walk_forward` does, which takes the same arguments.

    Raises:
        ConfigError: on a setting that cannot work, or a purge below the longest feature window.
        TooFewBarsError: if the folds do not fit; says how many bars are needed.
    """
    config = config or TrainConfig()
    spec = spec or DEFAULT_SPEC
    min_train, min_validation = block_sizes(config, spec)
    return walk_forward_folds(
        len(bars),
        n_folds,
        purge=spec.min_bars if config.purge is None else config.purge,
        min_purge=spec.min_bars,
        test_fraction=test_fraction,
        test_every=test_every,
        index=cast("pd.DatetimeIndex", bars.index),
        validation_fraction=validation_fraction,
        expanding=expanding,
        min_train=min_train,
        min_validation=min_validation,
    )


def train_walk_forward(
    bars: pd.DataFrame,
    config: TrainConfig | None = None,
    *,
    n_folds: int | None = None,
    test_fraction: float = 0.6,
    test_every: int | str | None = None,
    validation_fraction: float = 0.2,
    expanding: bool = True,
    spec: FeatureSpec | None = None,
    models_dir: str | os.PathLike[str] | None = None,
    progress: Sequence[Progress] | None = None,
) -> list[FoldModel]:
    """Train one model a fold, oldest first; regime labels are carried from fold to fold.

    The test spans follow one another without a hole over the last `test_fraction` of the bars;
    before each, a purge of the longest feature window, or `config.purge`, is left unused.

    Args:
        bars: a bar frame.
        config: settings of every fold; its own split settings are replaced by the fold's.
        n_folds: number of test spans of equal length; 4, unless test_every is given.
        test_fraction: share of the bars that is tested.
        test_every: length of a test span, in bars or by the calendar, such as "3MS" (see
            `glow_bt.folds.walk_forward_folds`); the last may be shorter.
        validation_fraction: share of each fold's past that validates.
        expanding: train on all of the past, or on a window of constant length.
        spec: features of a market state.
        models_dir: folder for the artifacts (fold_1, fold_2, ...) and, while a fold trains, its
            checkpoint. An interrupted call with the same bars and settings goes on from there,
            to the same models; folds that are finished are not trained again.
        progress: one progress callback a fold.

    Raises:
        ConfigError: on a setting that cannot work, or a purge below the longest feature window.
        TooFewBarsError: if the folds do not fit; says how many bars are needed.
        ArtifactError: if models_dir holds something other than what a fold would train.
    """
    config = config or TrainConfig()
    spec = spec or DEFAULT_SPEC
    bars = validate_bars(bars)
    folds = divide_walk_forward(
        bars,
        config,
        n_folds=n_folds,
        test_fraction=test_fraction,
        test_every=test_every,
        validation_fraction=validation_fraction,
        expanding=expanding,
        spec=spec,
    )
    index = cast("pd.DatetimeIndex", bars.index)
    models: list[FoldModel] = []
    for i, fold in enumerate(folds):
        artifact = _train_fold(
            bars,
            fold,
            config,
            spec=spec,
            previous=models[-1].artifact if models else None,
            progress=progress[i] if progress else None,
            folder=None if models_dir is None else Path(models_dir) / f"fold_{i + 1}",
        )
        models.append(
            FoldModel(i + 1, index[fold.test.start], index[fold.test.stop - 1], artifact)
        )
    return models


def _train_fold(
    bars: pd.DataFrame,
    fold: Fold,
    config: TrainConfig,
    *,
    spec: FeatureSpec,
    previous: Artifact | None,
    progress: Progress | None,
    folder: Path | None,
) -> Artifact:
    """Train on the bars before a fold's test span, which it is not given."""
    settings = replace(
        config,
        train_until=bars.index[fold.train.stop].isoformat(),
        validation_until=bars.index[fold.validation.stop].isoformat(),
    )
    past = bars.iloc[fold.train.start : fold.validation.stop]
    checkpoints = None if folder is None else folder.with_suffix(".checkpoint")
    if folder is not None and os.path.lexists(folder):
        artifact = _finished(folder, past, settings, spec)
    else:
        artifact = train(
            past,
            settings,
            spec=spec,
            previous=previous,
            progress=progress,
            checkpoint_dir=checkpoints,
        )
        if folder is not None:
            save_artifact(artifact, folder)
    if checkpoints is not None and checkpoints.exists():
        checkpoints.rmdir()
    return artifact


def _finished(
    folder: Path, past: pd.DataFrame, settings: TrainConfig, spec: FeatureSpec
) -> Artifact:
    """Load what an interrupted call trained, if it is what this one would train."""
    artifact = load_artifact(folder)
    record = artifact.training
    differences = {
        "bars": record.data_sha256 != bars_sha256(past),
        "settings": record.config != settings.to_dict(),
        "features": artifact.spec != spec,
    }
    other = [name for name, differs in differences.items() if differs]
    if other:
        raise ArtifactError(
            f"expected no model or one of the same bars and settings in {folder}, found one of "
            f"other {' and '.join(other)}; choose another folder for the models, or remove it "
            "yourself"
        )
    return artifact
