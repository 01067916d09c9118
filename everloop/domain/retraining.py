"""The retraining policy: from what a window showed, and what was decided before, to a decision.

State is nothing but the stored decisions, so a restart or a second monitor changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from everloop.domain.drift import DriftReport
from everloop.domain.evidence import Evidence
from everloop.domain.monitor_spec import MonitorSpec, Reaction
from everloop.domain.spec_values import parse_duration
from everloop.domain.windows import Window

Action = Literal["none", "alert", "retrain"]
_STRENGTH: tuple[Action, ...] = ("none", "alert", "retrain")
_DAY = timedelta(days=1)


class RetrainingDecision(Evidence):
    """What was decided about one window of one model, with everything it rests on."""

    id: str
    model: str
    version: str
    window: Window
    action: Action
    reason_codes: tuple[str, ...]
    reason: str
    outcome: str | None = None
    released: bool = False
    acknowledged_by: str | None = None
    published: bool = False

    @property
    def headline(self) -> str:
        """The first sentence of the reason: the signal that decided."""
        return self.reason.split("; ")[0]

    @property
    def is_fired(self) -> bool:
        """True if it started a retraining."""
        return self.action == "retrain"

    @property
    def was_rejected(self) -> bool:
        """True if its retraining ended, nothing went live, and nobody has looked at it yet."""
        return self.is_fired and self.outcome is not None and not self.released and self.acknowledged_by is None

    def may_change(self, labelled: int) -> bool:
        """True while labels may still change it: it has not fired, and `labelled` rows are more than it was scored on.

        A window that was scored is scored again for every twentieth of its rows whose labels have come since.
        """
        if self.is_fired:
            return False
        if self.performance.reason_code == "labels_missing":
            return True
        return labelled - self.performance.labelled >= max(1, self.performance.rows // 20)


@dataclass(frozen=True)
class _Signal:
    """One thing that speaks for doing something, or a note that it does not yet."""

    code: str
    asks: Action
    sentence: str


def decision_id(model: str, window: Window) -> str:
    """The id of the one decision about a window of a model."""
    return f"{model}/{window.id}"


def decide(
    model: str,
    version: str,
    window: Window,
    evidence: Evidence,
    *,
    policy: MonitorSpec,
    earlier: Sequence[RetrainingDecision],
) -> RetrainingDecision:
    """The decision about `window`, given the `earlier` decisions of this model, oldest first.

    A signal counts when it stands in this window and in `persistence` of the last windows of the same version. What
    it asks for is held back while data or dependencies are broken, a retraining is in flight, the cooldown runs, the
    day's budget is spent, or too many challengers in a row were rejected.
    """
    of_version = [decision for decision in earlier if decision.version == version]
    recent = of_version[-(policy.recent - 1) :] if policy.recent > 1 else []
    signals = [
        *_broken(evidence),
        *_degradation(evidence, recent, policy),
        *_drift(evidence, recent, policy),
        *_growth(evidence, policy),
        *_slices(evidence, recent, policy),
        *_usage(evidence),
        *_notes(evidence),
    ]
    asked = [signal for signal in signals if signal.asks != "none"]
    notes = [signal for signal in signals if signal.asks == "none"]
    action = max((signal.asks for signal in asked), key=_STRENGTH.index, default="none")
    if action == "retrain" and (held := _held_back(window, version, evidence, policy, earlier)):
        notes.insert(0, held)
        alerts = any(signal.asks == "alert" for signal in (*asked, held))
        action = "alert" if alerts else "none"
    said = [*asked, *notes]
    return RetrainingDecision(
        **{name: getattr(evidence, name) for name in Evidence.model_fields},
        id=decision_id(model, window),
        model=model,
        version=version,
        window=window,
        action=action,
        reason_codes=tuple(dict.fromkeys(signal.code for signal in said)) or ("nothing_found",),
        reason="; ".join(signal.sentence for signal in said)
        or f"no standing signal: {evidence.performance.reason}; {evidence.drift.reason}",
    )


def _degradation(evidence: Evidence, recent: Sequence[Evidence], policy: MonitorSpec) -> Iterator[_Signal]:
    performance = evidence.performance
    if performance.verdict == "degraded":
        hits = 1 + sum(before.performance.verdict == "degraded" for before in recent)
        yield _standing("degradation", hits, policy.needed, policy.on_degradation, performance.reason, policy)
    if evidence.decay is not None and evidence.decay.verdict == "decaying":
        yield _reaction("slow_decay", policy.on_degradation, f"the loss rises slowly: {evidence.decay.reason}")


def _drift(evidence: Evidence, recent: Sequence[Evidence], policy: MonitorSpec) -> Iterator[_Signal]:
    """Drift stands when the same test of the same column says so again."""
    found = _signals(evidence.drift)
    if not found:
        return
    needed = min(max(policy.needed, evidence.drift_persistence), policy.recent)
    hits = max(1 + sum(signal in _signals(before.drift) for before in recent) for signal in found)
    yield _standing("drift", hits, needed, policy.on_drift, evidence.drift.reason, policy)


def _growth(evidence: Evidence, policy: MonitorSpec) -> Iterator[_Signal]:
    growth = evidence.growth
    if growth is not None and policy.on_growth and growth.share >= policy.on_growth:
        yield _Signal(
            "growth",
            "retrain",
            f"{growth.labelled_rows:,} labelled rows, {growth.at_last_training:,} at the last training: "
            f"{growth.share:+.0%} (on_growth {policy.on_growth:.0%})",
        )


def _broken(evidence: Evidence) -> Iterator[_Signal]:
    """Broken data or dependencies ask for a person: training on them would be worse than an old model."""
    for code, report in (("data_quality", evidence.quality), ("dependencies", evidence.dependencies)):
        if report is not None and report.verdict in ("fail", "warning"):
            found = "; ".join(
                f"{finding.column}: {finding.message}"
                for finding in report.findings
                if finding.severity == "error" or report.verdict == "warning"
            )
            failed = report.verdict == "fail"
            yield _Signal(code if failed else f"{code}_warning", "alert" if failed else "none", found)


def _slices(evidence: Evidence, recent: Sequence[Evidence], policy: MonitorSpec) -> Iterator[_Signal]:
    """A slice that stands degraded or drifted asks for a person: a retraining is decided on all rows."""
    for found in evidence.slices:
        before = [same for window in recent for same in window.slices if same.name == found.name]
        if found.performance.verdict == "degraded" and policy.on_degradation != "ignore":
            hits = 1 + sum(same.performance.verdict == "degraded" for same in before)
            text = f"{found.name}: {found.performance.reason}"
            yield _standing("slice_degradation", hits, policy.needed, "alert", text, policy)
        if (signals := _signals(found.drift)) and policy.on_drift != "ignore":
            hits = max(1 + sum(signal in _signals(same.drift) for same in before) for signal in signals)
            yield _standing("slice_drift", hits, policy.needed, "alert", f"{found.name}: {found.drift.reason}", policy)


def _usage(evidence: Evidence) -> Iterator[_Signal]:
    if evidence.usage is not None and evidence.usage.verdict == "irregular":
        yield _Signal("usage", "alert", "; ".join(spike.sentence for spike in evidence.usage.spikes))


def _notes(evidence: Evidence) -> Iterator[_Signal]:
    performance = evidence.performance
    if performance.verdict == "undetermined":
        yield _Signal(performance.reason_code, "none", performance.reason)


def _standing(code: str, hits: int, needed: int, asks: Reaction, detail: str, policy: MonitorSpec) -> _Signal:
    if hits < needed:
        text = f"{code} in {hits} of the last {policy.recent} windows, {needed} are required: {detail}"
        return _Signal(f"{code}_not_persistent", "none", text)
    return _reaction(code, asks, f"{code} stands in {hits} of the last {policy.recent} windows: {detail}", detail)


def _reaction(code: str, asks: Reaction, sentence: str, detail: str | None = None) -> _Signal:
    if asks == "ignore":
        return _Signal(f"{code}_ignored", "none", f"{code} stands and the spec ignores it: {detail or sentence}")
    return _Signal(code, asks, sentence)


def _held_back(
    window: Window,
    version: str,
    evidence: Evidence,
    policy: MonitorSpec,
    earlier: Sequence[RetrainingDecision],
) -> _Signal | None:
    """What keeps a retraining back, None if nothing does."""
    for what, report in (("data", evidence.quality), ("dependencies", evidence.dependencies)):
        if report is not None and report.verdict == "fail":
            return _Signal("blocked", "alert", f"held back: the {what} of this window are broken; mend them first")
    fired = [decision for decision in earlier if decision.is_fired]
    in_flight = [decision for decision in fired if decision.outcome is None]
    if in_flight:
        return _Signal("in_flight", "none", f"held back: the retraining of {in_flight[-1].id} is not finished")
    return _breaker(version, policy, fired) or _cooldown(window, policy, fired) or _budget(window, policy, fired)


def _breaker(version: str, policy: MonitorSpec, fired: Sequence[RetrainingDecision]) -> _Signal | None:
    """Open after `max_rejections` challengers in a row that could not replace this champion."""
    rejected = 0
    for decision in reversed(fired):
        if decision.version != version or not decision.was_rejected:
            break
        rejected += 1
    if rejected < policy.max_rejections:
        return None
    return _Signal(
        "breaker_open",
        "alert",
        f"held back: {rejected} challengers in a row were rejected, the last with: {fired[-1].outcome}; look at them, then "
        f"`everloop resume {fired[-1].model}` or train on demand",
    )


def _cooldown(window: Window, policy: MonitorSpec, fired: Sequence[RetrainingDecision]) -> _Signal | None:
    if not fired:
        return None
    since = _end(window) - _end(fired[-1].window)
    pause = policy.cooldown if fired[-1].released else policy.retry_after or policy.cooldown
    if since >= parse_duration(pause):
        return None
    text = f"held back: the last retraining was decided {since} of event time ago, cooldown {pause}"
    return _Signal("cooldown", "none", text)


def _budget(window: Window, policy: MonitorSpec, fired: Sequence[RetrainingDecision]) -> _Signal | None:
    today = sum(_end(window) - _end(decision.window) < _DAY for decision in fired)
    if today < policy.budget_per_day:
        return None
    text = f"held back: {today} retrainings were decided within the last 24 hours, budget_per_day {policy.budget_per_day}"
    return _Signal("budget", "none", text)


def _signals(report: DriftReport) -> frozenset[tuple[str, str]]:
    """The tests that say drift, by column and signal."""
    return frozenset((test.column, test.signal) for test in report.tests if test.is_drift)


def _end(window: Window) -> datetime:
    return datetime.fromisoformat(window.end)
