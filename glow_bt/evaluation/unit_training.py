"""Trains a unit of work, here or in another process."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import pandas as pd
from threadpoolctl import threadpool_limits

from glow_bt.artifact import Artifact, load_artifact, save_artifact
from glow_bt.errors import ConfigError
from glow_bt.evaluation.unit_scores import unit_scores
from glow_bt.evaluation.units import Unit
from glow_bt.folds import Fold
from glow_bt.training import Progress, train

__all__ = ["PackedUnit", "TrainedUnit", "pack", "pack_bars", "train_packed", "train_unit"]

# Building a flow seeds torch's one generator, which threads of a process share.
_one_at_a_time = Lock()


@dataclass(frozen=True, eq=False)
class TrainedUnit:
    """What became of a unit.

    Attributes:
        artifact: the model; its regimes are numbered by volatility, the calmest first.
        scores: see `glow_bt.evaluation.unit_scores`.
    """

    artifact: Artifact
    scores: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class PackedUnit:
    """A trained unit that can go from process to process.

    Attributes:
        files: content of the model folder's files by name.
        scores: as of `TrainedUnit`.
    """

    files: Mapping[str, bytes]
    scores: Mapping[str, float]

    def unpack(self) -> TrainedUnit:
        """Return the model, proven as a folder of it would be."""
        with tempfile.TemporaryDirectory() as folder:
            self.write_model(Path(folder) / "model")
            return TrainedUnit(load_artifact(Path(folder) / "model"), self.scores)

    def write_model(self, folder: Path) -> None:
        """Write the model folder."""
        folder.mkdir()
        for name, content in self.files.items():
            (folder / name).write_bytes(content)


def train_unit(
    unit: Unit,
    bars: pd.DataFrame,
    *,
    start: Artifact | None = None,
    progress: Progress | None = None,
    checkpoints: Path | None = None,
) -> TrainedUnit:
    """Train on the bars before a unit's test span, and score the model on it.

    Every numerical library runs on one thread, so that the last bit does not depend on how many
    processors a machine has.

    Args:
        unit: what to train.
        bars: the unit's bars, see `Unit.bars_of`.
        start: the model of the unit that this one starts at, if there is one.
        progress: called after each epoch.
        checkpoints: folder to save to after each epoch and to go on from.
    """
    first = unit.fold.train.start
    fold = Fold(
        *(
            range(block.start - first, block.stop - first)
            for block in (unit.fold.train, unit.fold.validation, unit.fold.test)
        )
    )
    with _one_at_a_time, threadpool_limits(1):
        # The test span is not handed over.
        artifact = train(
            bars.iloc[: fold.validation.stop],
            unit.config,
            spec=unit.spec,
            start=start,
            progress=progress,
            checkpoint_dir=checkpoints,
        )
        return TrainedUnit(artifact, unit_scores(artifact, bars, fold))


def pack(trained: TrainedUnit) -> PackedUnit:
    """Return a unit's model as the bytes of its folder."""
    with tempfile.TemporaryDirectory() as folder:
        save_artifact(trained.artifact, Path(folder) / "model")
        files = {file.name: file.read_bytes() for file in (Path(folder) / "model").iterdir()}
    return PackedUnit(files, trained.scores)


def pack_bars(bars: pd.DataFrame) -> bytes:
    """Return bars as bytes."""
    return bars.to_parquet()


def train_packed(
    unit: Unit,
    key: str,
    packed_bars: bytes,
    start: PackedUnit | None,
    checkpoints: Path | None,
) -> PackedUnit:
    """Train a unit in a process of its own.

    Args:
        unit: what to train.
        key: the unit's key where it was planned.
        packed_bars: see `pack_bars`.
        start: the trained unit that this one starts at, if there is one.
        checkpoints: as `train_unit` takes it.

    Raises:
        ConfigError: if this process has another version of the code or of a library.
    """
    if unit.key != key:
        raise ConfigError(
            "expected workers with the versions of glow_bt and its libraries that the caller "
            f"has, found others ({unit.inputs['versions']}); install the same everywhere"
        )

    bars = pd.read_parquet(io.BytesIO(packed_bars))
    before = None if start is None else start.unpack().artifact
    return pack(train_unit(unit, bars, start=before, checkpoints=checkpoints))
