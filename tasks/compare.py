"""Compare: has the window drifted from what the champion was fitted on?"""

from __future__ import annotations

import logging

from everloop.adapters.profiles import summarize_profile
from everloop.domain.drift import DriftReport, compare_profiles
from everloop.domain.spec import ModelSpec
from tasks.step import step

log = logging.getLogger("everloop.compare")


@step
def compare(spec: ModelSpec, reference: bytes, window: bytes) -> DriftReport:
    """The drift report of one window."""
    report = compare_profiles(summarize_profile(reference), summarize_profile(window), min_rows=spec.monitor.min_rows)
    log.info("drift: %s", report.reason)
    return report
