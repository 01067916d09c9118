"""A model on disk: the fitted pipeline as skops, its manifest and perhaps its ONNX, as they lie in an MLflow model folder."""

from __future__ import annotations

import contextlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from everloop.domain.errors import RegistryError
from everloop.domain.manifest import Manifest

MODEL_FILE = "model.skops"
MANIFEST_FILE = "manifest.json"
ONNX_FILE = "model.onnx"
_ENVIRONMENT = ("numpy", "onnxruntime", "scikit-learn", "scipy")


def load_pipeline(path: Path) -> Any:
    """The fitted pipeline in the skops file `path`; only types on the reviewed list are built."""
    from skops.io import load

    from everloop.domain.pipelines import TRUSTED_TYPES

    return load(path, trusted=list(TRUSTED_TYPES))


def environment() -> dict[str, str]:
    """The versions of what computes predictions here, by name: training and serving must agree on them."""
    found = {"python": platform.python_version()}
    for name in _ENVIRONMENT:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def find_file(folder: Path, name: str) -> Path | None:
    """The file in `folder` or in its `extra_files`, where MLflow puts what is logged with a model; None if in neither."""
    return next((path for path in (folder / name, folder / "extra_files" / name) if path.is_file()), None)


def read_manifest(folder: Path) -> Manifest:
    """The manifest in a model's folder.

    Raises:
        RegistryError: there is none.
    """
    path = find_file(folder, MANIFEST_FILE)
    if path is not None:
        return Manifest.model_validate_json(path.read_bytes())
    raise RegistryError(
        f"{folder} holds no {MANIFEST_FILE}: the version was not registered by everloop; train a new one"
    )
