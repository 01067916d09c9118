"""Tests of everloop/domain/replay_timeline.py: windows, simulated time, and when labels are known."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise

import pandas as pd
import pytest
from pydantic import ValidationError

from everloop.domain.errors import NotEnoughData, SpecError
from everloop.domain.replay_timeline import ReplayPlan, lay_out


def hours(rows: int) -> pd.DataFrame:
    return pd.DataFrame({"t": pd.date_range("2024-01-01", periods=rows, freq="h"), "x": range(rows)})


def test_windows_follow_the_initial_rows_without_gap_or_overlap() -> None:
    timeline = lay_out(hours(1003), "t", ReplayPlan(initial=0.2, windows=7))
    assert timeline.initial == 201
    assert timeline.stretches[0].first == 201
    assert timeline.stretches[-1].last == 1003
    assert [one.last for one in timeline.stretches[:-1]] == [one.first for one in timeline.stretches[1:]]
    assert sum(one.window.rows for one in timeline.stretches) == 802


def test_row_windows_leave_an_incomplete_rest_out() -> None:
    timeline = lay_out(hours(250), "t", ReplayPlan(initial=0.4, window_rows=40))
    assert [(one.first, one.last) for one in timeline.stretches] == [(100, 140), (140, 180), (180, 220)]


def test_span_windows_are_cut_at_multiples_of_the_span() -> None:
    timeline = lay_out(hours(100), "t", ReplayPlan(initial=0.3, window_span="1d"))
    assert [one.window.end for one in timeline.stretches] == [f"2024-01-0{day}T00:00:00" for day in (3, 4, 5, 6)]
    assert [one.window.rows for one in timeline.stretches] == [18, 24, 24, 4]


def test_without_a_time_column_a_window_counts_as_a_day() -> None:
    timeline = lay_out(hours(1000), None, ReplayPlan(windows=10))
    ends = [datetime.fromisoformat(one.window.end) for one in timeline.stretches]
    assert all(after - before == timedelta(days=1) for before, after in pairwise(ends))


def test_labels_are_known_at_once_without_a_delay() -> None:
    timeline = lay_out(hours(100), "t", ReplayPlan(windows=4))
    assert timeline.known == tuple(one.last for one in timeline.stretches)


def test_a_delay_in_windows_holds_the_labels_of_the_newest_windows_back() -> None:
    timeline = lay_out(hours(100), "t", ReplayPlan(windows=4, label_delay=2))
    assert timeline.known == (20, 20, timeline.stretches[0].last, timeline.stretches[1].last)


def test_a_delay_in_time_holds_back_the_labels_of_rows_that_are_younger() -> None:
    timeline = lay_out(hours(100), "t", ReplayPlan(windows=4, label_delay="10h"))
    for known, stretch in zip(timeline.known, timeline.stretches, strict=True):
        assert known == stretch.last - 10


def test_without_a_time_column_a_delay_of_a_day_is_a_delay_of_a_window() -> None:
    timeline = lay_out(hours(100), None, ReplayPlan(windows=4, label_delay="1d"))
    assert timeline.known == pytest.approx((20, 40, 60, 80), abs=1)


def test_spans_without_a_time_column_are_refused() -> None:
    with pytest.raises(SpecError, match="windows of 1d are asked for and the spec has no time column; cut by rows"):
        lay_out(hours(100), None, ReplayPlan(window_span="1d"))


def test_a_single_window_is_refused() -> None:
    with pytest.raises(NotEnoughData, match="80 rows after the first 20 make 1 windows, at least 2 are required"):
        lay_out(hours(100), "t", ReplayPlan(window_rows=80))


def test_two_ways_to_cut_are_refused() -> None:
    with pytest.raises(ValidationError, match="both were given; leave one out"):
        ReplayPlan(window_rows=10, window_span="1d")


def test_a_negative_delay_is_refused() -> None:
    with pytest.raises(ValidationError, match="the label delay is -1 windows"):
        ReplayPlan(label_delay=-1)
