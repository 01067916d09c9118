"""What the windows of a version are compared with, beside its reference profile. It is logged with the version."""

from __future__ import annotations

import numpy as np
import pandas as pd

from everloop.domain.calibration import Calibration
from everloop.domain.estimate import CalibrationOfEstimate
from everloop.domain.metrics import LossSummary
from everloop.domain.monitor_spec import RowWindow, SpanWindow
from everloop.domain.spec_values import Frozen, parse_duration


class SliceReference(Frozen):
    """A slice that is watched: its rows in the training data, its loss on the holdout if enough rows stand there, and what its
    rows in the blocks of the training data taught."""

    column: str
    value: str
    rows: int
    baseline: LossSummary | None = None
    calibration: Calibration | None = None

    @property
    def name(self) -> str:
        """The slice as a person writes it: 'season=1'."""
        return f"{self.column}={self.value}"


class MonitoringReference(Frozen):
    """What is known of the training data and the holdout of one version.

    `labelled_rows` and `known_until` say how much there was to learn from; `source_columns` and `environment` are what
    the source and the code looked like. A version of an earlier Everloop has none of it: every default means unknown.
    """

    calibration: Calibration | None = None
    importance: dict[str, float] = {}
    labelled_rows: int | None = None
    source_rows: int | None = None
    known_until: str | None = None
    slices: tuple[SliceReference, ...] = ()
    estimate: CalibrationOfEstimate | None = None
    source_columns: dict[str, str] = {}
    environment: dict[str, str] = {}


def rows_of_a_window(rows: pd.DataFrame, shape: RowWindow | SpanWindow, *, time: str | None) -> int:
    """How many of `rows` (in time order) a monitored window is about as long as; the median of the whole spans among them."""
    if isinstance(shape, RowWindow):
        return shape.rows
    assert time is not None
    spans = rows[time].dt.floor(pd.Timedelta(parse_duration(shape.span)))
    counts = spans.value_counts(sort=False).sort_index().to_numpy()
    return int(np.median(counts[1:-1])) if len(counts) > 2 else int(np.max(counts, initial=1))
