"""The retraining policy: from what a window showed, and what was decided before, to a decision.

State is nothing but the stored decisions, so a restart or a second monitor changes nothing.
"""

from __future__ import annotations

from everloop.domain import signals
from everloop.domain.decision import Action, Alert, Past, RetrainingDecision, decision_id, recent_before
from everloop.domain.dependencies import DependencyReport
from everloop.domain.evidence import Evidence
from everloop.domain.holding import held_back
from everloop.domain.monitor_spec import MonitorSpec
from everloop.domain.windows import Window

_STRENGTH: tuple[Action, ...] = ("none", "alert", "retrain")


def decide(
    model: str,
    version: str,
    window: Window,
    evidence: Evidence,
    *,
    policy: MonitorSpec,
    past: Past,
    dependencies: DependencyReport | None = None,
) -> RetrainingDecision:
    """The decision about `window`, given what was decided about this model before.

    `dependencies` are those of today; broken, they hold back what an older window asks for as well.

    A signal counts when it stands in this window and in `persistence` of the last windows since the version went live. What
    it asks for is held back while data or dependencies are broken, a retraining is in flight, the cooldown runs, the
    day's budget is spent, or too many challengers in a row were rejected.
    """
    recent = recent_before(version, past.earlier, merged=evidence.merged_windows, recent=policy.recent)
    found = [
        *signals.broken(evidence),
        *signals.degradation(evidence, recent, policy),
        *signals.not_restored(evidence, past, policy),
        *signals.drift(evidence, recent, policy),
        *signals.growth(evidence, policy),
        *signals.slices(evidence, recent, policy),
        *signals.usage(evidence),
        *signals.notes(evidence),
    ]
    asked = [signal for signal in found if signal.asks != "none"]
    notes = [signal for signal in found if signal.asks == "none"]
    action = max((signal.asks for signal in asked), key=_STRENGTH.index, default="none")
    asks = {signal.code for signal in asked if signal.asks == "retrain"}
    today = evidence.model_copy(update={"dependencies": evidence.dependencies or dependencies})
    if asks and (held := held_back(window, version, asks, today, policy, past.fired)):
        if held.asks == "alert":
            asked.append(held)
        else:
            notes.insert(0, held)
        action = "alert" if any(signal.asks == "alert" for signal in asked) else "none"
    said = [*asked, *notes]
    return RetrainingDecision(
        **{name: getattr(evidence, name) for name in Evidence.model_fields},
        id=decision_id(model, window),
        model=model,
        version=version,
        window=window,
        action=action,
        asks=tuple(dict.fromkeys(signal.code for signal in asked)),
        alerts=tuple(
            Alert(about=signal.about or signal.code, sentence=signal.sentence)
            for signal in asked
            # a retraining is the answer to drift and to slices, and to nothing in how the model is used
            if signal.asks == "alert" and (action == "alert" or signal.code == "usage")
        ),
        went_by={decision.window.id: decision.witness for decision in recent},
        reason_codes=tuple(dict.fromkeys(signal.code for signal in said)) or ("nothing_found",),
        reason="; ".join(signal.sentence for signal in said)
        or f"no standing signal: {evidence.performance.reason}; {evidence.drift.reason}",
    )
