"""Collect: the monitor reads what may still change a decision, and no more."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from everloop.domain.decision import RetrainingDecision
from everloop.domain.monitor_spec import MonitorSpec, RowWindow, SpanWindow
from everloop.domain.windows import Window
from tasks.collect import Collected, collect, is_open, open_since, resume_after
from tests.factories import make_decision, make_spec

ROWS = 100
POLICY = MonitorSpec(window=RowWindow(rows=ROWS), min_rows=100, max_label_delay="30d")


def decided(
    position: int, *, days_ago: float = 1, labelled: int = ROWS, action: Any = "none", **became: Any
) -> RetrainingDecision:
    """The published decision about the row window at `position`, whose last row was served some days ago."""
    served = datetime.now(UTC).replace(tzinfo=None) - timedelta(days=days_ago)
    place = f"{served:%Y-%m-%dT%H:%M:%S.%f}|p{position}"
    window = Window(
        id=f"rows-{position}",
        start="2024-03-01",
        end="2024-03-02",
        rows=ROWS,
        first=place,
        last=place,
        before=position * ROWS,
    )
    made = make_decision(action)
    performance = made.performance.model_copy(update={"rows": ROWS, "labelled": labelled})
    changes = {"window": window, "performance": performance, "published": True, **became}
    return made.model_copy(update=changes)


@pytest.mark.parametrize(
    ("decision", "expected"),
    [
        (decided(0), False),
        (decided(0, labelled=90), True),
        (decided(0, labelled=90, days_ago=31), False),
        (decided(0, labelled=90, action="retrain"), False),
        (decided(0, published=False), True),
        (decided(0, published=False, action="retrain", days_ago=400), True),
    ],
    ids=["all labels are in", "some are missing", "too late", "it has fired", "not said yet", "fired and not said yet"],
)
def test_a_decision_is_open_while_it_is_not_said_or_labels_may_change_it(
    decision: RetrainingDecision, expected: bool
) -> None:
    assert is_open(decision, POLICY) is expected


def test_before_there_are_settled_windows_everything_is_read() -> None:
    assert resume_after([], POLICY) is None
    assert resume_after([decided(0, labelled=50)], POLICY) is None


@pytest.mark.parametrize(("min_rows", "last"), [(20, 4), (100, 4), (101, 2), (250, 1), (600, None)])
def test_windows_go_on_after_the_last_settled_one_but_for_those_that_small_ones_merge_with(
    min_rows: int, last: int | None
) -> None:
    known = [decided(position) for position in range(5)]
    after = resume_after(known, POLICY.model_copy(update={"min_rows": min_rows}))
    assert (after and after.before) == (None if last is None else last * ROWS)


def test_nothing_after_an_open_window_is_settled() -> None:
    known = [decided(position, labelled=50 if position == 3 else ROWS) for position in range(8)]
    after = resume_after(known, POLICY)
    assert after is not None
    assert after.before == 2 * ROWS


def test_windows_of_another_size_and_spans_are_not_gone_on_from() -> None:
    known = [decided(position) for position in range(6)]
    assert resume_after(known, POLICY.model_copy(update={"window": RowWindow(rows=60)})) is None
    assert resume_after(known, POLICY.model_copy(update={"window": SpanWindow(span="1d")})) is None


A_DAY = 30  # rows served a day
TODAY = datetime.now(UTC).replace(tzinfo=None, hour=0, minute=0, second=0, microsecond=0)
DAILY = make_spec(monitor={"window": {"span": "1d"}, "min_rows": 20})


def serve(folder: Path, *, served: datetime, event: datetime, rows: int) -> None:
    """A segment of the log with so many rows, served and of an event time from these moments on, a minute apart."""
    lines = []
    for minute in range(rows):
        name = f"p{served:%Y%m%d}-{minute}"
        row = {"id": name, "when": f"{event + timedelta(minutes=minute):%Y-%m-%dT%H:%M:%S}", "temp": 1.0}
        answer = {"predictions": [1.0], "prediction_ids": [name], "model_version": "1"}
        at = f"{served + timedelta(minutes=minute):%Y-%m-%dT%H:%M:%S.%f}"
        lines.append({"at": at, "request_id": name, "ms": 1.0, "answer": answer, "request": {"rows": [row]}})
    path = folder / "inference" / "bikes" / f"date={served:%Y-%m-%d}" / f"host-{event:%Y%m%d}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Collects what was served on the nine days before today and under `tmp_path` since, given the known decisions."""
    for day in range(9, 0, -1):
        serve(tmp_path, served=TODAY - timedelta(days=day), event=TODAY - timedelta(days=day), rows=A_DAY)
    here = SimpleNamespace(inference=tmp_path / "inference", labels=tmp_path / "labels")
    monkeypatch.setattr("tasks.collect.settings", lambda: here)
    watched: Any = SimpleNamespace(
        version=SimpleNamespace(number="1"), manifest=SimpleNamespace(row_schema=SimpleNamespace(names=()))
    )
    step: Any = collect
    return lambda known: step.fn(DAILY, watched, known, None)


def settled(found: Collected) -> list[RetrainingDecision]:
    """Published decisions about all windows, which have all their labels."""
    made = make_decision("none")
    known = []
    for window, rows in found.windows:
        performance = made.performance.model_copy(update={"rows": len(rows), "labelled": len(rows)})
        changes = {"window": window, "performance": performance, "published": True, "id": f"bikes/{window.id}"}
        known.append(made.model_copy(update=changes))
    return sorted(known, key=lambda decision: decision.window.last or "")


def test_settled_days_are_not_read_again(found: Any) -> None:
    known = settled(found([]))
    assert len(known) == 9
    assert open_since(known, DAILY.monitor) == f"{TODAY - timedelta(days=DAILY.monitor.recent):%Y-%m-%d}"
    assert len(found(known).windows) == DAILY.monitor.recent + 1, (
        "and the day before: a segment is filed under the day on which it was opened"
    )


@pytest.mark.parametrize("days", [6, 9], ids=["in the middle", "the first there is"])
def test_a_settled_day_that_rows_come_for_later_is_read_whole_again(tmp_path: Path, found: Any, days: int) -> None:
    known = settled(found([]))
    late = TODAY - timedelta(days=days) + timedelta(hours=12)
    serve(tmp_path, served=TODAY, event=late, rows=2)

    again = {window.id: (window, len(rows)) for window, rows in found(known).windows}

    window, rows = again[f"{late:%Y%m%d}T000000-1d"]
    assert rows == A_DAY + 2
    (missed,) = [
        decision
        for decision in known
        if decision.window.id in again and decision.has_missed(again[decision.window.id][0])
    ]
    assert missed.window.id == window.id
    judged = [
        decision if decision is not missed else decision.model_copy(update={"window": window}) for decision in known
    ]
    judged.sort(key=lambda decision: decision.window.last or "")
    assert not any(
        decision.has_missed(again[decision.window.id][0]) for decision in judged if decision.window.id in again
    )
