"""The inference log: what a service captured comes back whole, once, and with its newest label, compacted or not."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from everloop.adapters import inference_log
from everloop.adapters.inference_log import (
    Compaction,
    compact_captured,
    compact_labels,
    expire,
    join_labels,
    read_captured,
    read_labels,
    served_examples,
)
from everloop.domain.errors import DataError
from serving.capture import Segments
from tests.factories import make_spec

SPEC = make_spec()
SNOWFLAKE = 2**53 + 1  # the first whole number that a float cannot hold
_writers = count()


def prediction(position: int, **changes: Any) -> dict[str, Any]:
    """A request of one row and its answer, made at minute `position` of an hour; `changes` go where they belong."""
    row = {
        "id": position,
        "when": f"2024-03-01T00:{position:02d}:00",
        "temp": position / 2,
        "wind": None,
        "season": 1,
        "city": "Porto",
        "holiday": True,
    }
    answer = {"predictions": [10.0 * position], "prediction_ids": [f"p{position}"], "model_version": "1"}
    line = {"at": f"2024-03-09T00:{position:02d}:00.5", "request_id": f"r{position}", "ms": 1.5}
    row |= {name: value for name, value in changes.items() if name in row}
    answer |= {name: value for name, value in changes.items() if name in {*answer, "probabilities"}}
    return {**line, "answer": answer, "request": {"rows": [row]}}


def label(value: Any, *, minute: int = 0, prediction_id: str | None = None, key: Any = None) -> dict[str, Any]:
    """A label as a client sends it, observed at `minute` of an hour."""
    observed = f"2024-03-02T00:{minute:02d}:00"
    named = {"prediction_id": prediction_id} if prediction_id else {"key": key}
    return {**named, "label": value, "observed_at": observed}


def write(folder: Path, *lines: dict[str, Any], day: str = "2024-03-09") -> Path:
    """A closed segment with these lines."""
    path = folder / f"date={day}" / f"host-{next(_writers):05d}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


def write_labels(folder: Path, *labels: dict[str, Any]) -> Path:
    """A closed segment with one request of these labels."""
    line = {"at": "2024-03-09T00:00:00.5", "request_id": "r", "ms": 0.0, "answer": None, "request": {"labels": labels}}
    return write(folder / "labels" / "bikes", line)


def captured(folder: Path, *lines: dict[str, Any]) -> pd.DataFrame:
    write(folder / "inference" / "bikes", *lines)
    return read_captured(folder / "inference", SPEC)


def labels(folder: Path, *sent: dict[str, Any]) -> pd.DataFrame:
    write_labels(folder, *sent)
    return read_labels(folder / "labels", SPEC)


def files_in(folder: Path) -> list[str]:
    """The names of all files under `folder`."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_captured_rows_come_back_in_the_order_of_capture_from_all_writers(tmp_path: Path) -> None:
    """Each worker writes segments of its own."""
    for positions in ((3, 1), (2, 0)):
        found = captured(tmp_path, *map(prediction, positions))
    assert found["prediction_id"].tolist() == ["p0", "p1", "p2", "p3"]
    assert found["features.temp"].tolist() == [0, 0.5, 1, 1.5]
    assert found["event_time"].iloc[1] == pd.Timestamp("2024-03-01 00:01")
    assert found["served_at"].iloc[1] == pd.Timestamp("2024-03-09 00:01:00.5")


def test_another_models_rows_stay_out(tmp_path: Path) -> None:
    """Every model has a folder."""
    write(tmp_path / "inference" / "scooters", prediction(1))
    assert read_captured(tmp_path / "inference", SPEC).empty


def test_the_torn_last_line_of_a_killed_writer_is_dropped_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is no row, and somebody may want to know."""
    captured(tmp_path, prediction(1), prediction(2))
    (path,) = tmp_path.glob("inference/bikes/date=*/*.jsonl")
    path.write_bytes(path.read_bytes()[:-20])
    with caplog.at_level(logging.WARNING, logger="everloop.inference_log"):
        found = read_captured(tmp_path / "inference", SPEC)
    assert found["prediction_id"].tolist() == ["p1"]
    assert "dropped 1 torn lines that a killed writer left" in caplog.text


@pytest.mark.parametrize(("minute", "expected"), [(0, []), (1, ["p1"]), (2, ["p1", "p2"])])
def test_until_keeps_rows_whose_event_time_is_at_or_before_it(tmp_path: Path, minute: int, expected: list[str]) -> None:
    """A window ends where it says."""
    captured(tmp_path, prediction(1), prediction(2))
    found = read_captured(tmp_path / "inference", SPEC, until=pd.Timestamp(2024, 3, 1, 0, minute))
    assert found["prediction_id"].tolist() == expected


def test_the_newest_label_of_a_prediction_or_key_wins_in_whatever_order_they_arrive(tmp_path: Path) -> None:
    """By the time of observation, not of arrival."""
    found = labels(
        tmp_path,
        label(2, minute=5, prediction_id="p1"),
        label(1, minute=1, prediction_id="p1"),
        label(3, minute=1, key=7),
        label(4, minute=9, key=7),
    )
    assert dict(zip(found["prediction_id"].fillna("key 7"), found["label"], strict=True)) == {"p1": 2, "key 7": 4}


def test_until_keeps_labels_observed_at_or_before_it(tmp_path: Path) -> None:
    """A replay sees what was known then."""
    labels(tmp_path, label(1, minute=1, key=7), label(2, minute=5, key=7))
    found = read_labels(tmp_path / "labels", SPEC, until=pd.Timestamp(2024, 3, 2, 0, 4))
    assert found["label"].tolist() == [1]


def test_a_label_by_prediction_id_wins_over_one_by_key_and_none_is_null(tmp_path: Path) -> None:
    """It is the more exact of the two."""
    rows = captured(tmp_path, prediction(1), prediction(2), prediction(3))
    joined = join_labels(
        rows, labels(tmp_path, label(9, key=1, minute=9), label(5, prediction_id="p1"), label(6, key=2))
    )
    assert joined["label"].iloc[:2].tolist() == [5, 6]
    assert pd.isna(joined["label"].iloc[2])


def test_a_label_of_zero_or_false_is_a_label(tmp_path: Path) -> None:
    """And not an absent one."""
    rows = captured(tmp_path, prediction(1), prediction(2))
    joined = join_labels(rows, labels(tmp_path, label(0, prediction_id="p1"), label(False, key=2)))
    assert joined["label"].tolist() == [0, False]


@pytest.mark.parametrize(
    "also",
    [
        pytest.param([], id="labels by key"),
        pytest.param([label(0, prediction_id="p9")], id="labels by key and by id"),
    ],
)
def test_keys_above_two_to_the_53_are_not_confused(tmp_path: Path, also: list[dict[str, Any]]) -> None:
    """They never pass through a float."""
    rows = captured(tmp_path, prediction(1, id=SNOWFLAKE - 1), prediction(2, id=SNOWFLAKE))
    joined = join_labels(rows, labels(tmp_path, label(1, key=SNOWFLAKE - 1), label(2, key=SNOWFLAKE), *also))
    assert joined["label"].tolist() == [1, 2]


def test_served_examples_have_the_columns_and_values_of_the_source(tmp_path: Path) -> None:
    """So that they can be trained on together."""
    rows = captured(tmp_path, prediction(1), prediction(2))
    found = served_examples(rows, labels(tmp_path, label(42.5, key=2)), SPEC)
    assert found.columns.tolist() == list(SPEC.columns)
    assert found["id"].dtype == "int64"
    assert found[["id", "when", "temp", "city", "cnt"]].to_numpy().tolist() == [
        [2, pd.Timestamp("2024-03-01 00:02"), 1.0, "Porto", 42.5]
    ]


def test_a_key_that_was_asked_for_twice_counts_once_with_its_newest_features(tmp_path: Path) -> None:
    """One row of the world is one row of training."""
    rows = captured(tmp_path, prediction(1, id=7), prediction(2, id=7))
    found = served_examples(rows, labels(tmp_path, label(5, key=7)), SPEC)
    assert found[["id", "temp", "cnt"]].to_numpy().tolist() == [[7, 1.0, 5.0]]


def test_rows_sent_without_their_key_all_count(tmp_path: Path) -> None:
    """Nothing says that they are the same."""
    rows = captured(tmp_path, prediction(1, id=None), prediction(2, id=None))
    found = served_examples(rows, labels(tmp_path, label(5, prediction_id="p1"), label(6, prediction_id="p2")), SPEC)
    assert found["cnt"].tolist() == [5, 6]


def test_empty_folders_are_empty_frames_with_all_columns(tmp_path: Path) -> None:
    """Before the first request and the first label."""
    rows, truths = read_captured(tmp_path, SPEC, until=pd.Timestamp(2024, 3, 1)), read_labels(tmp_path, SPEC)
    assert {"prediction_id", "event_time", "features.temp", "features.city"} <= set(rows.columns)
    assert join_labels(rows, truths).columns.tolist()[-2:] == ["label", "observed_at"]
    assert served_examples(rows, truths, SPEC).columns.tolist() == list(SPEC.columns)
    assert len(rows) == len(truths) == 0


def test_a_request_of_many_rows_is_a_row_a_prediction(tmp_path: Path) -> None:
    """With its own id, answer, key and features."""
    first, second = (prediction(position)["request"]["rows"][0] for position in (1, 2))
    line = prediction(1, predictions=[5.0, 6.0], prediction_ids=["a", "b"])
    line["request"]["rows"] = [first, second]
    found = captured(tmp_path, line)
    assert found[["prediction_id", "prediction", "key", "features.temp", "latency_ms"]].to_numpy().tolist() == [
        ["a", 5.0, 1, 0.5, 1.5],
        ["b", 6.0, 2, 1.0, 1.5],
    ]


def test_an_event_time_with_a_zone_is_kept_in_utc_and_an_absent_one_is_the_time_of_capture(tmp_path: Path) -> None:
    """A time without a zone is UTC."""
    sent = ("2024-03-01T02:00:00+02:00", "2024-03-01T02:00:00", "2024-03-01T02:00:00Z", None)
    found = captured(tmp_path, *(prediction(at, when=when) for at, when in enumerate(sent)))
    assert found["event_time"].tolist() == [
        pd.Timestamp("2024-03-01 00:00"),
        pd.Timestamp("2024-03-01 02:00"),
        pd.Timestamp("2024-03-01 02:00"),
        pd.Timestamp("2024-03-09 00:03:00.5"),
    ]


def compact_both(folder: Path) -> Compaction:
    """What the compaction of the predictions did; the labels are compacted too."""
    compact_labels(folder / "labels", SPEC)
    return compact_captured(folder / "inference", SPEC)


def test_compaction_changes_where_rows_are_and_nothing_else(tmp_path: Path) -> None:
    """Whole numbers, booleans, nulls and texts survive the trip, and so do times and probabilities."""
    before = captured(
        tmp_path,
        prediction(1, season=3, holiday=False, city=None, probabilities=[[0.25, 0.75]]),
        prediction(2, season=None, city='Łódź "x"\n', holiday=None, probabilities=[[0.5, 0.5]]),
        prediction(3, wind=2.5, temp=7),
    )
    done = compact_both(tmp_path)
    after = read_captured(tmp_path / "inference", SPEC)
    assert done == Compaction(segments=1, rows=3, torn=0)
    for name in after.columns:
        found = [list(value) if hasattr(value, "__len__") else value for value in after[name]]
        expected = [list(value) if hasattr(value, "__len__") else value for value in before[name]]
        assert [None if value is None or value != value else value for value in found] == [
            None if value is None or value != value else value for value in expected
        ], name
    examples = [served_examples(rows, labels(tmp_path, label(1, key=2)), SPEC) for rows in (before, after)]
    pd.testing.assert_frame_equal(*examples)


def test_compacted_predictions_lie_by_date_and_version_and_labels_by_date(tmp_path: Path) -> None:
    """What reads a part need not open the rest."""
    write(tmp_path / "inference" / "bikes", prediction(1), prediction(2, model_version="12"), day="2024-03-09")
    write(tmp_path / "inference" / "bikes", prediction(3), day="2024-03-10")
    write_labels(tmp_path, label(1, key=1))
    compact_both(tmp_path)
    folders = [str(Path(name).parent) for name in files_in(tmp_path)]
    assert folders == [
        "inference/bikes/date=2024-03-09/version=1",
        "inference/bikes/date=2024-03-09/version=12",
        "inference/bikes/date=2024-03-10/version=1",
        "labels/bikes/date=2024-03-09",
    ]
    assert all(name.endswith(".parquet") for name in files_in(tmp_path))
    assert read_captured(tmp_path / "inference", SPEC)["model_version"].tolist() == ["1", "12", "1"]


def test_rows_of_open_closed_and_compacted_segments_are_read_together(tmp_path: Path) -> None:
    """In the order of capture."""
    captured(tmp_path, prediction(2), prediction(4))
    compact_both(tmp_path)
    captured(tmp_path, prediction(1), prediction(5))
    compact_both(tmp_path)
    assert captured(tmp_path, prediction(3))["prediction_id"].tolist() == ["p1", "p2", "p3", "p4", "p5"]


def test_a_segment_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    """Its writer holds a lock; its rows are read as lines all the same, and taken when it is closed."""
    segments = Segments(tmp_path / "inference" / "bikes", max_bytes=1_000_000, max_seconds=3600)
    segments.append(json.dumps(prediction(1)).encode() + b"\n")
    assert compact_both(tmp_path) == Compaction(0, 0, 0)
    segments.append(json.dumps(prediction(2)).encode() + b"\n")
    assert read_captured(tmp_path / "inference", SPEC)["prediction_id"].tolist() == ["p1", "p2"]
    segments.close()
    assert compact_both(tmp_path) == Compaction(1, 2, 0)
    assert read_captured(tmp_path / "inference", SPEC)["prediction_id"].tolist() == ["p1", "p2"]


def test_a_torn_last_line_is_dropped_counted_and_told_by_compaction(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The lines before it are kept."""
    path = write(tmp_path / "inference" / "bikes", prediction(1), prediction(2))
    path.write_bytes(path.read_bytes()[:-20])
    with caplog.at_level(logging.WARNING, logger="everloop.inference_log"):
        assert compact_both(tmp_path) == Compaction(segments=1, rows=1, torn=1)
    assert "dropped 1 torn lines" in caplog.text
    assert read_captured(tmp_path / "inference", SPEC)["prediction_id"].tolist() == ["p1"]


@pytest.mark.parametrize("content", [b"", b'{"at": "2024'])
def test_a_segment_without_a_whole_line_leaves_nothing(tmp_path: Path, content: bytes) -> None:
    """A writer that was killed before its first line."""
    write(tmp_path / "inference" / "bikes").write_bytes(content)
    assert compact_both(tmp_path) == Compaction(segments=1, rows=0, torn=len(content) > 0)
    assert files_in(tmp_path) == []


class Killed(BaseException):
    """The process ended here."""


def kill_at(monkeypatch: pytest.MonkeyPatch, name: str, call: int) -> None:
    """The `call`th use of a method of paths does not happen any more."""
    original, left = getattr(Path, name), count(1)

    def method(self: Path, *arguments: Any, **options: Any) -> Any:
        if next(left) == call:
            raise Killed
        return original(self, *arguments, **options)

    monkeypatch.setattr(Path, name, method)


@pytest.mark.parametrize(
    ("name", "call"), [("replace", 1), ("replace", 2), ("unlink", 1)], ids=["at first", "half way", "at the end"]
)
def test_an_interrupted_compaction_neither_loses_nor_doubles_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, call: int
) -> None:
    """Neither before it is done again nor after."""
    before = captured(tmp_path, prediction(1), prediction(2, model_version="2"), prediction(3))
    with monkeypatch.context() as patch:
        kill_at(patch, name, call)
        with pytest.raises(Killed):
            compact_both(tmp_path)
    between = read_captured(tmp_path / "inference", SPEC)
    assert compact_both(tmp_path) == Compaction(segments=1, rows=3, torn=0)
    after = read_captured(tmp_path / "inference", SPEC)
    assert (
        before["prediction_id"].tolist()
        == between["prediction_id"].tolist()
        == after["prediction_id"].tolist()
        == ["p1", "p2", "p3"]
    )


def test_a_segment_that_is_compacted_while_it_is_about_to_be_read_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader has its name, and when it opens it, it is gone."""
    write(tmp_path / "inference" / "bikes", prediction(1), prediction(2))
    read = Path.read_bytes

    def compact_then_read(self: Path) -> bytes:
        monkeypatch.setattr(Path, "read_bytes", read)
        compact_both(tmp_path)
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", compact_then_read)
    assert read_captured(tmp_path / "inference", SPEC)["prediction_id"].tolist() == ["p1", "p2"]


def test_a_segment_that_is_compacted_after_it_was_read_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader finds its Parquet file and knows that it has those rows."""
    write(tmp_path / "inference" / "bikes", prediction(1), prediction(2))
    parse = inference_log._parse

    def parse_then_compact(data: bytes, rows_of: Any) -> Any:
        monkeypatch.setattr(inference_log, "_parse", parse)
        compact_both(tmp_path)
        return parse(data, rows_of)

    monkeypatch.setattr(inference_log, "_parse", parse_then_compact)
    assert read_captured(tmp_path / "inference", SPEC)["prediction_id"].tolist() == ["p1", "p2"]


def test_two_compactions_at_once_take_each_segment_once(tmp_path: Path) -> None:
    """The second finds the lock held, and goes on."""
    path = write(tmp_path / "inference" / "bikes", prediction(1))
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert compact_both(tmp_path) == Compaction(0, 0, 0)
    assert compact_both(tmp_path) == Compaction(1, 1, 0)


def test_compacted_labels_keep_their_types_and_the_newest_wins_over_all_files(tmp_path: Path) -> None:
    """Numbers, booleans and texts, by key and by id."""
    write_labels(tmp_path, label(2.5, minute=5, prediction_id="p1"), label(4, minute=1, key=7))
    compact_both(tmp_path)
    write_labels(tmp_path, label(3.5, minute=1, prediction_id="p1"), label(5, minute=9, key=7))
    compact_both(tmp_path)
    found = read_labels(tmp_path / "labels", SPEC)
    assert dict(zip(found["prediction_id"].fillna("key 7"), found["label"], strict=True)) == {"p1": 2.5, "key 7": 5}
    assert found["observed_at"].max() == pd.Timestamp("2024-03-02 00:09")


@pytest.mark.parametrize(
    ("kind", "values"),
    [("binary", ["no", "yes"]), ("binary", [False, True]), ("binary", [0, 1]), ("regression", [0.5, 1.5])],
)
def test_the_type_of_a_label_survives_compaction(tmp_path: Path, kind: Any, values: list[Any]) -> None:
    """It must be one of the classes of its model."""
    spec = make_spec(kind)
    write_labels(tmp_path, *(label(value, key=position) for position, value in enumerate(values)))
    compact_labels(tmp_path / "labels", spec)
    found = read_labels(tmp_path / "labels", spec)["label"].tolist()
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]


def test_numbers_with_and_without_a_point_are_the_same(tmp_path: Path) -> None:
    """In one segment; JSON has one kind of number."""
    rows = captured(tmp_path, prediction(1, temp=3, wind=2, id=7.0), prediction(2, temp=3.5, wind=None, id=8))
    compact_both(tmp_path)
    for found in (rows, read_captured(tmp_path / "inference", SPEC)):
        assert found["features.temp"].tolist() == [3.0, 3.5]
        assert found["key"].tolist() == [7, 8]
        assert [type(key) for key in found["key"]] == [int, int]


def test_large_keys_beside_absent_ones_survive_compaction(tmp_path: Path) -> None:
    """A label must find its prediction."""
    keys = (SNOWFLAKE - 1, SNOWFLAKE, None)
    captured(tmp_path, *(prediction(at, id=key) for at, key in enumerate(keys)))
    compact_both(tmp_path)
    found = read_captured(tmp_path / "inference", SPEC)["key"].tolist()
    assert found == list(keys)
    assert [type(key) for key in found] == [int, int, type(None)]


def test_a_number_beyond_64_bits_can_be_compacted(tmp_path: Path) -> None:
    """The contract takes it, so one client's row must not keep all others from being compacted."""
    captured(tmp_path, prediction(1, wind=10**20), prediction(2, wind=1.5))
    assert compact_both(tmp_path) == Compaction(1, 2, 0)
    assert read_captured(tmp_path / "inference", SPEC)["features.wind"].tolist() == [1e20, 1.5]


def test_a_segment_that_parquet_cannot_hold_stays_as_it_is_and_the_others_go_on(tmp_path: Path) -> None:
    """Labels of versions with other classes may meet in one."""
    spec = make_spec("binary")
    write_labels(tmp_path, label("yes", key=1), label(1, key=2))
    write_labels(tmp_path, label("no", key=3))
    assert compact_labels(tmp_path / "labels", spec) == Compaction(segments=1, rows=1, torn=0, failed=1)
    found = read_labels(tmp_path / "labels", spec)
    assert dict(zip(found["key"], found["label"], strict=True)) == {1: "yes", 2: 1, 3: "no"}


def test_whole_lines_that_today_s_spec_cannot_read_are_not_deleted(tmp_path: Path) -> None:
    """A feature was a category when they were captured, and is a number now; whoever mends the spec has them back."""
    path = write(tmp_path / "inference" / "bikes", prediction(1, wind="strong"))
    compact_both(tmp_path)
    assert path.exists()


@pytest.fixture
def week(tmp_path: Path) -> Path:
    """The compacted predictions of seven days."""
    folder = tmp_path / "inference" / "bikes"
    for day in range(1, 8):
        write(folder, prediction(day), day=f"2024-03-{day:02d}")
    compact_both(tmp_path)
    return folder


def days_in(folder: Path) -> list[int]:
    """The days of which something is left."""
    return [int(path.name[-2:]) for path in sorted(folder.iterdir())]


@pytest.mark.parametrize(
    ("older_than", "left"),
    [(datetime(2024, 2, 1), 7), (datetime(2024, 3, 1), 7), (datetime(2024, 3, 4), 4), (datetime(2024, 4, 1), 0)],
)
def test_days_before_the_oldest_to_keep_expire_with_their_folders(week: Path, older_than: datetime, left: int) -> None:
    """The day itself is kept, and the frames are read as if the others had never been."""
    gone = expire(week, older_than=older_than.replace(tzinfo=UTC), above_bytes=10**9)
    assert len(gone) == 7 - left
    assert days_in(week) == list(range(8 - left, 8))
    assert len(read_captured(week.parent, SPEC)) == left


@pytest.mark.parametrize("left", [0, 1, 3, 7])
def test_above_its_size_the_oldest_expire(week: Path, left: int) -> None:
    """Until what is left fits."""
    size = sum(path.stat().st_size for path in week.rglob("*.parquet"))
    gone = expire(week, older_than=datetime(2024, 1, 1, tzinfo=UTC), above_bytes=size * left // 7 + left)
    assert len(gone) == 7 - left
    assert days_in(week) == list(range(8 - left, 8))


def test_what_is_not_compacted_does_not_expire(week: Path) -> None:
    """A segment may still be open; it is compacted first."""
    write(week, prediction(1), day="2024-03-01")
    expire(week, older_than=datetime(2025, 1, 1, tzinfo=UTC), above_bytes=1)
    assert [name.endswith(".jsonl") for name in files_in(week)] == [True]


def test_what_a_killed_compaction_left_beside_expires_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kill would leave a file for good."""
    captured(tmp_path, prediction(1))
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 1)
        kill_at(patch, "replace", 1)
        with pytest.raises(Killed):
            compact_both(tmp_path)
    compact_both(tmp_path)
    expire(tmp_path / "inference" / "bikes", older_than=datetime(2025, 1, 1, tzinfo=UTC), above_bytes=1)
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("read", [compact_captured, compact_labels])
def test_before_there_is_a_log_there_is_nothing_to_compact(tmp_path: Path, read: Callable[..., Compaction]) -> None:
    """Nor to expire."""
    assert read(tmp_path, SPEC) == Compaction(0, 0, 0)
    assert expire(tmp_path / "bikes", older_than=datetime(2025, 1, 1, tzinfo=UTC), above_bytes=1) == []


def test_since_leaves_out_the_days_before_and_keeps_the_one_whose_segments_may_reach_into_it(tmp_path: Path) -> None:
    for day in ("2024-03-07", "2024-03-08", "2024-03-09", "2024-03-10"):
        write(tmp_path / "inference" / "bikes", prediction(int(day[-2:])), day=day)
    compact_captured(tmp_path / "inference", SPEC)
    write(tmp_path / "inference" / "bikes", prediction(11), day="2024-03-11")
    found = read_captured(tmp_path / "inference", SPEC, since="2024-03-10")
    assert found["prediction_id"].tolist() == ["p9", "p10", "p11"]
    assert len(read_captured(tmp_path / "inference", SPEC)) == 5


def test_a_joined_label_says_when_it_was_observed(tmp_path: Path) -> None:
    frame = captured(tmp_path, prediction(1), prediction(2))
    write_labels(tmp_path, label(3.0, minute=7, prediction_id="p1"))
    joined = join_labels(frame, read_labels(tmp_path / "labels", SPEC))
    assert joined["observed_at"].tolist() == [pd.Timestamp("2024-03-02T00:07:00"), pd.NaT]


def test_features_that_today_s_spec_does_not_name_can_be_read_too(tmp_path: Path) -> None:
    spec = make_spec(features={"numeric": ["temp"], "categorical": ["season"]})
    write(tmp_path / "inference" / "bikes", prediction(1))
    assert "features.city" not in read_captured(tmp_path / "inference", spec)
    assert read_captured(tmp_path / "inference", spec, also=["temp", "city"])["features.city"].tolist() == ["Porto"]


def test_a_file_that_was_compacted_before_a_moment_is_not_read_for_what_came_after(tmp_path: Path) -> None:
    write(tmp_path / "inference" / "bikes", prediction(9))
    compact_captured(tmp_path / "inference", SPEC)
    (file,) = (tmp_path / "inference").glob("*/date=*/**/*.parquet")
    moment = datetime(2024, 3, 9, 12, tzinfo=UTC).timestamp()
    for shift, expected in ((-1, []), (0, ["p9"]), (3600, ["p9"])):
        os.utime(file, (moment + shift, moment + shift))
        found = read_captured(tmp_path / "inference", SPEC, since="2024-03-09T12:00:00.000000")
        assert found["prediction_id"].tolist() == expected


def test_a_parquet_file_that_cannot_be_read_is_named_and_nothing_is_left_out_in_silence(tmp_path: Path) -> None:
    write(tmp_path / "inference" / "bikes", prediction(1))
    compact_captured(tmp_path / "inference", SPEC)
    (file,) = tmp_path.rglob("*.parquet")
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(DataError, match=re.escape(f"{file} cannot be read")) as refused:
        read_captured(tmp_path / "inference", SPEC)
    assert "move it out of the folder to go on without its rows" in str(refused.value)
