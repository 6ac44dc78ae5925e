"""The contract between trainer and runtime: a folder of tensors and one JSON file.

::

    model/
      model.safetensors   weights of both flows, regimes, direction, filter table, probe
      manifest.json       schema version, configuration, feature spec, scaler, thresholds, tail
                          indices, training interval, data hash, seed, versions, metrics, and
                          the hash of model.safetensors

There is no pickle. A folder appears whole or not at all. Loading proves the model before it
may be used: schema, hash, finite numbers, and the density and round trip of stored probe states.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from glow_bt.direction import DirectionReadout
from glow_bt.errors import ArtifactError, GlowError
from glow_bt.features import FeatureSpec, Scaler
from glow_bt.flows import GaussianMixturePrior, Glow, UnivariateFlow
from glow_bt.likelihood import LikelihoodFilter
from glow_bt.regimes import Regimes

__all__ = ["SCHEMA_VERSION", "Artifact", "TrainingRecord", "load_artifact", "save_artifact"]

SCHEMA_VERSION = 1
_TENSORS = "model.safetensors"
_MANIFEST = "manifest.json"
# What a probe state's density and round trip may differ by on another machine, in float64.
_PROBE_TOLERANCE = 1e-6

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TrainingRecord:
    """Where a model comes from.

    Attributes:
        trained_from: stamp (bar open) of the first bar used.
        trained_until: stamp of the last bar used in any way, validation included.
        n_bars: bars in that interval.
        bar_seconds: interval of the bars.
        data_sha256: hash of the bars given to the trainer.
        seed: seed of every random choice.
        config: the trainer's settings.
        metrics: what was measured, in nats unless named otherwise.
        history: per flow, lists of train and validation NLL by epoch.
        versions: of the libraries involved.
    """

    trained_from: pd.Timestamp
    trained_until: pd.Timestamp
    n_bars: int
    bar_seconds: float
    data_sha256: str
    seed: int
    config: Mapping[str, Any]
    metrics: Mapping[str, float]
    history: Mapping[str, Mapping[str, list[float]]]
    versions: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Artifact:
    """Everything the runtime needs, and where it comes from.

    Attributes:
        spec: which features make a market state, in which order.
        scaler: centre and scale of each feature, from the training block.
        state_flow: density of scaled market states.
        return_flow: density of the next bar's log return over current volatility, given the
            scaled state.
        likelihood: filter thresholds and confidence ranks.
        direction: readout of latents.
        regimes: clusters of latents, or None if the state flow's own mixture names them.
        probe: (P, D) scaled states that prove a loaded model, with their log-densities in
            `probe_log_prob` (P,).
        training: where the model comes from.
    """

    spec: FeatureSpec
    scaler: Scaler
    state_flow: Glow
    return_flow: UnivariateFlow
    likelihood: LikelihoodFilter
    direction: DirectionReadout
    regimes: Regimes | None
    probe: Floats
    probe_log_prob: Floats
    training: TrainingRecord

    def regime_of(self, latents: Floats) -> npt.NDArray[np.int64]:
        """Return the regime of each row of latents (N, D), shape (N,)."""
        prior = self.state_flow.prior
        if self.regimes is not None:
            return self.regimes.assign(latents)
        if not isinstance(prior, GaussianMixturePrior):
            raise ArtifactError(
                "expected regimes, or a state flow on a mixture base, found neither; train again"
            )
        with torch.no_grad():
            return prior.posterior(torch.from_numpy(latents)).argmax(dim=1).numpy()


def save_artifact(
    artifact: Artifact, path: str | os.PathLike[str], *, overwrite: bool = False
) -> None:
    """Write an artifact as a folder, whole or not at all.

    Raises:
        ArtifactError: if the folder exists and overwrite is off.
    """
    folder = Path(path)
    if folder.exists() and not overwrite:
        raise ArtifactError(
            f"expected a new folder, found {folder} there already; "
            "choose another or ask to overwrite it"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        save_file(_tensors_of(artifact), temporary / _TENSORS)
        manifest = _manifest_of(artifact) | {"model_sha256": _sha256(temporary / _TENSORS)}
        text = json.dumps(manifest, indent=2, allow_nan=False)
        (temporary / _MANIFEST).write_text(text + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_artifact(path: str | os.PathLike[str]) -> Artifact:
    """Read an artifact and prove that it works, in float64.

    Raises:
        ArtifactError: if the folder is missing, of another schema, damaged, or does not
            reproduce the density of its probe states; the message says what to do.
    """
    folder = Path(path)
    manifest = _read_manifest(folder)
    found = manifest.get("schema_version")
    if found != SCHEMA_VERSION:
        raise ArtifactError(
            f"expected schema version {SCHEMA_VERSION}, found {found!r} in {folder}; "
            "train the model again with this version of glow_bt"
        )
    try:
        digest = _sha256(folder / _TENSORS)
        if digest != manifest["model_sha256"]:
            raise ArtifactError(
                f"expected {folder / _TENSORS} to have sha256 {manifest['model_sha256'][:12]}..., "
                f"found {digest[:12]}...; the file is damaged or not of this manifest: "
                "copy the folder again or train again"
            )
        artifact = _assemble(manifest, load_file(folder / _TENSORS))
    except (KeyError, TypeError, ValueError, RuntimeError, OSError, SafetensorError) as error:
        raise ArtifactError(
            f"expected a complete model in {folder}, found a damaged one "
            f"({type(error).__name__}: {str(error).splitlines()[0]}); "
            "copy the folder again or train again"
        ) from error
    _prove(artifact, folder)
    return artifact


def _read_manifest(folder: Path) -> dict[str, Any]:
    file = folder / _MANIFEST
    if not file.is_file():
        raise ArtifactError(
            f"expected a model folder with {_MANIFEST} and {_TENSORS}, found none at {folder}; "
            "give the folder that 'glow-bt train' wrote"
        )
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ArtifactError(
            f"expected JSON in {file}, found a damaged file ({error}); "
            "copy the folder again or train again"
        ) from error
    if not isinstance(manifest, dict):
        raise ArtifactError(f"expected a JSON object in {file}, found {type(manifest).__name__}")
    return manifest


def _tensors_of(artifact: Artifact) -> dict[str, Tensor]:
    arrays: dict[str, Floats] = {
        "likelihood.quantiles": artifact.likelihood.quantiles,
        "direction.coefficients": artifact.direction.coefficients,
        "direction.covariance": artifact.direction.covariance,
        "direction.centre": artifact.direction.centre,
        "probe.states": artifact.probe,
        "probe.log_prob": artifact.probe_log_prob,
    }
    if artifact.regimes is not None:
        arrays |= {
            "regimes.weights": artifact.regimes.weights,
            "regimes.means": artifact.regimes.means,
            "regimes.scales": artifact.regimes.scales,
        }
    tensors = {name: torch.from_numpy(np.array(a)) for name, a in arrays.items()}
    for prefix in ("state_flow", "return_flow"):
        for name, tensor in getattr(artifact, prefix).state_dict().items():
            tensors[f"{prefix}.{name}"] = tensor.contiguous()
    return tensors


def _manifest_of(artifact: Artifact) -> dict[str, Any]:
    record = asdict(artifact.training)
    record["trained_from"] = artifact.training.trained_from.isoformat()
    record["trained_until"] = artifact.training.trained_until.isoformat()
    likelihood = artifact.likelihood
    return {
        "schema_version": SCHEMA_VERSION,
        "spec": artifact.spec.to_dict(),
        "scaler": artifact.scaler.to_dict(),
        "state_flow": artifact.state_flow.config,
        "return_flow": artifact.return_flow.config,
        "tail_index": _tail_indices(artifact),
        "likelihood": {
            "false_alarm_rate": likelihood.false_alarm_rate,
            "low": likelihood.low,
            "high": likelihood.high,
            "how": "two-sided quantiles of the log-likelihood of validation states",
        },
        "direction": {
            "intercept": artifact.direction.intercept,
            "intercept_variance": artifact.direction.intercept_variance,
            "horizon": artifact.direction.horizon,
        },
        "training": record,
    }


def _tail_indices(artifact: Artifact) -> dict[str, Any]:
    indices: dict[str, Any] = {}
    if artifact.state_flow.tails is not None:
        left, right = artifact.state_flow.tails.index.tolist()
        indices["state"] = {
            name: [float(a), float(b)]
            for name, a, b in zip(artifact.spec.names, left, right, strict=True)
        }
    indices["return"] = [float(side[0]) for side in artifact.return_flow.tails.index.tolist()]
    return indices


def _assemble(manifest: dict[str, Any], tensors: dict[str, Tensor]) -> Artifact:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(f"{name} holds values that are not finite")

    def array(name: str) -> Floats:
        return tensors[name].numpy().astype(np.float64, copy=False)

    flows: dict[str, Any] = {}
    for prefix, kind in (("state_flow", Glow), ("return_flow", UnivariateFlow)):
        with torch.random.fork_rng(devices=[]):
            flow = kind(**manifest[prefix]).double()
        weights = {
            name.removeprefix(f"{prefix}."): tensor
            for name, tensor in tensors.items()
            if name.startswith(f"{prefix}.")
        }
        flow.load_state_dict(weights)
        flows[prefix] = flow.eval().requires_grad_(False)
    record = dict(manifest["training"])
    for stamp in ("trained_from", "trained_until"):
        record[stamp] = pd.Timestamp(record[stamp])
    likelihood, direction = manifest["likelihood"], manifest["direction"]
    regimes = None
    if "regimes.weights" in tensors:
        regimes = Regimes(
            array("regimes.weights"), array("regimes.means"), array("regimes.scales")
        )
    return Artifact(
        spec=FeatureSpec.from_dict(manifest["spec"]),
        scaler=Scaler.from_dict(manifest["scaler"]),
        state_flow=flows["state_flow"],
        return_flow=flows["return_flow"],
        likelihood=LikelihoodFilter(array("likelihood.quantiles"), likelihood["false_alarm_rate"]),
        direction=DirectionReadout(
            coefficients=array("direction.coefficients"),
            intercept=direction["intercept"],
            covariance=array("direction.covariance"),
            intercept_variance=direction["intercept_variance"],
            centre=array("direction.centre"),
            horizon=direction["horizon"],
        ),
        regimes=regimes,
        probe=array("probe.states"),
        probe_log_prob=array("probe.log_prob"),
        training=TrainingRecord(**record),
    )


@torch.no_grad()
def _prove(artifact: Artifact, folder: Path) -> None:
    """Check the density and round trip of the probe states on this machine."""
    flow, probe = artifact.state_flow, torch.from_numpy(artifact.probe)
    try:
        log_prob = flow.log_prob(probe).numpy()
        back = flow.inverse(flow(probe)[0])[0].numpy()
    except (GlowError, RuntimeError) as error:
        raise ArtifactError(
            f"expected the model in {folder} to score its probe states, it failed: {error}; "
            "train again"
        ) from error
    for what, found, expected in (
        ("density", log_prob, artifact.probe_log_prob),
        ("round trip", back, artifact.probe),
    ):
        gap = np.abs(found - expected).max() if found.shape == expected.shape else np.inf
        if not gap <= _PROBE_TOLERANCE * max(1.0, float(np.abs(expected).max())):
            raise ArtifactError(
                f"expected the {what} of the probe states of {folder} to agree to "
                f"{_PROBE_TOLERANCE:g}, found a difference of {gap:.3g}; train again"
            )


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
