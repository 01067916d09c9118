"""Score: the champion's loss on a window whose labels have arrived, against the loss it was validated with."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd

from everloop.domain.manifest import Manifest
from everloop.domain.metrics import Predictions, row_losses
from everloop.domain.performance import PerformanceReport, score_window
from everloop.domain.spec import ModelSpec
from tasks.step import step

log = logging.getLogger("everloop.score")


@step
def score(spec: ModelSpec, manifest: Manifest, rows: pd.DataFrame) -> PerformanceReport:
    """The performance report of the champion's rows in one window."""
    report = score_window(
        losses_of(rows, manifest), manifest.baseline, rows=len(rows), metric=manifest.metric, policy=spec.monitor
    )
    log.info("performance: %s", report.reason)
    return report


def losses_of(rows: pd.DataFrame, manifest: Manifest) -> np.ndarray:
    """The loss of each captured row whose label has arrived, (labelled,)."""
    labelled = rows[rows["label"].notna()]
    if labelled.empty:
        return np.empty(0)
    classes = manifest.row_schema.classes
    probabilities = np.array(labelled["probabilities"].tolist(), dtype=float) if classes else None
    return row_losses(
        manifest.metric,
        labelled["label"].to_numpy(),
        Predictions(labelled["prediction"].to_numpy(), probabilities, classes),
    )
