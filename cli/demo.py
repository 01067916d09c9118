"""`everloop demo`: the whole loop on real data with real servers, narrated, measured, and checked against its story."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cli.report import DemoReport, Retrain, WindowScore, write_report
from cli.stack import Stack
from cli.traffic import Replay
from everloop.adapters.service import describe_service, free_port
from everloop.domain.decision import RetrainingDecision
from everloop.domain.errors import EverloopError
from everloop.domain.manifest import RUNTIMES
from everloop.domain.monitor_spec import RowWindow
from everloop.domain.spec import ModelSpec
from everloop.settings import PROJECT, Settings, settings

MODEL = "bike-demand"
INITIAL_SHARE = 0.2
ROWS_A_REQUEST = 24
LABEL_DELAY = pd.Timedelta(hours=24)
TRICKLE_SECONDS = 0.3
RETRAIN_SECONDS = 180.0
POLICY = """
[monitor]
window = { rows = 504 }
on_drift = "ignore"
on_growth = 0
max_loss_increase = 0.3         # the error swings with the seasons; less than that is weather
cooldown = "120d"               # two years in five minutes: a new version at most three times a year
retry_after = "14d"
"""


def run_demo(*, home: Path | None, report: Path, rows: int | None) -> int:
    """The exit code: 0 if every part of the story happened, 1 otherwise."""
    started = time.monotonic()
    console = Console(stderr=True, highlight=False)
    keep = home is not None
    home = Path(home or tempfile.mkdtemp(prefix="everloop-demo-")).absolute()
    report = report.absolute()
    try:
        story = Story(_settle(home), console, rows=rows)
        told = story.run()
        told.seconds_total = round(time.monotonic() - started, 1)
    except EverloopError as exc:
        console.print(f"[red]The story ended early:[/] {exc}\nEverything is kept in {home}")
        return 1
    write_report(told, report)
    told.show(Console(highlight=False))
    console.print(f"Report: {report / 'report.html'} and report.json, after {told.seconds_total:.0f} s")
    missing = told.missing_parts()
    for part in missing:
        console.print(f"[red]did not happen:[/] {part}")
    if not keep and not missing:
        shutil.rmtree(home, ignore_errors=True)
    else:
        console.print(f"Everything is kept in {home}")
    return 1 if missing else 0


def _settle(home: Path) -> Settings:
    """The settings of this demo: its own home, free ports, a source that holds only the past. In force for this process."""
    ports = [free_port() for _ in range(3)]
    for name in [name for name in os.environ if name.startswith(("EVERLOOP_", "PREFECT_", "MLFLOW_"))]:
        del os.environ[name]
    _write_spec(home / "models")
    chosen = Settings(
        home=home,
        models=home / "models",
        data=home / "source",
        prefect_port=ports[0],
        mlflow_port=ports[1],
        service_ports={MODEL: ports[2]},
        prefect_api_url=f"http://127.0.0.1:{ports[0]}/api",
    )
    chosen.apply()
    settings.cache_clear()
    return settings()


def _write_spec(models: Path) -> None:
    """Afterwards `models` holds the project's spec of the demo's model with the demo's own policy."""
    text = (PROJECT / "models" / MODEL / "model.toml").read_text(encoding="utf-8")
    head, rest = text.split("[monitor]")
    path = models / MODEL / "model.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{head}{POLICY.strip()}\n\n[serving]{rest.split('[serving]')[1]}", encoding="utf-8")


class Story:
    """One run of the demo."""

    def __init__(self, here: Settings, console: Console, *, rows: int | None) -> None:
        self._here, self._console = here, console
        self._spec = here.spec(MODEL)
        past, future = _divide_history(self._spec, here.data)
        self._past = past
        self._replay = Replay(future.iloc[:rows], self._spec, here.service_url(self._spec), delay=LABEL_DELAY)
        self._report = DemoReport(model=MODEL, metric=self._spec.gates.metric)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )

    def run(self) -> DemoReport:
        """The report of the story, told to its end."""
        with ExitStack() as cleanup:
            cleanup.enter_context(self._progress)
            cleanup.callback(self._replay.close)
            stack = Stack(self._here, models=[MODEL])
            cleanup.callback(stack.stop)
            self._start_servers(stack)
            self._train_first_version()
            self._walk_through_history()
            self._conclude()
        return self._report

    def _say(self, text: str) -> None:
        self._console.print(f"[dim]{self._replay.now:%Y-%m-%d}[/] {text}", soft_wrap=True)

    def _start_servers(self, stack: Stack) -> None:
        bar = self._progress.add_task("starting Prefect, worker, MLflow", total=None)
        stack.start()
        os.environ["PREFECT_LOGGING_LEVEL"] = (
            "ERROR"  # of this process only, before it imports Prefect: the servers have theirs
        )
        stack.deploy()
        asyncio.run(_pause_schedules())
        self._progress.remove_task(bar)
        self._say("the servers are up, the flows of prefect.yaml are deployed")
        for line in stack.addresses()[:-1]:
            self._console.print(f"           {line}")

    def _train_first_version(self) -> None:
        bar = self._progress.add_task("training version 1: prefect deployment run train/bike-demand", total=None)
        words = [
            "deployment",
            "run",
            f"train/{MODEL}",
            "-p",
            "reason=first version",
            "--watch",
            "--watch-interval",
            "1",
        ]
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        command = [sys.executable, "-m", "prefect", *words]
        with subprocess.Popen(command, cwd=PROJECT, env=self._here.environment(), **pipe) as run:  # type: ignore[call-overload]
            import flows.monitor  # noqa: F401 - takes seconds, and there is nothing to do but wait

            said, _ = run.communicate()
        self._progress.remove_task(bar)
        service = describe_service(self._here.service_url(self._spec))
        if run.returncode or service is None:
            raise EverloopError(f"`prefect deployment run train/{MODEL}` put nothing live: {said[-1200:]}")
        metric = f"{self._report.metric} {service['metrics'][self._report.metric]:.1f} on its holdout"
        self._say(
            f"[bold]v{service['version']} is live[/], trained on {self._past:,} hours, {metric}: {service['estimator']}"
        )

    def _walk_through_history(self) -> None:
        shape = self._spec.monitor.window
        assert isinstance(shape, RowWindow)
        bar = self._progress.add_task("replaying the hours that follow", total=len(self._replay))
        next_monitor = shape.rows
        while not self._replay.is_done:
            self._replay.send(min(ROWS_A_REQUEST, next_monitor - self._replay.sent))
            self._progress.update(bar, completed=self._replay.sent)
            if self._replay.sent >= next_monitor or self._replay.is_done:
                next_monitor += shape.rows
                self._monitor(bar)
                next_monitor = max(next_monitor, (self._replay.sent // shape.rows + 1) * shape.rows)
        self._replay.flush()
        self._progress.remove_task(bar)

    def _monitor(self, bar: Any) -> None:
        from flows.monitor import monitor

        for decision in asyncio.run(monitor(MODEL, at=self._replay.now.isoformat())):
            performance = decision.performance
            colour = {"retrain": "red", "alert": "yellow"}.get(decision.action, "green")
            loss = (
                "–"
                if performance.metric is None
                else f"{performance.metric:.1f} (validated {performance.baseline:.1f})"
            )
            drifted = f"{len(decision.drift.drifted)} columns drifted"
            codes = ", ".join(decision.reason_codes)
            self._say(f"[{colour}]{decision.action:<7}[/] {self._report.metric} {loss}, {drifted}: {codes}")
            if decision.action == "retrain":
                self._follow_retraining(decision, bar)

    def _follow_retraining(self, decision: RetrainingDecision, bar: Any) -> None:
        """Traffic goes on, a row at a time, until the automation's run has come to an end."""
        from tasks.wiring import decisions

        self._progress.update(bar, description="the automation retrains; traffic goes on")
        deadline = time.monotonic() + RETRAIN_SECONDS
        while (outcome := decisions().get(decision.id).outcome) is None:
            if time.monotonic() > deadline:
                raise EverloopError(
                    f"nothing finished decision {decision.id} within {RETRAIN_SECONDS:.0f} s; see the worker's log"
                )
            if not self._replay.is_done:
                self._replay.send(1)
                self._progress.update(bar, completed=self._replay.sent)
            time.sleep(TRICKLE_SECONDS)
        self._progress.update(bar, description="replaying the hours that follow")
        retrain = asyncio.run(_trace_retraining(decision, outcome))
        self._report.retrains.append(retrain)
        how = (
            f"{retrain.seconds_degraded_to_served:.0f} s after the decision"
            if retrain.seconds_degraded_to_served
            else "not served"
        )
        self._say(f"[bold]{outcome}[/] ({how}; started by {retrain.started_by})")

    def _conclude(self) -> None:
        from everloop.adapters.inference_log import join_labels, read_captured, read_labels
        from tasks.wiring import decisions, registry

        captured = read_captured(self._here.inference, self._spec)
        served = join_labels(captured, read_labels(self._here.labels, self._spec))
        served = served[served["label"].notna()]
        never = _predict_with_version(self._spec, "1", served)
        errors = pd.DataFrame(
            {
                "time": served["event_time"],
                "loop": (served["prediction"] - served["label"]).abs().astype(float),
                "never": (never - served["label"]).abs().astype(float),
                "version": served["model_version"],
            }
        )
        champion, service = registry().champion(MODEL), describe_service(self._here.service_url(self._spec))
        told = self._report
        told.rows_served, told.rows_captured = self._replay.sent, len(captured)
        told.requests, told.failed_requests = self._replay.requests, self._replay.failed
        told.mae_with_loop, told.mae_never_retrained = float(errors["loop"].mean()), float(errors["never"].mean())
        told.champion_version = champion.number if champion else None
        told.served_version = service["version"] if service else None
        if service:
            told.runtime, told.runtime_reason = service["runtime"], service["runtime_reason"]
        told.windows = [_window_score(decision, errors) for decision in decisions().list(MODEL)]


def _divide_history(spec: ModelSpec, data: Path) -> tuple[int, pd.DataFrame]:
    """Write the first 20 % of the project's data set as the source under `data`; its length, and the rows after it."""
    from everloop.adapters.sources import read_source

    everything = pd.read_csv(PROJECT / spec.data.source)
    past = round(len(everything) * INITIAL_SHARE)
    target = data / spec.data.source
    target.parent.mkdir(parents=True, exist_ok=True)
    everything.iloc[:past].to_csv(target, index=False)
    return past, read_source(spec, base=PROJECT).iloc[past:].reset_index(drop=True)


def _window_score(decision: RetrainingDecision, errors: pd.DataFrame) -> WindowScore:
    window = decision.window
    inside = errors[(errors["time"] >= pd.Timestamp(window.start)) & (errors["time"] <= pd.Timestamp(window.end))]
    return WindowScore(
        id=window.id,
        start=window.start,
        end=window.end,
        version=decision.version,
        action=decision.action,
        reason_codes=list(decision.reason_codes),
        mae_with_loop=float(inside["loop"].mean()),
        mae_never_retrained=float(inside["never"].mean()),
        drifted_columns=list(decision.drift.drifted),
        drift={test.column: test.effect for test in decision.drift.tests if test.signal == "distribution"},
    )


def _predict_with_version(spec: ModelSpec, number: str, served: pd.DataFrame) -> pd.Series:
    """What version `number` says about the served rows."""
    from everloop.domain.pipelines import predict
    from tasks.wiring import registry

    manifest, pipeline = registry().load(registry().version(spec.name, number))
    names = manifest.row_schema.names
    features = served[[f"features.{name}" for name in names]].set_axis(names, axis=1)
    return pd.Series(predict(pipeline, features, manifest.row_schema).values, index=served.index)


async def _pause_schedules() -> None:
    """Simulated time and the clock's schedule must not mix: in the demo, monitor runs when the story says so."""
    from prefect.client.orchestration import get_client

    async with get_client() as client:
        deployment = await client.read_deployment_by_name(f"monitor/{MODEL}")
        for schedule in deployment.schedules:
            await client.update_deployment_schedule(deployment.id, schedule.id, active=False)


async def _trace_retraining(decision: RetrainingDecision, outcome: str) -> Retrain:
    """When each step of the retraining for `decision` happened, from Prefect, MLflow and the service."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    from tasks.wiring import decisions, registry

    here = settings()
    version = registry().of_decision(MODEL, decision.id)
    if version is None:
        raise EverloopError(f"the retraining for {decision.id} registered nothing: {outcome}")
    async with get_client() as client:
        run = await client.read_flow_run(version.tags["flow_run"])  # type: ignore[arg-type]
        children = await client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])))
        ends = {task.name.rsplit("-", 1)[0]: task.end_time for task in children}
    fired = decisions().fired_at(decision.id)
    service = describe_service(here.service_url(here.spec(MODEL)))
    since = (
        datetime.fromisoformat(service["serving_since"]) if service and service["version"] == version.number else None
    )
    marks = {
        "run started": run.start_time,
        "trained": ends.get("register"),
        "rehearsed": ends.get("rehearse"),
        "serving": since,
    }
    parts, before = {}, fired
    for name, moment in marks.items():
        if moment is not None:
            parts[name] = round((moment - before).total_seconds(), 1)
            before = moment
    return Retrain(
        decision=decision.id,
        at=decision.window.end,
        reason=decision.reason,
        version=version.number,
        outcome=outcome,
        started_by=((run.created_by and run.created_by.type) or "nobody").lower(),
        runtime=RUNTIMES[version.tags["runtime"]],
        trained_until=version.tags["trained_until"],
        seconds=parts,
        seconds_degraded_to_served=round((since - fired).total_seconds(), 1) if since else None,
    )
