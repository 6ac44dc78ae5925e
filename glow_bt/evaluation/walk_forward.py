"""Walk-forward training: one model a fold, each trained on its own past only."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol, cast

import pandas as pd

from glow_bt.artifact import Artifact
from glow_bt.evaluation.engines import Engine, Task, run_tasks
from glow_bt.evaluation.unit_store import UnitStore
from glow_bt.evaluation.unit_training import (
    TrainedUnit,
    pack,
    pack_bars,
    train_packed,
    train_unit,
)
from glow_bt.evaluation.units import Unit, plan_units
from glow_bt.features import DEFAULT_SPEC, FeatureSpec, feature_array
from glow_bt.folds import Fold, walk_forward_folds
from glow_bt.ohlcv import BAR_COLUMNS, validate_bars
from glow_bt.regimes import match_labels
from glow_bt.training import Epoch, TrainConfig, block_sizes

__all__ = [
    "FoldModel",
    "UnitProgress",
    "divide_walk_forward",
    "fold_models",
    "train_units",
    "train_walk_forward",
]


@dataclass(frozen=True, eq=False)
class FoldModel:
    """A fold's model and the span that it is tested on.

    Attributes:
        number: from 1.
        valid_from: stamp of the first test bar.
        valid_until: stamp of the last.
        artifact: trained on bars before valid_from only.
        scores: see `glow_bt.evaluation.unit_scores`.
    """

    number: int
    valid_from: pd.Timestamp
    valid_until: pd.Timestamp
    artifact: Artifact
    scores: Mapping[str, float] = field(default_factory=dict)


class UnitProgress(Protocol):
    """Told how the training of units goes on."""

    def begin(self, total: int, kept: int) -> None:
        """Take note of how many units there are, and how many were trained before."""
        ...

    def epoch(self, label: str, flow: str, epoch: Epoch, max_epochs: int) -> None:
        """Take note of an epoch of a unit that is trained in this process."""
        ...

    def done(self, label: str) -> None:
        """Take note of a unit that is trained."""
        ...


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
    store: str | os.PathLike[str] | None = None,
    engine: Engine | None = None,
    progress: UnitProgress | None = None,
) -> list[FoldModel]:
    """Train one model a fold, each independently of the others.

    The test spans follow one another without a hole over the last `test_fraction` of the bars;
    before each, a purge of the longest feature window, or `config.purge`, is left unused. Regime
    labels are matched from fold to fold when all models are there.

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
        store: see `train_units`.
        engine: see `train_units`.
        progress: see `train_units`.

    Raises:
        ConfigError: on a setting that cannot work, or a purge below the longest feature window.
        TooFewBarsError: if the folds do not fit; says how many bars are needed.
        Others as `train_units` does.
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
    units = plan_units(bars, folds, config, spec)
    trained = train_units(bars, units, store=store, engine=engine, progress=progress)
    return fold_models(bars, units, trained)


def train_units(
    bars: pd.DataFrame,
    units: Sequence[Unit],
    *,
    store: str | os.PathLike[str] | None = None,
    engine: Engine | None = None,
    progress: UnitProgress | None = None,
    train_missing: bool = True,
) -> list[TrainedUnit]:
    """Train what is not there yet, on whatever engine, to the same bits.

    Args:
        bars: the valid bar frame that the units were planned for.
        units: in any order, of one or of several settings and seeds.
        store: folder that keeps every unit as soon as it is trained (see `UnitStore`), so that
            an interrupted call goes on from there. With engine local, a unit that was under way
            goes on from its last epoch.
        engine: where to train; default in this process.
        progress: told of units as they come.
        train_missing: whether to train at all; else all units must be in the store.

    Returns:
        One a unit, in the order of `units`.

    Raises:
        ResultsError: if the store is something else, or holds something else where a unit
            belongs, or lacks a unit that may not be trained.
        ArtifactError: if a model in the store is damaged.
        As `glow_bt.evaluation.engines.run_tasks` and `glow_bt.training.train` do.
    """
    engine = engine or Engine()
    kept = None if store is None else UnitStore(store)
    if not train_missing and kept is not None:
        kept.refuse_missing(units)
    found: dict[str, TrainedUnit] = {}
    for unit in units:
        if kept is not None and (trained := kept.load(unit)) is not None:
            found[unit.key] = trained
    missing = {unit.key: unit for unit in units if unit.key not in found}
    if progress is not None:
        progress.begin(len(found) + len(missing), len(found))
    train_all = _train_here if engine.in_process else _train_elsewhere
    if missing:
        found |= train_all(bars, missing, kept, engine, progress)
    return [found[unit.key] for unit in units]


def _train_here(
    bars: pd.DataFrame,
    missing: Mapping[str, Unit],
    store: UnitStore | None,
    engine: Engine,
    progress: UnitProgress | None,
) -> dict[str, TrainedUnit]:
    found = {}
    for key, unit in missing.items():

        def report(
            flow: str, epoch: Epoch, max_epochs: int, num_features: int, label: str = unit.label
        ) -> None:
            if progress is not None:
                progress.epoch(label, flow, epoch, max_epochs)

        checkpoints = None if store is None else store.checkpoints(unit)
        found[key] = train_unit(unit, unit.bars_of(bars), progress=report, checkpoints=checkpoints)
        if store is not None:
            store.save(unit, pack(found[key]))
        if progress is not None:
            progress.done(unit.label)
    return found


def _train_elsewhere(
    bars: pd.DataFrame,
    missing: Mapping[str, Unit],
    store: UnitStore | None,
    engine: Engine,
    progress: UnitProgress | None,
) -> dict[str, TrainedUnit]:
    beside = engine.name == "local"

    def arguments(unit: Unit) -> tuple[object, ...]:
        # Processes on other machines do not see the store.
        checkpoints = store.checkpoints(unit) if beside and store is not None else None
        return unit, unit.key, pack_bars(unit.bars_of(bars)), checkpoints

    # The longest first, so that no process waits for one that began it last.
    longest_first = sorted(missing.items(), key=lambda item: -len(item[1].fold.train))
    tasks = [Task(key, unit.label, partial(arguments, unit)) for key, unit in longest_first]
    found = {}
    for key, packed in run_tasks(train_packed, tasks, engine):
        if store is not None:
            store.save(missing[key], packed)
        found[key] = packed.unpack()
        if progress is not None:
            progress.done(missing[key].label)
    return found


def fold_models(
    bars: pd.DataFrame, units: Sequence[Unit], trained: Sequence[TrainedUnit]
) -> list[FoldModel]:
    """Return the models of one walk-forward with regime labels carried from fold to fold.

    Each model's labels are matched with those of the one before, over the bars that it was
    trained on; so regime k keeps its meaning.

    Args:
        bars: the valid bar frame that the units were planned for.
        units: of one seed, oldest first.
        trained: what became of them.
    """
    index = cast("pd.DatetimeIndex", bars.index)
    models: list[FoldModel] = []
    for unit, result in zip(units, trained, strict=True):
        artifact = result.artifact
        if models:
            past = bars.iloc[unit.fold.train.start : unit.fold.train.stop]
            artifact = _relabelled(artifact, models[-1].artifact, past)
        test = unit.fold.test
        models.append(
            FoldModel(
                unit.number, index[test.start], index[test.stop - 1], artifact, result.scores
            )
        )
    return models


def _relabelled(artifact: Artifact, previous: Artifact, past: pd.DataFrame) -> Artifact:
    """Return a model whose regimes are numbered as those of another one that are most alike."""
    array = past[list(BAR_COLUMNS)].to_numpy()
    features = feature_array(array, artifact.spec)[artifact.spec.min_bars - 1 :]
    reference, labels = (
        model.read(model.scaler.transform(features)).regime for model in (previous, artifact)
    )
    order = match_labels(reference, labels, artifact.regimes.num_regimes)
    return replace(artifact, regimes=artifact.regimes.relabelled(order))
