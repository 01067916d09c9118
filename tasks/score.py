"""Score: the champion's loss on rows whose labels have arrived, against the loss it was validated with."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd

from everloop.domain.estimate import EstimatedPerformance, estimate_performance
from everloop.domain.manifest import Manifest
from everloop.domain.metrics import LossSummary, Predictions, row_losses
from everloop.domain.monitor_spec import MonitorSpec
from everloop.domain.performance import PerformanceReport, score_window
from everloop.domain.ranking import RankReport, rank_quality
from everloop.domain.schema import canonical_category
from tasks.step import step
from tasks.watch import Watched

log = logging.getLogger("everloop.score")


@step
def score(
    policy: MonitorSpec,
    watched: Watched,
    rows: pd.DataFrame,
    before: Sequence[PerformanceReport] = (),
    baseline: LossSummary | None = None,
) -> PerformanceReport:
    """The performance report of the champion's rows in one window, or in a slice of it with a `baseline` of its own.

    `before` are the reports of its earlier windows.
    """
    manifest = watched.manifest
    report = score_window(
        losses_of(rows, manifest),
        baseline or manifest.baseline,
        rows=len(rows),
        metric=manifest.metric,
        policy=policy,
        before=before,
        lag_seconds=_lag_seconds(rows),
    )
    if baseline is None:
        log.info("performance: %s", report.reason)
    return report


@step
def estimate(watched: Watched, rows: pd.DataFrame) -> EstimatedPerformance:
    """What the loss of the champion's rows probably is, labels or not."""
    manifest = watched.manifest
    return estimate_performance(
        manifest.metric,
        manifest.kind,
        _probabilities(rows, manifest),
        manifest.row_schema.classes,
        rows["prediction"].to_numpy(),
        reference=watched.facts.estimate,
    )


@step
def rank(watched: Watched, rows: pd.DataFrame) -> RankReport | None:
    """How well a binary champion ranks the labelled rows; None for other kinds."""
    labelled = rows[rows["label"].notna()]
    manifest = watched.manifest
    if manifest.kind != "binary" or labelled.empty:
        return None
    probabilities = _probabilities(labelled, manifest)
    assert probabilities is not None
    positive = canonical_category(manifest.row_schema.classes[1])
    truth = np.array([canonical_category(value) == positive for value in labelled["label"]])
    return rank_quality(truth, probabilities[:, 1])


def losses_of(rows: pd.DataFrame, manifest: Manifest) -> np.ndarray:
    """The loss of each captured row whose label has arrived, (labelled,)."""
    labelled = rows[rows["label"].notna()]
    if labelled.empty:
        return np.empty(0)
    return row_losses(
        manifest.metric,
        labelled["label"].to_numpy(),
        Predictions(labelled["prediction"].to_numpy(), _probabilities(labelled, manifest), manifest.row_schema.classes),
    )


def _probabilities(rows: pd.DataFrame, manifest: Manifest) -> np.ndarray | None:
    """The captured probabilities (n, classes), None for a regression."""
    if not manifest.row_schema.classes:
        return None
    return np.array(rows["probabilities"].tolist(), dtype=float).reshape(len(rows), len(manifest.row_schema.classes))


def _lag_seconds(rows: pd.DataFrame) -> float | None:
    """The median time from an event to its label, None if no label has arrived."""
    lags = (rows["observed_at"] - rows["event_time"]).dropna()
    return float(pd.Timedelta(lags.median()).total_seconds()) if len(lags) else None
