"""An artifact as named tensors and JSON values, and back."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from glow_bt.artifact.model import Artifact, TrainingRecord
from glow_bt.artifact.returns import ReturnModel
from glow_bt.direction import DirectionReadout
from glow_bt.errors import ArtifactError
from glow_bt.features import ContextSpec, FeatureSpec, Scaler
from glow_bt.flows import Flow, UnivariateFlow, describe_flow, make_flow, tails_of
from glow_bt.likelihood import LikelihoodFilter
from glow_bt.regimes import Regimes

__all__ = [
    "SCHEMA_VERSION",
    "check_finite",
    "fingerprint",
    "from_parts",
    "manifest_of",
    "tensors_of",
]

SCHEMA_VERSION = 3

Floats = npt.NDArray[np.float64]
_Flow = TypeVar("_Flow", bound=Flow)


def tensors_of(artifact: Artifact) -> dict[str, Tensor]:
    """Return every array of an artifact under its name."""
    arrays: dict[str, Floats] = {
        "likelihood.quantiles": artifact.likelihood.quantiles,
        "direction.coefficients": artifact.direction.coefficients,
        "direction.covariance": artifact.direction.covariance,
        "direction.centre": artifact.direction.centre,
        "regimes.weights": artifact.regimes.weights,
        "regimes.means": artifact.regimes.means,
        "regimes.scales": artifact.regimes.scales,
        "probe.states": artifact.probe,
        "probe.contexts": artifact.return_probe,
    }
    tensors = {name: torch.from_numpy(np.array(a)) for name, a in arrays.items()}
    flows: dict[str, Flow] = {"state_flow": artifact.state_flow}
    flows |= {_return_prefix(h): flow for h, flow in artifact.returns.flows.items()}
    for prefix, flow in flows.items():
        for name, tensor in flow.state_dict().items():
            tensors[f"{prefix}.{name}"] = tensor.contiguous()
    return tensors


def manifest_of(artifact: Artifact) -> dict[str, Any]:
    """Return everything else as JSON values; measurements that are not finite become null."""
    values, likelihood = _values_of(artifact), artifact.likelihood
    values["likelihood"] |= {
        "low": likelihood.low,
        "high": likelihood.high,
        "how": "two-sided quantiles of the log-likelihood of held-out states",
    }
    return values | {
        "tail_index": _tail_indices(artifact),
        "fingerprint": fingerprint(artifact),
    }


def fingerprint(artifact: Artifact) -> str:
    """Return 64 hex digits that stand for an artifact: equal ones hold the same model.

    The sha256 of every tensor and value that the artifact is rebuilt from. What is only worked
    out of these, such as thresholds and tail indices, is left out: its last bit may differ from
    machine to machine, and a fingerprint must not. The record of a search is among the values: a
    model that has lost it is another one. Those without one have the fingerprint that they had
    before there were such records.
    """
    digest = hashlib.sha256(json.dumps(_values_of(artifact), sort_keys=True).encode())
    for name, tensor in sorted(tensors_of(artifact).items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _values_of(artifact: Artifact) -> dict[str, Any]:
    """Return the JSON values that `from_parts` reads."""
    direction = artifact.direction
    record = asdict(artifact.training)
    if record["search"] is None:
        # Absent, as in models of before there was one, which load in the same schema. Versions
        # that do not know the entry refuse a model that has it, rather than overlook it.
        del record["search"]
    return {
        "schema_version": SCHEMA_VERSION,
        "spec": artifact.spec.to_dict(),
        "scaler": artifact.scaler.to_dict(),
        "state_flow": describe_flow(artifact.state_flow),
        "returns": {
            "spec": artifact.returns.spec.to_dict(),
            "scaler": artifact.returns.scaler.to_dict(),
            "bar_seconds": artifact.returns.bar_seconds,
            "flows": {str(h): flow.config for h, flow in artifact.returns.flows.items()},
        },
        "likelihood": {"false_alarm_rate": artifact.likelihood.false_alarm_rate},
        "direction": {
            "intercept": direction.intercept,
            "intercept_variance": direction.intercept_variance,
            "slope_belief": direction.slope_belief,
            "drift_belief": direction.drift_belief,
            "horizon": direction.horizon,
        },
        "training": record
        | {
            "trained_from": artifact.training.trained_from.isoformat(),
            "trained_until": artifact.training.trained_until.isoformat(),
            "metrics": _without_nan(record["metrics"]),
            "history": _without_nan(record["history"]),
        },
    }


def from_parts(manifest: dict[str, Any], tensors: dict[str, Tensor]) -> Artifact:
    """Rebuild an artifact, with flows in float64.

    Raises:
        ArtifactError: if the parts do not belong together.
        LookupError, TypeError, ValueError, RuntimeError: if a part is missing or malformed.
    """
    check_finite(tensors)

    def array(name: str) -> Floats:
        return tensors[name].numpy().astype(np.float64, copy=False)

    likelihood, direction = manifest["likelihood"], manifest["direction"]
    return Artifact(
        spec=FeatureSpec.from_dict(manifest["spec"]),
        scaler=Scaler.from_dict(manifest["scaler"]),
        state_flow=_state_flow(manifest["state_flow"], tensors),
        returns=_returns(manifest["returns"], tensors),
        likelihood=LikelihoodFilter(array("likelihood.quantiles"), likelihood["false_alarm_rate"]),
        direction=DirectionReadout(
            coefficients=array("direction.coefficients"),
            covariance=array("direction.covariance"),
            centre=array("direction.centre"),
            **direction,
        ),
        regimes=Regimes(array("regimes.weights"), array("regimes.means"), array("regimes.scales")),
        probe=array("probe.states"),
        return_probe=array("probe.contexts"),
        training=_record(manifest["training"]),
    )


def check_finite(tensors: dict[str, Tensor]) -> None:
    """Refuse NaN and infinity.

    Raises:
        ArtifactError: naming the first tensor that holds any.
    """
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ArtifactError(f"expected finite numbers, found others in {name}; train again")


def _state_flow(settings: dict[str, Any], tensors: dict[str, Tensor]) -> Flow:
    flow = _restored(lambda: make_flow(**settings), "state_flow.", tensors)
    if describe_flow(flow) != settings:
        raise ValueError(f"settings of state_flow are {sorted(settings)}")
    return flow


def _returns(values: dict[str, Any], tensors: dict[str, Tensor]) -> ReturnModel:
    return ReturnModel(
        spec=ContextSpec.from_dict(values["spec"]),
        scaler=Scaler.from_dict(values["scaler"]),
        bar_seconds=float(values["bar_seconds"]),
        flows={
            int(horizon): _return_flow(settings, _return_prefix(int(horizon)), tensors)
            for horizon, settings in values["flows"].items()
        },
    )


def _return_prefix(horizon: int) -> str:
    return f"returns_{horizon}"


def _return_flow(
    settings: dict[str, Any], prefix: str, tensors: dict[str, Tensor]
) -> UnivariateFlow:
    flow = _restored(lambda: UnivariateFlow(**settings), f"{prefix}.", tensors)
    if flow.config != settings:
        raise ValueError(f"settings of {prefix} are {sorted(settings)}")
    return flow


def _restored(build: Callable[[], _Flow], prefix: str, tensors: dict[str, Tensor]) -> _Flow:
    # Building a flow draws its starting weights, which must not move the caller's stream.
    with torch.random.fork_rng(devices=[]):
        flow = build().double()
    weights = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    flow.load_state_dict(weights)
    return flow.eval().requires_grad_(False)


def _record(values: dict[str, Any]) -> TrainingRecord:
    return TrainingRecord(
        **values
        | {
            "trained_from": pd.Timestamp(values["trained_from"]),
            "trained_until": pd.Timestamp(values["trained_until"]),
            "metrics": _with_nan(values["metrics"]),
            "history": _with_nan(values["history"]),
            "parent": values["parent"],
        }
    )


def _tail_indices(artifact: Artifact) -> dict[str, Any]:
    indices: dict[str, Any] = {}
    if (tails := tails_of(artifact.state_flow)) is not None:
        left, right = tails.index.tolist()
        indices["state"] = {
            name: [a, b] for name, a, b in zip(artifact.spec.names, left, right, strict=True)
        }
    indices["returns"] = {
        str(horizon): flow.index.tolist() for horizon, flow in artifact.returns.flows.items()
    }
    return indices


def _without_nan(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _with_nan(value: object) -> object:
    if isinstance(value, dict):
        return {key: _with_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_nan(item) for item in value]
    return math.nan if value is None else value
