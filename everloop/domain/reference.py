"""What the windows of a version are compared with, beside its reference profile. It is logged with the version."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd

from everloop.domain.calibration import Calibration
from everloop.domain.estimate import CalibrationOfEstimate
from everloop.domain.metrics import LossSummary
from everloop.domain.monitor_spec import RowWindow, SpanWindow
from everloop.domain.spec_values import Frozen, parse_duration

MAX_BLOCKS = 60


class SliceReference(Frozen):
    """A slice that is watched: its rows in the training data, and its loss on the holdout if enough rows stand there."""

    column: str
    value: str
    rows: int
    baseline: LossSummary | None = None

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


def cut_blocks(rows: pd.DataFrame, shape: RowWindow | SpanWindow, *, time: str | None) -> list[slice]:
    """Consecutive stretches of `rows` (in time order), each as long as a monitored window; positions, at most MAX_BLOCKS.

    More are thinned out evenly. A rest that is shorter than a window is left out.
    """
    if isinstance(shape, RowWindow):
        starts = range(0, len(rows) - shape.rows + 1, shape.rows)
        blocks = [slice(start, start + shape.rows) for start in starts]
    else:
        assert time is not None
        spans = rows[time].dt.floor(pd.Timedelta(parse_duration(shape.span))).to_numpy()
        # the first and the last span may be cut off by the ends of the history: whole ones lie between two changes
        changes = np.flatnonzero(spans[1:] != spans[:-1]) + 1
        blocks = [slice(int(start), int(end)) for start, end in pairwise(changes)]
    step = -(-len(blocks) // MAX_BLOCKS) or 1
    return blocks[::step]
