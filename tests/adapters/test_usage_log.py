"""The usage log: hours that may be recorded again, and errors that are counted once."""

from __future__ import annotations

import multiprocessing
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest

from everloop.adapters.usage_log import (
    KEPT,
    error_total,
    judged_until,
    mark_judged,
    read_usage,
    record_errors,
    record_usage,
)
from everloop.domain.usage import HourUsage

NOON = datetime(2024, 6, 1, 12, tzinfo=UTC)


def captured(*requests: tuple[str, str, int, float]) -> pd.DataFrame:
    """Captured rows of requests given as (id, served at, rows, milliseconds)."""
    rows = [
        {"prediction_id": f"{name}-{row:06}", "served_at": pd.Timestamp(at), "latency_ms": milliseconds}
        for name, at, count, milliseconds in requests
        for row in range(count)
    ]
    return pd.DataFrame(rows)


def test_what_was_judged_is_remembered_and_nothing_else_is_lost(tmp_path: Path) -> None:
    assert judged_until(tmp_path, "bikes") is None
    record_usage(tmp_path, "bikes", MORNING)
    before = read_usage(tmp_path, "bikes")
    mark_judged(tmp_path, "bikes", NOON + timedelta(minutes=40))
    assert judged_until(tmp_path, "bikes") == NOON
    assert read_usage(tmp_path, "bikes") == before


MORNING = captured(
    ("01ab-x", "2024-06-01 09:00:00", 3, 10.0),
    ("01ac-x", "2024-06-01 09:59:59", 1, 20.0),
    ("01ad-y", "2024-06-01 11:30:00", 2, 5.0),
)


def test_requests_rows_and_latency_are_counted_by_hour(tmp_path: Path) -> None:
    record_usage(tmp_path, "bikes", MORNING)
    nine, eleven = read_usage(tmp_path, "bikes")
    assert nine == HourUsage(
        hour=datetime(2024, 6, 1, 9, tzinfo=UTC), requests=2, rows=4, p95_latency_ms=float(np.quantile([10, 20], 0.95))
    )
    assert eleven == HourUsage(hour=datetime(2024, 6, 1, 11, tzinfo=UTC), requests=1, rows=2, p95_latency_ms=5.0)
    assert read_usage(tmp_path, "taxis") == []


def test_an_hour_that_is_recorded_again_is_replaced_and_others_stay(tmp_path: Path) -> None:
    record_usage(tmp_path, "bikes", MORNING)
    before = (tmp_path / "bikes.json").stat()
    record_usage(tmp_path, "bikes", MORNING)
    assert (tmp_path / "bikes.json").stat().st_ino == before.st_ino  # the same again writes nothing
    record_usage(tmp_path, "bikes", captured(("z", "2024-06-01 11:45:00", 7, 1.0)))
    record_usage(tmp_path, "bikes", MORNING.iloc[:0])
    assert [(usage.requests, usage.rows) for usage in read_usage(tmp_path, "bikes")] == [(2, 4), (1, 7)]


def test_latency_that_was_not_captured_is_unknown(tmp_path: Path) -> None:
    record_usage(tmp_path, "bikes", MORNING.assign(latency_ms=np.nan))
    assert [usage.p95_latency_ms for usage in read_usage(tmp_path, "bikes")] == [None, None]


def errors(folder: Path) -> dict[str, int]:
    return {f"{usage.hour:%d %H}": usage.errors for usage in read_usage(folder, "bikes") if usage.errors}


def test_a_growing_total_becomes_errors_an_hour(tmp_path: Path) -> None:
    record_usage(tmp_path, "bikes", MORNING)
    for minutes, total in ((-60, 100), (0, 107), (30, 107), (45, 110), (45, 999), (10, 999), (75, 110)):
        record_errors(tmp_path, "bikes", total, NOON + timedelta(minutes=minutes))
    assert errors(tmp_path) == {"01 11": 7, "01 12": 3}
    record_usage(tmp_path, "bikes", MORNING)
    assert errors(tmp_path) == {"01 11": 7, "01 12": 3}


def test_a_service_that_started_anew_counts_from_nothing(tmp_path: Path) -> None:
    record_errors(tmp_path, "bikes", 100, NOON)
    record_errors(tmp_path, "bikes", 4, NOON + timedelta(minutes=30))
    assert errors(tmp_path) == {"01 12": 4}


@pytest.mark.parametrize("new", [0, 1, 7, 1000])
def test_errors_between_looks_hours_apart_are_spread_over_them_and_none_is_lost(tmp_path: Path, new: int) -> None:
    record_errors(tmp_path, "bikes", 0, NOON - timedelta(minutes=30))
    record_errors(tmp_path, "bikes", new, NOON + timedelta(hours=9, minutes=30))
    found = errors(tmp_path)
    assert sum(found.values()) == new
    if new == 1000:
        assert found == {"01 11": 50} | {f"01 {hour}": 100 for hour in range(12, 21)} | {"01 21": 50}


def test_hours_older_than_ninety_days_are_dropped(tmp_path: Path) -> None:
    record_usage(tmp_path, "bikes", MORNING)
    late = pd.Timestamp("2024-06-01 11:00:00") + KEPT - pd.Timedelta(hours=1)
    record_usage(tmp_path, "bikes", captured(("z", str(late), 1, 1.0)))
    assert [usage.hour.day for usage in read_usage(tmp_path, "bikes")] == [1, late.day]
    assert read_usage(tmp_path, "bikes")[0].hour.hour == 11


def test_errors_are_summed_over_versions_and_kinds_of_one_model() -> None:
    registry = CollectorRegistry()
    counted = Counter("everloop_errors_total", "Errors.", ["model", "version", "kind"], registry=registry)
    Counter("everloop_rows_total", "Rows.", ["model", "version"], registry=registry).labels("taxis", "1").inc(5)
    for model, version, kind, times in (("bikes", "1", "row", 3), ("bikes", "2", "body", 4), ("cars", "1", "row", 9)):
        counted.labels(model, version, kind).inc(times)
    text = generate_latest(registry).decode()
    assert {model: error_total(text, model) for model in ("bikes", "cars", "taxis", "boats")} == {
        "bikes": 7,
        "cars": 9,
        "taxis": 0,
        "boats": None,
    }


def test_the_counter_is_named_as_the_service_names_it() -> None:
    source = (Path(__file__).parents[2] / "serving" / "metrics.py").read_text()
    assert re.search(r'Counter\("everloop_errors_total", .*\[\*_BY_VERSION, "kind"\]\)', source)


def record_one(folder: Path, hour: int) -> None:
    record_usage(folder, "bikes", captured((f"r{hour}", f"2024-06-01 {hour:02}:00:00", 1, 1.0)))


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    processes = [multiprocessing.Process(target=record_one, args=(tmp_path, hour)) for hour in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [usage.hour.hour for usage in read_usage(tmp_path, "bikes")] == list(range(8))


def test_a_damaged_log_is_told_and_usage_is_recorded_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Usage is a signal beside others: it may not stop the monitor."""
    (tmp_path / "bikes.json").write_text("{")
    assert read_usage(tmp_path, "bikes") == []
    assert "bikes.json is no usage log; usage is recorded anew" in caplog.text
