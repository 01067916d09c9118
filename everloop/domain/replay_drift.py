"""Drift in a replay: windows against the rows that the champion of the moment was fitted on, as the monitor compares them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from everloop.domain.calibration import Calibration, block_bounds, calibrate
from everloop.domain.drift import DriftReport, compare_profiles
from everloop.domain.monitor_spec import MonitorSpec
from everloop.domain.replay_fits import FitRequest, Fitted, Subject
from everloop.domain.replay_training import Trained
from everloop.domain.schema import RowSchema
from everloop.domain.summaries import ProfileSummary

Profile = Callable[[pd.DataFrame, RowSchema, np.ndarray], ProfileSummary]


@dataclass(frozen=True)
class _Reference:
    profile: ProfileSummary
    calibration: Calibration


class DriftWatch:
    """Compares windows with the training rows of a champion; what policies ask in common is worked out once."""

    def __init__(self, subject: Subject, profile: Profile, *, window_rows: int) -> None:
        self._subject, self._profile, self._window_rows = subject, profile, window_rows
        self._references: dict[tuple[FitRequest, float, int], _Reference] = {}
        self._reports: dict[tuple[FitRequest, int, int, int, float, int], DriftReport] = {}

    def compare(self, model: Trained, first: int, last: int, policy: MonitorSpec) -> tuple[DriftReport, int]:
        """The report of the rows `first` up to `last`, and in how many windows drift must stand by the calibration."""
        fitted = model.fitted
        reference = self._reference(fitted, policy)
        key = (fitted.request, first, last, policy.min_rows, policy.false_alarms, policy.recent)
        if key not in self._reports:
            self._reports[key] = compare_profiles(
                reference.profile,
                self._of_rows(fitted, first, last),
                min_rows=policy.min_rows,
                false_alarms=policy.false_alarms,
                calibration=reference.calibration,
            )
        return self._reports[key], reference.calibration.persistence_needed

    def _reference(self, fitted: Fitted, policy: MonitorSpec) -> _Reference:
        key = (fitted.request, policy.false_alarms, policy.recent)
        if key not in self._references:
            begin = fitted.request.first
            whole = self._of_rows(fitted, begin, fitted.request.last)
            blocks = [
                self._of_rows(fitted, begin + first, begin + last)
                for first, last in block_bounds(fitted.rows, window_rows=self._window_rows)
            ]
            calibration = calibrate(blocks, whole, false_alarms=policy.false_alarms, recent=policy.recent)
            self._references[key] = _Reference(whole, calibration)
        return self._references[key]

    def _of_rows(self, fitted: Fitted, first: int, last: int) -> ProfileSummary:
        classes, answers = self._subject.schema.classes, fitted.answers_of(first, last)
        said = np.array([str(classes[int(at)]) for at in answers], dtype=object) if classes else answers
        return self._profile(self._subject.rows.iloc[first:last], self._subject.schema, said)
