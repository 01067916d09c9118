"""Drift of a window against the reference: significant after correction and large enough to matter.

A test alone fires on harmless jitter once windows are large; an effect alone fires on noise while they are small. Both
bars are set by the reference's own blocks where it was calibrated on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from everloop.domain.calibration import DRIFT_SHARE, FLOORS, Calibration, SignalCalibration
from everloop.domain.spec import PREDICTION
from everloop.domain.spec_values import Frozen
from everloop.domain.summaries import ProfileSummary
from everloop.domain.two_sample import Comparison, Signal, compare_columns


class DriftTest(Frozen):
    """One test of one column: its p-value, its effect, the floor, and whether both say drift."""

    column: str
    signal: Signal
    statistic: str
    p_value: float
    effect: float
    floor: float
    is_drift: bool
    design_effect: float = 1.0


class DriftReport(Frozen):
    """All tests of one window against the reference.

    `score`: the distribution effects of the features, weighted by importance and summed, 0 to 1.
    """

    verdict: Literal["drift", "no drift", "undetermined"]
    reason: str
    alpha: float
    rows: int
    reference_rows: int
    tests: tuple[DriftTest, ...]
    score: float | None = None
    calibrated: bool = False

    @property
    def signals(self) -> frozenset[tuple[str, Signal]]:
        """The tests that say drift, by column and signal."""
        return frozenset((test.column, test.signal) for test in self.tests if test.is_drift)

    @property
    def drifted(self) -> tuple[str, ...]:
        """The columns that drifted, strongest effect first."""
        hits = sorted((test for test in self.tests if test.is_drift), key=lambda test: -test.effect)
        return tuple(dict.fromkeys(test.column for test in hits))


def compare_profiles(
    reference: ProfileSummary,
    window: ProfileSummary,
    *,
    min_rows: int,
    false_alarms: float = 0.01,
    calibration: Calibration | None = None,
    importance: Mapping[str, float] | None = None,
) -> DriftReport:
    """Which columns of `window` drifted from `reference`; columns that only one of them has are left to the data check.

    Drift's share, 0.6, of `false_alarms` is divided by the number of tests (Bonferroni): windows without change alarm at
    most so often. Holm's method (1979) alarms on the same windows, and only names more columns once one has drifted.
    """
    if window.rows < min_rows:
        reason = f"{window.rows:,} rows in the window, {min_rows:,} are required"
        return DriftReport(
            verdict="undetermined", reason=reason, alpha=0, rows=window.rows, reference_rows=reference.rows, tests=()
        )
    known = calibration.by_signal() if calibration else {}
    found = [
        (name, comparison)
        for name in reference.columns
        if name in window.columns
        for comparison in compare_columns(reference.columns[name], window.columns[name])
    ]
    alpha = DRIFT_SHARE * false_alarms / max(len(found), 1)
    tests = tuple(_judge(name, one, known.get((name, one.signal)), alpha) for name, one in found)
    count = len({test.column for test in tests if test.is_drift})
    reason = f"{count} of {len(reference.columns)} columns drifted ({len(tests)} tests, alpha {alpha:.1e} each)"
    uncounted = [
        name
        for name, column in reference.columns.items()
        if column.has_too_many_categories or (name in window.columns and window.columns[name].has_too_many_categories)
    ]
    if uncounted:
        reason += f"; too many categories to compare: {', '.join(uncounted)}"
    return DriftReport(
        verdict="drift" if count else "no drift",
        reason=f"{reason}; {calibration.reason}" if calibration else f"{reason}; not calibrated on the reference",
        alpha=alpha,
        rows=window.rows,
        reference_rows=reference.rows,
        tests=tests,
        score=drift_score(tests, importance),
        calibrated=calibration is not None and calibration.is_calibrated,
    )


def drift_score(tests: tuple[DriftTest, ...], importance: Mapping[str, float] | None = None) -> float | None:
    """The mean distribution effect of the features, weighted by `importance` (equally without), 0 to 1.

    None if no feature has both a weight and a distribution test. What the model predicts is an effect of its features and
    not counted.
    """
    effects = {
        test.column: test.effect for test in tests if test.signal == "distribution" and test.column != PREDICTION
    }
    weights = np.array([max(importance.get(name, 0.0), 0.0) if importance else 1.0 for name in effects])
    if not effects or weights.sum() <= 0:
        return None
    return float(np.average(list(effects.values()), weights=weights))


def _judge(column: str, found: Comparison, calibrated: SignalCalibration | None, alpha: float) -> DriftTest:
    design_effect = calibrated.design_effect if calibrated else 1.0
    floor = calibrated.floor if calibrated else FLOORS[found.signal]
    p_value = found.p_value(design_effect)
    return DriftTest(
        column=column,
        signal=found.signal,
        statistic=found.statistic,
        p_value=p_value,
        effect=found.effect,
        floor=floor,
        is_drift=bool(p_value < alpha and found.effect > floor),
        design_effect=design_effect,
    )
