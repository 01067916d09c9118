"""A version in memory: loaded without pickle, checked against what training recorded, ready to answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from everloop.adapters.model_files import MODEL_FILE, ONNX_FILE, find_file, load_pipeline, read_manifest
from everloop.domain.batch import Batch
from everloop.domain.errors import ServingRefused
from everloop.domain.manifest import Manifest, RecordedRequest
from everloop.domain.metrics import Predictions
from everloop.domain.schema import RowSchema, canonical_category
from everloop.domain.spec import ServingSpec
from everloop.domain.spec_values import Frozen
from serving.contract import Contract

RELEASE_FILE = "release.json"
WARM_ROUNDS = 5


class Release(Frozen):
    """What a bento holds: a version of a model, and the digest of the code and dependencies it runs with."""

    model: str
    version: str
    code: str

    @property
    def tag(self) -> str:
        """The tag of the bento, and of its model in the model store."""
        return f"{self.model}:v{self.version}"


class Runtime(Protocol):
    """What computes predictions."""

    def predict(self, batch: Batch) -> Predictions:
        """Predictions for the n rows of `batch`."""


class NativeModel:
    """The fitted scikit-learn pipeline itself; imports scikit-learn and pandas."""

    def __init__(self, path: Path, schema: RowSchema) -> None:
        self._pipeline = load_pipeline(path)
        self._schema = schema

    def predict(self, batch: Batch) -> Predictions:
        """Predictions for the n rows of `batch`."""
        from everloop.domain.frames import frame_of
        from everloop.domain.pipelines import predict_conformed

        return predict_conformed(self._pipeline, frame_of(batch, self._schema), classes=self._schema.classes)


@dataclass(frozen=True)
class LoadedModel:
    """A version that can answer."""

    release: Release
    manifest: Manifest
    runtime: Runtime
    contract: Contract


def load_model(folder: Path, serving: ServingSpec | None = None) -> LoadedModel:
    """The version kept in `folder`, warmed, answering its recorded requests as training recorded them.

    `serving` are the limits in force; default: those it was trained with.

    Raises:
        ServingRefused: a file is absent or damaged, holds a type that is not trusted, or the answers differ.
    """
    try:
        release = Release.model_validate_json((folder / RELEASE_FILE).read_bytes())
        manifest = read_manifest(folder)
        runtime = _load_runtime(folder, manifest)
        contract = Contract(manifest.row_schema, max_rows=(serving or manifest.serving).max_rows)
    except Exception as exc:
        raise ServingRefused(
            f"{folder.name}: cannot be loaded: {type(exc).__name__}: {exc}; release the version again"
        ) from exc
    model = LoadedModel(release, manifest, runtime, contract)
    try:
        batch = recorded_batch(manifest)
        found = runtime.predict(batch)
        wrong = differences(manifest.rehearsal, found.values, found.probabilities, tolerance=manifest.tolerance)
        one = Batch(batch.numeric[:1], batch.categorical[:1])
        for _ in range(WARM_ROUNDS):
            runtime.predict(one)
    except Exception as exc:
        raise ServingRefused(f"{release.tag}: its recorded requests cannot be answered: {exc!r}") from exc
    if wrong:
        raise ServingRefused(
            f"{release.tag}: {len(wrong)} of {len(manifest.rehearsal)} recorded answers differ, first: {wrong[0]}"
        )
    return model


def recorded_batch(manifest: Manifest) -> Batch:
    """The rows of the manifest's recorded requests as arrays."""
    schema, rows = manifest.row_schema, [request.row for request in manifest.rehearsal]
    numbers = [[row[feature.name] for feature in schema.numeric] for row in rows]
    texts = [[canonical_category(row[feature.name]) for feature in schema.categorical] for row in rows]
    return Batch(
        np.array(numbers, dtype=np.float32).reshape(len(rows), len(schema.numeric)),
        np.array(texts, dtype=object).reshape(len(rows), len(schema.categorical)),
    )


def differences(recorded: Sequence[RecordedRequest], values: Any, probabilities: Any, *, tolerance: float) -> list[str]:
    """One sentence for each answer that is further from what training recorded than `tolerance` and 1e-6 of it."""
    wrong = []
    for position, request in enumerate(recorded):
        if isinstance(request.prediction, float):
            same = bool(np.isclose(float(values[position]), request.prediction, rtol=1e-6, atol=tolerance))
        else:
            same = values[position] == request.prediction
        if same and request.probabilities is not None:
            same = bool(np.allclose(probabilities[position], request.probabilities, rtol=1e-6, atol=tolerance))
        if not same:
            wrong.append(f"row {position}: {values[position]!r} instead of {request.prediction!r}")
    return wrong


def _load_runtime(folder: Path, manifest: Manifest) -> Runtime:
    if manifest.runtime == "native":
        return NativeModel(folder / MODEL_FILE, manifest.row_schema)
    from everloop.adapters.onnx_runtime import OnnxModel

    path = find_file(folder, ONNX_FILE)
    if path is None:
        raise FileNotFoundError(f"{ONNX_FILE} is not there")
    return OnnxModel(path, manifest.row_schema)
