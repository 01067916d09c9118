from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cli.report import DemoReport, Retrain, WindowScore, write_report


def a_window(day: int, **changes: Any) -> WindowScore:
    window = WindowScore(
        id=f"rows-{day}",
        start=f"2012-01-{day:02d}T00:00:00",
        end=f"2012-01-{day:02d}T23:00:00",
        version="1",
        action="none",
        reason_codes=["nothing_found"],
        mae_with_loop=20.0,
        mae_never_retrained=40.0,
        drifted_columns=["temp"],
        drift={"temp": 0.2, "prediction": 0.01},
    )
    return replace(window, **changes)


def a_retrain(**changes: Any) -> Retrain:
    retrain = Retrain(
        decision="bikes/rows-2",
        at="2012-01-02T23:00:00",
        reason="degradation stands",
        version="2",
        outcome="bikes v2 is champion",
        started_by="automation",
        runtime="ONNX Runtime",
        trained_until="2012-01-01T00:00:00",
        seconds={"run started": 9.0, "trained": 12.0, "rehearsed": 14.0, "serving": 1.0},
        seconds_degraded_to_served=36.0,
    )
    return replace(retrain, **changes)


def a_story(**changes: Any) -> DemoReport:
    story = DemoReport(
        model="bikes",
        metric="mae",
        windows=[a_window(1), a_window(2, action="retrain")],
        retrains=[a_retrain()],
        mae_never_retrained=40.0,
        mae_with_loop=20.0,
        rows_served=48,
        rows_captured=48,
        requests=10,
        champion_version="2",
        served_version="2",
    )
    return replace(story, **changes)


def test_a_story_that_happened_misses_nothing() -> None:
    assert a_story().missing_parts() == []


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"failed_requests": 1}, "the service answered every request"),
        ({"rows_captured": 47}, "every answered row was captured"),
        ({"retrains": []}, "a retraining was decided"),
        ({"windows": [a_window(1, action="retrain")]}, "nothing fired in the first window"),
        ({"retrains": [a_retrain(started_by="nobody")]}, "the automation started every retraining"),
        ({"retrains": [a_retrain(seconds_degraded_to_served=None)]}, "a better version took over the running service"),
        ({"served_version": "1"}, "the service serves the champion"),
        ({"served_version": None, "champion_version": None}, "the service serves the champion"),
        ({"mae_with_loop": 41.0}, "the loop lowered the error"),
    ],
)
def test_a_part_that_did_not_happen_is_named(changes: dict[str, Any], missing: str) -> None:
    assert missing in a_story(**changes).missing_parts()


def test_the_json_report_has_the_keys_that_machines_read(tmp_path: Path) -> None:
    write_report(a_story(), tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["retrains"] == report["triggered_by_automation"] == 1
    assert report["mae_ratio"] == 0.5
    assert report["seconds_degraded_to_served_median"] == 36.0
    assert report["seconds_degraded_to_served"][0]["seconds"]["trained"] == 12.0
    assert report["story_complete"] is True
    assert {"windows", "requests", "failed_requests", "champion_version", "served_version", "seconds_total"} <= set(
        report
    )


def test_the_page_is_self_contained_and_says_the_verdict_first(tmp_path: Path) -> None:
    write_report(a_story(), tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "http" not in page
    assert "0.50 ×" in page
    write_report(a_story(failed_requests=3), tmp_path)
    assert "Not every part of the story happened" in (tmp_path / "report.html").read_text()
