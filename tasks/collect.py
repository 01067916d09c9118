"""Collect: captured predictions with the labels that have arrived, as far back as a decision may still change."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pandas as pd

from everloop.adapters.inference_log import join_labels, read_captured, read_labels
from everloop.adapters.orchestrator import emit_alerts
from everloop.domain.decision import RetrainingDecision
from everloop.domain.monitor_spec import MonitorSpec, RowWindow
from everloop.domain.spec import ModelSpec
from everloop.domain.spec_values import parse_duration
from everloop.domain.windows import Window, anchor_of, cut_windows
from everloop.settings import settings
from tasks.step import step
from tasks.watch import Watched
from tasks.wiring import decisions

log = logging.getLogger("everloop.collect")


@dataclass(frozen=True)
class Collected:
    """Complete windows with their rows, oldest first, and all rows that were read, in the order of capture.

    Every row that was served since the moment `since` was read; all rows, if it is None.
    """

    windows: tuple[tuple[Window, pd.DataFrame], ...]
    rows: pd.DataFrame
    since: str | None


@step(retries=2, retry_delay_seconds=2)
def collect(
    spec: ModelSpec, watched: Watched, known: Sequence[RetrainingDecision], at: pd.Timestamp | None
) -> Collected:
    """The windows that are not settled by the `known` decisions; with `at`, only what was known at that event time."""
    here, policy = settings(), spec.monitor
    after = resume_after(known, policy)
    since = after.served_until if after and after.last else open_since(known, policy)
    moment = at if at is not None else pd.Timestamp.now("UTC").tz_localize(None)

    def read(since: str | None) -> Collected:
        captured = read_captured(here.inference, spec, until=at, since=since, also=watched.manifest.row_schema.names)
        joined = join_labels(captured, read_labels(here.labels, spec, until=at, since=since))
        return Collected(tuple(cut_windows(joined, policy.window, at=moment, after=after)), joined, since)

    found = read(since)
    if (missed := first_missed(found, known, watched.version.number)) is not None:
        log.info("rows came late for %s: reading it again", known[missed].id)
        found = read(needed_since(known, missed, policy))
    log.info(
        "collected %s predictions%s, %s labelled, %d windows",
        f"{len(found.rows):,}",
        f" served since {found.since}" if found.since else "",
        f"{found.rows['label'].notna().sum():,}",
        len(found.windows),
    )
    return found


def first_missed(found: Collected, known: Sequence[RetrainingDecision], champion: str) -> int | None:
    """The position among `known` of the first settled window that rows came for later, and that was read in part only."""
    now = {window.id: window for window, _ in found.windows}
    for position, decision in enumerate(known):
        window, begin = now.get(decision.window.id), decision.window.served_from
        is_partial = bool(begin and found.since and begin < found.since)
        if window and is_partial and decision.version == champion and decision.has_missed(window):
            return position
    return None


def resume_after(known: Sequence[RetrainingDecision], policy: MonitorSpec) -> Window | None:
    """The row window after which everything still matters, None if all rows do (or windows are spans).

    Windows whose labels may still come are open. Where a window is smaller than `min_rows`, as many settled ones before them stay
    as it may be merged with.
    """
    if not isinstance(policy.window, RowWindow):
        return None
    opened = [decision.window.before for decision in known if is_open(decision, policy)]
    first = min((before for before in opened if before is not None), default=None)
    settled = [
        decision.window
        for decision in known
        if decision.window.before is not None and (first is None or decision.window.before < first)
    ]
    settled.sort(key=lambda window: window.before or 0)
    size = policy.window.rows
    spare = -(-policy.min_rows // size) if size < policy.min_rows else 0
    return anchor_of(settled[: max(0, len(settled) - spare)], policy.window)


def is_open(decision: RetrainingDecision, policy: MonitorSpec) -> bool:
    """True while the decision is not said yet, or labels may change it: it has not fired, and they are not too late."""
    if not decision.published:
        return True
    age = _now() - datetime.fromisoformat(decision.window.served_until or decision.window.end)
    waits = decision.performance.labelled < decision.performance.rows
    return not decision.is_fired and waits and age < parse_duration(policy.max_label_delay)


@step
def look_back(spec: ModelSpec, champion: str) -> Sequence[RetrainingDecision]:
    """The decisions that labels may still change, and some before them, in the order of capture.

    One about a version that is not live any more is not judged again; was it not said before that, it is said now.
    """
    since = _now() - parse_duration(spec.monitor.max_label_delay)
    known = decisions().served_since(spec.name, since)
    for decision in known:
        if not decision.published and decision.version != champion:
            emit_alerts(decision)
            decisions().mark_published(decision.id)
            log.warning("%s was decided and not shown before another version went live", decision.id)
    return [found if found.version == champion else found.model_copy(update={"published": True}) for found in known]


def open_since(known: Sequence[RetrainingDecision], policy: MonitorSpec) -> str | None:
    """The day (ISO) from which rows are needed for span windows that are open or new; None: all rows are."""
    if isinstance(policy.window, RowWindow):
        return None
    first = next((position for position, decision in enumerate(known) if is_open(decision, policy)), len(known))
    return needed_since(known, first, policy)


def needed_since(known: Sequence[RetrainingDecision], first: int, policy: MonitorSpec) -> str | None:
    """The day (ISO) from which rows are needed for the window of `known[first]` and those after it; None: all rows are.

    Windows with few rows are merged with those before them.
    """
    rows = 0
    for start in range(first - 1, -1, -1):
        rows += known[start].window.rows
        if rows >= policy.min_rows and first - start >= policy.recent:
            begins = [decision.window.served_from for decision in known[start:]]
            return min(begin for begin in begins if begin)[:10] if None not in begins else None
    return None


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
