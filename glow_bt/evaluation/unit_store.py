"""A folder of trained units, each under the hash of what it was made from.

::

    store/
      3f0c.../unit.json            what the key is the sha256 of, the unit's names, its scores
      3f0c.../model/               the model folder
      .9a41....checkpoint/         what a unit that is under way goes on from

A unit's folder appears whole or not at all, so that a kill loses what was under way and no more.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from glow_bt.artifact import load_artifact
from glow_bt.errors import ResultsError
from glow_bt.evaluation.unit_training import PackedUnit, TrainedUnit
from glow_bt.evaluation.units import Unit
from glow_bt.placing import new_folder

__all__ = ["UnitStore"]

_SCHEMA_VERSION = 1
_KEY = re.compile("[0-9a-f]{64}")


class UnitStore:
    """Keeps trained units; those of other settings may lie beside them and are left alone.

    Args:
        folder: made when the first unit is saved.

    Raises:
        ResultsError: if something else stands there.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(os.path.realpath(folder))
        if not os.path.lexists(self.folder):
            return
        if not self.folder.is_dir():
            raise ResultsError(
                f"expected a folder of trained models, found a file, {self.folder}; choose "
                "another place"
            )
        names = (path.name for path in self.folder.iterdir())
        other = sorted(n for n in names if not n.startswith(".") and not _KEY.fullmatch(n))
        if other:
            raise ResultsError(
                f"expected a folder of trained models or an empty one, found {self.folder} with "
                f"{other[0]} in it; choose another place"
            )

    def load(self, unit: Unit) -> TrainedUnit | None:
        """Return a unit that was trained before; None if it was not.

        Raises:
            ResultsError: if its folder holds the results of something else, or is damaged.
            ArtifactError: if the model in it is damaged.
        """
        folder = self.folder / unit.key
        if not os.path.lexists(folder):
            return None
        facts = _read(folder)
        if facts["inputs"] != unit.inputs:
            raise ResultsError(
                f"expected {unit.label} in {folder}, found results of another config "
                f"({_differences(facts['inputs'], unit.inputs)}); choose another store, or "
                "remove that folder yourself"
            )
        return TrainedUnit(load_artifact(folder / "model"), facts["scores"])

    def save(self, unit: Unit, packed: PackedUnit) -> None:
        """Keep a trained unit.

        Raises:
            ResultsError: if it cannot be written.
        """
        facts = {
            "schema_version": _SCHEMA_VERSION,
            "symbol": unit.symbol,
            "number": unit.number,
            "seed": unit.config.seed,
            "scores": dict(packed.scores),
            "inputs": unit.inputs,
        }
        try:
            with new_folder(self.folder / unit.key) as temporary:
                packed.write_model(temporary / "model")
                text = json.dumps(facts, indent=2, allow_nan=False) + "\n"
                (temporary / "unit.json").write_text(text, encoding="utf-8")
        except OSError as error:
            raise ResultsError(
                f"expected to keep {unit.label} in {self.folder}, found that it cannot be: "
                f"{error}; free some space or choose another place"
            ) from error
        shutil.rmtree(self.checkpoints(unit), ignore_errors=True)

    def checkpoints(self, unit: Unit) -> Path:
        """Return where a unit keeps what it goes on from."""
        return self.folder / f".{unit.key}.checkpoint"

    def others(self, units: Iterable[Unit]) -> list[Path]:
        """Return the folders of units that are none of these."""
        known = {unit.key for unit in units}
        if not self.folder.is_dir():
            return []
        found = (path for path in self.folder.iterdir() if _KEY.fullmatch(path.name))
        return sorted(path for path in found if path.name not in known)

    def refuse_missing(self, units: Sequence[Unit]) -> None:
        """Refuse to go on where units are missing.

        Raises:
            ResultsError: naming the first of them and, if there is a result of another config
                of the same fold and seed, what differs.
        """
        for unit in units:
            if os.path.lexists(self.folder / unit.key):
                continue
            found = "none"
            for other in self.others(units):
                facts = _read(other)
                if (facts["number"], facts["seed"]) == (unit.number, unit.config.seed):
                    differing = _differences(facts["inputs"], unit.inputs)
                    found = f"results of another config ({differing}) in {other}"
            raise ResultsError(
                f"expected {unit.label} in {self.folder}, found {found}; give the settings that "
                "it was trained with, or let it be trained"
            )

    def discard(self, units: Iterable[Unit]) -> None:
        """Delete units and what their training left; the folder too, if nothing else is there."""
        if not self.folder.is_dir():
            return
        for unit in units:
            for path in self.folder.glob(f".{unit.key}.*"):
                shutil.rmtree(path, ignore_errors=True)
            shutil.rmtree(self.folder / unit.key, ignore_errors=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()


def _read(folder: Path) -> dict[str, Any]:
    """Return what stands in unit.json, if it belongs where it lies."""
    file = folder / "unit.json"
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        if facts["schema_version"] != _SCHEMA_VERSION:
            raise ValueError(f"schema version {facts['schema_version']!r}")
        inputs, scores = facts["inputs"], facts["scores"]
        if not isinstance(inputs, dict) or not isinstance(scores, dict):
            raise ValueError("no inputs or scores")
        _ = facts["number"], facts["seed"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ResultsError(
            f"expected a trained model in {folder}, found it damaged "
            f"({str(error).splitlines()[0]}); remove that folder yourself, and it is trained anew"
        ) from error
    return dict(facts)


def _differences(found: dict[str, Any], asked: dict[str, Any]) -> str:
    """Return what differs between two units' inputs, by name."""
    told = []
    for part, value in asked.items():
        other = found.get(part)
        if other == value:
            continue
        if part in ("config", "versions", "fold") and isinstance(other, dict):
            told += [
                f"{name}: {other.get(name)!r}, asked for {value.get(name)!r}"
                for name in value.keys() | other.keys()
                if other.get(name) != value.get(name)
            ]
        elif part == "start":
            told.append("started at another model, or anew")
        else:
            told.append(f"other {part}")
    return "; ".join(sorted(told))
