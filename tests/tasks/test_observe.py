"""Observe: an alarm about the surroundings is one event an hour for each thing that is wrong, whatever its words."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from everloop.adapters.decisions import DecisionStore
from everloop.domain.checks import Finding
from everloop.domain.decision import Alert
from everloop.domain.dependencies import DependencyReport, SourceState
from everloop.domain.usage import Spike, UsageReport
from tasks.observe import Surroundings, raise_alarm
from tests.factories import make_decision, make_spec


def surroundings(rule: str, message: str) -> Surroundings:
    finding = Finding(column="source", rule=rule, severity="error", message=message)
    report = DependencyReport(verdict="fail", reason=message, findings=(finding,))
    usage = UsageReport.model_construct(verdict="ok", spikes=())
    return Surroundings(
        pd.Timestamp("2024-03-01"), SourceState(reachable=True, reason="as it is"), report, usage, datetime(2024, 3, 1)
    )


@pytest.fixture
def store(tmp_path: Path) -> DecisionStore:
    return DecisionStore(f"sqlite:///{tmp_path / 'decisions.db'}", lease=timedelta(hours=1))


def test_the_same_thing_is_one_event_although_its_age_grows(
    monkeypatch: pytest.MonkeyPatch, store: DecisionStore
) -> None:
    events: list[str | None] = []
    monkeypatch.setattr("tasks.observe.emit_alert", lambda _model, _reason, *, once: events.append(once))
    monkeypatch.setattr("tasks.observe.decisions", lambda: store)
    step: Any = raise_alarm
    for rule, message in (("is fresh", "10 hours old"), ("is fresh", "11 hours old"), ("is there", "it is gone")):
        step.fn(make_spec(), surroundings(rule, message))
    things = [str(once).split("@")[0] for once in events]
    assert things == ["dependencies.source.is fresh", "dependencies.source.is there"]


def test_a_spike_that_the_newest_decision_has_told_is_not_told_again(
    monkeypatch: pytest.MonkeyPatch, store: DecisionStore
) -> None:
    monkeypatch.setattr("tasks.observe.decisions", lambda: store)
    monkeypatch.setattr("tasks.observe.emit_alert", lambda *_, **__: None)
    spike = Spike(hour=datetime(2024, 3, 1, 9), what="errors", value=9, typical=1, score=9, sentence="9 errors at 9:00")
    calm = surroundings("is there", "it is there")
    seen = replace(
        calm,
        usage=calm.usage.model_copy(update={"spikes": (spike,)}),
        dependencies=calm.dependencies.model_copy(update={"verdict": "ok"}),
    )
    told = make_decision("alert").model_copy(update={"alerts": (Alert(about=spike.about, sentence=spike.sentence),)})
    step: Any = raise_alarm
    assert step.fn(make_spec(), seen, told) == []
    assert step.fn(make_spec(), seen, make_decision("none")) == [spike.sentence]
    assert step.fn(make_spec(), seen, None) == []
