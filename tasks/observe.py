"""Observe: what surrounds the model: its source, its environment, training-serving skew, and how it is used."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pandas as pd

from everloop.adapters.orchestrator import emit_alert
from everloop.adapters.service import describe_service, read_metrics
from everloop.adapters.source_probe import probe_source, read_keys
from everloop.adapters.usage_log import error_total, judged_until, mark_judged, read_usage, record_errors, record_usage
from everloop.domain.decision import RetrainingDecision
from everloop.domain.dependencies import ColumnSkew, DependencyReport, SourceState, find_skew, judge_dependencies
from everloop.domain.errors import DataError, EverloopError
from everloop.domain.spec import ModelSpec
from everloop.domain.spec_values import parse_duration
from everloop.domain.usage import UsageReport, every_hour, judge_usage
from everloop.settings import settings
from tasks.collect import Collected
from tasks.profile import features_of
from tasks.step import step
from tasks.watch import Watched
from tasks.wiring import decisions

log = logging.getLogger("everloop.observe")

SKEW_KEYS, OLDER_KEYS = 500, 100
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True)
class Surroundings:
    """What was seen around the model at the moment `at` (naive UTC): event time for its data, the clock for its use.

    `usage` is about hours before that of `usage_until` (UTC).
    """

    at: pd.Timestamp
    source: SourceState
    dependencies: DependencyReport
    usage: UsageReport
    usage_until: datetime


@step(retries=1, retry_delay_seconds=2)
def observe(spec: ModelSpec, watched: Watched, found: Collected, at: pd.Timestamp | None) -> Surroundings:
    """The surroundings of the champion, and how it was used since."""
    captured = found.rows
    here, now = settings(), pd.Timestamp.now("UTC").tz_localize(None)
    moment = at if at is not None else now
    source = probe_source(spec, base=here.data)
    keys = _keys(spec)
    service = describe_service(here.service_url(spec), keys)
    dependencies = judge_dependencies(
        source=source,
        at=moment.to_pydatetime(),
        max_age=parse_duration(spec.monitor.max_age) if spec.monitor.max_age else None,
        trained_columns=watched.facts.source_columns,
        training=watched.facts.environment,
        serving=(service or {}).get("environment"),
        skew=_skew(spec, watched, captured) if source.reachable else None,
    )
    # the hour in which reading began may be there in part
    whole = captured[captured["served_at"] >= pd.Timestamp(found.since).ceil("h")] if found.since else captured
    metrics = read_metrics(here.service_url(spec), keys) if service else None
    hour = now.floor("h").tz_localize("UTC").to_pydatetime()
    usage = _usage(spec, whole, now, hour, metrics)
    log.info("dependencies: %s; usage: %s", dependencies.reason, usage.reason)
    return Surroundings(moment, source, dependencies, usage, hour)


@step
def raise_alarm(spec: ModelSpec, seen: Surroundings, newest: RetrainingDecision | None = None) -> list[str]:
    """The alerts about the surroundings that went out; for a run that does not judge the newest window, whose decision says them.

    A spike that the decision about the `newest` window has told is not told again, a dependency once an hour.
    """
    found = {spike.about: spike.sentence for spike in seen.usage.begun}
    if seen.dependencies.verdict == "fail":
        errors = [f"{error.column}.{error.rule}" for error in seen.dependencies.findings if error.severity == "error"]
        what = f"dependencies.{'+'.join(sorted(errors))}@{pd.Timestamp.now('UTC'):%Y-%m-%dT%H}"
        found[what] = f"dependencies: {seen.dependencies.reason}"
    said = {alert.about for alert in newest.alerts} if newest else set()
    new = {
        what: reason for what, reason in found.items() if what not in said and not decisions().is_told(spec.name, what)
    }
    for what, reason in new.items():
        emit_alert(spec.name, reason, once=what)
        decisions().mark_told(spec.name, what)
    return list(new.values())


def settle_usage(spec: ModelSpec, seen: Surroundings) -> None:
    """Afterwards the hours that were judged need not be judged again: what was found in them is told."""
    mark_judged(settings().usage, spec.name, seen.usage_until)


def _keys(spec: ModelSpec) -> Sequence[str]:
    """The service's API keys; without them its use and environment stay unknown, which is no reason to stop watching."""
    try:
        return settings().api_keys(spec.serving)
    except EverloopError as exc:
        log.warning("the service cannot be asked: %s", exc)
        return ()


def _skew(spec: ModelSpec, watched: Watched, captured: pd.DataFrame) -> Sequence[ColumnSkew] | None:
    """The skew of the newest captured rows of this version that carry a key, and of some before them; None if there are none.

    A source that is loaded once a day knows nothing of the newest rows yet.
    """
    mine = captured[(captured["model_version"] == watched.version.number) & captured["key"].notna()]
    if spec.key is None or mine.empty:
        return None
    older = max(len(mine) - SKEW_KEYS, 0)
    mine = pd.concat([mine.iloc[: older : older // OLDER_KEYS + 1], mine.iloc[older:]])
    served = features_of(watched, mine).assign(**{spec.key: mine["key"]})
    wanted: list[Any] = mine["key"].drop_duplicates().tolist()
    try:
        return find_skew(served, read_keys(spec, base=settings().data, keys=wanted), watched.manifest.row_schema)
    except DataError as exc:
        log.warning("training-serving skew cannot be looked for: %s", exc)
        return None


def _usage(
    spec: ModelSpec, captured: pd.DataFrame, now: pd.Timestamp, until: datetime, metrics: str | None
) -> UsageReport:
    """How the hours since the last look compare with the same hours of earlier days; after an outage those of a day at most."""
    folder = settings().usage
    record_usage(folder, spec.name, captured)
    total = error_total(metrics, spec.name) if metrics else None
    if total is not None:
        record_errors(folder, spec.name, total, now.to_pydatetime())
    every = max(parse_duration(spec.monitor.every), _HOUR)
    looked = judged_until(folder, spec.name) or until - every
    first = max(looked, until - max(every, _DAY))
    known = [usage for usage in read_usage(folder, spec.name) if usage.hour < until]
    # a silent service leaves no rows: its hours count as hours without requests
    before = every_hour(known, since=known[0].hour, until=first) if known else []
    return judge_usage(before, every_hour(known, since=first, until=until), seen_before=first <= looked)
