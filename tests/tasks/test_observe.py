"""Observe: an alarm about the surroundings is one event an hour for each thing that is wrong, whatever its words."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pandas as pd
import pytest

from everloop.domain.checks import Finding
from everloop.domain.dependencies import DependencyReport, SourceState
from everloop.domain.usage import UsageReport
from tasks.observe import Surroundings, raise_alarm
from tests.factories import make_spec


def surroundings(rule: str, message: str) -> Surroundings:
    finding = Finding(column="source", rule=rule, severity="error", message=message)
    report = DependencyReport(verdict="fail", reason=message, findings=(finding,))
    usage = UsageReport.model_construct(verdict="ok", spikes=())
    return Surroundings(
        pd.Timestamp("2024-03-01"), SourceState(reachable=True, reason="as it is"), report, usage, datetime(2024, 3, 1)
    )


def test_the_same_thing_is_one_event_although_its_age_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str | None] = []
    monkeypatch.setattr("tasks.observe.emit_alert", lambda _model, _reason, *, once: events.append(once))
    step: Any = raise_alarm
    for rule, message in (("is fresh", "10 hours old"), ("is fresh", "11 hours old"), ("is there", "it is gone")):
        step.fn(make_spec(), surroundings(rule, message))
    things = [str(once).split("@")[0] for once in events]
    assert things == ["dependencies.source.is fresh", "dependencies.source.is fresh", "dependencies.source.is there"]
