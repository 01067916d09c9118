"""What the automations listen to and say, by Prefect's own matching and rendering; tests/end_to_end runs them on a server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from prefect.events.schemas.automations import AutomationCore
from prefect.server.events.schemas.automations import EventTrigger
from prefect.server.events.schemas.events import ReceivedEvent
from prefect.server.utilities.user_templates import render_user_template_sync

from everloop.adapters.automations import FAILED, automations_for
from everloop.adapters.orchestrator import ALERT, DEGRADED, WATCHED, resource_of

ALERTS, SILENT = "bikes alerts", "bikes monitor silent"


def made(every: timedelta = timedelta(hours=1), block: Any = None) -> dict[str, AutomationCore]:
    """The automations of the model 'bikes', by name."""
    return {found.name: found for found in automations_for([("bikes", every)], block)}


def an_event(name: str, resource: dict[str, str], **payload: Any) -> ReceivedEvent:
    """An event as the server holds it."""
    return ReceivedEvent(occurred=datetime.now(UTC), event=name, resource=resource, payload=payload, id=uuid4())


def hears(automation: AutomationCore, event: ReceivedEvent) -> bool:
    """Whether the server would evaluate the automation for the event."""
    return EventTrigger.model_validate(automation.trigger.model_dump()).covers(event)


def said(name: str, event: ReceivedEvent | None) -> tuple[str, str]:
    """Subject and body of the notification, rendered as the server does."""
    action = made(block=uuid4())[name].actions[0]
    return tuple(render_user_template_sync(text, {"event": event}) for text in (action.subject, action.body))


@pytest.mark.parametrize("name", [ALERT, DEGRADED])
def test_alerts_and_degradations_of_a_model_are_heard(name: str) -> None:
    alerts = made()[ALERTS]
    assert hears(alerts, an_event(name, resource_of("bikes")))
    assert not hears(alerts, an_event(name, resource_of("bikes-2")))
    assert not hears(alerts, an_event(WATCHED, resource_of("bikes")))


def test_the_notification_of_a_failed_action_does_not_set_itself_off() -> None:
    failed = made()[FAILED]

    def of(name: str) -> ReceivedEvent:
        resource = {"prefect.resource.id": f"prefect.automation.{uuid4()}", "prefect.resource.name": name}
        return an_event("prefect.automation.action.failed", resource)

    assert hears(failed, of("bikes degraded"))
    assert hears(failed, of(ALERTS))
    assert not hears(failed, of(FAILED))


@pytest.mark.parametrize(
    ("every", "within"),
    [(timedelta(hours=1), timedelta(hours=3)), (timedelta(seconds=2), timedelta(seconds=10))],
    ids=["three missed runs", "Prefect's shortest span"],
)
def test_a_monitor_is_silent_after_three_runs_that_did_not_come(every: timedelta, within: timedelta) -> None:
    trigger = made(every)[SILENT].trigger
    assert trigger.within == within
    assert trigger.posture.value == "Proactive"


def test_a_silent_monitor_is_about_its_own_model_and_starts_nothing() -> None:
    silent = made()[SILENT]
    assert hears(silent, an_event(WATCHED, resource_of("bikes")))
    assert not hears(silent, an_event(WATCHED, resource_of("bikes-2")))
    assert [action.type for action in made(block=uuid4())[SILENT].actions] == ["send-notification"]
    assert [action.type for action in silent.actions] == ["do-nothing"]


def test_an_alert_without_a_window_is_said_in_one_line() -> None:
    event = an_event(ALERT, resource_of("bikes"), reason="temp is null in 40 % of the rows")
    assert said(ALERTS, event) == ("bikes: look at this", "temp is null in 40 % of the rows")


def test_a_degradation_names_the_window_the_decision_and_the_report() -> None:
    event = an_event(
        DEGRADED,
        resource_of("bikes"),
        reason="the loss rose",
        window="2024-03-01 to 2024-03-02",
        version="7",
        decision="bikes/20240301-1d",
        report="http://127.0.0.1:5000/#/report",
    )
    subject, body = said(ALERTS, event)
    assert subject == "bikes: it degraded, a retraining is on its way"
    assert body.splitlines() == [
        "the loss rose",
        "Window 2024-03-01 to 2024-03-02, champion v7, decision bikes/20240301-1d.",
        "Report: http://127.0.0.1:5000/#/report",
    ]


def test_silence_is_said_also_of_a_monitor_that_never_ran() -> None:
    subject, body = said(SILENT, None)
    assert subject == "bikes: its monitor is silent"
    assert "No monitor run of bikes has ended for 3:00:00 (3 times [monitor].every)" in body
    assert "the last one that did: none since this automation was made" in body


def test_a_reason_with_template_marks_is_said_as_it_is() -> None:
    event = an_event(ALERT, resource_of("bikes"), reason="city: unseen {{ event.id }} {% raw %}")
    assert said(ALERTS, event)[1] == "city: unseen {{ event.id }} {% raw %}"
