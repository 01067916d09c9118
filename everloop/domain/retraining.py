"""The retraining policy: from what a window showed, and what was decided before, to a decision.

State is nothing but the stored decisions, so a restart or a second monitor changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from everloop.domain.drift import DriftReport
from everloop.domain.monitor_spec import MonitorSpec
from everloop.domain.performance import PerformanceReport
from everloop.domain.spec_values import Frozen, parse_duration
from everloop.domain.windows import Window

Action = Literal["none", "alert", "retrain"]
_STRENGTH: tuple[Action, ...] = ("none", "alert", "retrain")


class RetrainingDecision(Frozen):
    """What was decided about one window of one model, with everything it rests on."""

    id: str
    model: str
    version: str
    window: Window
    action: Action
    reason_codes: tuple[str, ...]
    reason: str
    drift: DriftReport
    performance: PerformanceReport
    outcome: str | None = None
    released: bool = False

    @property
    def headline(self) -> str:
        """The first sentence of the reason: the signal that decided."""
        return self.reason.split("; ")[0]

    @property
    def is_final(self) -> bool:
        """False while the window's labels may still change the decision."""
        return self.action == "retrain" or self.performance.reason_code != "labels_missing"


def decision_id(model: str, window: Window) -> str:
    """The id of the one decision about a window of a model."""
    return f"{model}/{window.id}"


def decide(
    model: str,
    version: str,
    window: Window,
    drift: DriftReport,
    performance: PerformanceReport,
    *,
    policy: MonitorSpec,
    earlier: Sequence[RetrainingDecision],
) -> RetrainingDecision:
    """The decision about `window`, given the `earlier` decisions of this model, oldest first.

    A signal counts when it stands in this window and in `persistence` of the last windows of the same version. What
    it asks for is held back while a retraining is in flight or the cooldown runs.
    """
    recent = (
        [decision for decision in earlier if decision.version == version][-(policy.recent - 1) :]
        if policy.recent > 1
        else []
    )
    degraded = 1 + sum(d.performance.verdict == "degraded" for d in recent) if performance.verdict == "degraded" else 0
    drifted = 1 + sum(d.drift.verdict == "drift" for d in recent) if drift.verdict == "drift" else 0
    wanted: list[tuple[Action, str, str]] = []
    notes: list[tuple[str, str]] = []
    for name, hits, asked, detail in (
        ("degradation", degraded, policy.on_degradation, performance.reason),
        ("drift", drifted, policy.on_drift, drift.reason),
    ):
        if hits >= policy.needed and asked == "ignore":
            notes.append((f"{name}_ignored", f"{name} stands and the spec ignores it: {detail}"))
        elif hits >= policy.needed and asked != "ignore":
            wanted.append((asked, name, f"{name} stands in {hits} of the last {policy.recent} windows: {detail}"))
        elif hits:
            notes.append(
                (
                    f"{name}_not_persistent",
                    f"{name} in {hits} of the last {policy.recent} windows, {policy.needed} are required: {detail}",
                )
            )
    if performance.verdict == "undetermined":
        notes.append((performance.reason_code, performance.reason))
    action: Action = max((asked for asked, _, _ in wanted), key=_STRENGTH.index, default="none")
    if action == "retrain" and (held := _held_back(window, policy, earlier)):
        notes.insert(0, held)
        action = "alert" if any(asked == "alert" for asked, _, _ in wanted) else "none"
    codes = [name for _, name, _ in wanted] + [code for code, _ in notes]
    sentences = [sentence for _, _, sentence in wanted] + [sentence for _, sentence in notes]
    return RetrainingDecision(
        id=decision_id(model, window),
        model=model,
        version=version,
        window=window,
        action=action,
        reason_codes=tuple(codes) or ("nothing_found",),
        reason="; ".join(sentences) or f"no standing signal: {performance.reason}; {drift.reason}",
        drift=drift,
        performance=performance,
    )


def _held_back(window: Window, policy: MonitorSpec, earlier: Sequence[RetrainingDecision]) -> tuple[str, str] | None:
    """The code and sentence of what keeps a retraining back, None if nothing does."""
    fired = [decision for decision in earlier if decision.action == "retrain"]
    in_flight = [decision for decision in fired if decision.outcome is None]
    if in_flight:
        return "in_flight", f"held back: the retraining of {in_flight[-1].id} is not finished"
    if fired:
        since = datetime.fromisoformat(window.end) - datetime.fromisoformat(fired[-1].window.end)
        pause = policy.cooldown if fired[-1].released else policy.retry_after or policy.cooldown
        if since < parse_duration(pause):
            return "cooldown", f"held back: the last retraining was decided {since} of event time ago, cooldown {pause}"
    return None
