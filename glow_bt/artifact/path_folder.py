"""A path model as a folder: tensors and one JSON file, no pickle."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file

from glow_bt.artifact.manifest import check_finite
from glow_bt.artifact.paths import PathModel
from glow_bt.artifact.returns import ReturnModel
from glow_bt.errors import ArtifactError
from glow_bt.features import ContextSpec, Scaler
from glow_bt.flows import UnivariateFlow
from glow_bt.placing import new_folder, obstacle

__all__ = ["PATH_SCHEMA_VERSION", "load_paths", "save_paths"]

PATH_SCHEMA_VERSION = 1
_TENSORS, _MANIFEST = "model.safetensors", "manifest.json"
_MARKS = ("path_schema_version", "max_volatility")
_DAMAGE = (LookupError, TypeError, ValueError, RuntimeError, OSError, SafetensorError)


def save_paths(model: PathModel, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write a model as a folder, whole or not at all.

    Args:
        model: what `glow_bt.training.fit_paths` gave.
        path: the folder; those on the way to it are made.
        overwrite: whether a path model of that name, or an empty folder, is replaced.

    Raises:
        ArtifactError: if the path exists and may not be replaced, or cannot be written.
    """
    folder = Path(os.path.realpath(path))
    if reason := obstacle(folder, "path model", _MARKS, overwrite=overwrite):
        raise ArtifactError(reason)
    flow = model.returns.flows[1]
    tensors = {name: tensor.contiguous() for name, tensor in flow.state_dict().items()}
    check_finite(tensors)
    try:
        with new_folder(folder) as temporary:
            save_file(tensors, temporary / _TENSORS)
            # safetensors keeps its files to their owner; a model is for whoever reads the folder.
            (temporary / _TENSORS).chmod(temporary.stat().st_mode & 0o666)
            manifest = _manifest_of(model, _sha256(temporary / _TENSORS))
            text = json.dumps(manifest, indent=2, allow_nan=False)
            (temporary / _MANIFEST).write_text(text + "\n", encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise ArtifactError(
            f"expected to write a path model to {folder}, found that it cannot be: {error}; "
            "choose another place"
        ) from error


def load_paths(path: str | os.PathLike[str]) -> PathModel:
    """Read a model that `save_paths` wrote.

    Raises:
        ArtifactError: if the folder is missing, of another schema or damaged.
    """
    folder = Path(path)
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"expected a path model in {folder}, found no {_MANIFEST} that can be read "
            f"({error}); give the folder that save_paths wrote"
        ) from error
    found = manifest.get("path_schema_version") if isinstance(manifest, dict) else None
    if found != PATH_SCHEMA_VERSION:
        raise ArtifactError(
            f"expected a path model of schema version {PATH_SCHEMA_VERSION}, found {found!r} in "
            f"{folder}; fit the paths again"
        )
    try:
        if _sha256(folder / _TENSORS) != manifest["model_sha256"]:
            raise ValueError(f"{_TENSORS} is not the one that the manifest has the hash of")
        return _model_of(manifest, load((folder / _TENSORS).read_bytes()))
    except _DAMAGE as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ArtifactError(
            f"expected a complete path model in {folder}, found a damaged one ({reason}); "
            "copy the folder again or fit the paths again"
        ) from error


def _manifest_of(model: PathModel, digest: str) -> dict[str, Any]:
    return {
        "path_schema_version": PATH_SCHEMA_VERSION,
        "max_volatility": model.max_volatility,
        "spec": model.returns.spec.to_dict(),
        "scaler": model.returns.scaler.to_dict(),
        "bar_seconds": model.returns.bar_seconds,
        "flow": model.returns.flows[1].config,
        "trained_from": model.trained_from.isoformat(),
        "trained_until": model.trained_until.isoformat(),
        "model_sha256": digest,
    }


def _model_of(manifest: dict[str, Any], tensors: dict[str, torch.Tensor]) -> PathModel:
    check_finite(tensors)
    # Building a flow draws its starting weights, which must not move the caller's stream.
    with torch.random.fork_rng(devices=[]):
        flow = UnivariateFlow(**manifest["flow"]).double()
    flow.load_state_dict(tensors)
    return PathModel(
        returns=ReturnModel(
            spec=ContextSpec.from_dict(manifest["spec"]),
            scaler=Scaler.from_dict(manifest["scaler"]),
            bar_seconds=float(manifest["bar_seconds"]),
            flows={1: flow.eval().requires_grad_(False)},
        ),
        max_volatility=float(manifest["max_volatility"]),
        trained_from=pd.Timestamp(manifest["trained_from"]),
        trained_until=pd.Timestamp(manifest["trained_until"]),
    )


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
