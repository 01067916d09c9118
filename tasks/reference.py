"""Describe the reference: what the windows of this version will be compared with."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from everloop.adapters.model_files import environment
from everloop.adapters.profiles import profile_rows, summarize_profile
from everloop.adapters.reference_files import Reference
from everloop.adapters.source_probe import probe_source
from everloop.adapters.sources import Snapshot
from everloop.domain.calibration import Calibration, block_bounds, calibrate
from everloop.domain.estimate import calibrate_estimate
from everloop.domain.frames import conform
from everloop.domain.importance import permutation_importance
from everloop.domain.metrics import summarize
from everloop.domain.pipelines import predict, predict_conformed
from everloop.domain.reference import MonitoringReference, SliceReference, rows_of_a_window
from everloop.domain.schema import RowSchema
from everloop.domain.spec import ModelSpec
from everloop.domain.splits import end_of
from everloop.domain.time_parts import time_parts
from everloop.settings import settings
from tasks.evaluate import Evaluation
from tasks.fit import Challenger
from tasks.prepare import Prepared
from tasks.step import step

log = logging.getLogger("everloop.reference")

MAX_SLICE_VALUES = 20
MIN_BASELINE_ROWS = 30


@step
def describe_reference(
    spec: ModelSpec, snapshot: Snapshot, data: Prepared, challenger: Challenger, evaluation: Evaluation
) -> Reference:
    """The reference of the challenger."""
    rows, holdout = _Rows.of(spec, data, challenger), data.split.holdout
    truth = holdout[spec.target].to_numpy()
    source = probe_source(spec, base=settings().data)
    profile, slices = rows.profile(), list(_slices(rows, data, evaluation.scores.challenger))
    facts = MonitoringReference(
        calibration=rows.calibrate(profile),
        importance=permutation_importance(
            lambda features: predict_conformed(challenger.pipeline, features, classes=data.schema.classes),
            conform(holdout, data.schema),
            truth,
            spec.gates.metric,
            seed=spec.search.seed,
        ),
        labelled_rows=len(snapshot.rows),
        source_rows=snapshot.source_rows,
        known_until=end_of(snapshot.rows, spec.time),
        slices=tuple(found for found, _ in slices),
        estimate=calibrate_estimate(spec.gates.metric, truth, evaluation.predicted) if data.schema.classes else None,
        source_columns=dict(source.columns),
        environment=environment(),
    )
    assert facts.calibration is not None
    log.info("reference: %d rows, %d slices, %s", len(rows.frame), len(slices), facts.calibration.reason)
    return Reference(facts, profile, tuple(found for _, found in slices))


@dataclass(frozen=True)
class _Rows:
    """Rows that the challenger was fitted on, what it says about them (n,), and the bounds of their blocks."""

    spec: ModelSpec
    schema: RowSchema
    frame: pd.DataFrame
    predictions: np.ndarray
    blocks: Sequence[tuple[int, int]]

    @staticmethod
    def of(spec: ModelSpec, data: Prepared, challenger: Challenger) -> _Rows:
        """All rows of `challenger`."""
        frame = challenger.rows
        length = rows_of_a_window(frame, spec.monitor.window, time=spec.time)
        predictions = predict(challenger.pipeline, frame, data.schema).values
        return _Rows(spec, data.schema, frame, predictions, block_bounds(len(frame), window_rows=length))

    def only(self, mask: np.ndarray) -> _Rows:
        """The rows where `mask` (n,) is true; the blocks are the same stretches, with fewer rows."""
        before = np.concatenate([[0], np.cumsum(mask)])
        blocks = [(int(before[start]), int(before[stop])) for start, stop in self.blocks]
        kept = [bounds for bounds in blocks if bounds[1] > bounds[0]]
        return _Rows(self.spec, self.schema, self.frame[mask], self.predictions[mask], kept)

    def profile(self, start: int = 0, stop: int | None = None) -> bytes:
        """The profile of the rows from `start` to `stop`; the age of training rows is unknown: nobody has asked about them."""
        rows, time = self.frame.iloc[start:stop], self.spec.time
        parts = [part for part in self.spec.monitor.time_parts if part != "age"]
        extra = time_parts(rows[time], parts, seen=rows[time]) if time and parts else None
        return profile_rows(rows, self.schema, predictions=self.predictions[start:stop], extra=extra)

    def calibrate(self, whole: bytes) -> Calibration:
        """What the blocks say about windows without change; `whole` is the profile of all rows."""
        policy = self.spec.monitor
        blocks = [summarize_profile(self.profile(start, stop)) for start, stop in self.blocks]
        return calibrate(blocks, summarize_profile(whole), false_alarms=policy.false_alarms, recent=policy.recent)


def _slices(rows: _Rows, data: Prepared, losses: np.ndarray) -> Iterator[tuple[SliceReference, bytes]]:
    """The most frequent values of each watched column, with their `losses` on the holdout, and their profiles."""
    policy = rows.spec.monitor
    if not policy.slices:
        return
    canonical, judged = conform(rows.frame, data.schema), conform(data.split.holdout, data.schema)
    for column in policy.slices:
        counts = canonical[column].value_counts()
        for value, count in counts[counts >= policy.min_rows].head(MAX_SLICE_VALUES).items():
            mine, own = losses[judged[column] == value], rows.only((canonical[column] == value).to_numpy())
            profile = own.profile()
            found = SliceReference(
                column=column,
                value=str(value),
                rows=int(count),
                baseline=summarize(mine) if len(mine) >= MIN_BASELINE_ROWS else None,
                calibration=own.calibrate(profile),
            )
            yield found, profile
