"""An artifact as a folder on disk."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file

from glow_bt.artifact.manifest import (
    SCHEMA_VERSION,
    check_finite,
    from_parts,
    manifest_of,
    tensors_of,
)
from glow_bt.artifact.model import Artifact
from glow_bt.errors import ArtifactError, ConfigError
from glow_bt.features import FeatureSpec
from glow_bt.placing import new_folder, obstacle

__all__ = ["load_artifact", "refuse_existing", "save_artifact"]

_TENSORS = "model.safetensors"
_MANIFEST = "manifest.json"
# What the manifest of a model folder is known by.
_MARKS = ("schema_version", "spec")
_PROBE_SCORES = "probe.scores"
_PROBE_QUANTILES = "probe.quantiles"
# What a probe state may read differently on another machine, in float64.
_PROBE_TOLERANCE = 1e-6
# Levels at which the next return's quantiles are compared, one for each tail.
_PROBE_LEVELS = (0.01, 0.99)
# What reading a folder of any content can end in.
_DAMAGE = (
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    OSError,
    SafetensorError,
)
_REPAIR = "copy the folder again or train again"

Floats = npt.NDArray[np.float64]


def refuse_existing(path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Refuse a place where `save_artifact` may not or cannot write.

    Raises:
        ArtifactError: if the path exists and overwrite is off, or it is neither a model folder
            nor an empty one, or nothing can be written there.
    """
    reason = obstacle(Path(os.path.realpath(path)), "model", _MARKS, overwrite=overwrite)
    if reason:
        raise ArtifactError(reason)


def save_artifact(
    artifact: Artifact, path: str | os.PathLike[str], *, overwrite: bool = False
) -> None:
    """Write an artifact as a folder, whole or not at all.

    Args:
        artifact: the model.
        path: the folder; those on the way to it are made.
        overwrite: whether a model folder of that name, or an empty one, is replaced; nothing
            else ever is.

    Raises:
        ArtifactError: if the path exists and may not be replaced, the folder cannot be written,
            or the artifact holds numbers that are not finite.
    """
    folder = Path(os.path.realpath(path))
    refuse_existing(folder, overwrite=overwrite)
    tensors = tensors_of(artifact)
    check_finite(tensors)
    tensors[_PROBE_SCORES] = torch.from_numpy(_probe_scores(artifact))
    tensors[_PROBE_QUANTILES] = torch.from_numpy(_probe_quantiles(artifact))
    try:
        with new_folder(folder) as temporary:
            save_file(tensors, temporary / _TENSORS)
            # safetensors keeps its files to their owner; a model is for whoever reads the folder.
            (temporary / _TENSORS).chmod(temporary.stat().st_mode & 0o666)
            digest = _sha256((temporary / _TENSORS).read_bytes())
            manifest = manifest_of(artifact) | {"model_sha256": digest}
            (temporary / _MANIFEST).write_bytes(_sealed(manifest))
    except (OSError, SafetensorError) as error:
        raise ArtifactError(
            f"expected to write a model folder {folder}, found that it cannot be: {error}; "
            "choose another place"
        ) from error


def load_artifact(path: str | os.PathLike[str]) -> Artifact:
    """Read an artifact and prove that it works, in float64.

    Its `training` says where it comes from, the model before it and the search behind its settings
    among that.

    Raises:
        ArtifactError: if the folder is missing, of another schema or market state, damaged, or
            does not read its probe states as the trainer did; the message says what to do.
    """
    folder = Path(path)
    manifest = _read_manifest(folder)
    try:
        data = (folder / _TENSORS).read_bytes()
        if _sha256(data) != manifest["model_sha256"]:
            raise ArtifactError(
                f"expected the {_TENSORS} that the manifest of {folder} has the hash of, found "
                f"another or a damaged one; {_REPAIR}"
            )
        _check_spec(manifest["spec"], folder)
        tensors = load(data)
        artifact = from_parts(manifest, tensors)
        _prove(artifact, tensors, folder)
    except _DAMAGE as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ArtifactError(
            f"expected a complete model in {folder}, found a damaged one ({reason}); {_REPAIR}"
        ) from error
    return artifact


def _check_spec(spec: dict[str, Any], folder: Path) -> None:
    try:
        FeatureSpec.from_dict(spec)
    except ConfigError as error:
        raise ArtifactError(
            f"expected a model of this version's market state, found one of version "
            f"{spec.get('version')!r} with features {spec.get('names')!r} in {folder}; "
            "train the model again"
        ) from error


def _read_manifest(folder: Path) -> dict[str, Any]:
    """Return a manifest that is as it was written, of the schema that this version reads."""
    file = folder / _MANIFEST
    try:
        written = file.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path that cannot be one
        raise ArtifactError(
            f"expected a model folder with {_MANIFEST} and {_TENSORS}, found none at {folder} "
            f"({getattr(error, 'strerror', error)}); give the folder that 'glow-bt train' wrote"
        ) from error
    try:
        manifest = json.loads(written, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(
            f"expected JSON in {file}, found a damaged file ({error}); {_REPAIR}"
        ) from error
    if not isinstance(manifest, dict):
        raise ArtifactError(
            f"expected a JSON object in {file}, found a {type(manifest).__name__}; {_REPAIR}"
        )
    found = manifest.get("schema_version")
    if found != SCHEMA_VERSION:
        raise ArtifactError(
            f"expected schema version {SCHEMA_VERSION}, found {found!r} in {folder}; "
            "train the model again with this version of glow_bt"
        )
    digest = str(manifest.pop("manifest_sha256", None))
    if _sha256(written.replace(digest.encode(), b"", 1)) != digest:
        raise ArtifactError(
            f"expected {file} as the trainer wrote it, found a damaged or edited one; {_REPAIR}"
        )
    return manifest


def _sealed(manifest: dict[str, Any]) -> bytes:
    """Return JSON that holds the hash of itself, taken while the place of the hash is empty."""
    empty = b'"manifest_sha256": ""'
    text = json.dumps(manifest | {"manifest_sha256": ""}, indent=2, allow_nan=False) + "\n"
    blank = text.encode()
    return blank.replace(empty, empty[:-1] + _sha256(blank).encode() + b'"')


def _probe_scores(artifact: Artifact) -> Floats:
    """Return (P, 3): log-density, direction and regime of each probe state."""
    reading = artifact.read(artifact.probe)
    return np.column_stack([reading.log_prob, reading.direction, reading.regime])


def _probe_quantiles(artifact: Artifact) -> Floats:
    """Return (P, 2 H): two quantiles of the scaled return at each probe context and horizon."""
    columns = []
    for horizon in artifact.returns.horizons:
        distribution = artifact.returns.fused(horizon).distribution(artifact.return_probe)
        columns += [distribution.quantile(level) for level in _PROBE_LEVELS]
    return np.column_stack(columns)


@torch.no_grad()
def _prove(artifact: Artifact, tensors: dict[str, torch.Tensor], folder: Path) -> None:
    """Check that probe states read as they did for the trainer, and that they invert.

    Latents come by the way that scoring takes and go back through the module, so that both are
    held against each other.
    """
    latents = artifact.read(artifact.probe).latents
    back = artifact.state_flow.inverse(torch.from_numpy(latents))[0].numpy()
    for what, found, expected in (
        ("scores", _probe_scores(artifact), tensors[_PROBE_SCORES].numpy()),
        ("quantiles", _probe_quantiles(artifact), tensors[_PROBE_QUANTILES].numpy()),
        ("round trip", back, artifact.probe),
    ):
        if found.shape != expected.shape:
            raise ValueError(f"{what} of shape {expected.shape} for {found.shape} probe states")
        gap = float((np.abs(found - expected) / (1.0 + np.abs(expected))).max())
        if not gap <= _PROBE_TOLERANCE:
            raise ArtifactError(
                f"expected the {what} of the probe states of {folder} to agree to "
                f"{_PROBE_TOLERANCE:g}, found a difference of {gap:.3g}; train again"
            )


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
