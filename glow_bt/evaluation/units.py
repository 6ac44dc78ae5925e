"""Units of work: one model for one fold, one seed and one setting of the trainer."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import pandas as pd

import glow_bt
from glow_bt.errors import ConfigError
from glow_bt.features import DEFAULT_SPEC, FeatureSpec
from glow_bt.folds import Fold
from glow_bt.ohlcv import bars_sha256
from glow_bt.training import TrainConfig
from glow_bt.training.pipeline import library_versions

__all__ = ["Unit", "code_sha256", "plan_units"]

# What of this package decides on a model and its scores; a change elsewhere keeps them.
_DECIDING = (
    "artifact",
    "direction.py",
    "evaluation/unit_scores.py",
    "evaluation/unit_training.py",
    "features",
    "flows",
    "folds",
    "fused",
    "joining.py",
    "likelihood.py",
    "ohlcv.py",
    "quadrature.py",
    "regimes.py",
    "risk",
    "scoring",
    "threads.py",
    "training",
)


@dataclass(frozen=True)
class Unit:
    """What a model is made from; it depends on no other unit, but for the one it starts at.

    Attributes:
        number: of the fold, from 1; a name only.
        fold: positions in the history.
        config: settings of the trainer, the fold's dates and the seed among them.
        spec: features of a market state.
        bars_sha256: hash of the bars from the first that is trained on to the last tested.
        symbol: whose bars they are; a name only.
        start: key of the unit at whose model training begins; None to begin anew.
    """

    number: int
    fold: Fold
    config: TrainConfig
    spec: FeatureSpec
    bars_sha256: str
    symbol: str = ""
    start: str | None = None

    @property
    def label(self) -> str:
        """How the unit is spoken of."""
        symbol = f"{self.symbol} " if self.symbol else ""
        return f"{symbol}fold {self.number}, seed {self.config.seed}"

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """Everything that decides on the result, as JSON values."""
        blocks = {"train": self.fold.train, "validation": self.fold.validation}
        blocks["test"] = self.fold.test
        return {
            "config": self.config.to_dict(),
            "features": self.spec.to_dict(),
            "fold": {name: [block.start, block.stop] for name, block in blocks.items()},
            "bars": self.bars_sha256,
            "start": self.start,
            "code": code_sha256(),
            "versions": library_versions(self.config.flow),
        }

    @cached_property
    def key(self) -> str:
        """64 hex digits: the sha256 of the inputs."""
        return hashlib.sha256(json.dumps(self.inputs, sort_keys=True).encode()).hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        """Leave the key behind, which a worker works out from its own code and libraries."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def bars_of(self, history: pd.DataFrame) -> pd.DataFrame:
        """Return the bars that the hash is of."""
        return history.iloc[self.fold.train.start : self.fold.test.stop]


def plan_units(
    bars: pd.DataFrame,
    folds: list[Fold],
    config: TrainConfig,
    spec: FeatureSpec | None = None,
    symbol: str = "",
    *,
    warm_start: bool = False,
) -> list[Unit]:
    """Return one unit a fold, oldest first.

    Args:
        bars: a valid bar frame.
        folds: divisions of it.
        config: settings of every fold; its own split settings are replaced by the fold's.
        spec: features of a market state.
        symbol: whose bars they are.
        warm_start: whether each unit but the first starts at the model of the one before.

    Raises:
        ConfigError: if a fold's training block ends before that of the fold it starts at.
    """
    if warm_start:
        _refuse_look_ahead(folds)
    index = cast("pd.DatetimeIndex", bars.index)
    units: list[Unit] = []
    for number, fold in enumerate(folds, 1):
        settings = replace(
            config,
            train_until=index[fold.train.stop].isoformat(),
            validation_until=index[fold.validation.stop].isoformat(),
        )
        digest = bars_sha256(bars.iloc[fold.train.start : fold.test.stop])
        start = units[-1].key if warm_start and units else None
        units.append(Unit(number, fold, settings, spec or DEFAULT_SPEC, digest, symbol, start))
    return units


def _refuse_look_ahead(folds: list[Fold]) -> None:
    """Refuse folds of which one would start at weights that learnt from bars after its own."""
    for before, after in itertools.pairwise(folds):
        if before.train.stop > after.train.stop:
            raise ConfigError(
                "expected training blocks that end one after the other where folds start at the "
                f"model before, found ends at bars {before.train.stop} and {after.train.stop}; "
                "order the folds, or let each begin anew"
            )


@functools.cache
def code_sha256() -> str:
    """Return a hash of the source of every module that decides on a model and its scores."""
    root = Path(glow_bt.__file__).parent
    digest = hashlib.sha256()
    for part in _DECIDING:
        place = root / part
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(f"{file.relative_to(root).as_posix()}\n".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()
