"""What a training run and a monitored window leave in MLflow."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from hashlib import sha256
from importlib.metadata import version as installed
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
import pandas as pd
from mlflow.data.pandas_dataset import from_pandas
from mlflow.models import infer_signature

from everloop.adapters.model_files import MANIFEST_FILE, ONNX_FILE
from everloop.adapters.names import mlflow_name
from everloop.adapters.reference_files import FOLDER, Reference, save_reference
from everloop.adapters.registry import MONITORING, Registry, Version
from everloop.domain.decision import RetrainingDecision
from everloop.domain.frames import conform
from everloop.domain.gates import GateVerdict
from everloop.domain.manifest import Manifest
from everloop.domain.parity import ParityReport
from everloop.domain.pipelines import TRUSTED_TYPES
from everloop.domain.search import SearchResult
from everloop.domain.spec import ModelSpec

_BATCH = 1000  # metrics that MLflow takes at once
_REQUIREMENTS = ("scikit-learn", "skops", "numpy", "scipy", "pandas")


class TrainingRun:
    """One MLflow run of a model's training experiment; use as a context manager."""

    def __init__(self, registry: Registry, uri: str, spec: ModelSpec, *, artifacts: Path | None, name: str) -> None:
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        self._registry, self._spec, self._name = registry, spec, name
        self._experiment = registry.experiment(spec.name, artifacts=artifacts)

    def __enter__(self) -> TrainingRun:
        self.run = mlflow.start_run(experiment_id=self._experiment, run_name=self._name)
        return self

    def __exit__(self, *exc: Any) -> None:
        mlflow.end_run("FAILED" if exc[0] else "FINISHED")

    @property
    def path(self) -> str:
        """The run's address in the MLflow UI, without the host."""
        return f"#/experiments/{self._experiment}/runs/{self.run.info.run_id}"

    def log(self, manifest: Manifest, found: SearchResult, verdict: GateVerdict, parity: ParityReport) -> None:
        """Afterwards the run holds parameters, metrics, trials, gates, the runtime with its proof, and the spec."""
        mlflow.log_params(
            {
                "estimator": manifest.configuration.estimator,
                "history": manifest.configuration.history,
                **manifest.configuration.parameters,
                "trained_from": manifest.trained_from,
                "trained_until": manifest.trained_until,
                "rows": manifest.rows,
                "runtime": manifest.runtime,
                "seed": self._spec.search.seed,
            }
        )
        mlflow.log_metrics(manifest.metrics)
        mlflow.log_text(self._spec.text, "model.toml")
        mlflow.log_dict(verdict.model_dump(mode="json"), "gates.json")
        mlflow.log_dict({"runtime": manifest.runtime, **parity.model_dump(mode="json")}, "runtime.json")
        mlflow.log_dict(found.model_dump(mode="json"), "trials.json")

    def log_dataset(self, rows: pd.DataFrame, path: Path, digest: str) -> None:
        """Afterwards the run names the snapshot it read, with its digest (its first 36 characters: MLflow's limit)."""
        dataset = from_pandas(
            rows, source=str(path), name=f"{self._spec.name}-snapshot", targets=self._spec.target, digest=digest[:36]
        )
        mlflow.log_input(dataset, context="training")

    def log_reference(self, reference: Reference) -> None:
        """Afterwards the run keeps what the windows of this version are compared with."""
        with TemporaryDirectory() as scratch:
            save_reference(reference, Path(scratch))
            mlflow.log_artifacts(scratch, FOLDER)

    def log_model(self, pipeline: Any, onnx: bytes | None, manifest: Manifest, example: pd.DataFrame) -> str:
        """The URI of the logged model: skops, with signature, input example, manifest and, if there is one, its ONNX."""
        features = conform(example, manifest.row_schema)
        with TemporaryDirectory() as scratch:
            files = {MANIFEST_FILE: manifest.model_dump_json().encode()} | ({ONNX_FILE: onnx} if onnx else {})
            for name, content in files.items():
                Path(scratch, name).write_bytes(content)
            info = mlflow.sklearn.log_model(
                pipeline,
                name="model",
                signature=infer_signature(features, pipeline.predict(features)),
                input_example=features,
                pip_requirements=[f"{name}=={installed(name)}" for name in _REQUIREMENTS],
                serialization_format="skops",
                skops_trusted_types=list(TRUSTED_TYPES),
                extra_files=[str(Path(scratch, name)) for name in files],
            )
        return str(info.model_uri)

    def register(self, model_uri: str, tags: dict[str, str]) -> Version:
        """The new registered version, with its tags."""
        made = mlflow.register_model(model_uri, self._spec.name, tags=tags)
        return self._registry.version(self._spec.name, str(made.version))


def log_figures(registry: Registry, version: Version, figures: Iterable[tuple[str, Any]]) -> None:
    """Afterwards the version's run shows the figures under `plots/`."""
    for name, figure in figures:
        registry.client.log_figure(version.run_id, figure, f"plots/{name}.png")


def log_window(registry: Registry, decision: RetrainingDecision, *, artifacts: Path | None, page: Path) -> None:
    """Afterwards the monitoring experiment has one run for the decision's window; judged again, the same run is updated.

    Metrics carry the window's end as timestamp, so that they chart over event time.
    """
    client = registry.client
    experiment = registry.experiment(MONITORING.format(model=decision.model), artifacts=artifacts)
    found = client.search_runs([experiment], f"tags.decision = '{decision.id}'", max_results=1)
    run = (
        found[0]
        if found
        else client.create_run(experiment, tags={"decision": decision.id}, run_name=decision.window.id)
    )
    stamp = int(pd.Timestamp(decision.window.end).timestamp() * 1000)
    from mlflow.entities import Metric, RunTag

    charted = [(mlflow_name(key), value) for key, value in _charted(decision).items() if value is not None]
    metrics = [Metric(key, value, stamp, 0) for key, value in dict(charted).items()]
    for start in range(0, len(metrics), _BATCH):
        client.log_batch(run.info.run_id, metrics=metrics[start : start + _BATCH])
    client.log_batch(
        run.info.run_id,
        tags=[
            RunTag("action", decision.action),
            RunTag("reason_codes", ",".join(decision.reason_codes)),
            RunTag("reason", decision.reason[:5000]),
            RunTag("version", decision.version),
            RunTag("window", f"{decision.window.start} to {decision.window.end}"),
        ],
    )
    client.log_dict(run.info.run_id, decision.model_dump(mode="json"), "decision.json")
    client.log_artifact(run.info.run_id, str(page), "report")
    client.set_terminated(run.info.run_id)


def _charted(decision: RetrainingDecision) -> dict[str, float | None]:
    """What MLflow charts over the windows; None where it was not seen."""
    performance, drift, usage = decision.performance, decision.drift, decision.usage
    return {
        "loss": performance.metric,
        "loss_low": performance.low,
        "loss_high": performance.high,
        "loss_baseline": performance.baseline,
        "loss_increase": performance.increase,
        "loss_ewma": decision.decay.ewma if decision.decay else None,
        "loss_estimated": decision.estimate.estimate if decision.estimate else None,
        "auc": decision.ranking.auc if decision.ranking else None,
        "label_coverage": performance.coverage,
        "label_lag_seconds": performance.lag_seconds,
        "age_seconds": decision.age_seconds,
        "labelled_growth": decision.growth.share if decision.growth else None,
        "drift_score": drift.score,
        "drifted_columns": float(len(drift.drifted)),
        "quality_findings": float(len(decision.quality.findings)) if decision.quality else None,
        "requests": float(usage.requests) if usage else None,
        "errors": float(usage.errors) if usage else None,
        "p95_latency_ms": usage.p95_latency_ms if usage else None,
        **{f"drift.{test.column}": test.effect for test in drift.tests if test.signal == "distribution"},
        **{f"slice.{found.column}.{found.value}": found.performance.metric for found in decision.slices},
    }


def code_tags(project: Path) -> dict[str, str]:
    """The git commit of the project, with '+changes' if the work tree differs, and the digest of the lock file."""
    lock = project / "requirements.lock"
    return {
        "git_commit": _git_commit(project),
        "lock_digest": sha256(lock.read_bytes()).hexdigest()[:16] if lock.is_file() else "no lock file",
    }


def _git_commit(project: Path) -> str:
    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(project), *words], capture_output=True, text=True, check=True, timeout=20
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return "not a git checkout"
