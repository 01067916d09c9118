"""Compare: has the window drifted from what the champion was fitted on, and is it data at all?"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pandas as pd

from everloop.domain.drift import DriftReport, compare_profiles
from everloop.domain.quality import QualityReport, judge_quality
from everloop.domain.spec import ModelSpec
from everloop.domain.spec_values import parse_duration
from everloop.domain.summaries import ProfileSummary
from tasks.step import step
from tasks.watch import Watched

log = logging.getLogger("everloop.compare")


@step
def compare(spec: ModelSpec, watched: Watched, window: ProfileSummary) -> DriftReport:
    """The drift report of one window."""
    report = compare_profiles(
        watched.profile,
        window,
        min_rows=spec.monitor.min_rows,
        false_alarms=spec.monitor.false_alarms,
        calibration=watched.facts.calibration,
        importance=watched.facts.importance,
    )
    log.info("drift: %s", report.reason)
    return report


@step
def compare_slices(spec: ModelSpec, watched: Watched, windows: Sequence[ProfileSummary]) -> list[DriftReport]:
    """The drift report of each slice; together they share the false alarms of one window."""
    return [
        compare_profiles(
            reference,
            window,
            min_rows=spec.monitor.min_rows,
            false_alarms=spec.monitor.false_alarms / len(windows),
            calibration=found.calibration,
            importance=watched.facts.importance,
        )
        for found, reference, window in zip(watched.facts.slices, watched.slices, windows, strict=True)
    ]


@step
def inspect(
    spec: ModelSpec, watched: Watched, window: ProfileSummary, rows: pd.DataFrame, at: pd.Timestamp | None
) -> QualityReport:
    """The quality report of the champion's `rows` of one window; how fresh they are at the moment `at`, if it is given."""
    keys = rows["key"].dropna()
    report = judge_quality(
        watched.profile,
        window,
        watched.manifest.row_schema,
        false_alarms=spec.monitor.false_alarms,
        calibration=watched.facts.calibration,
        duplicates=int(keys.duplicated().sum()),
        newest=rows["event_time"].max().to_pydatetime() if len(rows) and spec.time else None,
        at=at.to_pydatetime() if at is not None else None,
        max_age=parse_duration(spec.monitor.max_age) if spec.monitor.max_age else None,
    )
    log.info("quality: %s", report.reason)
    return report
