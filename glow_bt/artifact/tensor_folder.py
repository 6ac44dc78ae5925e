"""Tensors and one JSON manifest as a folder, for models that are no artifact; no pickle."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from glow_bt.errors import ArtifactError
from glow_bt.placing import new_folder, obstacle

__all__ = ["TensorFolder"]

_TENSORS, _MANIFEST, _DIGEST = "model.safetensors", "manifest.json", "model_sha256"
# What reading a folder of any content can end in.
_DAMAGE = (LookupError, TypeError, ValueError, RuntimeError, OSError, SafetensorError)
_Model = TypeVar("_Model")


@dataclass(frozen=True)
class TensorFolder:
    """How a kind of model lies on disk.

    Attributes:
        kind: what messages call it, such as "path model".
        version_key: key of the schema version in the manifest.
        version: that is written and read.
        mark: another key that such a manifest is known by.
        remedy: how to get a new one, such as "fit the paths again".
    """

    kind: str
    version_key: str
    version: int
    mark: str
    remedy: str

    def save(
        self,
        tensors: Mapping[str, Tensor],
        values: Mapping[str, Any],
        path: str | os.PathLike[str],
        *,
        overwrite: bool,
    ) -> None:
        """Write tensors and JSON values, whole or not at all.

        Raises:
            ArtifactError: if the path exists and may not be replaced, or cannot be written.
        """
        folder = Path(os.path.realpath(path))
        marks = (self.version_key, self.mark)
        if reason := obstacle(folder, self.kind, marks, overwrite=overwrite):
            raise ArtifactError(reason)
        try:
            with new_folder(folder) as temporary:
                file = temporary / _TENSORS
                save_file({name: t.contiguous() for name, t in tensors.items()}, file)
                # safetensors keeps its files to their owner; a model is for who reads the folder.
                file.chmod(temporary.stat().st_mode & 0o666)
                manifest = {self.version_key: self.version, **values, _DIGEST: _sha256(file)}
                text = json.dumps(manifest, indent=2, allow_nan=False)
                (temporary / _MANIFEST).write_text(text + "\n", encoding="utf-8")
        except (OSError, SafetensorError) as error:
            raise ArtifactError(
                f"expected to write a {self.kind} to {folder}, found that it cannot be: {error}; "
                "choose another place"
            ) from error

    def load(
        self,
        path: str | os.PathLike[str],
        build: Callable[[dict[str, Any], dict[str, Tensor]], _Model],
    ) -> _Model:
        """Read a folder and build the model from its manifest and tensors.

        Raises:
            ArtifactError: if the folder is missing, of another schema or damaged.
        """
        folder = Path(path)
        try:
            manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ArtifactError(
                f"expected a {self.kind} in {folder}, found no {_MANIFEST} that can be read "
                f"({error}); give a folder that holds one, or {self.remedy}"
            ) from error
        found = manifest.get(self.version_key) if isinstance(manifest, dict) else None
        if found != self.version:
            raise ArtifactError(
                f"expected a {self.kind} of schema version {self.version}, found {found!r} in "
                f"{folder}; {self.remedy}"
            )
        try:
            if _sha256(folder / _TENSORS) != manifest[_DIGEST]:
                raise ValueError(f"{_TENSORS} is not the one that the manifest has the hash of")
            return build(manifest, load((folder / _TENSORS).read_bytes()))
        except _DAMAGE as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise ArtifactError(
                f"expected a complete {self.kind} in {folder}, found a damaged one ({reason}); "
                f"copy the folder again or {self.remedy}"
            ) from error


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
