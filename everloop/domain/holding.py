"""What keeps a retraining back although something asks for it."""

from __future__ import annotations

from collections.abc import Sequence, Set
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
    asks: Set[str],
    evidence: Evidence,
    policy: MonitorSpec,
    fired: Sequence[RetrainingDecision],
) -> Signal | None:
    """What keeps back a retraining that the signals `asks` call for, None if nothing does.

    `fired` are all other decisions that started one, oldest first.
    """
    for what, report in (("data", evidence.quality), ("dependencies", evidence.dependencies)):
        if report is not None and report.verdict == "fail":
            return Signal("blocked", "alert", f"held back: the {what} of this window are broken; mend them first")
    in_flight = [decision for decision in fired if decision.outcome is None]
    if in_flight:
        return Signal("in_flight", "none", f"held back: the retraining of {in_flight[-1].id} is not finished")
    rejected = [decision for decision in _rejected_in_a_row(version, fired) if asks & set(decision.asks)]
    judged = None if "growth" in asks else _breaker(rejected, policy) or _back_off(window, rejected, evidence, policy)
    return judged or _cooldown(window, policy, fired) or _budget(window, policy, fired)


def _rejected_in_a_row(version: str, fired: Sequence[RetrainingDecision]) -> Sequence[RetrainingDecision]:
    """The newest retrainings whose challengers this champion's gates refused, one after another, oldest first.

    What ended otherwise, with a source that was gone or a version that waits for a person, says nothing of challengers. What
    growth asked for was due anyway: it neither counts nor is held back, and begins anew after each training.
    """
    judged = [decision for decision in fired if decision.rejected or decision.released]
    last = takewhile(lambda decision: decision.version == version and decision.was_rejected, reversed(judged))
    return [decision for decision in last if "growth" not in decision.asks][::-1]


def _breaker(rejected: Sequence[RetrainingDecision], policy: MonitorSpec) -> Signal | None:
    """Open after `max_rejections` challengers in a row that could not replace this champion.

    Mere further attempts to restore a loss do not count: a world that has become harder is no fault, and they grow rare by themselves.
    """
    counted = [decision for decision in rejected if decision.asks != ("not_restored",)]
    if len(counted) < policy.max_rejections:
        return None
    return Signal(
        "breaker_open",
        "alert",
        f"held back: {len(counted)} challengers in a row were rejected, the last with: {counted[-1].outcome}; look at them, "
        f"then `everloop resume {counted[-1].model}` or train on demand",
    )


def _back_off(
    window: Window, rejected: Sequence[RetrainingDecision], evidence: Evidence, policy: MonitorSpec
) -> Signal | None:
    """What was rejected is worth another try with more labelled rows: twice `min_rows` after the first time, then twice as many.

    Or after as long as labels may take: a source that forgets as much as it learns does not grow.
    """
    if not rejected or evidence.growth is None or rejected[-1].growth is None:
        return None
    needed = policy.min_rows * 2 ** len(rejected)
    new = evidence.growth.labelled_rows - rejected[-1].growth.labelled_rows
    if new >= needed or _between(window, rejected[-1].window) >= parse_duration(policy.max_label_delay):
        return None
    text = f"held back: the last challenger was rejected, and {new:,} labelled rows have come since; {needed:,} are required"
    return Signal("back_off", "none", text)


def _cooldown(window: Window, policy: MonitorSpec, fired: Sequence[RetrainingDecision]) -> Signal | None:
    for decision in reversed(fired):
        since = _between(window, decision.window)
        pause = policy.cooldown if decision.released else policy.retry_after or policy.cooldown
        if since < parse_duration(pause):
            text = f"held back: the last retraining was decided {since} of event time ago, cooldown {pause}"
            return Signal("cooldown", "none", text)
    return None


def _budget(window: Window, policy: MonitorSpec, fired: Sequence[RetrainingDecision]) -> Signal | None:
    today = sum(_between(window, decision.window) < _DAY for decision in fired)
    if today < policy.budget_per_day:
        return None
    text = (
        f"held back: {today} retrainings were decided within the last 24 hours, budget_per_day {policy.budget_per_day}"
    )
    return Signal("budget", "none", text)


def _between(window: Window, other: Window) -> timedelta:
    """The event time between the ends of two windows, whichever is later: labels, and so decisions, may come in any order."""
    return abs(datetime.fromisoformat(window.end) - datetime.fromisoformat(other.end))
