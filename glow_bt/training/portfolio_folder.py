"""A portfolio model as a folder: tensors and one JSON file, no pickle."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file

from glow_bt.errors import ArtifactError
from glow_bt.flows import Glow, describe_flow, make_flow
from glow_bt.placing import new_folder, obstacle
from glow_bt.risk.spherical import SphericalT
from glow_bt.training.portfolio import PortfolioModel
from glow_bt.training.portfolio_config import PortfolioConfig

__all__ = ["PORTFOLIO_SCHEMA_VERSION", "load_portfolio", "save_portfolio"]

PORTFOLIO_SCHEMA_VERSION = 1
_TENSORS, _MANIFEST = "model.safetensors", "manifest.json"
_MARKS = ("portfolio_schema_version", "assets")
_ARRAYS = ("axes", "context_mean", "context_scale")
_DAMAGE = (LookupError, TypeError, ValueError, RuntimeError, OSError, SafetensorError)


def save_portfolio(
    model: PortfolioModel, path: str | os.PathLike[str], *, overwrite: bool = False
) -> None:
    """Write a model as a folder, whole or not at all.

    Args:
        model: the trained model.
        path: the folder; those on the way to it are made.
        overwrite: whether a portfolio model of that name, or an empty folder, is replaced.

    Raises:
        ArtifactError: if the path exists and may not be replaced, or cannot be written.
    """
    folder = Path(os.path.realpath(path))
    if reason := obstacle(folder, "portfolio model", _MARKS, overwrite=overwrite):
        raise ArtifactError(reason)
    tensors = {name: torch.from_numpy(np.array(getattr(model, name))) for name in _ARRAYS}
    for number, flow in enumerate(model.flows):
        tensors |= {f"flow.{number}.{k}": t.contiguous() for k, t in flow.state_dict().items()}
    try:
        with new_folder(folder) as temporary:
            save_file(tensors, temporary / _TENSORS)
            manifest = _manifest_of(model, _sha256(temporary / _TENSORS))
            text = json.dumps(manifest, indent=2, allow_nan=False)
            (temporary / _MANIFEST).write_text(text + "\n", encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise ArtifactError(
            f"expected to write a portfolio model to {folder}, found that it cannot be: {error}; "
            "choose another place"
        ) from error


def load_portfolio(path: str | os.PathLike[str]) -> PortfolioModel:
    """Read a model that `save_portfolio` wrote.

    Raises:
        ArtifactError: if the folder is missing, of another schema or damaged.
    """
    folder = Path(path)
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"expected a portfolio model in {folder}, found no {_MANIFEST} that can be read "
            f"({error}); give the folder that save_portfolio wrote"
        ) from error
    found = manifest.get("portfolio_schema_version") if isinstance(manifest, dict) else None
    if found != PORTFOLIO_SCHEMA_VERSION:
        raise ArtifactError(
            f"expected a portfolio model of schema version {PORTFOLIO_SCHEMA_VERSION}, found "
            f"{found!r} in {folder}; train the model again"
        )
    try:
        if _sha256(folder / _TENSORS) != manifest["model_sha256"]:
            raise ValueError(f"{_TENSORS} is not the one that the manifest has the hash of")
        return _model_of(manifest, load((folder / _TENSORS).read_bytes()))
    except _DAMAGE as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ArtifactError(
            f"expected a complete portfolio model in {folder}, found a damaged one ({reason}); "
            "copy the folder again or train again"
        ) from error


def _manifest_of(model: PortfolioModel, digest: str) -> dict[str, Any]:
    return {
        "portfolio_schema_version": PORTFOLIO_SCHEMA_VERSION,
        "assets": list(model.assets),
        "config": model.config.to_dict(),
        "radius": {"df": model.radius.df, "scale": model.radius.scale},
        "flows": [describe_flow(flow) for flow in model.flows],
        "trained_from": model.trained_from.isoformat(),
        "trained_until": model.trained_until.isoformat(),
        "validation_nll": model.validation_nll,
        "model_sha256": digest,
    }


def _model_of(manifest: dict[str, Any], tensors: dict[str, torch.Tensor]) -> PortfolioModel:
    flows = []
    for number, settings in enumerate(manifest["flows"]):
        flow = cast("Glow", make_flow(**settings)).double().eval()
        prefix = f"flow.{number}."
        own = {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
        flow.load_state_dict(own)
        flows.append(flow.requires_grad_(False))
    return PortfolioModel(
        config=PortfolioConfig.from_dict(manifest["config"]),
        assets=tuple(manifest["assets"]),
        axes=tensors["axes"].numpy(),
        radius=SphericalT(**manifest["radius"]),
        context_mean=tensors["context_mean"].numpy(),
        context_scale=tensors["context_scale"].numpy(),
        flows=tuple(flows),
        trained_from=pd.Timestamp(manifest["trained_from"]),
        trained_until=pd.Timestamp(manifest["trained_until"]),
        validation_nll=manifest["validation_nll"],
    )


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
