"""What travels with a version: everything that serving, rehearsing and judging need to know about it."""

from __future__ import annotations

from typing import Any

from everloop.domain.configuration import Configuration
from everloop.domain.metrics import LossSummary
from everloop.domain.schema import RowSchema
from everloop.domain.spec import Frozen, Kind, MetricName, ServingSpec


class RecordedRequest(Frozen):
    """One row as a client would send it, and what the model answered when it was trained."""

    row: dict[str, Any]
    prediction: Any
    probabilities: tuple[float, ...] | None = None


class Manifest(Frozen):
    """A trained model in words: what it takes, what it was trained on, how well it did."""

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
    snapshot: str
    serving: ServingSpec
    rehearsal: tuple[RecordedRequest, ...]
