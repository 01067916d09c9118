"""Decide: what is stored, and what a person is told of it, once for each thing to look at."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from everloop.adapters.decisions import DecisionStore
from everloop.adapters.registry import Version
from everloop.domain.decision import Past, RetrainingDecision
from everloop.domain.reference import MonitoringReference
from everloop.domain.summaries import ProfileSummary
from everloop.domain.usage import Spike, UsageReport
from tasks.decide import decide
from tasks.watch import Watched
from tests.domain.examples import a_window, seen_of
from tests.factories import make_model, make_spec

SPEC = make_spec(monitor={"window": {"rows": 100}, "persistence": "1 of 1", "on_degradation": "alert"})
WATCHED = Watched(
    Version(model="bikes", number="1", run_id="r", source="s"),
    make_model().manifest,
    MonitoringReference(),
    ProfileSummary(rows=0),
)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DecisionStore:
    found = DecisionStore(f"sqlite:///{tmp_path / 'decisions.db'}", lease=timedelta(hours=1))
    monkeypatch.setattr("tasks.decide.decisions", lambda: found)
    return found


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[UUID, str]]:
    """The alerts that went out: the id of the event, and its reason."""
    events: list[tuple[UUID, str]] = []
    monkeypatch.setattr(
        "prefect.events.emit_event", lambda event, id, resource, payload: events.append((id, payload["reason"]))
    )
    return events


def judged(store: DecisionStore, loss: str, drift: str, **more: Any) -> RetrainingDecision:
    """The decision about day 0, which is published afterwards."""
    made = stored(loss, drift, **more)
    store.mark_published(made.id)
    return made


def stored(loss: str, drift: str, **more: Any) -> RetrainingDecision:
    """The decision about day 0 after which the monitor dies."""
    step: Any = decide
    made: RetrainingDecision = step.fn(SPEC, WATCHED, a_window(0), seen_of(loss, drift, **more), Past())
    return made


def used(*spikes: tuple[int, str]) -> UsageReport:
    """A report of a spike at each hour of the day."""
    found = tuple(
        Spike(hour=datetime(2024, 1, 1, hour), what="errors", value=9, typical=1, score=9, sentence=sentence)
        for hour, sentence in spikes
    )
    verdict: Any = "irregular" if found else "ok"
    return UsageReport(verdict=verdict, reason="", spikes=found, hours=24, rows=0, requests=0, errors=0)


def test_an_alert_is_told_once_and_again_when_there_is_more_to_look_at(
    store: DecisionStore, told: list[tuple[UUID, str]]
) -> None:
    first = judged(store, ".", "S")
    assert (first.action, first.asks) == ("alert", ("drift",))
    judged(store, ".", "S")
    assert len(told) == 1, "the same, judged again"
    more = judged(store, "D", "S")
    assert more.asks == ("degradation", "drift")
    assert len(told) == 2, "labels came, and the loss has risen as well"
    assert "loss" in told[1][1]
    judged(store, ".", "S")
    assert len(told) == 2, "less than was said"


def test_another_spike_of_the_same_kind_is_another_alert(store: DecisionStore, told: list[tuple[UUID, str]]) -> None:
    for usage in (used((9, "9 errors at 9:00")), used((9, "9 errors at 9:00"), (10, "9 errors at 10:00"))):
        judged(store, ".", ".", usage=usage)
    assert [reason for _, reason in told] == ["9 errors at 9:00", "9 errors at 10:00"]


def test_what_a_person_was_asked_stays_with_the_decision_when_it_is_judged_again(
    store: DecisionStore, told: list[tuple[UUID, str]]
) -> None:
    judged(store, ".", ".", usage=used((9, "9 errors at 9:00")))
    again = judged(store, ".", ".")
    assert (again.action, again.reason_codes) == ("none", ("nothing_found",))
    assert [alert.sentence for alert in store.get(again.id).alerts] == ["9 errors at 9:00"]
    assert len(told) == 1


def test_an_alert_that_may_not_have_gone_out_goes_out_under_the_same_id(
    store: DecisionStore, told: list[tuple[UUID, str]]
) -> None:
    judged(store, ".", "S")
    stored(".", "S", usage=used((9, "9 errors at 9:00")))
    judged(store, ".", ".")
    (drift, _), (errors, _), *again = told
    assert [key for key, _ in again] == [drift, errors]
