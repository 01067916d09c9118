"""What a replay leaves in MLflow: one run of the experiment `<model>.replay`, its windows as steps."""

from __future__ import annotations

from pathlib import Path

from everloop.adapters.names import mlflow_name
from everloop.adapters.registry import Registry
from everloop.domain.replay import ReplayReport

REPLAY = "{model}.replay"
_BATCH = 1000  # metrics that MLflow takes at once


def log_replay(registry: Registry, report: ReplayReport, files: list[Path], *, artifacts: Path | None) -> str:
    """The id of a new run: metrics of each strategy per window, the shares, parameters, and `files` as artifacts."""
    from mlflow.entities import Metric, Param

    client = registry.client
    experiment = registry.experiment(REPLAY.format(model=report.model), artifacts=artifacts)
    run = client.create_run(experiment, run_name=f"{len(report.windows)} windows, {report.policy}")
    stamp = int(run.info.start_time)
    metrics = [
        Metric(mlflow_name(f"{report.metric}.{name}"), value, stamp, window.index)
        for window in report.windows
        for name, value in (
            ("never", window.metric_never),
            ("always_all", window.metric_always_all),
            ("always_recent", window.metric_always_recent),
            *((f"policy.{policy}", found["metric"]) for policy, found in window.policies.items()),
        )
    ]
    for result in report.policies:
        shares = {"gain_share": result.gain_share, "retrain_share": result.retrain_share, "retrains": result.retrains}
        metrics += [
            Metric(mlflow_name(f"{key}.{result.name}"), float(value), stamp, 0)
            for key, value in shares.items()
            if value is not None
        ]
    for start in range(0, len(metrics), _BATCH):
        client.log_batch(run.info.run_id, metrics=metrics[start : start + _BATCH])
    parameters = {
        "configuration": report.configuration,
        "rows": report.rows,
        "initial_rows": report.initial_rows,
        "windows": len(report.windows),
        **{f"policy.{result.name}": str(result.changes) for result in report.policies},
    }
    client.log_batch(
        run.info.run_id, params=[Param(mlflow_name(key), str(value)[:5000]) for key, value in parameters.items()]
    )
    for file in files:
        client.log_artifact(run.info.run_id, str(file))
    client.set_terminated(run.info.run_id)
    return str(run.info.run_id)
