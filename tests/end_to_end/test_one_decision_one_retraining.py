"""Killing the monitor, the training run or the worker between any two steps: never twice, never forgotten."""

from __future__ import annotations

import asyncio
import signal
from datetime import timedelta

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled

from everloop.adapters.decisions import DecisionStore
from everloop.adapters.registry import Registry
from everloop.domain.decision import RetrainingDecision
from everloop.domain.errors import DecisionTaken
from tests.end_to_end.conftest import MODEL, Loop
from tests.end_to_end.test_parts_die import wait_until

KILLED = -signal.SIGKILL


@pytest.fixture
def store(loop: Loop) -> DecisionStore:
    """The loop's decisions."""
    return DecisionStore(loop.settings.database, lease=timedelta(seconds=loop.settings.lease_seconds))


@pytest.mark.timeout(600)
def test_one_decision_leads_to_one_retraining_whatever_dies(loop: Loop, store: DecisionStore) -> None:
    registry = Registry(loop.settings.mlflow)
    versions_before = len(registry.versions(MODEL))
    loop.stack.stop_part("worker")
    _degrade(loop)

    assert _run(loop, "before:everloop.adapters.decisions:DecisionStore.store", "monitor") == KILLED
    assert not _fired(store), "the monitor died before it stored the decision"

    assert _run(loop, "before:tasks.decide:emit_decision", "monitor") == KILLED
    (decision,) = _fired(store)
    assert _training_runs(loop, decision.id) == [], "stored, and the event never went out"

    assert _run(loop, "never", "monitor") == 0
    assert len(_training_runs(loop, decision.id)) == 1, "the next monitor swept it"
    assert _run(loop, "never", "monitor") == 0
    assert len(_training_runs(loop, decision.id)) == 1, "sweeping again names the same run"
    _cancel(loop, decision.id)
    assert _run(loop, "never", "monitor") == 0
    runs = _training_runs(loop, decision.id)
    assert len(runs) == 2, "one that ended before it began its work is followed by another"
    assert sum(not run.state.is_final() for run in runs if run.state) == 1

    claim = f"decision={decision.id}"
    assert _run(loop, "after:everloop.adapters.decisions:DecisionStore.claim", "train", claim) == KILLED
    with pytest.raises(DecisionTaken, match="held by another run"):
        store.claim(decision.id, "another run")
    assert len(registry.versions(MODEL)) == versions_before

    _wait_for_lease(store, decision.id)
    assert _run(loop, "after:flows.train:challenge", "train", claim) == KILLED
    made = registry.of_decision(MODEL, decision.id)
    assert made is not None
    assert made.tags["verdict"] == "pass"

    _wait_for_lease(store, decision.id)
    assert _run(loop, "after:everloop.adapters.registry:Registry.promote", "train", claim) == KILLED
    champion = registry.champion(MODEL)
    assert champion is not None
    assert champion.number == made.number, "the alias had moved when the run died"

    _wait_for_lease(store, decision.id)
    assert _run(loop, "never", "train", claim) == 0
    assert "is live" in str(store.get(decision.id).outcome)
    assert len(registry.versions(MODEL)) == versions_before + 1, "four runs, one retraining"

    loop.stack.start_part("worker")
    wait_until(lambda: all(run.state.is_final() for run in _training_runs(loop, decision.id) if run.state), seconds=120)
    assert len(registry.versions(MODEL)) == versions_before + 1, "the swept run found the decision finished"
    assert store.forgotten(MODEL, older_than=timedelta(0)) == []


@pytest.mark.timeout(300)
def test_the_same_event_twice_starts_one_retraining(loop: Loop, store: DecisionStore) -> None:
    registry = Registry(loop.settings.mlflow)
    versions_before = len(registry.versions(MODEL))
    (decision,) = _fired(store)
    payload = {"decision": decision.id, "reason": "again", "window": "the same"}
    runs_before = len(_training_runs(loop, decision.id))
    # a server that was killed fires an event again; two ids, because one that it remembers it would keep once
    loop.run(
        "-c",
        "from prefect.events import emit_event; from everloop.adapters.orchestrator import DEGRADED, resource_of\n"
        f"for _ in range(2): emit_event(event=DEGRADED, resource=resource_of({MODEL!r}), payload={payload!r})",
    )
    wait_until(lambda: len(_training_runs(loop, decision.id)) >= runs_before + 2)
    wait_until(lambda: all(run.state.is_final() for run in _training_runs(loop, decision.id) if run.state), seconds=120)
    new = [run for run in _training_runs(loop, decision.id) if run.created_by and run.created_by.type == "AUTOMATION"]
    assert len(new) == 2
    assert all(run.state and run.state.is_completed() for run in new)
    assert len(registry.versions(MODEL)) == versions_before


def _degrade(loop: Loop) -> None:
    """Six windows of traffic whose labels are three times what the model learned."""
    replay = loop.replay(loop.future.iloc[:600].assign(cnt=lambda rows: rows["cnt"] * 3))
    while not replay.is_done:
        replay.send(50)
    replay.close()
    assert replay.failed == 0


def _run(loop: Loop, step: str, flow: str, *pairs: str) -> int:
    done = loop.run("-m", "tests.end_to_end.killed", step, flow, f"model={MODEL}", *pairs, check=False)
    assert done.returncode in (0, KILLED), done.stdout[-2000:] + done.stderr[-3000:]
    return done.returncode


def _fired(store: DecisionStore) -> list[RetrainingDecision]:
    return [decision for decision in store.list(MODEL) if decision.action == "retrain"]


def _wait_for_lease(store: DecisionStore, decision: str) -> None:
    """Return when the dead holder's lease has ended."""
    wait_until(lambda: decision in [found for found, _ in store.forgotten(MODEL, older_than=timedelta(0))], seconds=30)


def _cancel(loop: Loop, decision: str) -> None:
    """The run that waits for the worker is cancelled, as a person does it in the UI."""
    (run,) = _training_runs(loop, decision)

    async def cancel() -> None:
        async with get_client() as client:
            await client.set_flow_run_state(run.id, Cancelled(), force=True)

    with temporary_settings({PREFECT_API_URL: loop.settings.prefect_api}):
        asyncio.run(cancel())


def _training_runs(loop: Loop, decision: str) -> list[FlowRun]:
    """The runs of deployment train/bike-demand for `decision`."""

    async def read() -> list[FlowRun]:
        async with get_client() as client:
            deployment = await client.read_deployment_by_name(f"train/{MODEL}")
            runs = await client.read_flow_runs(limit=200)
            return [
                run for run in runs if run.deployment_id == deployment.id and run.parameters.get("decision") == decision
            ]

    with temporary_settings({PREFECT_API_URL: loop.settings.prefect_api}):
        return asyncio.run(read())
