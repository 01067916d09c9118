"""Register: everything about a training run into MLflow; the version itself comes last, complete with its tags."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from everloop.adapters.orchestrator import current_run_id, show_markdown
from everloop.adapters.reference_files import Reference
from everloop.adapters.registry import CHALLENGER, Version
from everloop.adapters.sources import Snapshot
from everloop.adapters.tracking import TrainingRun, code_tags
from everloop.domain.gates import GateVerdict
from everloop.domain.manifest import RUNTIMES, Manifest, RecordedRequest
from everloop.domain.metrics import Predictions, score
from everloop.domain.parity import ParityReport
from everloop.domain.schema import RowSchema
from everloop.domain.search import SearchResult
from everloop.domain.spec import ModelSpec
from everloop.domain.splits import end_of
from everloop.settings import PROJECT, settings
from tasks.evaluate import Evaluation
from tasks.export import Exported
from tasks.fit import Challenger
from tasks.prepare import Prepared
from tasks.step import step
from tasks.wiring import registry

log = logging.getLogger("everloop.register")

RECORDED_ROWS = 200
NATIVE_TOLERANCE = 1e-6


@step
def register(
    spec: ModelSpec,
    snapshot: Snapshot,
    data: Prepared,
    found: SearchResult,
    challenger: Challenger,
    evaluation: Evaluation,
    verdict: GateVerdict,
    exported: Exported,
    reference: Reference,
    *,
    reason: str,
    decision: str | None,
) -> Version:
    """The registered version; alias `challenger` if it passed its gates. A refused one is kept too, for the record."""
    here = settings()
    manifest = _manifest(spec, snapshot, data, challenger, evaluation, verdict, exported.parity)
    name = f"{end_of(challenger.rows, spec.time)} {reason}"[:120]
    with TrainingRun(registry(), here.mlflow, spec, artifacts=here.artifacts, name=name) as run:
        run.log(manifest, found, verdict, exported.parity)
        run.log_dataset(snapshot.rows, snapshot.path, snapshot.digest)
        run.log_reference(reference)
        uri = run.log_model(challenger.pipeline, exported.onnx, manifest, data.split.holdout.tail(5))
        version = run.register(
            uri,
            {
                "verdict": verdict.verdict,
                "verdict_reasons": "; ".join(verdict.reasons)[:5000],
                "judged_against": verdict.champion_version or "none",
                "data_digest": snapshot.digest,
                "training_window": f"{manifest.trained_from} to {manifest.trained_until}",
                "trained_until": manifest.trained_until,
                "runtime": manifest.runtime,
                "runtime_reason": manifest.runtime_reason[:5000],
                "reason": reason[:5000],
                "decision": decision or "none",
                "flow_run": current_run_id("none"),
                **{f"holdout_{key}": f"{value:.6g}" for key, value in manifest.metrics.items()},
                **code_tags(PROJECT),
            },
        )
    if verdict.verdict == "pass":
        registry().set_alias(version, CHALLENGER)
    show_markdown(
        f"version-{spec.name}",
        _as_markdown(version, manifest, verdict, run.path),
        description=f"{version.label}: {verdict.verdict}",
    )
    log.info("registered %s: %s", version.label, verdict.verdict)
    return version


def _manifest(
    spec: ModelSpec,
    snapshot: Snapshot,
    data: Prepared,
    challenger: Challenger,
    evaluation: Evaluation,
    verdict: GateVerdict,
    parity: ParityReport,
) -> Manifest:
    metric = spec.gates.metric
    scores = {
        metric: score(metric, evaluation.scores.challenger),
        f"baseline_{metric}": score(metric, evaluation.scores.baseline),
    }
    if evaluation.scores.champion is not None:
        scores[f"champion_{metric}"] = score(metric, evaluation.scores.champion)
    return Manifest(
        model=spec.name,
        kind=spec.kind,
        metric=metric,
        row_schema=data.schema,
        configuration=challenger.configuration,
        metrics=scores,
        baseline=verdict.challenger_loss,
        trained_from=end_of(challenger.rows.iloc[:1], spec.time),
        trained_until=end_of(data.split.known, spec.time),
        rows=len(challenger.rows),
        made_at=datetime.now(UTC),
        snapshot=snapshot.digest,
        serving=spec.serving,
        rehearsal=recorded_requests(data.split.holdout, data.schema, evaluation.predicted),
        runtime=parity.runtime,
        runtime_reason=parity.reason,
        tolerance=parity.allowed_difference if parity.passed and parity.allowed_difference else NATIVE_TOLERANCE,
    )


def recorded_requests(rows: pd.DataFrame, schema: RowSchema, predicted: Predictions) -> tuple[RecordedRequest, ...]:
    """The newest holdout rows as a client would send them, with what the model answers."""
    names = [name for name in (schema.key, schema.time, *schema.names) if name is not None]
    first = max(0, len(rows) - RECORDED_ROWS)
    values, probabilities = predicted.values.tolist(), predicted.probabilities
    return tuple(
        RecordedRequest(
            row={name: _as_json(rows[name].iloc[position], name, schema) for name in names},
            prediction=values[position],
            probabilities=None if probabilities is None else tuple(probabilities[position].tolist()),
        )
        for position in range(first, len(rows))
    )


def _as_json(value: Any, name: str, schema: RowSchema) -> Any:
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    if pd.isna(value):
        return None
    plain = value.item() if hasattr(value, "item") else value
    kinds = {feature.name: feature.type for feature in schema.features}
    return int(plain) if kinds.get(name) == "integer" and isinstance(plain, float) else plain


def _as_markdown(version: Version, manifest: Manifest, verdict: GateVerdict, path: str) -> str:
    address = f"http://127.0.0.1:{settings().mlflow_port}/{path}"
    numbers = "\n".join(f"| {name} | {value:.4g} |" for name, value in manifest.metrics.items())
    return (
        f"# {version.label}: {verdict.verdict}\n\n{'; '.join(verdict.reasons)}\n\n"
        f"{manifest.configuration.title}, fitted on {manifest.rows:,} rows, {manifest.trained_from} to {manifest.trained_until}.\n\n"
        f"Served by {RUNTIMES[manifest.runtime]}: {manifest.runtime_reason}.\n\n"
        f"| on the holdout | |\n|---|---|\n{numbers}\n\n[The run in MLflow]({address})\n"
    )
