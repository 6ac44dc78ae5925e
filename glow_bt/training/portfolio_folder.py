"""A portfolio model as a folder: tensors and one JSON file, no pickle."""

from __future__ import annotations

import os
from typing import Any, cast

import numpy as np
import pandas as pd
import torch

from glow_bt.artifact.tensor_folder import TensorFolder
from glow_bt.flows import Glow, describe_flow, make_flow
from glow_bt.risk.spherical import SphericalT
from glow_bt.training.portfolio import PortfolioModel
from glow_bt.training.portfolio_config import PortfolioConfig

__all__ = ["PORTFOLIO_SCHEMA_VERSION", "load_portfolio", "save_portfolio"]

PORTFOLIO_SCHEMA_VERSION = 1
_FOLDER = TensorFolder(
    "portfolio model",
    "portfolio_schema_version",
    PORTFOLIO_SCHEMA_VERSION,
    mark="assets",
    remedy="train the model again",
)
_ARRAYS = ("axes", "context_mean", "context_scale")


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
    tensors = {name: torch.from_numpy(np.array(getattr(model, name))) for name in _ARRAYS}
    for number, flow in enumerate(model.flows):
        tensors |= {f"flow.{number}.{k}": t for k, t in flow.state_dict().items()}
    _FOLDER.save(tensors, _values_of(model), path, overwrite=overwrite)


def load_portfolio(path: str | os.PathLike[str]) -> PortfolioModel:
    """Read a model that `save_portfolio` wrote.

    Raises:
        ArtifactError: if the folder is missing, of another schema or damaged.
    """
    return _FOLDER.load(path, _model_of)


def _values_of(model: PortfolioModel) -> dict[str, Any]:
    return {
        "assets": list(model.assets),
        "config": model.config.to_dict(),
        "radius": {"df": model.radius.df, "scale": model.radius.scale},
        "flows": [describe_flow(flow) for flow in model.flows],
        "trained_from": model.trained_from.isoformat(),
        "trained_until": model.trained_until.isoformat(),
        "validation_nll": model.validation_nll,
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
