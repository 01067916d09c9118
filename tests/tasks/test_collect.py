"""Collect: the monitor reads what may still change a decision, and no more."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from everloop.domain.decision import RetrainingDecision
from everloop.domain.monitor_spec import MonitorSpec, RowWindow, SpanWindow
from everloop.domain.windows import Window
from tasks.collect import is_open, resume_after
from tests.factories import make_decision

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
