"""Parts of the event time: what they are called, which zone they are in, and that what goes round has no order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.domain.errors import SchemaMismatch
from everloop.domain.schema import MISSING
from everloop.domain.time_parts import time_parts

SEEN = pd.Timestamp("2024-02-29T12:00:00")


def parts_of(times: Any, *parts: Any, seen: Any = SEEN, **options: Any) -> pd.DataFrame:
    return time_parts(pd.Series(times, name="paid_at", **options), parts, seen=seen)


@given(st.lists(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1))))
def test_the_parts_are_those_of_the_standard_library(times: list[datetime]) -> None:
    found = parts_of(times, "age", "hour", "weekday", "month", dtype="datetime64[us]")
    assert list(found) == ["time.age", "time.hour", "time.weekday", "time.month"]
    for name, form in (("time.hour", "%H"), ("time.weekday", "%a"), ("time.month", "%b")):
        assert found[name].tolist() == [f"{time:{form}}" for time in times]
    assert found["time.age"].tolist() == pytest.approx([(SEEN - time).total_seconds() for time in times])


def test_only_the_parts_that_are_asked_for_are_made_in_their_order_with_the_rows_index() -> None:
    found = parts_of(["2024-01-01", "2024-01-02"], "month", "hour", dtype="datetime64[us]", index=[7, 3])
    assert (list(found), list(found.index)) == (["time.month", "time.hour"], [7, 3])
    assert parts_of(["2024-01-01"], dtype="datetime64[us]").shape == (1, 0)


@pytest.mark.parametrize(
    "times",
    [
        pd.Series(["2024-02-28T23:30:00"], dtype="datetime64[s]"),
        pd.Series(pd.to_datetime(["2024-02-29T05:00:00+05:30"])),
        pd.Series([datetime(2024, 2, 28, 23, 30, tzinfo=UTC)], dtype=object),
        pd.Series(["2024-02-28T23:30:00"], dtype="timestamp[us][pyarrow]"),
        pd.Series(["2024-02-29T05:00:00+05:30"], dtype="str"),
    ],
    ids=["naive", "zone", "objects", "arrow", "text"],
)
def test_every_way_to_store_a_time_gives_the_same_parts_in_utc(times: pd.Series) -> None:
    (row,) = time_parts(times, ["age", "hour", "weekday", "month"], seen=SEEN).to_numpy().tolist()
    assert row == [12.5 * 3600, "23", "Wed", "Feb"]


def test_an_absent_time_has_no_age_and_is_missing_among_the_categories() -> None:
    found = parts_of(["2024-01-01T05:00:00", None], "age", "hour", "weekday", "month", dtype="datetime64[us]")
    assert np.isnan(found["time.age"].iloc[1])
    assert found.iloc[1, 1:].tolist() == [MISSING] * 3
    nothing = parts_of([None], "age", "hour", dtype=object)
    assert np.isnan(nothing["time.age"].iloc[0])
    assert nothing["time.hour"].tolist() == [MISSING]


def test_the_age_is_measured_to_when_each_row_was_seen_and_negative_for_an_event_ahead() -> None:
    start = datetime(2024, 1, 1)
    seen = pd.Series([start + timedelta(seconds=90), start - timedelta(hours=1), pd.NaT], index=[5, 6, 7])
    found = parts_of([start] * 3, "age", seen=seen, dtype="datetime64[us]")["time.age"]
    assert found.tolist()[:2] == [90, -3600]
    assert np.isnan(found.iloc[2])
    assert parts_of([start], "age", seen=SEEN.tz_localize("Asia/Tokyo"))["time.age"].iloc[0] == pytest.approx(
        (SEEN - timedelta(hours=9) - start).total_seconds()
    )


def test_parts_of_two_chunks_are_categories_that_concatenate() -> None:
    chunks = [parts_of([time], "hour", dtype="datetime64[us]") for time in ("2024-01-01T05:00", "2024-01-01T06:00")]
    assert isinstance(pd.concat(chunks)["time.hour"].dtype, pd.CategoricalDtype)
    assert not chunks[0]["time.hour"].cat.ordered


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([1.5], r"'paid_at' holds numbers \(.*1.5.*\), expected times; correct `time` in the spec"),
        (["soon"], r"'paid_at' does not hold times \(.*soon.*\); correct `time` in the spec or clean the source"),
    ],
)
def test_what_is_no_time_is_refused(times: list[Any], message: str) -> None:
    with pytest.raises(SchemaMismatch, match=message):
        parts_of(times, "hour")
