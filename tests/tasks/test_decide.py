"""Decide: what is stored, and what a person is told of it, once for each thing to look at."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from everloop.adapters.decisions import DecisionStore
from everloop.adapters.registry import Version
from everloop.domain.decision import Past, RetrainingDecision
from everloop.domain.reference import MonitoringReference
from everloop.domain.summaries import ProfileSummary
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
def told(monkeypatch: pytest.MonkeyPatch) -> list[RetrainingDecision]:
    """The decisions whose event went out."""
    events: list[RetrainingDecision] = []
    monkeypatch.setattr("tasks.decide.emit_decision", lambda decision, report: events.append(decision))
    return events


def judged(store: DecisionStore, loss: str, drift: str) -> RetrainingDecision:
    """The decision about day 0, which is published afterwards."""
    step: Any = decide
    made: RetrainingDecision = step.fn(SPEC, WATCHED, a_window(0), seen_of(loss, drift), Past())
    store.mark_published(made.id)
    return made


def test_an_alert_is_told_once_and_again_when_there_is_more_to_look_at(
    store: DecisionStore, told: list[RetrainingDecision]
) -> None:
    first = judged(store, ".", "S")
    assert (first.action, first.asks) == ("alert", ("drift",))
    judged(store, ".", "S")
    assert len(told) == 1, "the same, judged again"
    more = judged(store, "D", "S")
    assert more.asks == ("degradation", "drift")
    assert len(told) == 2, "labels came, and the loss has risen as well"
    judged(store, ".", "S")
    assert len(told) == 2, "less than was said"
