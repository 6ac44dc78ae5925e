"""Walk-forward training: one model a fold, each trained on its own past only."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import pandas as pd

from glow_bt.artifact import Artifact, fingerprint
from glow_bt.errors import ConfigError
from glow_bt.evaluation.engines import Engine, Task, run_tasks
from glow_bt.evaluation.unit_store import UnitStore
from glow_bt.evaluation.unit_training import (
    PackedUnit,
    TrainedUnit,
    pack,
    pack_bars,
    train_packed,
    train_unit,
)
from glow_bt.evaluation.units import Unit, plan_units
from glow_bt.features import DEFAULT_SPEC, FeatureSpec, Scaler, feature_array
from glow_bt.folds import Fold, walk_forward_folds
from glow_bt.ohlcv import BAR_COLUMNS, validate_bars
from glow_bt.regimes import match_labels
from glow_bt.training import Epoch, TrainConfig, block_sizes
from glow_bt.training.data import prepare
from glow_bt.training.returns import refuse_standstill

__all__ = [
    "FoldModel",
    "UnitProgress",
    "divide_walk_forward",
    "fold_models",
    "refuse_untrainable",
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


def refuse_untrainable(
    bars: pd.DataFrame, fold: Fold, config: TrainConfig, spec: FeatureSpec | None = None
) -> None:
    """Refuse valid bars that a fold cannot be trained on, as soon as that can be seen.

    Raises:
        FeatureError: if a feature is constant in the training block.
        DataError: if half of the returns or more are equal.
    """
    spec = spec or DEFAULT_SPEC
    past = bars.iloc[fold.train.start : fold.validation.stop]
    data = prepare(past, config, spec)
    Scaler.fit(data.features[data.rows(range(len(fold.train)))], spec.names)
    refuse_standstill(np.log(past["close"].to_numpy()))


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
    warm_start: bool = False,
    store: str | os.PathLike[str] | None = None,
    engine: Engine | None = None,
    progress: UnitProgress | None = None,
) -> list[FoldModel]:
    """Train one model a fold, each independently of the others unless they start warm.

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
        warm_start: whether the state flow of each fold begins at that of the fold before (see
            `glow_bt.training.train`): often quicker, and hardly better over all of the past. A
            rolling window drops old bars from what is learnt from, but weights that are passed
            on have seen them, which helps (see benchmarks/warm_start.md). Folds are then trained
            one after the other.
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
    units = plan_units(bars, folds, config, spec, warm_start=warm_start)
    trained = train_units(bars, units, store=store, engine=engine, progress=progress)
    return fold_models(bars, units, trained)


def train_units(
    bars: pd.DataFrame | Mapping[str, pd.DataFrame],
    units: Sequence[Unit],
    *,
    store: str | os.PathLike[str] | None = None,
    engine: Engine | None = None,
    progress: UnitProgress | None = None,
    train_missing: bool = True,
) -> list[TrainedUnit]:
    """Train what is not there yet, on whatever engine, to the same bits.

    Args:
        bars: the valid bar frame that the units were planned for; of several symbols, by symbol.
        units: of one or of several symbols, settings and seeds, in any order, but a unit that
            starts at another one's model after that one.
        store: folder that keeps every unit as soon as it is trained (see `UnitStore`), so that
            an interrupted call goes on from there. With engine local, a unit that was under way
            goes on from its last epoch.
        engine: where to train; default in this process.
        progress: told of units as they come.
        train_missing: whether to train at all; else all units must be in the store.

    Returns:
        One a unit, in the order of `units`.

    Raises:
        ConfigError: if a unit is to start at one that is not before it.
        ResultsError: if the store is something else, or holds something else where a unit
            belongs, or lacks a unit that may not be trained.
        ArtifactError: if a model in the store is damaged.
        As `glow_bt.evaluation.engines.run_tasks` and `glow_bt.training.train` do.
    """
    _refuse_missing_starts(units)
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
    if missing:
        work = _Work(bars, found, kept, progress)
        (work.train_here if engine.in_process else partial(work.train_elsewhere, engine))(missing)
    return [found[unit.key] for unit in units]


def _refuse_missing_starts(units: Sequence[Unit]) -> None:
    before: set[str] = set()
    for unit in units:
        if unit.start is not None and unit.start not in before:
            raise ConfigError(
                f"expected the unit that {unit.label} starts at before it, found it missing; "
                "give all units of a walk-forward, oldest first"
            )
        before.add(unit.key)


@dataclass(frozen=True, eq=False)
class _Work:
    """What is trained, and where what comes of it goes."""

    bars: pd.DataFrame | Mapping[str, pd.DataFrame]
    found: dict[str, TrainedUnit]
    store: UnitStore | None
    progress: UnitProgress | None

    def train_here(self, missing: Mapping[str, Unit]) -> None:
        for unit in missing.values():

            def report(
                flow: str, epoch: Epoch, max_epochs: int, width: int, label: str = unit.label
            ) -> None:
                if self.progress is not None:
                    self.progress.epoch(label, flow, epoch, max_epochs)

            trained = train_unit(
                unit,
                self._bars_of(unit),
                start=None if unit.start is None else self.found[unit.start].artifact,
                progress=report,
                checkpoints=None if self.store is None else self.store.checkpoints(unit),
            )
            if self.store is not None:
                self.store.save(unit, pack(trained))
            self._done(unit, trained)

    def train_elsewhere(self, engine: Engine, missing: Mapping[str, Unit]) -> None:
        # The longest first, so that no process waits for one that began it last; of units that
        # wait for others, those with the most behind them.
        waits = any(unit.start in missing for unit in missing.values())
        ordered = sorted(
            missing.values(), key=lambda unit: (waits and unit.number, -len(unit.fold.train))
        )
        # Processes on other machines do not see the store.
        beside = self.store if engine.name == "local" else None
        tasks = [
            Task(unit.key, unit.label, partial(self._arguments, unit, beside), unit.start)
            for unit in ordered
        ]
        for key, packed in run_tasks(train_packed, tasks, engine):
            if self.store is not None:
                self.store.save(missing[key], packed)
            self._done(missing[key], packed.unpack())

    def _arguments(
        self, unit: Unit, store: UnitStore | None
    ) -> tuple[Unit, str, bytes, PackedUnit | None, Path | None]:
        """Return what `train_packed` takes."""
        start = None if unit.start is None else pack(self.found[unit.start])
        checkpoints = None if store is None else store.checkpoints(unit)
        return unit, unit.key, pack_bars(self._bars_of(unit)), start, checkpoints

    def _bars_of(self, unit: Unit) -> pd.DataFrame:
        bars = self.bars
        return unit.bars_of(bars if isinstance(bars, pd.DataFrame) else bars[unit.symbol])

    def _done(self, unit: Unit, trained: TrainedUnit) -> None:
        self.found[unit.key] = trained
        if self.progress is not None:
            self.progress.done(unit.label)


def fold_models(
    bars: pd.DataFrame, units: Sequence[Unit], trained: Sequence[TrainedUnit]
) -> list[FoldModel]:
    """Return the models of one walk-forward with regime labels carried from fold to fold.

    Each model's labels are matched with those of the one before, over the bars that it was
    trained on; so regime k keeps its meaning. One that started at the model before names it, its
    labels carried too, as its parent.

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
            if unit.start is not None:
                parent = fingerprint(models[-1].artifact)
                artifact = replace(artifact, training=replace(artifact.training, parent=parent))
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
