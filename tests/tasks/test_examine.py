"""Examine: which windows are judged, and what a window with too few rows is put together with."""

from __future__ import annotations

from datetime import UTC, datetime

import pandas as pd
import pytest

from everloop.adapters.registry import Version
from everloop.domain.decision import RetrainingDecision, decision_id
from everloop.domain.windows import Window
from tasks.collect import Collected
from tasks.examine import fill, is_pending
from tests.factories import make_decision, make_spec

CHAMPION = Version(model="bikes", number="2", run_id="r", source="s")
SERVED = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}|p"
SPEC = make_spec(monitor={"window": {"rows": 100}, "min_rows": 100})


def window_of(position: int, versions: str, *, labelled: int = 0) -> tuple[Window, pd.DataFrame]:
    """A window of ten rows for each letter of `versions`, of which the first have labels."""
    numbers = [number for number in versions for _ in range(10)]
    labels = [1.0] * labelled + [None] * (len(numbers) - labelled)
    rows = pd.DataFrame(
        {"model_version": numbers, "label": labels, "n": [f"{position}.{n}" for n in range(len(numbers))]}
    )
    return Window(
        id=f"w{position}", start="2024-03-01", end="2024-03-02", rows=len(rows), first=SERVED, last=SERVED
    ), rows


def collected(*versions: str) -> Collected:
    windows = tuple(window_of(position, text) for position, text in enumerate(versions))
    return Collected(windows, pd.concat([rows for _, rows in windows]), None)


def test_a_window_with_enough_rows_of_the_champion_stands_alone() -> None:
    found = collected("2222222222", "2222222222")
    filled = fill(*found.windows[1], found, SPEC, CHAMPION)
    assert (len(filled.rows), filled.before) == (100, ())


@pytest.mark.parametrize(
    ("windows", "merged", "rows"),
    [
        (("22222", "22222", "22"), 2, 120),
        (("22222", "2222222222", "22"), 1, 120),
        (("22222", "11111", "22"), 0, 20),
        (("22222", "1122222", "22"), 2, 120),
        (("22", "11"), 0, 0),
    ],
    ids=[
        "as many as needed",
        "no more than needed",
        "not over another version",
        "the champion's rows only",
        "nothing to fill",
    ],
)
def test_a_small_window_is_merged_with_those_before_it(windows: tuple[str, ...], merged: int, rows: int) -> None:
    found = collected(*windows)
    filled = fill(*found.windows[-1], found, SPEC, CHAMPION)
    assert (len(filled.before), len(filled.all_rows)) == (merged, rows)
    assert set(filled.all_rows["model_version"]) <= {"2"}


def test_merged_rows_keep_their_order() -> None:
    found = collected("2", "2", "2")
    names = fill(*found.windows[2], found, SPEC, CHAMPION).all_rows["n"].tolist()
    assert names == [f"{window}.{row}" for window in range(3) for row in range(10)]


def known(
    version: str = "2", *, labelled: int = 80, published: bool = True, last: str | None = None
) -> list[RetrainingDecision]:
    """The decision about window 0, made when `last` was its newest row, if given, and `labelled` of 100 had labels."""
    made = make_decision("none")
    window, _ = window_of(0, "2222222222")
    window = window.model_copy(update={"last": last or window.last})
    performance = made.performance.model_copy(
        update={"verdict": "ok", "reason_code": "loss_within_margin", "rows": 100, "labelled": labelled}
    )
    changes = {"id": decision_id("bikes", window), "version": version, "window": window, "performance": performance}
    changes |= {"labelled_rows": labelled}
    return [made.model_copy(update={**changes, "published": published})]


@pytest.mark.parametrize(
    ("decisions", "labelled", "expected"),
    [
        ([], 0, True),
        (known(), 84, False),
        (known(), 85, True),
        (known("1"), 100, False),
        (known(published=False), 80, True),
        (known(labelled=100), 100, False),
        (known(last="2024-03-02T00:00:00|p", labelled=100), 100, True),
        (known("1", last="2024-03-02T00:00:00|p"), 100, False),
    ],
    ids=[
        "new",
        "few labels",
        "enough new labels",
        "of another version",
        "not said",
        "all labels were there",
        "rows came late",
        "late for another version",
    ],
)
def test_a_window_is_judged_if_it_is_new_not_said_or_its_labels_may_change_it(
    decisions: list[RetrainingDecision], labelled: int, expected: bool
) -> None:
    by_id = {decision.id: decision for decision in decisions}
    assert is_pending(*window_of(0, "2222222222", labelled=labelled), CHAMPION, by_id, SPEC) is expected
