"""Automations of the Prefect server that speak to people: alerts, monitors gone silent, actions that failed.

They send through a notification block that a person makes in Prefect. None of them starts a retraining: that is done
by the triggers in prefect.yaml, which Prefect deploys.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from everloop.adapters.orchestrator import ALERT, DEGRADED, WATCHED, resource_of
from everloop.domain.errors import EverloopError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prefect.client.orchestration import SyncPrefectClient
    from prefect.events.schemas.automations import Automation, AutomationCore

log = logging.getLogger("everloop.automations")

ALERTS, SILENT = "{model} alerts", "{model} monitor silent"
FAILED = "everloop actions failed"  # one for all projects on the server
TAG = "everloop:alerts"  # marks what is ours; only that is ever removed
_MISSED_RUNS = 3
_SHORTEST = timedelta(seconds=10)  # Prefect's least span of a proactive trigger
_PAGE = 200  # as many as the server gives at once

_ALERT_SUBJECT = (
    "{{ event.resource.name }}: {% if event.event == '" + DEGRADED + "' %}it degraded, a retraining is on its way"
    "{% else %}look at this{% endif %}"
)
_ALERT_BODY = (
    "{{ event.payload.reason }}"
    "{% if event.payload.window %}\nWindow {{ event.payload.window }}, champion v{{ event.payload.version }}, "
    "decision {{ event.payload.decision }}.{% endif %}"
    "{% if event.payload.report %}\nReport: {{ event.payload.report }}{% endif %}"
)
_SILENT_BODY = (
    "No monitor run of {model} has ended for {span} ({missed} times [monitor].every); the last one that did: "
    "{{{{ event.occurred or 'none since this automation was made' }}}}. Nothing watches the model until one does, and "
    "nothing is retrained. Look at the runs of monitor/{model} in Prefect: does the worker run, is the schedule active?"
)
_FAILED_BODY = (
    "The {{ event.payload.action_type }} action of the automation '{{ event.resource.name }}' failed and is not tried "
    "again: {{ event.payload.reason }}. A retraining that it should have started is started by the next monitor run."
)


def ensure_automations(models: Sequence[tuple[str, timedelta]], *, notify: str | None, api: str | None = None) -> None:
    """Afterwards the Prefect server has the alert automations of `models`: (name, how often it is monitored).

    `notify` names the notification block they send through, as '<block type slug>/<block name>'; without one they do
    nothing but show in Prefect's event feed. `api` is the server's API URL, default: the one Prefect is configured
    with. An automation that is as it should be is left alone, with what it has counted; one that a person paused stays
    paused. Those of other models are removed, unless the server has a deployment `monitor/<model>` of them: that may be of
    another project. For the same reason the automation about failed actions, which all share, is not silenced.

    Raises:
        EverloopError: there is no such block on the server, or it sends no notifications.
    """
    with _client(api) as client:
        block = None if notify is None else _block_id(client, notify)
        wanted = {made.name: made for made in automations_for(models, block)}
        elsewhere = {name.format(model=model) for model in _monitored(client) for name in (ALERTS, SILENT)}
        kept = set[str]()
        for found in _ours(client):
            if found.name in elsewhere - wanted.keys():
                continue
            if found.name not in wanted or found.name in kept:
                client.delete_automation(found.id)
                log.info("removed the automation %r: its model is gone", found.name)
                continue
            kept.add(found.name)
            if found.name == FAILED and block is None and _sends(found):
                continue
            if not _is_same(found, wanted[found.name]):
                client.update_automation(found.id, _with_all_set(wanted[found.name], enabled=found.enabled))
                log.info("updated the automation %r", found.name)
        for name in wanted.keys() - kept:
            client.create_automation(wanted[name])
            log.info("made the automation %r", name)


def automations_for(models: Sequence[tuple[str, timedelta]], block: Any) -> Iterator[AutomationCore]:
    """The automations of `models`; they send through the notification block with the id `block`, or do nothing."""
    yield _automation(
        FAILED,
        "An action of an automation failed: Prefect does not try it again and shows it nowhere else.",
        [_say(block, "an automation of Prefect failed", _FAILED_BODY)],
        expect={"prefect.automation.action.failed"},
        # its own failure would start it again, without end
        match={"prefect.resource.id": "prefect.automation.*", "prefect.resource.name": f"!{FAILED}"},
    )
    for model, every in models:
        yield _automation(
            ALERTS.format(model=model),
            f"Every alert and every degradation of {model}, with its reason.",
            [_say(block, _ALERT_SUBJECT, _ALERT_BODY)],
            expect={ALERT, DEGRADED},
            match=_events_of(model),
        )
        within = max(_MISSED_RUNS * every, _SHORTEST)
        body = _SILENT_BODY.format(model=model, span=within, missed=_MISSED_RUNS)
        yield _automation(
            SILENT.format(model=model),
            f"No monitor run of {model} ended within {within}. It retrains nothing.",
            [_say(block, f"{model}: its monitor is silent", body)],
            expect={WATCHED},
            # counting anew from each event alerts one span after the last; without it the spans are laid end to end
            # and an alert was seen to take two and a half of them
            after={WATCHED},
            match=_events_of(model),
            posture="Proactive",
            within=within,
        )


def _events_of(model: str) -> dict[str, str]:
    return {"prefect.resource.id": resource_of(model)["prefect.resource.id"]}


def _automation(
    name: str,
    description: str,
    actions: list[Any],
    *,
    posture: Literal["Reactive", "Proactive"] = "Reactive",
    **trigger: Any,
) -> AutomationCore:
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    return AutomationCore(
        name=name,
        description=description,
        enabled=True,
        tags=[TAG],
        trigger=EventTrigger(posture=Posture(posture), threshold=1, **trigger),
        actions=actions,
    )


def _say(block: Any, subject: str, body: str) -> Any:
    from prefect.events.actions import DoNothing, SendNotification

    return DoNothing() if block is None else SendNotification(block_document_id=block, subject=subject, body=body)


def _sends(found: Automation) -> bool:
    return any(action.type == "send-notification" for action in found.actions)


def _is_same(found: Automation, wanted: AutomationCore) -> bool:
    """True if `found` does what `wanted` does; whether it is paused does not count."""
    parts = {"name", "description", "tags", "trigger", "actions"}
    return found.model_dump(include=parts) == wanted.model_dump(include=parts)


def _with_all_set(wanted: AutomationCore, *, enabled: bool) -> AutomationCore:
    """The same with every field given: Prefect's update leaves out what was left to a default, the kinds of action too."""
    from prefect.events.schemas.automations import AutomationCore

    return AutomationCore(**wanted.model_dump(exclude={"owner_resource"}) | {"enabled": enabled})


def _ours(client: SyncPrefectClient) -> list[Automation]:
    """Every automation with our tag, also beyond the server's first page."""
    from prefect.events.filters import AutomationFilter, AutomationFilterTags

    mark = AutomationFilter(tags=AutomationFilterTags(all_=[TAG]))
    found: list[Automation] = []
    while page := client.read_automations(automations=mark, limit=_PAGE, offset=len(found)):
        found += page
    return found


def _monitored(client: SyncPrefectClient) -> set[str]:
    """The models that have a monitor deployed on the server."""
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName

    monitors = FlowFilter(name=FlowFilterName(any_=["monitor"]))
    found: list[str] = []
    while page := client.read_deployments(flow_filter=monitors, limit=_PAGE, offset=len(found)):
        found += [deployment.name for deployment in page]
    return set(found)


def _block_id(client: SyncPrefectClient, notify: str) -> Any:
    """The id of the notification block that `notify` names."""
    answer = client.request(
        "POST",
        "/block_documents/filter",
        json={"block_schemas": {"block_capabilities": {"all_": ["notify"]}}, "limit": _PAGE},
    )
    blocks = {f"{block['block_type']['slug']}/{block['name']}": block["id"] for block in answer.json()}
    if notify not in blocks:
        raise EverloopError(
            f"the notification block is {notify!r} and the Prefect server has {', '.join(sorted(blocks)) or 'none'}; "
            "it must be '<block type slug>/<block name>' of a notification block there, such as 'slack-webhook/ops': "
            "make it in Prefect's UI under Blocks, or correct or unset EVERLOOP_ALERT_BLOCK"
        )
    return blocks[notify]


@contextmanager
def _client(api: str | None) -> Iterator[SyncPrefectClient]:
    from prefect.client.orchestration import SyncPrefectClient, get_client

    with SyncPrefectClient(api) if api else get_client(sync_client=True) as client:
        yield client
