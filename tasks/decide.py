"""Decide: apply the policy, store the decision, then say it. In this order: what is stored cannot be forgotten."""

from __future__ import annotations

import logging

from everloop.adapters.orchestrator import emit_decision, show_markdown
from everloop.adapters.registry import Version
from everloop.adapters.tracking import log_window
from everloop.domain.drift import DriftReport
from everloop.domain.performance import PerformanceReport
from everloop.domain.retraining import RetrainingDecision
from everloop.domain.retraining import decide as apply_policy
from everloop.domain.spec import ModelSpec
from everloop.domain.windows import Window
from everloop.settings import settings
from tasks.step import step
from tasks.wiring import decisions, registry

log = logging.getLogger("everloop.decide")


@step
def decide(
    spec: ModelSpec, champion: Version, window: Window, drift: DriftReport, performance: PerformanceReport
) -> RetrainingDecision:
    """The stored decision about `window`; if this call made it fire, the event is on its way."""
    earlier = [
        found
        for found in decisions().list(spec.name)
        if found.window.end <= window.end and found.window.id != window.id
    ]
    decision = apply_policy(
        spec.name, champion.number, window, drift, performance, policy=spec.monitor, earlier=earlier
    )
    here = settings()
    log_window(registry(), decision, artifacts=None if here.mlflow_uri else here.home / "mlartifacts")
    fired = decisions().store(decision)
    if fired or decision.action == "alert":
        emit_decision(decision)
    show_markdown(
        f"decision-{spec.name}",
        _as_markdown(decision),
        description=f"{decision.action}: {', '.join(decision.reason_codes)}",
    )
    log.info("%s: %s: %s", decision.id, decision.action, decision.reason)
    return decision


def _as_markdown(decision: RetrainingDecision) -> str:
    performance, drift, window = decision.performance, decision.drift, decision.window
    lines = [
        f"# {decision.action.capitalize()}: {', '.join(decision.reason_codes)}",
        decision.reason,
        "",
        f"Window `{window.id}`, {window.start} to {window.end}, {window.rows:,} rows, champion v{decision.version}.",
        "",
        "| what | verdict | numbers |",
        "|---|---|---|",
        f"| performance | {performance.verdict} | {performance.reason} |",
        f"| labels | | {performance.coverage:.0%} have arrived |",
        f"| drift | {drift.verdict} | {drift.reason} |",
    ]
    lines += [
        f"| {test.column}: {test.signal} | drift | effect {test.effect:.3f} (floor {test.floor:g}), "
        f"p = {test.p_value:.1e}, {test.statistic} |"
        for test in drift.tests
        if test.is_drift
    ]
    return "\n".join(lines)
