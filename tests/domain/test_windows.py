from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everloop.domain.monitor_spec import RowWindow, SpanWindow
from everloop.domain.spec_values import parse_duration
from everloop.domain.windows import Window, anchor_of, cut_windows

LATER = pd.Timestamp("2030-01-01")
hours_of_a_month = st.lists(st.integers(0, 24 * 30), max_size=60)


def captured(*hours: float) -> pd.DataFrame:
    """Predictions in the order of capture, each at so many hours after the start of 2024."""
    times = pd.Timestamp("2024-01-01") + pd.to_timedelta(list(hours), unit="h")
    served = pd.Timestamp("2024-02-01") + pd.to_timedelta(range(len(hours)), unit="s")
    names = [f"p{position:04d}" for position in range(len(hours))]
    return pd.DataFrame({"event_time": times, "served_at": served, "prediction_id": names, "n": range(len(hours))})


def cut(
    frame: pd.DataFrame, shape: RowWindow | SpanWindow, at: pd.Timestamp = LATER
) -> list[tuple[Window, pd.DataFrame]]:
    return list(cut_windows(frame, shape, at=at))


def test_row_windows_follow_the_order_of_capture_and_leave_an_incomplete_rest() -> None:
    first, second = cut(captured(*range(149, -1, -1)), RowWindow(rows=60))
    assert [first[0].id, second[0].id] == ["rows-000000000-000000059", "rows-000000060-000000119"]
    assert first[1]["n"].tolist() == list(range(60))
    assert second[1]["n"].tolist() == list(range(60, 120))


def test_a_row_window_spans_the_event_times_of_its_rows() -> None:
    ((window, _),) = cut(captured(30, *range(48), 29), RowWindow(rows=50))
    assert window == Window(
        id="rows-000000000-000000049",
        start="2024-01-01T00:00:00",
        end="2024-01-02T23:00:00",
        rows=50,
        first="2024-02-01T00:00:00.000000|p0000",
        last="2024-02-01T00:00:49.000000|p0049",
        before=0,
    )


@given(hours_of_a_month, st.integers(0, 4))
def test_row_windows_go_on_after_a_known_one_whether_the_rows_before_it_are_there_or_not(
    hours: list[int], known: int
) -> None:
    frame, shape = captured(*range(130), *hours), RowWindow(rows=50)
    everything = [window for window, _ in cut(frame, shape)]
    after = everything[min(known, len(everything) - 1)]
    assert after.before is not None
    later = everything[everything.index(after) + 1 :]
    for rows in (frame, frame.iloc[after.before + 7 :]):
        assert [window for window, _ in cut_windows(rows, shape, at=LATER, after=after)] == later


def test_the_anchor_is_the_row_window_that_ends_last_and_of_the_same_size() -> None:
    windows = [window for window, _ in cut(captured(*range(200)), RowWindow(rows=50))]
    assert anchor_of([windows[2], windows[0], windows[1]], RowWindow(rows=50)) == windows[2]
    assert anchor_of(windows, RowWindow(rows=60)) is None
    assert anchor_of(windows, SpanWindow(span="1d")) is None
    assert anchor_of([], RowWindow(rows=50)) is None


@pytest.mark.parametrize(("rows", "windows"), [(0, 0), (49, 0), (50, 1), (99, 1), (100, 2)])
def test_only_full_row_windows_are_cut(rows: int, windows: int) -> None:
    assert len(cut(captured(*range(rows)), RowWindow(rows=50))) == windows


def test_span_windows_are_cut_at_multiples_of_the_span_in_time_order() -> None:
    (early, early_rows), (late, late_rows) = cut(captured(30, 5, 23.99, 24), SpanWindow(span="1d"))
    assert (early.id, early.rows, early.before) == ("20240101T000000-1d", 2, None)
    assert (early.start, early.end) == ("2024-01-01T00:00:00", "2024-01-02T00:00:00")
    assert (early.first, early.served_from) == ("2024-02-01T00:00:01.000000|p0001", "2024-02-01T00:00:01.000000")
    assert late.start == early.end
    assert (early_rows["n"].tolist(), late_rows["n"].tolist()) == ([1, 2], [0, 3])


def test_a_span_window_starts_at_its_multiple_and_not_at_its_first_row() -> None:
    ((window, _),) = cut(captured(7.5), SpanWindow(span="6h"))
    assert (window.id, window.start) == ("20240101T060000-6h", "2024-01-01T06:00:00")


@pytest.mark.parametrize(("at", "windows"), [("2024-01-01T23:59:59", 0), ("2024-01-02", 1), ("2024-01-02T00:00:01", 1)])
def test_a_span_window_is_complete_when_it_has_ended(at: str, windows: int) -> None:
    assert len(cut(captured(1, 2), SpanWindow(span="1d"), at=pd.Timestamp(at))) == windows


def test_empty_spans_make_no_window() -> None:
    starts = [window.start for window, _ in cut(captured(0, 72), SpanWindow(span="1d"))]
    assert starts == ["2024-01-01T00:00:00", "2024-01-04T00:00:00"]
    assert cut(captured(), SpanWindow(span="1d")) == []


@settings(max_examples=40)
@given(hours_of_a_month, st.sampled_from(["1h", "6h", "1d", "36h", "1w"]))
def test_ended_span_windows_partition_the_rows(hours: list[int], span: str) -> None:
    windows = cut(captured(*hours), SpanWindow(span=span))
    assert sorted(n for _, rows in windows for n in rows["n"]) == list(range(len(hours)))
    for window, rows in windows:
        start, end = pd.Timestamp(window.start), pd.Timestamp(window.end)
        assert end - start == parse_duration(span)
        assert (start - pd.Timestamp(0)) % parse_duration(span) == pd.Timedelta(0)
        assert rows["event_time"].between(start, end, inclusive="left").all()
        assert window.rows == len(rows) > 0


@given(hours_of_a_month, hours_of_a_month)
def test_rows_that_come_later_leave_full_row_windows_as_they_were(before: list[int], after: list[int]) -> None:
    known = [window for window, _ in cut(captured(*before), RowWindow(rows=50))]
    assert [window for window, _ in cut(captured(*before, *after), RowWindow(rows=50))][: len(known)] == known


@settings(max_examples=40)
@given(hours_of_a_month, st.integers(0, 24 * 40))
def test_time_that_passes_only_adds_windows(hours: list[int], at: int) -> None:
    frame, moment = captured(*hours), pd.Timestamp("2024-01-01") + pd.Timedelta(hours=at)
    known = [window for window, _ in cut(frame, SpanWindow(span="1d"), at=moment)]
    assert [window for window, _ in cut(frame, SpanWindow(span="1d"))][: len(known)] == known
    assert all(pd.Timestamp(window.end) <= moment for window in known)
