"""Checkpoints of a training run, so that a killed one goes on where it was.

One safetensors file: tensors, and everything else as JSON in its header. No pickle.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from glow_bt.errors import TrainingError
from glow_bt.placing import new_file

__all__ = ["Checkpoint"]


@dataclass(frozen=True)
class Checkpoint:
    """Where one fit saves its state, and for what.

    Attributes:
        path: file that is replaced after each epoch, whole or not at all.
        key: hash of data, settings and versions; a file with another key is not resumed from.
    """

    path: Path
    key: str

    def save(self, tensors: dict[str, Tensor], progress: dict[str, Any]) -> None:
        """Write the state after an epoch: tensors, and JSON values beside them.

        Raises:
            TrainingError: if the file cannot be written; the last one is left.
        """
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        text = json.dumps(progress)
        header = {"key": self.key, "progress": text, "sha256": _digest(contiguous, text)}
        try:
            with new_file(self.path) as temporary:
                save_file(contiguous, temporary, metadata=header)
        except (OSError, SafetensorError) as error:
            raise TrainingError(
                f"expected to save a checkpoint {self.path}, found that it cannot be: {error}; "
                "free some space or choose another place, and train again"
            ) from error

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return tensors and JSON values as they were saved.

        Returns:
            None if there is nothing to resume from: no file, a damaged one, or one of other
            data, settings or versions. The fit then starts anew and replaces it.
        """
        if not self.path.is_file():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                header = file.metadata() or {}
                if header.get("key") != self.key:
                    return None
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError):
            return None
        text = header.get("progress", "")
        if header.get("sha256") != _digest(tensors, text):
            return None
        return tensors, json.loads(text)

    def remove(self) -> None:
        """Delete the file, and what a killed save left beside it."""
        for file in (self.path, *self.path.parent.glob(f".{self.path.name}.*.tmp")):
            file.unlink(missing_ok=True)


def _digest(tensors: dict[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()
