"""The inference log: what a service captured comes back whole, once, and with its newest label."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from everloop.adapters.inference_log import join_labels, read_captured, read_labels, served_examples
from serving.capture import Capture
from tests.factories import make_spec

SPEC = make_spec()
SNOWFLAKE = 2**53 + 1  # the first whole number that a float cannot hold


def prediction(position: int, **changes: Any) -> dict[str, Any]:
    """A captured line, made at minute `position` of an hour."""
    return {
        "prediction_id": f"p{position}",
        "key": position,
        "event_time": f"2024-03-01T00:{position:02d}:00",
        "served_at": f"2024-03-09T00:{position:02d}:00.5",
        "model_version": "1",
        "features": {"temp": position / 2, "wind": None, "season": 1, "city": "Porto", "holiday": True},
        "prediction": 10.0 * position,
        "probabilities": None,
    } | changes


def label(value: Any, *, minute: int = 0, prediction_id: str | None = None, key: Any = None) -> dict[str, Any]:
    """A label line, observed at `minute` of an hour."""
    observed = f"2024-03-02T00:{minute:02d}:00"
    return {"prediction_id": prediction_id, "key": key, "label": value, "observed_at": observed}


def captured(folder: Path, *lines: dict[str, Any]) -> pd.DataFrame:
    Capture(folder / "inference" / "bikes").append(list(lines))
    return read_captured(folder / "inference", SPEC)


def labels(folder: Path, *lines: dict[str, Any]) -> pd.DataFrame:
    Capture(folder / "labels" / "bikes").append(list(lines))
    return read_labels(folder / "labels", SPEC)


def test_captured_rows_come_back_in_the_order_of_capture_from_all_writers(tmp_path: Path) -> None:
    for positions in ((3, 1), (2, 0)):
        found = captured(tmp_path, *map(prediction, positions))
    assert found["prediction_id"].tolist() == ["p0", "p1", "p2", "p3"]
    assert found["features.temp"].tolist() == [0, 0.5, 1, 1.5]
    assert found["event_time"].iloc[1] == pd.Timestamp("2024-03-01 00:01")
    assert found["served_at"].iloc[1] == pd.Timestamp("2024-03-09 00:01:00.5")


def test_another_models_rows_stay_out(tmp_path: Path) -> None:
    Capture(tmp_path / "inference" / "scooters").append([prediction(1)])
    assert read_captured(tmp_path / "inference", SPEC).empty


def test_the_torn_last_line_of_a_killed_writer_is_dropped_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    captured(tmp_path, prediction(1), prediction(2))
    (path,) = tmp_path.glob("inference/bikes/date=*/*.jsonl")
    path.write_bytes(path.read_bytes()[:-20])
    with caplog.at_level(logging.WARNING, logger="everloop.inference_log"):
        found = read_captured(tmp_path / "inference", SPEC)
    assert found["prediction_id"].tolist() == ["p1"]
    assert "dropped 1 torn lines that a killed writer left" in caplog.text


@pytest.mark.parametrize(("minute", "expected"), [(0, []), (1, ["p1"]), (2, ["p1", "p2"])])
def test_until_keeps_rows_whose_event_time_is_at_or_before_it(tmp_path: Path, minute: int, expected: list[str]) -> None:
    captured(tmp_path, prediction(1), prediction(2))
    found = read_captured(tmp_path / "inference", SPEC, until=pd.Timestamp(2024, 3, 1, 0, minute))
    assert found["prediction_id"].tolist() == expected


def test_the_newest_label_of_a_prediction_or_key_wins_in_whatever_order_they_arrive(tmp_path: Path) -> None:
    found = labels(
        tmp_path,
        label(2, minute=5, prediction_id="p1"),
        label(1, minute=1, prediction_id="p1"),
        label(3, minute=1, key=7),
        label(4, minute=9, key=7),
    )
    assert dict(zip(found["prediction_id"].fillna("key 7"), found["label"], strict=True)) == {"p1": 2, "key 7": 4}


def test_until_keeps_labels_observed_at_or_before_it(tmp_path: Path) -> None:
    labels(tmp_path, label(1, minute=1, key=7), label(2, minute=5, key=7))
    found = read_labels(tmp_path / "labels", SPEC, until=pd.Timestamp(2024, 3, 2, 0, 4))
    assert found["label"].tolist() == [1]


def test_a_label_by_prediction_id_wins_over_one_by_key_and_none_is_null(tmp_path: Path) -> None:
    rows = captured(tmp_path, prediction(1), prediction(2), prediction(3))
    joined = join_labels(
        rows, labels(tmp_path, label(9, key=1, minute=9), label(5, prediction_id="p1"), label(6, key=2))
    )
    assert joined["label"].iloc[:2].tolist() == [5, 6]
    assert pd.isna(joined["label"].iloc[2])


def test_a_label_of_zero_or_false_is_a_label(tmp_path: Path) -> None:
    rows = captured(tmp_path, prediction(1), prediction(2))
    joined = join_labels(rows, labels(tmp_path, label(0, prediction_id="p1"), label(False, key=2)))
    assert joined["label"].tolist() == [0, False]


@pytest.mark.parametrize(
    "also",
    [
        pytest.param([], id="labels by key"),
        pytest.param(
            [label(0, prediction_id="p9")],
            id="labels by key and by id",
        ),
    ],
)
def test_keys_above_two_to_the_53_are_not_confused(tmp_path: Path, also: list[dict[str, Any]]) -> None:
    rows = captured(tmp_path, prediction(1, key=SNOWFLAKE - 1), prediction(2, key=SNOWFLAKE))
    joined = join_labels(rows, labels(tmp_path, label(1, key=SNOWFLAKE - 1), label(2, key=SNOWFLAKE), *also))
    assert joined["label"].tolist() == [1, 2]


def test_served_examples_have_the_columns_and_values_of_the_source(tmp_path: Path) -> None:
    rows = captured(tmp_path, prediction(1), prediction(2))
    found = served_examples(rows, labels(tmp_path, label(42.5, key=2)), SPEC)
    assert found.columns.tolist() == list(SPEC.columns)
    assert found["id"].dtype == "int64"
    assert found[["id", "when", "temp", "city", "cnt"]].to_numpy().tolist() == [
        [2, pd.Timestamp("2024-03-01 00:02"), 1.0, "Porto", 42.5]
    ]


def test_a_key_that_was_asked_for_twice_counts_once_with_its_newest_features(tmp_path: Path) -> None:
    rows = captured(tmp_path, prediction(1, key=7), prediction(2, key=7))
    found = served_examples(rows, labels(tmp_path, label(5, key=7)), SPEC)
    assert found[["id", "temp", "cnt"]].to_numpy().tolist() == [[7, 1.0, 5.0]]


def test_rows_sent_without_their_key_all_count(tmp_path: Path) -> None:
    rows = captured(tmp_path, prediction(1, key=None), prediction(2, key=None))
    found = served_examples(rows, labels(tmp_path, label(5, prediction_id="p1"), label(6, prediction_id="p2")), SPEC)
    assert found["cnt"].tolist() == [5, 6]


def test_empty_folders_are_empty_frames_with_all_columns(tmp_path: Path) -> None:
    rows, truths = read_captured(tmp_path, SPEC, until=pd.Timestamp(2024, 3, 1)), read_labels(tmp_path, SPEC)
    assert {"prediction_id", "event_time", "features.temp", "features.city"} <= set(rows.columns)
    assert join_labels(rows, truths).columns[-1] == "label"
    assert served_examples(rows, truths, SPEC).columns.tolist() == list(SPEC.columns)
    assert len(rows) == len(truths) == 0
