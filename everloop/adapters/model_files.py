"""A model on disk: the fitted pipeline as skops and its manifest, as they lie in an MLflow model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from everloop.domain.errors import RegistryError
from everloop.domain.manifest import Manifest
from everloop.domain.pipelines import TRUSTED_TYPES

MODEL_FILE = "model.skops"
MANIFEST_FILE = "manifest.json"


def load_pipeline(path: Path) -> Any:
    """The fitted pipeline in the skops file `path`; only types on the reviewed list are built."""
    from skops.io import load

    return load(path, trusted=list(TRUSTED_TYPES))


def read_manifest(folder: Path) -> Manifest:
    """The manifest in `folder` or in its `extra_files`, where MLflow puts what is logged with a model.

    Raises:
        RegistryError: there is none.
    """
    for path in (folder / MANIFEST_FILE, folder / "extra_files" / MANIFEST_FILE):
        if path.is_file():
            return Manifest.model_validate_json(path.read_bytes())
    raise RegistryError(
        f"{folder} holds no {MANIFEST_FILE}: the version was not registered by everloop; train a new one"
    )
