"""What keeps a retraining back although something asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import takewhile

from everloop.domain.decision import RetrainingDecision
from everloop.domain.evidence import Evidence
from everloop.domain.monitor_spec import MonitorSpec
from everloop.domain.signals import Signal
from everloop.domain.spec_values import parse_duration
from everloop.domain.windows import Window

_DAY = timedelta(days=1)


def held_back(
    window: Window,
    version: str,
    evidence: Evidence,
    policy: MonitorSpec,
    earlier: Sequence[RetrainingDecision],
) -> Signal | None:
    """What keeps a retraining back, None if nothing does."""
    for what, report in (("data", evidence.quality), ("dependencies", evidence.dependencies)):
        if report is not None and report.verdict == "fail":
            return Signal("blocked", "alert", f"held back: the {what} of this window are broken; mend them first")
    fired = [decision for decision in earlier if decision.is_fired]
    in_flight = [decision for decision in fired if decision.outcome is None]
    if in_flight:
        return Signal("in_flight", "none", f"held back: the retraining of {in_flight[-1].id} is not finished")
    rejected = _rejected_in_a_row(version, fired)
    return (
        _breaker(rejected, policy)
        or _back_off(rejected, evidence, policy)
        or _cooldown(window, policy, fired)
        or _budget(window, policy, fired)
    )


def _rejected_in_a_row(version: str, fired: Sequence[RetrainingDecision]) -> Sequence[RetrainingDecision]:
    """The newest retrainings of this champion that ended without a release, one after another; oldest first."""
    last = takewhile(lambda decision: decision.version == version and decision.was_rejected, reversed(fired))
    return list(last)[::-1]


def _breaker(rejected: Sequence[RetrainingDecision], policy: MonitorSpec) -> Signal | None:
    """Open after `max_rejections` challengers in a row that could not replace this champion."""
    if len(rejected) < policy.max_rejections:
        return None
    return Signal(
        "breaker_open",
        "alert",
        f"held back: {len(rejected)} challengers in a row were rejected, the last with: {rejected[-1].outcome}; look at them, "
        f"then `everloop resume {rejected[-1].model}` or train on demand",
    )


def _back_off(rejected: Sequence[RetrainingDecision], evidence: Evidence, policy: MonitorSpec) -> Signal | None:
    """What was rejected is worth another try with more labelled rows: `min_rows` after the first time, then twice as many."""
    if not rejected or evidence.growth is None or rejected[-1].growth is None:
        return None
    needed = policy.min_rows * 2 ** (len(rejected) - 1)
    new = evidence.growth.labelled_rows - rejected[-1].growth.labelled_rows
    if new >= needed:
        return None
    text = f"held back: the last challenger was rejected, and {new:,} labelled rows have come since; {needed:,} are required"
    return Signal("back_off", "none", text)


def _cooldown(window: Window, policy: MonitorSpec, fired: Sequence[RetrainingDecision]) -> Signal | None:
    if not fired:
        return None
    since = _end(window) - _end(fired[-1].window)
    pause = policy.cooldown if fired[-1].released else policy.retry_after or policy.cooldown
    if since >= parse_duration(pause):
        return None
    text = f"held back: the last retraining was decided {since} of event time ago, cooldown {pause}"
    return Signal("cooldown", "none", text)


def _budget(window: Window, policy: MonitorSpec, fired: Sequence[RetrainingDecision]) -> Signal | None:
    today = sum(_end(window) - _end(decision.window) < _DAY for decision in fired)
    if today < policy.budget_per_day:
        return None
    text = (
        f"held back: {today} retrainings were decided within the last 24 hours, budget_per_day {policy.budget_per_day}"
    )
    return Signal("budget", "none", text)


def _end(window: Window) -> datetime:
    return datetime.fromisoformat(window.end)
