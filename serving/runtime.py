"""A version in memory: loaded without pickle, checked against what training recorded, ready to answer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from everloop.adapters.model_files import MODEL_FILE, load_pipeline, read_manifest
from everloop.domain.errors import ServingRefused
from everloop.domain.manifest import Manifest, RecordedRequest
from everloop.domain.metrics import Predictions
from everloop.domain.pipelines import predict
from everloop.domain.spec import Frozen
from serving.contract import Contract

RELEASE_FILE = "release.json"
TOLERANCE = 1e-6


class Release(Frozen):
    """What a bento holds: a version of a model, and the digest of the code and dependencies it runs with."""

    model: str
    version: str
    code: str

    @property
    def tag(self) -> str:
        """The tag of the bento, and of its model in the model store."""
        return f"{self.model}:v{self.version}"


@dataclass(frozen=True)
class LoadedModel:
    """A version that can answer."""

    release: Release
    manifest: Manifest
    pipeline: Any

    @cached_property
    def contract(self) -> Contract:
        """The request contract of this version."""
        return Contract(self.manifest.row_schema, max_rows=self.manifest.serving.max_rows)

    def predict(self, columns: dict[str, list[Any]]) -> Predictions:
        """Predictions for n rows given as feature columns."""
        return predict(self.pipeline, pd.DataFrame(columns), self.manifest.row_schema)


def load_model(folder: Path) -> LoadedModel:
    """The version kept in `folder`, warmed, answering its recorded requests as training recorded them.

    Raises:
        ServingRefused: a file is absent or damaged, holds a type that is not trusted, or the answers differ.
    """
    try:
        release = Release.model_validate_json((folder / RELEASE_FILE).read_bytes())
        manifest = read_manifest(folder)
        pipeline = load_pipeline(folder / MODEL_FILE)
    except Exception as exc:
        raise ServingRefused(
            f"{folder}: cannot be loaded: {type(exc).__name__}: {exc}; release the version again"
        ) from exc
    model = LoadedModel(release, manifest, pipeline)
    try:
        columns = {name: [request.row[name] for request in manifest.rehearsal] for name in manifest.row_schema.names}
        found = model.predict(columns)
        wrong = differences(manifest.rehearsal, found.values, found.probabilities)
    except (KeyError, ValueError) as exc:
        raise ServingRefused(f"{release.tag}: its recorded requests cannot be answered: {exc!r}") from exc
    if wrong:
        raise ServingRefused(
            f"{release.tag}: {len(wrong)} of {len(manifest.rehearsal)} recorded answers differ, first: {wrong[0]}"
        )
    return model


def differences(recorded: tuple[RecordedRequest, ...], values: Any, probabilities: Any) -> list[str]:
    """One sentence for each answer that is not what training recorded, within 1e-6 relative or absolute."""
    wrong = []
    for position, request in enumerate(recorded):
        if isinstance(request.prediction, float):
            same = bool(np.isclose(float(values[position]), request.prediction, rtol=TOLERANCE, atol=TOLERANCE))
        else:
            same = values[position] == request.prediction
        if same and request.probabilities is not None:
            same = bool(np.allclose(probabilities[position], request.probabilities, rtol=TOLERANCE, atol=TOLERANCE))
        if not same:
            wrong.append(f"row {position}: {values[position]!r} instead of {request.prediction!r}")
    return wrong
