"""Tests of everloop/domain/replay_alarms.py: false and missed alarms around given change points."""

from __future__ import annotations

import pandas as pd
import pytest

from everloop.domain.errors import SpecError
from everloop.domain.replay_alarms import count_alarms, window_of
from everloop.domain.replay_timeline import ReplayPlan, lay_out
from tests.domain.examples import a_history


def alarms(text: str) -> list[bool]:
    return [letter == "A" for letter in text]


def test_an_alarm_before_any_change_is_false() -> None:
    found = count_alarms(alarms("..A....AA."), [6], within=3)
    assert (found.alarms, found.false_alarms, found.missed, found.waited) == (3, 1, 0, (1,))


def test_an_alarm_long_after_the_change_neither_explains_nor_detects_it() -> None:
    found = count_alarms(alarms("..........A"), [2], within=5)
    assert (found.false_alarms, found.missed, found.waited) == (1, 1, (None,))


def test_an_alarm_belongs_to_the_change_before_it() -> None:
    assert count_alarms(alarms("....A....."), [1, 3], within=5).waited == (None, 1)


def test_without_alarms_every_change_is_missed() -> None:
    found = count_alarms(alarms("......"), [1, 4], within=5)
    assert (found.alarms, found.false_alarms, found.missed) == (0, 0, 2)


@pytest.mark.parametrize(("change", "window"), [("2", 2), ("row:55", 1), ("2024-01-04T12:00", 3), ("2024-01-02", 0)])
def test_a_change_point_is_a_window_a_row_or_a_time(change: str, window: int) -> None:
    timeline = lay_out(a_history(100), "t", ReplayPlan(windows=4))
    assert window_of(change, timeline, has_time=True) == window


def test_a_change_on_the_edge_of_two_windows_belongs_to_the_later_one() -> None:
    timeline = lay_out(a_history(100), "t", ReplayPlan(window_span="1d"))
    first, second = timeline.stretches[:2]
    assert window_of(second.window.start, timeline, has_time=True) == second.index
    assert first.window.end == second.window.start


@pytest.mark.parametrize("window_rows", [30, 50])
def test_a_day_on_which_several_windows_begin_is_the_window_with_its_first_row(window_rows: int) -> None:
    rows = a_history(1000)
    rows["t"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(rows.index // 100, unit="D")
    timeline = lay_out(rows, "t", ReplayPlan(window_rows=window_rows))
    assert window_of("2024-01-06", timeline, has_time=True) == window_of("row:500", timeline, has_time=True)


@pytest.mark.parametrize(
    ("change", "has_time", "message"),
    [
        ("17", True, "change point '17' lies outside of the replay: 4 windows, rows 20 to 99"),
        ("row:5", True, "lies outside"),
        ("2020-01-01", True, "lies outside"),
        ("2030-01-01", True, "lies outside"),
        ("soon", True, "write the number of a window such as 12, row:9000, or an event time"),
        ("2024-01-04", False, "the spec has no time column"),
    ],
)
def test_a_change_point_that_cannot_be_placed_is_refused(change: str, has_time: bool, message: str) -> None:
    timeline = lay_out(a_history(100), "t", ReplayPlan(windows=4))
    with pytest.raises(SpecError, match=message):
        window_of(change, timeline, has_time=has_time)
