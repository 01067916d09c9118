"""Prefect as the loop needs it: events out, runs started, what a person sees in the UI."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

from everloop.domain.decision import Alert, RetrainingDecision

DEGRADED, ALERT = "everloop.model.degraded", "everloop.model.alert"
WATCHED = "everloop.model.watched"  # a monitor run ended; automations.py alerts when it stays away


def resource_of(model: str) -> dict[str, str]:
    """The Prefect resource that stands for `model`."""
    return {"prefect.resource.id": f"everloop.model.{model}", "prefect.resource.name": model}


def emit_decision(decision: RetrainingDecision, *, report: str | None = None) -> None:
    """Afterwards the event about a fired decision is on its way; it may be lost, the stored decision is not.

    `report` is the address of the window's report, for the notification.
    """
    from prefect.events import emit_event

    key = _event_id(decision.id, decision.action)
    payload = _payload(decision, decision.headline, report)
    emit_event(event=DEGRADED, id=key, resource=resource_of(decision.model), payload=payload)


def emit_alerts(decision: RetrainingDecision, *, besides: Collection[Alert] = (), report: str | None = None) -> None:
    """Afterwards the alerts of `decision` are on their way, `besides` those that are out: one event for each number."""
    from prefect.events import emit_event

    for number, alerts in groupby(decision.alerts, key=lambda alert: alert.number):
        if new := [alert.sentence for alert in alerts if alert not in besides]:
            key = _event_id(decision.id, "alert", str(number))
            payload = _payload(decision, "; ".join(new), report)
            emit_event(event=ALERT, id=key, resource=resource_of(decision.model), payload=payload)


def _payload(decision: RetrainingDecision, reason: str, report: str | None) -> dict[str, Any]:
    return {
        "decision": decision.id,
        "reason": reason,
        "reason_codes": list(decision.reason_codes),
        "window": f"{decision.window.start} to {decision.window.end}",
        "version": decision.version,
        **({"report": report} if report else {}),
    }


def emit_watched(model: str, payload: Mapping[str, Any]) -> None:
    """Afterwards the event that a monitor run of `model` ended is on its way, also when there was nothing to judge."""
    from prefect.events import emit_event

    emit_event(event=WATCHED, resource=resource_of(model), payload=dict(payload))


def emit_alert(model: str, reason: str, *, once: str | None = None) -> None:
    """Afterwards an alert about `model` is on its way; under the same key `once`, it is one event whatever its words."""
    from prefect.events import emit_event

    key = _event_id(model, once) if once else uuid4()
    emit_event(event=ALERT, resource=resource_of(model), payload={"reason": reason}, id=key)


def _event_id(*about: str) -> UUID:
    """Always the same id for the same thing: the server keeps an event that comes twice once."""
    return uuid5(NAMESPACE_URL, "everloop:" + ":".join(about))


async def start_training(
    model: str, *, reason: str, decision: str, window: str, attempts: int, most: int
) -> str | None:
    """The id of the training run for `decision` that has not ended yet; None if `most` of them have.

    `attempts` of them are known to have begun their work. One that ended before that (cancelled while it waited, or its
    process could not start) is followed by the next; the same decision and number always name the same run.
    """
    from prefect.deployments.flow_runs import arun_deployment

    for number in range(attempts, most):
        run = await arun_deployment(
            name=f"train/{model}",
            parameters={"model": model, "reason": reason, "decision": decision, "window": window},
            timeout=0,
            idempotency_key=f"{decision}#{number}",
            as_subflow=False,
        )
        if run.state is None or not run.state.is_final():
            return str(run.id)
    return None


def current_run_id(default: str) -> str:
    """The id of the flow run that this code is part of; `default` outside of one."""
    from prefect.runtime import flow_run

    return str(flow_run.id or default)


def show_markdown(key: str, text: str, *, description: str = "") -> None:
    """Afterwards the run's page in the Prefect UI shows `text`; outside of a run nothing happens."""
    from prefect.artifacts import create_markdown_artifact
    from prefect.context import FlowRunContext, TaskRunContext

    if FlowRunContext.get() or TaskRunContext.get():
        create_markdown_artifact(markdown=text, key=_key(key), description=description or None)


def show_table(key: str, rows: Sequence[dict[str, Any]], *, description: str = "") -> None:
    """Afterwards the run's page in the Prefect UI shows `rows` as a table; outside of a run nothing happens."""
    from prefect.artifacts import create_table_artifact
    from prefect.context import FlowRunContext, TaskRunContext

    if FlowRunContext.get() or TaskRunContext.get():
        create_table_artifact(table=list(rows), key=_key(key), description=description or None)


def _key(text: str) -> str:
    return re.sub(r"[^a-z0-9-]+", "-", text.lower()).strip("-")
