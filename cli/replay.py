"""`everloop replay`: a model's own history, walked through in simulated time, without servers."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from everloop.adapters.fit_cache import FitCache, history_folder, remembered_configuration
from everloop.domain.errors import NotEnoughData, SpecError
from everloop.domain.frames import derive_schema
from everloop.domain.monitor_spec import MonitorSpec
from everloop.domain.replay import ReplayReport, Step, replay_history
from everloop.domain.replay_alarms import window_of
from everloop.domain.replay_drift import DriftWatch
from everloop.domain.replay_fits import Subject
from everloop.domain.replay_timeline import ReplayPlan, Timeline, lay_out
from everloop.domain.replay_training import Trainer
from everloop.domain.replay_variants import OF_THE_SPEC, SHIPPED, default_variants, inline_variant, table_variant
from everloop.domain.search import search_configurations
from everloop.domain.spec import ModelSpec
from everloop.domain.splits import split_by_time
from everloop.settings import settings


@dataclass(frozen=True)
class Stage:
    """A history that is ready to be replayed: what is replayed, when, and who fits."""

    subject: Subject
    timeline: Timeline
    fits: FitCache


def plan_of(**chosen: Any) -> ReplayPlan:
    """The plan that the options of the command line ask for; None is an option that was not given.

    Raises:
        SpecError: an option's value is not allowed, or two contradict each other.
    """
    given = {name: value for name, value in chosen.items() if value is not None}
    delay = given.get("label_delay")
    if isinstance(delay, str) and delay.isdigit():
        given["label_delay"] = int(delay)
    try:
        return ReplayPlan.model_validate(given)
    except ValidationError as exc:
        error = exc.errors()[-1]  # of a delay that is neither a number nor a duration, what a duration is
        option = f"--{str(error['loc'][0]).replace('_', '-')}: " if error["loc"] else ""
        raise SpecError(f"{option}{error['msg'].removeprefix('Value error, ')}") from exc


def history_of(spec: ModelSpec, *, served: bool, begin: str | None, end: str | None) -> pd.DataFrame:
    """The labelled rows to replay in time order: the source's or, if `served`, captured predictions with labels.

    Raises:
        SpecError: a part of the time is asked for and cannot be told.
        NotEnoughData: no row is left.
    """
    from everloop.adapters.inference_log import read_captured, read_labels, served_examples
    from everloop.adapters.sources import order_rows, read_source, read_times

    here = settings()
    if served:
        rows = served_examples(read_captured(here.inference, spec), read_labels(here.labels, spec), spec)
        rows = order_rows(rows, spec, where="served rows") if len(rows) else rows
    else:
        rows = read_source(spec, base=here.data)
    if begin or end:
        if spec.time is None:
            raise SpecError(
                "--from and --to are event times and the spec has no time column; leave them out or set time in the spec"
            )
        times = rows[spec.time]
        for bound, option, keeps in ((begin, "--from", times.ge), (end, "--to", times.lt)):
            if bound:
                rows = rows[keeps(read_times(pd.Series([bound]), where=option).iloc[0]).reindex(rows.index)]
        rows = rows.reset_index(drop=True)
    if rows.empty:
        what = "no captured prediction has a label yet" if served else f"no row lies from {begin} to {end}"
        raise NotEnoughData(f"{spec.name}: {what}; nothing can be replayed: serve and label first, or widen the range")
    return rows


@contextmanager
def staged(spec: ModelSpec, rows: pd.DataFrame, plan: ReplayPlan) -> Iterator[Stage]:
    """The stage on which `rows` are replayed; the configuration is searched on the initial rows, once, and kept."""
    timeline, schema = lay_out(rows, spec.time, plan), derive_schema(rows, spec)
    folder = history_folder(settings().home, spec, rows)
    first = rows.iloc[: timeline.initial]
    found = remembered_configuration(
        folder, spec, timeline.initial, lambda: search_configurations(spec, split_by_time(first, spec), schema).best
    )
    subject = Subject(rows, spec, schema, found)
    with FitCache(subject, folder) as fits:
        yield Stage(subject, timeline, fits)


def policies_of(names: Sequence[str], spec: ModelSpec) -> dict[str, MonitorSpec]:
    """The policies that `--policy` names; without a name, the model's and, if it is another, the shipped default.

    Raises:
        SpecError: a name is no policy.
    """
    if not names:
        return default_variants(spec.monitor)
    return {name: _policy(name, spec) for name in names}


def _policy(name: str, spec: ModelSpec) -> MonitorSpec:
    if name in (OF_THE_SPEC, SHIPPED):
        return spec.monitor if name == OF_THE_SPEC else MonitorSpec()
    if name.endswith(".toml"):
        if not Path(name).is_file():
            raise SpecError(
                f"policy {name!r}: there is no such file; write a path to a TOML file with a [monitor] table"
            )
        return table_variant(Path(name).read_text(encoding="utf-8"), origin=name)
    return inline_variant(name, spec.monitor)


def run_replay(
    model: str,
    plan: ReplayPlan,
    *,
    policies: Sequence[str] = (),
    served: bool = False,
    begin: str | None = None,
    end: str | None = None,
    changes: Sequence[str] = (),
    alarm_within: int = 10,
) -> ReplayReport:
    """The report of a replay of `model`; its fits are kept for the next one."""
    from everloop.adapters.profiles import profile_rows, summarize_profile

    settings().apply()
    spec = settings().spec(model)
    variants = policies_of(policies, spec)
    rows = history_of(spec, served=served, begin=begin, end=end)
    with staged(spec, rows, plan) as stage, progress() as on_step:
        timeline = stage.timeline
        watch = DriftWatch(
            stage.subject,
            lambda part, schema, said: summarize_profile(profile_rows(part, schema, predictions=said)),
            window_rows=max(1, (timeline.stretches[-1].last - timeline.initial) // len(timeline.stretches)),
        )
        return replay_history(
            timeline,
            Trainer(stage.subject, stage.fits),
            stage.fits,
            variants,
            compare=watch.compare,
            changes=[window_of(change, timeline, has_time=spec.time is not None) for change in changes],
            alarm_within=alarm_within,
            on_step=on_step,
        )


@contextmanager
def progress() -> Iterator[Step]:
    """A progress bar on stderr, one line a strategy; on anything but a terminal it stays silent."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        lines: dict[str, Any] = {}

        def on_step(what: str, done: int, whole: int) -> None:
            if what not in lines:
                lines[what] = bar.add_task(what, total=whole)
            bar.update(lines[what], completed=done)

        yield on_step


def replay_model(
    model: str, plan: ReplayPlan, *, folder: Path | None, log: bool, as_json: bool, **choices: Any
) -> None:
    """Afterwards the replay is printed, written to `folder` as JSON, PNG and HTML and, with `log`, kept in MLflow."""
    from cli.replay_report import show_replay, write_replay

    report = run_replay(model, plan, **choices)
    here = settings()
    files = write_replay(report, folder or here.home / "replay" / model / "report")
    if as_json:
        print(json.dumps(report.model_dump(mode="json"), indent=2))  # noqa: T201
    else:
        show_replay(report, files)
    if log:
        from everloop.adapters.replay_runs import log_replay
        from tasks.wiring import registry

        log_replay(registry(), report, files, artifacts=here.artifacts)
