"""Decide: apply the policy, store the decision, then say it. In this order: what is stored cannot be forgotten."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from everloop.adapters.orchestrator import emit_alerts, emit_decision, show_markdown
from everloop.adapters.tracking import log_window
from everloop.adapters.window_report.facts import decision_markdown
from everloop.adapters.window_report.page import write_window_report
from everloop.domain.decision import Past, RetrainingDecision, decision_id
from everloop.domain.dependencies import DependencyReport
from everloop.domain.evidence import Evidence
from everloop.domain.retraining import decide as apply_policy
from everloop.domain.spec import ModelSpec
from everloop.domain.summaries import ProfileSummary
from everloop.domain.windows import Window
from everloop.settings import settings
from tasks.step import step
from tasks.watch import Watched
from tasks.wiring import decisions, registry

log = logging.getLogger("everloop.decide")


@step
def decide(
    spec: ModelSpec,
    watched: Watched,
    window: Window,
    evidence: Evidence,
    past: Past,
    dependencies: DependencyReport | None = None,
) -> RetrainingDecision:
    """The stored decision about `window`; if it fires, or asks a person for something new, the event is on its way.

    A retraining that was stored and not said is not said again: the sweep starts it. Alerts are, under the same event ids.
    `dependencies` are those of today.
    """
    before = decisions().find(decision_id(spec.name, window))
    made = apply_policy(
        spec.name,
        watched.version.number,
        window,
        evidence,
        policy=spec.monitor,
        past=past,
        dependencies=dependencies,
    ).following(before)
    fired = decisions().store(made)
    decision = decisions().get(made.id)
    report = _page_of(decision).as_uri()
    if fired:
        emit_decision(decision, report=report)
    emit_alerts(decision, besides=before.alerts if before and before.published else (), report=report)
    log.info("%s: %s: %s", decision.id, decision.action, decision.reason)
    return decision


def _page_of(decision: RetrainingDecision) -> Path:
    return settings().reports / decision.model / f"{decision.window.id}.html"


@step(retries=1)
def publish(
    spec: ModelSpec,
    watched: Watched,
    decision: RetrainingDecision,
    window: ProfileSummary,
    earlier: Sequence[RetrainingDecision],
) -> None:
    """Afterwards a person can look at the decision: a page of its own, a run in MLflow, the flow run's artifact."""
    here = settings()
    page = write_window_report(
        _page_of(decision).parent,
        decision,
        earlier=earlier,
        reference=watched.profile,
        window=window,
        importance=watched.facts.importance,
        policy=spec.monitor,
        metric=spec.gates.metric,
        links={"MLflow": f"http://127.0.0.1:{here.mlflow_port}/#/models/{spec.name}/versions/{watched.version.number}"},
    )
    log_window(registry(), decision, artifacts=here.artifacts, page=page)
    show_markdown(
        f"decision-{spec.name}",
        decision_markdown(decision, report_link=page.as_uri()),
        description=f"{decision.action}: {', '.join(decision.reason_codes)}",
    )
