"""What speaks for doing something about a model, or would if it stood longer: one function a signal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from everloop.domain.decision import Action, Past
from everloop.domain.evidence import Evidence, SliceEvidence
from everloop.domain.monitor_spec import MonitorSpec, Reaction
from everloop.domain.recovery import find_unrestored


@dataclass(frozen=True)
class Signal:
    """One thing that speaks for doing something, or a note that it does not yet.

    `about` tells signals of one code apart, such as two broken columns; empty where there is one at most.
    """

    code: str
    asks: Action
    sentence: str
    about: str = ""


def degradation(evidence: Evidence, recent: Sequence[Evidence], policy: MonitorSpec) -> Iterator[Signal]:
    """The loss stands above the validated one in enough windows, or has crept up over many."""
    performance = evidence.performance
    if performance.verdict == "degraded":
        hits = 1 + sum(before.performance.verdict == "degraded" for before in recent)
        yield _standing("degradation", hits, policy.needed, policy.on_degradation, performance.reason, policy)
    if evidence.decay is not None and evidence.decay.verdict == "decaying":
        yield _reaction("slow_decay", policy.on_degradation, f"the loss rises slowly: {evidence.decay.reason}")


def drift(evidence: Evidence, recent: Sequence[Evidence], policy: MonitorSpec) -> Iterator[Signal]:
    """Drift stands when the same test of the same column says so again."""
    found = evidence.drift.signals
    if not found:
        return
    hits = max(1 + sum(signal in before.drift.signals for before in recent) for signal in found)
    needed = _needed_for_drift(evidence, policy)
    yield _standing("drift", hits, needed, policy.on_drift, evidence.drift.reason, policy)


def growth(evidence: Evidence, policy: MonitorSpec) -> Iterator[Signal]:
    """There is much more to learn from than at the last training; it needs no persistence."""
    growth = evidence.growth
    if growth is not None and policy.on_growth and growth.share >= policy.on_growth:
        yield Signal(
            "growth",
            "retrain",
            f"{growth.labelled_rows - growth.at_last_training:,} labelled rows since the last training are "
            f"{growth.share:.0%} of the {growth.fitted_rows:,} that the champion was fitted on (on_growth {policy.on_growth:.0%})",
        )


def not_restored(evidence: Evidence, past: Past, policy: MonitorSpec) -> Iterator[Signal]:
    """Retrainings that did not restore the loss are followed by another, each after twice as many new labelled rows.

    After `max_rejections` of them a person is asked, once, and the loss that the champion has is taken for what can be had.
    """
    validated, growth = evidence.performance.baseline_mean, evidence.growth
    known = [decision.growth.labelled_rows for decision in past.fired if decision.growth and decision.trained]
    if validated is None or growth is None or not known:
        return
    unrestored = find_unrestored(validated, past.fired, policy=policy)
    if unrestored is None:
        return
    new, needed = growth.labelled_rows - max(known), policy.min_rows * 2**unrestored.retrainings
    state = (
        f"validated with {validated:.4g}, {unrestored.before:.4g} before the trouble; {new:,} labelled rows since the last "
        f"retraining"
    )
    if unrestored.retrainings >= policy.max_rejections:
        since = takewhile(lambda decision: not decision.is_fired, reversed(past.earlier))
        if policy.on_degradation != "ignore" and not any("given_up" in decision.reason_codes for decision in since):
            text = f"{unrestored.retrainings} retrainings have not restored the loss: {state}; look whether it can be restored"
            yield Signal("given_up", "alert", text)
    elif new < needed:
        yield Signal(
            "not_restored_yet", "none", f"the loss is not restored: {state}, {needed:,} are required to try again"
        )
    else:
        yield _reaction("not_restored", policy.on_degradation, f"the loss is not restored: {state}")


def broken(evidence: Evidence) -> Iterator[Signal]:
    """Broken data or dependencies ask for a person: training on them would be worse than an old model."""
    for code, report in (("data_quality", evidence.quality), ("dependencies", evidence.dependencies)):
        if report is not None and report.verdict in ("fail", "warning"):
            failed = report.verdict == "fail"
            for finding in report.findings:
                if finding.severity == "error" or not failed:
                    text, about = f"{finding.column}: {finding.message}", f"{code}.{finding.column}.{finding.rule}"
                    yield Signal(code if failed else f"{code}_warning", "alert" if failed else "none", text, about)


def slices(evidence: Evidence, recent: Sequence[Evidence], policy: MonitorSpec) -> Iterator[Signal]:
    """A slice that stands degraded or drifted asks for a person: a retraining is decided on all rows."""
    for found in evidence.slices:
        before = [same for window in recent for same in window.slices if same.name == found.name]
        if found.performance.verdict == "degraded" and policy.on_degradation != "ignore":
            hits = 1 + sum(same.performance.verdict == "degraded" for same in before)
            text = f"{found.name}: {found.performance.reason}"
            yield replace(
                _standing("slice_degradation", hits, policy.needed, "alert", text, policy),
                about=f"slice_degradation.{found.name}",
            )
        if (signals := found.drift.signals) and policy.on_drift != "ignore":
            hits = max(1 + sum(signal in same.drift.signals for same in before) for signal in signals)
            text = f"{found.name}: {found.drift.reason}"
            yield replace(
                _standing("slice_drift", hits, _needed_for_drift(found, policy), "alert", text, policy),
                about=f"slice_drift.{found.name}",
            )


def usage(evidence: Evidence) -> Iterator[Signal]:
    """An hour was unlike the same hours of earlier days, and the one before it was not."""
    if evidence.usage is not None and evidence.usage.verdict == "irregular":
        for spike in evidence.usage.begun:
            yield Signal("usage", "alert", spike.sentence, spike.about)


def notes(evidence: Evidence) -> Iterator[Signal]:
    """What could not be judged, and that windows were merged."""
    performance = evidence.performance
    if performance.verdict == "undetermined":
        yield Signal(performance.reason_code, "none", performance.reason)
    if evidence.merged_windows:
        text = f"the window had too few rows: the {evidence.merged_windows} before it were added"
        yield Signal("merged", "none", text)


def _needed_for_drift(evidence: Evidence | SliceEvidence, policy: MonitorSpec) -> int:
    return min(max(policy.needed, evidence.drift_persistence), policy.recent)


def _standing(code: str, hits: int, needed: int, asks: Reaction, detail: str, policy: MonitorSpec) -> Signal:
    if hits < needed:
        text = f"{code} in {hits} of the last {policy.recent} windows, {needed} are required: {detail}"
        return Signal(f"{code}_not_persistent", "none", text)
    return _reaction(code, asks, f"{code} stands in {hits} of the last {policy.recent} windows: {detail}", detail)


def _reaction(code: str, asks: Reaction, sentence: str, detail: str | None = None) -> Signal:
    if asks == "ignore":
        return Signal(f"{code}_ignored", "none", f"{code} stands and the spec ignores it: {detail or sentence}")
    return Signal(code, asks, sentence)
