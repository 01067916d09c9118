"""What the tests are made of: a few hours of bike rentals, their spec, models fitted on them, decisions about them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from everloop.adapters.model_files import MANIFEST_FILE, MODEL_FILE, ONNX_FILE
from everloop.adapters.onnx_export import export_onnx
from everloop.adapters.onnx_runtime import OnnxModel
from everloop.domain.batch import Batch
from everloop.domain.configuration import Configuration
from everloop.domain.decision import Action, RetrainingDecision, decision_id
from everloop.domain.drift import DriftReport
from everloop.domain.frames import batch_of, conform, derive_schema, frame_of
from everloop.domain.manifest import Manifest, RecordedRequest
from everloop.domain.metrics import Predictions, row_losses, summarize
from everloop.domain.parity import compare_answers, not_exported
from everloop.domain.performance import PerformanceReport
from everloop.domain.pipelines import build_pipeline, predict, predict_conformed
from everloop.domain.schema import RowSchema
from everloop.domain.spec import Kind, ModelSpec
from everloop.domain.windows import Window
from serving.contract import Contract
from serving.models import RELEASE_FILE, LoadedModel, Release

BIKES = """
name = "bikes"
kind = "regression"
target = "cnt"
time = "when"
key = "id"
[data]
source = "rows.csv"
"""  # the head of a model.toml for the rows of `make_rows`; keys that follow are of [data]

# OpenMP reads it when scikit-learn is first imported; on busy cores its threads fight, for seconds
os.environ["OMP_NUM_THREADS"] = "1"

START = datetime(2024, 3, 1)
BOOSTING = {
    "regression": "sklearn.ensemble.HistGradientBoostingRegressor",
    "binary": "sklearn.ensemble.HistGradientBoostingClassifier",
    "multiclass": "sklearn.ensemble.HistGradientBoostingClassifier",
}
LINEAR = {"regression": "sklearn.linear_model.Ridge", "binary": "sklearn.linear_model.LogisticRegression"}


def make_spec(kind: Kind = "regression", **changes: Any) -> ModelSpec:
    """A spec of the model 'bikes' for the rows of `make_rows`; `changes` replace whole keys or sections."""
    values: dict[str, Any] = {
        "name": "bikes",
        "kind": kind,
        "target": "cnt" if kind == "regression" else "busy",
        "time": "when",
        "key": "id",
        "data": {"source": "rows.csv"},
        "features": {
            "numeric": ["temp", "wind"],
            "categorical": ["season", "city", "holiday"],
            "ranges": {"temp": [-30, 50]},
        },
        "search": {"candidates": [{"estimator": BOOSTING[kind]}]},
        "gates": {"metric": "mae" if kind == "regression" else "log_loss", "worst_allowed": 100.0},
        "serving": {"max_rows": 5, "max_body_bytes": 4000},
    }
    return ModelSpec.model_validate({**values, **changes})


def make_rows(n: int = 120, *, seed: int = 0) -> pd.DataFrame:
    """n hourly rentals, n >= 8: `wind` and `city` have nulls, `cnt` is a number, `busy` is 'no' or 'yes'."""
    rng = np.random.default_rng(seed)
    temp = rng.uniform(-5, 30, n).round(2)
    season = rng.integers(1, 5, n)
    cnt = (50 + 8 * temp + 20 * season + rng.normal(0, 5, n)).round(1)
    return pd.DataFrame(
        {
            "id": np.arange(1, n + 1),
            "when": pd.date_range(START, periods=n, freq="h", unit="us"),
            "temp": temp,
            "wind": [None if position % 7 == 3 else float(position % 11) for position in range(n)],
            "season": season,
            "city": [None if position % 9 == 4 else ("Porto", "Łódź")[position % 2] for position in range(n)],
            "holiday": rng.random(n) < 0.3,
            "cnt": cnt,
            "busy": np.where(cnt > np.median(cnt), "yes", "no"),
        }
    )


def as_requests(rows: pd.DataFrame, spec: ModelSpec) -> list[dict[str, Any]]:
    """`rows` as a client sends them: key, time and features, JSON values only."""
    names = [spec.key, spec.time, *spec.features.names]
    return [
        {name: _as_json(value) for name, value in row.items()} for row in rows[names].astype(object).to_dict("records")
    ]


class FittedModel:
    """A runtime over a pipeline that was never on disk."""

    def __init__(self, pipeline: Any, schema: RowSchema) -> None:
        self._pipeline = pipeline
        self._schema = schema

    def predict(self, batch: Batch) -> Predictions:
        """What the pipeline says about the rows of `batch`."""
        return predict_conformed(self._pipeline, frame_of(batch, self._schema), classes=self._schema.classes)


@dataclass(frozen=True)
class MadeModel(LoadedModel):
    """A version with what it was made from."""

    pipeline: Any
    onnx: bytes


def make_model(
    kind: Kind = "regression",
    *,
    version: str = "1",
    code: str = "same",
    estimator: str | None = None,
    runtime: Literal["native", "onnx"] = "native",
) -> MadeModel:
    """A version fitted on `make_rows`, with its manifest and twelve recorded answers."""
    spec, rows = make_spec(kind), make_rows()
    schema = derive_schema(rows, spec)
    path = estimator or BOOSTING[kind]
    configuration = Configuration(estimator=path, parameters={"max_iter": 10} if "Boosting" in path else {})
    pipeline = build_pipeline(configuration, schema, seed=0)
    pipeline.fit(conform(rows, schema), rows[spec.target])
    asked = rows.tail(12)
    said = predict(pipeline, asked, schema)
    losses = row_losses(spec.gates.metric, asked[spec.target].to_numpy(), said)
    onnx = export_onnx(pipeline, schema) if runtime == "onnx" else b""
    answers_by_onnx = OnnxModel(onnx, schema) if onnx else None
    parity = (
        compare_answers(said, answers_by_onnx.predict(batch_of(asked, schema)))
        if answers_by_onnx
        else not_exported("not asked for")
    )
    manifest = Manifest(
        model=spec.name,
        kind=kind,
        metric=spec.gates.metric,
        row_schema=schema,
        configuration=configuration,
        metrics={spec.gates.metric: float(losses.mean())},
        baseline=summarize(losses),
        trained_from=START.isoformat(),
        trained_until=rows["when"].iloc[-1].isoformat(),
        rows=len(rows),
        made_at=datetime.now(UTC),
        snapshot="0" * 64,
        serving=spec.serving,
        runtime=runtime,
        runtime_reason=parity.reason,
        tolerance=parity.allowed_difference or 1e-6,
        rehearsal=tuple(
            RecordedRequest(
                row=row,
                prediction=said.values[position].item() if kind == "regression" else str(said.values[position]),
                probabilities=None if said.probabilities is None else tuple(said.probabilities[position].tolist()),
            )
            for position, row in enumerate(as_requests(asked, spec))
        ),
    )
    return MadeModel(
        Release(model=spec.name, version=version, code=code),
        manifest,
        answers_by_onnx or FittedModel(pipeline, schema),
        Contract(schema, max_rows=spec.serving.max_rows),
        pipeline,
        onnx,
    )


def save_model(model: MadeModel, folder: Path) -> Path:
    """`folder`, which now holds the three files of `model`."""
    from skops.io import dump

    folder.mkdir(parents=True, exist_ok=True)
    if model.onnx:
        (folder / ONNX_FILE).write_bytes(model.onnx)
    else:
        dump(model.pipeline, folder / MODEL_FILE)
    (folder / MANIFEST_FILE).write_text(model.manifest.model_dump_json(), encoding="utf-8")
    (folder / RELEASE_FILE).write_text(model.release.model_dump_json(), encoding="utf-8")
    return folder


def make_decision(action: Action = "retrain", *, window: int = 0, model: str = "bikes") -> RetrainingDecision:
    """The decision about the day `window` days after START."""
    start = START + timedelta(days=window)
    end = start + timedelta(days=1)
    about = Window(id=f"{start:%Y%m%d}-1d", start=start.isoformat(), end=end.isoformat(), rows=24)
    return RetrainingDecision(
        id=decision_id(model, about),
        model=model,
        version="1",
        window=about,
        action=action,
        reason_codes=("degradation",) if action == "retrain" else ("nothing_found",),
        reason="mean loss 9 against 5 at validation",
        drift=DriftReport(verdict="no drift", reason="none", alpha=0.01, rows=24, reference_rows=120, tests=()),
        performance=PerformanceReport(
            verdict="degraded", reason_code="loss_rose", reason="it rose", rows=24, labelled=24
        ),
    )


def _as_json(value: Any) -> Any:
    if isinstance(value, pd.Timestamp | datetime):
        return value.isoformat()
    if pd.isna(value):
        return None
    return value.item() if hasattr(value, "item") else value
