"""Measure growth: how many labelled rows there are now, and how many there were at the last training."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from everloop.domain.decision import RetrainingDecision, decision_id
from everloop.domain.dependencies import SourceState
from everloop.domain.evidence import Growth
from everloop.domain.spec import ModelSpec
from everloop.domain.windows import Window
from tasks.step import step
from tasks.watch import Watched
from tasks.wiring import decisions


@step
def measure_growth(
    spec: ModelSpec, watched: Watched, source: SourceState, served: int, fired: Sequence[RetrainingDecision]
) -> Growth | None:
    """The growth since this version was trained, or since one of the `fired` retrainings that could not replace it was decided.

    One that ended without a challenger has trained nothing. `served` are the labelled rows of all windows that came after the
    training data. None for a version of an earlier Everloop.
    """
    facts, version = watched.facts, watched.version.number
    if facts.labelled_rows is None:
        return None
    tried = [
        found.growth.labelled_rows for found in fired if found.growth and found.version == version and found.trained
    ]
    # a source that takes in what was served would be counted twice: the larger of the two is what is new
    new = max(served if spec.data.include_served else 0, (source.labelled or 0) - (facts.source_rows or 0), 0)
    return Growth(
        labelled_rows=facts.labelled_rows + new,
        at_last_training=max([facts.labelled_rows, *tried]),
        fitted_rows=watched.manifest.rows,
    )


def recount(decision: RetrainingDecision, rows: pd.DataFrame) -> None:
    """Afterwards labels that came for the `rows` of a window that is not judged again, it fired or is of an earlier version, count."""
    labelled = int(rows["label"].notna().sum())
    if labelled > decision.labelled_rows:
        decisions().count_labelled(decision.id, labelled)


def labelled_before(spec: ModelSpec, watched: Watched, window: Window) -> int:
    """The labelled rows of the windows before this one that began after everything that training could learn from.

    Those after it do not count: judged again, a window must say what it said.
    """
    until = watched.facts.known_until
    if until is None or spec.time is None:
        return 0
    return decisions().labelled_between(spec.name, until, window.end, besides=decision_id(spec.name, window))
