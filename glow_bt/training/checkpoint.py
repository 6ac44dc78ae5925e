"""Checkpoints of a training run, so that a killed one goes on where it was.

One safetensors file: tensors, and everything else as JSON in its header. No pickle.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

__all__ = ["Checkpoint"]


@dataclass(frozen=True)
class Checkpoint:
    """Where one fit saves its state, and for what.

    Attributes:
        path: file that is replaced after each epoch, whole or not at all.
        key: hash of data and settings; a file with another key is not resumed from.
    """

    path: Path
    key: str

    def save(
        self,
        weights: dict[str, Tensor],
        best: dict[str, Tensor],
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
        progress: dict[str, Any],
    ) -> None:
        """Write the state after an epoch."""
        tensors = {f"weights.{name}": t for name, t in weights.items()}
        tensors |= {f"best.{name}": t for name, t in best.items()}
        state = optimizer.state_dict()
        for index, moments in state["state"].items():
            tensors |= {f"optimizer.{index}.{name}": t for name, t in moments.items()}
        tensors["generator"] = generator.get_state()
        header = {
            "key": self.key,
            "progress": json.dumps(progress),
            "groups": json.dumps(state["param_groups"]),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        contiguous = {name: t.contiguous() for name, t in tensors.items()}
        save_file(contiguous, temporary, metadata=header)
        temporary.replace(self.path)

    def load(
        self,
        flow: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
    ) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Restore flow, optimizer and generator in place.

        Returns:
            The progress and the best weights so far, or None if there is nothing to resume
            from (no file, a damaged one, or one of other data or settings).
        """
        if not self.path.is_file():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                header = file.metadata()
                if header["key"] != self.key:
                    return None
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, KeyError):
            return None
        flow.load_state_dict(_under("weights.", tensors))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under("optimizer.", tensors).items():
            index, moment = name.split(".")
            moments.setdefault(int(index), {})[moment] = tensor
        optimizer.load_state_dict({"state": moments, "param_groups": json.loads(header["groups"])})
        generator.set_state(tensors["generator"])
        return json.loads(header["progress"]), _under("best.", tensors)

    def remove(self) -> None:
        """Delete the file once the fit is done."""
        self.path.unlink(missing_ok=True)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
