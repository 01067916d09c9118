"""Alerts, silent monitors and failed actions on a real Prefect server, which notifies a web server of ours."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient
from prefect.events.actions import RunDeployment
from prefect.events.schemas.automations import AutomationCore, EventTrigger
from prefect.settings import PREFECT_API_URL, temporary_settings

from everloop.adapters.automations import FAILED, ensure_automations
from everloop.adapters.service import free_port
from everloop.domain.errors import EverloopError
from everloop.settings import PROJECT, Settings
from tests.factories import make_decision

EMITTER = """
import json, sys
from everloop.adapters import orchestrator
from everloop.domain.decision import RetrainingDecision
for line in sys.stdin:
    name, words = json.loads(line)
    if name == "emit_decision":
        words = [RetrainingDecision.model_validate_json(words[0])]
    getattr(orchestrator, name)(*words)
"""
HOUR = timedelta(hours=1)


@dataclass
class Pager:
    """What a person would have received, with the moment it came."""

    address: str
    messages: list[tuple[float, str]] = field(default_factory=list)

    def about(self, text: str, *, since: float = 0.0) -> list[tuple[float, str]]:
        """The messages that contain `text` and came after `since`."""
        return [(at, message) for at, message in list(self.messages) if text in message and at > since]


@dataclass
class Server:
    """A Prefect server, and a process that emits events to it as a flow of ours would."""

    api: str
    emitter: subprocess.Popen[str]

    def emit(self, name: str, *words: Any) -> None:
        """Call a function of the orchestrator adapter."""
        assert self.emitter.stdin is not None
        self.emitter.stdin.write(json.dumps([name, words]) + "\n")
        self.emitter.stdin.flush()

    def automations(self) -> dict[str, Any]:
        """The server's automations as they are stored, by name."""
        found = httpx.post(f"{self.api}/automations/filter", json={}).json()
        return {automation["name"]: automation for automation in found}

    def events(self, name: str, resource: str) -> list[Any]:
        """The events of this name about this resource."""
        query = {"event": {"name": [name]}, "resource": {"id": [resource]}}
        answer = httpx.post(f"{self.api}/events/filter", json={"filter": query})
        return list(answer.raise_for_status().json()["events"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Prefect server with a home of its own."""
    top, port = tmp_path_factory.mktemp("alerts"), free_port()
    api = f"http://127.0.0.1:{port}/api"
    environment = Settings(home=top / "home", prefect_api_url=api).environment()
    (top / "home" / "prefect").mkdir(parents=True)
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (
        (top / "server.log").open("w") as log,
        _running(command, env=environment, cwd=PROJECT, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        _until(lambda: process.poll() is not None or _is_ready(api), 90, "the server answers")
        assert process.poll() is None, (top / "server.log").read_text()[-3000:]
        emitting = [sys.executable, "-c", EMITTER]
        with _running(emitting, env=environment, cwd=PROJECT, stdin=subprocess.PIPE, text=True) as emitter:
            yield Server(api, emitter)


@pytest.fixture(scope="module")
def pager(server: Server) -> Iterator[Pager]:
    """The notification block 'custom-webhook/ops' of the server sends here."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            pager.messages.append((time.monotonic(), json.loads(body)["text"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Not on the test's terminal."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        pager = Pager(f"http://127.0.0.1:{listening.server_port}/")
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        template = {"text": "{{subject}}\n{{body}}"}
        with temporary_settings({PREFECT_API_URL: server.api}):
            CustomWebhookNotificationBlock(name="ops", url=pager.address, json_data=template).save("ops")
        yield pager
        listening.shutdown()


def test_an_alert_and_a_degradation_are_notified_with_their_reason(server: Server, pager: Pager) -> None:
    ensure_automations([("bikes", HOUR)], notify="custom-webhook/ops", api=server.api)
    decision = make_decision("retrain")

    def both_came() -> bool:
        # an event that comes right after its automation was made may be missed, so it is sent until it is heard
        if not pager.about("look at"):
            server.emit("emit_alert", "bikes", "temp is null in 40 % of the rows")
        if not pager.about("degraded"):
            server.emit("emit_decision", decision.model_dump_json())
        return bool(pager.about("look at") and pager.about("degraded"))

    _until(both_came, 60, "both notifications arrive", pause=1.5)
    (_, alert), (_, degraded) = pager.about("look at")[0], pager.about("degraded")[0]
    assert alert == "bikes: look at this\ntemp is null in 40 % of the rows"
    assert degraded.startswith("bikes: it degraded, a retraining is on its way\nmean loss 9 against 5 at validation\n")
    assert decision.id in degraded


def test_a_monitor_that_goes_silent_alerts_one_span_later_and_not_while_it_runs(server: Server, pager: Pager) -> None:
    span = 10.0  # three times `every` is less than Prefect's shortest span
    ensure_automations([("ferries", timedelta(seconds=1))], notify="custom-webhook/ops", api=server.api)
    # none has run yet: that is silence too, and shows that the automation is at work
    _until(lambda: pager.about("ferries: its monitor is silent"), 40, "a monitor that never ran alerts")
    assert "none since this automation was made" in pager.messages[-1][1]

    started = last = time.monotonic()
    while last - started < 2.5 * span:
        server.emit("emit_watched", "ferries", {"windows": 0})
        last = time.monotonic()
        time.sleep(1)  # the monitor's pace
    assert not pager.about("ferries", since=started + 1)

    _until(lambda: pager.about("ferries", since=last), 3 * span, "silence alerts")
    (at, message), *_ = pager.about("ferries", since=last)
    assert span - 1 < at - last < 2 * span
    assert "none since" not in message
    assert "[monitor].every" in message


def test_an_action_that_fails_is_notified(server: Server, pager: Pager) -> None:
    ensure_automations([], notify="custom-webhook/ops", api=server.api)
    broken = AutomationCore(
        name="trams degraded",
        trigger=EventTrigger(posture="Reactive", threshold=1, expect={"everloop.model.alert"}),
        actions=[RunDeployment(deployment_id=uuid4())],
    )
    with SyncPrefectClient(server.api) as client:
        made = client.create_automation(broken)

        def told() -> bool:
            server.emit("emit_alert", "trams", "anything")
            return bool(pager.about("the automation 'trams degraded' failed"))

        _until(told, 60, "the failure is notified", pause=1.5)
        client.delete_automation(made)
    (_, message), *_ = pager.about("'trams degraded' failed")
    assert "The run-deployment action" in message
    assert "is started by the next monitor run" in message


def test_without_a_block_an_alert_still_shows_in_the_event_feed(server: Server) -> None:
    ensure_automations([("trams", HOUR)], notify=None, api=server.api)
    resource = f"prefect.automation.{server.automations()['trams alerts']['id']}"
    before = len(server.events("prefect.automation.triggered", resource))

    def shown() -> bool:
        server.emit("emit_alert", "trams", "anything")
        return len(server.events("prefect.automation.triggered", resource)) > before

    _until(shown, 60, "the automation shows as triggered", pause=1.5)
    assert server.automations()["trams alerts"]["actions"] == [{"type": "do-nothing"}]


def test_an_automation_that_is_as_it_should_be_keeps_what_it_has_counted(server: Server, pager: Pager) -> None:
    ensure_automations([("trams", HOUR)], notify="custom-webhook/ops", api=server.api)
    first = server.automations()
    ensure_automations([("trams", HOUR)], notify="custom-webhook/ops", api=server.api)
    again = server.automations()
    # Prefect counts by trigger id, and an update gives a new one
    assert {name: made["trigger"]["id"] for name, made in first.items()} == {
        name: made["trigger"]["id"] for name, made in again.items()
    }
    assert again["trams monitor silent"]["trigger"]["within"] == 3 * 3600


def test_an_automation_follows_the_spec_and_stays_paused_if_a_person_paused_it(server: Server, pager: Pager) -> None:
    ensure_automations([("trams", HOUR), ("buses", HOUR)], notify=None, api=server.api)
    with SyncPrefectClient(server.api) as client:
        client.pause_automation(server.automations()["trams monitor silent"]["id"])

    ensure_automations([("trams", 2 * HOUR), ("buses", HOUR)], notify="custom-webhook/ops", api=server.api)

    found = server.automations()
    assert found["trams monitor silent"]["trigger"]["within"] == 6 * 3600
    assert found["trams monitor silent"]["actions"][0]["type"] == "send-notification"
    assert not found["trams monitor silent"]["enabled"]
    assert found["buses monitor silent"]["enabled"]


def test_the_automations_of_models_that_are_gone_are_removed_and_those_of_a_person_are_not(server: Server) -> None:
    ensure_automations([("trams", HOUR), ("buses", HOUR)], notify=None, api=server.api)
    own = AutomationCore(
        name="ferry monitor silent",
        trigger=EventTrigger(posture="Reactive", expect={"x"}),
        actions=[{"type": "do-nothing"}],
    )
    with SyncPrefectClient(server.api) as client:
        client.create_automation(own)

    ensure_automations([("buses", HOUR)], notify=None, api=server.api)

    assert set(server.automations()) == {FAILED, "buses alerts", "buses monitor silent", "ferry monitor silent"}


def test_what_another_project_on_the_server_has_made_stays_and_goes_on_sending(server: Server, pager: Pager) -> None:
    ensure_automations([("trams", HOUR)], notify="custom-webhook/ops", api=server.api)
    with SyncPrefectClient(server.api) as client:
        flow = client.create_flow_from_name("monitor")
        made = client.create_deployment(flow_id=flow, name="trams")

        ensure_automations([("buses", HOUR)], notify=None, api=server.api)
        kinds = {
            name: found["actions"][0]["type"] for name, found in server.automations().items() if "ferry" not in name
        }
        sends = dict.fromkeys(("trams alerts", "trams monitor silent", FAILED), "send-notification")
        assert kinds == sends | dict.fromkeys(("buses alerts", "buses monitor silent"), "do-nothing")

        client.delete_deployment(made)
        ensure_automations([("buses", HOUR)], notify=None, api=server.api)
        assert not {"trams alerts", "trams monitor silent"} & set(server.automations())


def test_a_block_that_is_not_on_the_server_is_refused_and_nothing_changes(server: Server, pager: Pager) -> None:
    before = server.automations()
    message = (
        "the notification block is 'slack-webhook/ops' and the Prefect server has custom-webhook/ops; "
        "it must be '<block type slug>/<block name>'"
    )
    with pytest.raises(EverloopError) as refused:
        ensure_automations([("new", HOUR)], notify="slack-webhook/ops", api=server.api)
    assert str(refused.value).startswith(message)
    assert server.automations() == before


@contextmanager
def _running(command: list[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A process that is ended with the context."""
    process = subprocess.Popen(command, **options)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def _is_ready(api: str) -> bool:
    try:
        return httpx.get(f"{api}/health", timeout=2).is_success
    except httpx.HTTPError:
        return False


def _until(holds: Callable[[], Any], seconds: float, what: str, *, pause: float = 0.2) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(pause)
