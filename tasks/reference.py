"""Describe the reference: what the windows of this version will be compared with."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import pandas as pd
from everloop.adapters.source_probe import probe_source
from everloop.domain.calibration import calibrate
from everloop.domain.time_parts import time_parts

from everloop.adapters.profiles import profile_rows, summarize_profile
from everloop.adapters.reference_files import Reference
from everloop.adapters.sources import Snapshot
from everloop.adapters.tracking import code_tags
from everloop.domain.estimate import calibrate_estimate
from everloop.domain.frames import conform
from everloop.domain.importance import permutation_importance
from everloop.domain.metrics import summarize
from everloop.domain.pipelines import predict, predict_conformed
from everloop.domain.reference import MonitoringReference, SliceReference, cut_blocks
from everloop.domain.schema import RowSchema
from everloop.domain.spec import ModelSpec
from everloop.domain.splits import end_of
from everloop.settings import PROJECT, settings
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
    rows, schema, policy = challenger.rows, data.schema, spec.monitor
    predictions = predict(challenger.pipeline, rows, schema).values
    profile = _profile(rows, predictions, schema, spec)
    blocks = cut_blocks(rows, policy.window, time=spec.time)
    summaries = [summarize_profile(_profile(rows.iloc[at], predictions[at], schema, spec)) for at in blocks]
    canonical = conform(rows, schema)
    slices = tuple(_slices(spec, canonical, data, evaluation.scores.challenger))
    source = probe_source(spec, base=settings().data)
    holdout = data.split.holdout
    facts = MonitoringReference(
        calibration=calibrate(summaries, summarize_profile(profile), false_alarms=policy.false_alarms),
        importance=permutation_importance(
            lambda features: predict_conformed(challenger.pipeline, features, classes=schema.classes),
            conform(holdout, schema),
            holdout[spec.target].to_numpy(),
            spec.gates.metric,
            seed=spec.search.seed,
        ),
        labelled_rows=len(snapshot.rows),
        source_rows=snapshot.source_rows,
        known_until=end_of(snapshot.rows, spec.time),
        slices=slices,
        estimate=calibrate_estimate(spec.gates.metric, holdout[spec.target].to_numpy(), evaluation.predicted)
        if schema.classes
        else None,
        source_columns=source.columns,
        environment=code_tags(PROJECT),
    )
    log.info("reference: %d rows, %d blocks, %d slices", len(rows), len(blocks), len(slices))
    masks = [(canonical[found.column] == found.value).to_numpy() for found in slices]
    of_slices = [_profile(rows[mask], predictions[mask], schema, spec) for mask in masks]
    return Reference(facts, profile, of_slices)


def _profile(rows: pd.DataFrame, predictions: np.ndarray, schema: RowSchema, spec: ModelSpec) -> bytes:
    """The age of training rows is unknown: nobody has asked about them."""
    parts = [part for part in spec.monitor.time_parts if part != "age"]
    extra = time_parts(rows[spec.time], parts, seen=rows[spec.time]) if spec.time and parts else None
    return profile_rows(rows, schema, predictions=predictions, extra=extra)


def _slices(spec: ModelSpec, canonical: pd.DataFrame, data: Prepared, losses: np.ndarray) -> Iterator[SliceReference]:
    """The most frequent values of each watched column in the training rows, with their losses on the holdout."""
    if not spec.monitor.slices:
        return
    judged = conform(data.split.holdout, data.schema)
    for column in spec.monitor.slices:
        counts = canonical[column].value_counts()
        for value, count in counts[counts >= spec.monitor.min_rows].head(MAX_SLICE_VALUES).items():
            mine = losses[judged[column] == value]
            baseline = summarize(mine) if len(mine) >= MIN_BASELINE_ROWS else None
            yield SliceReference(column=column, value=str(value), rows=int(count), baseline=baseline)
