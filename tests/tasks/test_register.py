"""Register: a version carries everything that serving, rehearsing and judging it need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import pytest

from everloop.adapters.reference_files import Reference
from everloop.adapters.registry import CHALLENGER, Version
from everloop.adapters.sources import Snapshot
from everloop.domain.configuration import Configuration
from everloop.domain.frames import conform, derive_schema
from everloop.domain.gates import GateVerdict, HoldoutScores
from everloop.domain.manifest import Manifest
from everloop.domain.metrics import row_losses, summarize
from everloop.domain.parity import ParityReport, not_exported
from everloop.domain.pipelines import build_pipeline, predict
from everloop.domain.reference import MonitoringReference
from everloop.domain.splits import split_by_time
from serving.contract import Contract
from serving.models import recorded_batch
from tasks import register as registering
from tasks.evaluate import Evaluation
from tasks.export import Exported
from tasks.fit import Challenger
from tasks.prepare import Prepared
from tasks.register import NATIVE_TOLERANCE, RECORDED_ROWS, recorded_requests, register
from tests.factories import LINEAR, make_rows, make_spec

GATES = {"metric": "mae", "worst_allowed": 100.0, "holdout_rows": 30, "min_holdout_rows": 20}
SPEC, ROWS = make_spec(gates=GATES), make_rows(120)
SCHEMA = derive_schema(ROWS, SPEC)
PARITY = ParityReport(passed=True, reason="the largest difference is 1e-5", rows=30, allowed_difference=0.003)


class FakeRun:
    """A training run that remembers what it was told."""

    last: FakeRun
    path = "experiments/1/runs/1"

    def __init__(self, *_: Any, **__: Any) -> None:
        FakeRun.last = self
        self.manifest: Manifest
        self.onnx: bytes | None = None
        self.tags: dict[str, str] = {}

    def __enter__(self) -> FakeRun:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""

    def log(self, manifest: Manifest, *_: Any) -> None:
        """Remember the manifest."""
        self.manifest = manifest

    def log_dataset(self, *_: Any) -> None:
        """It is not looked at here."""

    log_reference = log_dataset

    def log_model(self, _: Any, onnx: bytes | None, *__: Any) -> str:
        """Remember what may serve."""
        self.onnx = onnx
        return "models:/m-1"

    def register(self, _: str, tags: dict[str, str]) -> Version:
        """A version with these tags."""
        self.tags = tags
        return Version(model="bikes", number="1", run_id="r", source="s", tags=tags)


class FakeRegistry:
    """Remembers which aliases were set."""

    def __init__(self) -> None:
        self.aliases: list[str] = []

    def set_alias(self, _: Version, alias: str) -> None:
        """Remember it."""
        self.aliases.append(alias)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> FakeRegistry:
    made = FakeRegistry()
    monkeypatch.setattr(registering, "registry", lambda: made)
    monkeypatch.setattr(registering, "TrainingRun", FakeRun)
    monkeypatch.setattr(registering, "show_markdown", lambda *_, **__: None)
    return made


def registered(exported: Exported, *, verdict: Any = "pass") -> FakeRun:
    """The run in which a model with this export was registered."""
    data = Prepared(split=split_by_time(ROWS, SPEC), schema=SCHEMA)
    configuration = Configuration(estimator=LINEAR["regression"])
    pipeline = build_pipeline(configuration, SCHEMA, seed=0)
    pipeline.fit(conform(data.split.known, SCHEMA), data.split.known["cnt"].to_numpy())
    said = predict(pipeline, data.split.holdout, SCHEMA)
    losses = row_losses("mae", data.split.holdout["cnt"].to_numpy(), said)
    judged = GateVerdict(verdict=verdict, results=(), champion_version=None, challenger_loss=summarize(losses))
    step: Any = register
    step.fn(
        SPEC,
        Snapshot(ROWS, Path("rows.parquet"), "0" * 64, len(ROWS), 0),
        data,
        None,
        Challenger(pipeline, configuration, data.split.known),
        Evaluation(said, HoldoutScores(challenger=losses, baseline=losses)),
        judged,
        exported,
        Reference(MonitoringReference(), b"a profile"),
        reason="on demand",
        decision=None,
    )
    return FakeRun.last


def test_an_export_with_parity_serves_within_the_tolerance_it_was_judged_by(registry: FakeRegistry) -> None:
    """The version says so in its manifest and in its tags."""
    run = registered(Exported(b"onnx", PARITY))
    assert (run.manifest.runtime, run.manifest.tolerance, run.onnx) == ("onnx", 0.003, b"onnx")
    assert (run.tags["runtime"], run.tags["runtime_reason"]) == ("onnx", PARITY.reason)
    assert run.manifest.made_at.tzinfo is not None


def test_without_parity_the_fitted_pipeline_serves_and_the_version_says_why(registry: FakeRegistry) -> None:
    """Within the small tolerance of one library on two machines."""
    run = registered(Exported(None, not_exported("no ONNX for Odd: it has no converter")))
    assert (run.manifest.runtime, run.manifest.tolerance, run.onnx) == ("native", NATIVE_TOLERANCE, None)
    assert run.tags["runtime_reason"] == "no ONNX for Odd: it has no converter"


@pytest.mark.parametrize(("verdict", "aliases"), [("pass", [CHALLENGER]), ("fail", []), ("undetermined", [])])
def test_only_a_version_that_passed_its_gates_is_challenger(
    registry: FakeRegistry, verdict: str, aliases: list[str]
) -> None:
    """A refused one is kept for the record."""
    assert registered(Exported(b"onnx", PARITY), verdict=verdict).tags["verdict"] == verdict
    assert registry.aliases == aliases


def test_recorded_requests_are_what_a_client_may_send(registry: FakeRegistry) -> None:
    """The contract takes each, after the manifest went through JSON, and makes of it what training saw."""
    manifest = Manifest.model_validate_json(registered(Exported(b"", PARITY)).manifest.model_dump_json())
    assert len(manifest.rehearsal) == 30
    body = orjson.dumps({"rows": [request.row for request in manifest.rehearsal]})
    batch = Contract(manifest.row_schema, max_rows=30).decode(body).batch
    recorded = recorded_batch(manifest)
    assert batch.categorical.tolist() == recorded.categorical.tolist()
    assert pd.DataFrame(batch.numeric).equals(pd.DataFrame(recorded.numeric))


def test_the_newest_rows_are_recorded_and_not_more_than_two_hundred(registry: FakeRegistry) -> None:
    """A rehearsal asks for all of them."""
    rows = make_rows(RECORDED_ROWS + 50)
    pipeline = build_pipeline(Configuration(estimator=LINEAR["regression"]), SCHEMA, seed=0)
    pipeline.fit(conform(rows, SCHEMA), rows["cnt"].to_numpy())
    recorded = recorded_requests(rows, SCHEMA, predict(pipeline, rows, SCHEMA))
    assert [request.row["id"] for request in recorded] == list(range(51, RECORDED_ROWS + 51))
