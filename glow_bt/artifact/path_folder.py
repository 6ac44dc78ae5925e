"""A path model as a folder: tensors and one JSON file, no pickle."""

from __future__ import annotations

import os
from typing import Any

import pandas as pd
import torch

from glow_bt.artifact.manifest import check_finite
from glow_bt.artifact.paths import PathModel
from glow_bt.artifact.returns import ReturnModel
from glow_bt.artifact.tensor_folder import TensorFolder
from glow_bt.features import ContextSpec, Scaler
from glow_bt.flows import UnivariateFlow

__all__ = ["PATH_SCHEMA_VERSION", "load_paths", "save_paths"]

PATH_SCHEMA_VERSION = 1
_FOLDER = TensorFolder(
    "path model",
    "path_schema_version",
    PATH_SCHEMA_VERSION,
    mark="max_volatility",
    remedy="fit the paths again",
)


def save_paths(model: PathModel, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write a model as a folder, whole or not at all.

    Args:
        model: what `glow_bt.training.fit_paths` gave.
        path: the folder; those on the way to it are made.
        overwrite: whether a path model of that name, or an empty folder, is replaced.

    Raises:
        ArtifactError: if the path exists and may not be replaced, or cannot be written.
    """
    tensors = model.returns.flows[1].state_dict()
    check_finite(tensors)
    _FOLDER.save(tensors, _values_of(model), path, overwrite=overwrite)


def load_paths(path: str | os.PathLike[str]) -> PathModel:
    """Read a model that `save_paths` wrote.

    Raises:
        ArtifactError: if the folder is missing, of another schema or damaged.
    """
    return _FOLDER.load(path, _model_of)


def _values_of(model: PathModel) -> dict[str, Any]:
    return {
        "max_volatility": model.max_volatility,
        "spec": model.returns.spec.to_dict(),
        "scaler": model.returns.scaler.to_dict(),
        "bar_seconds": model.returns.bar_seconds,
        "flow": model.returns.flows[1].config,
        "trained_from": model.trained_from.isoformat(),
        "trained_until": model.trained_until.isoformat(),
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
