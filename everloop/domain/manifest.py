"""What travels with a version: everything that serving, rehearsing and judging need to know about it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from everloop.domain.configuration import Configuration
from everloop.domain.metrics import LossSummary
from everloop.domain.schema import RowSchema
from everloop.domain.spec import Kind, MetricName, ServingSpec
from everloop.domain.spec_values import Frozen

RuntimeName = Literal["onnx", "native"]
RUNTIMES: dict[str, str] = {"onnx": "ONNX Runtime", "native": "scikit-learn"}


class RecordedRequest(Frozen):
    """One row as a client would send it, and what the model answered when it was trained."""

    row: dict[str, Any]
    prediction: Any
    probabilities: tuple[float, ...] | None = None


class Manifest(Frozen):
    """A trained model in words: what it takes, what it was trained on, how well it did, what answers for it.

    `tolerance` is how far a served score may be from the recorded one.
    """

    model: str
    kind: Kind
    metric: MetricName
    row_schema: RowSchema
    configuration: Configuration
    metrics: dict[str, float]
    baseline: LossSummary
    trained_from: str
    trained_until: str
    rows: int
    made_at: datetime
    snapshot: str
    serving: ServingSpec
    runtime: RuntimeName
    runtime_reason: str
    tolerance: float
    rehearsal: tuple[RecordedRequest, ...]
