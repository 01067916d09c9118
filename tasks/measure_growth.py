"""Measure growth: how many labelled rows there are now, and how many there were at the last training."""

from __future__ import annotations

from collections.abc import Sequence

from everloop.domain.decision import RetrainingDecision
from everloop.domain.dependencies import SourceState
from everloop.domain.evidence import Growth
from everloop.domain.reference import MonitoringReference
from everloop.domain.spec import ModelSpec
from tasks.step import step
from tasks.watch import Watched


@step
def measure_growth(
    spec: ModelSpec, watched: Watched, source: SourceState, labelled: int, earlier: Sequence[RetrainingDecision]
) -> Growth | None:
    """The growth since this version was trained, or since a retraining that could not replace it was decided.

    `labelled` rows are those of the window that is judged. None for a version of an earlier Everloop.
    """
    facts, version = watched.facts, watched.version.number
    if facts.labelled_rows is None:
        return None
    tried = [
        found.growth.labelled_rows for found in earlier if found.is_fired and found.version == version and found.growth
    ]
    served = labelled + sum(found.performance.labelled for found in earlier if _is_new(found, facts))
    new = max(served if spec.data.include_served else 0, (source.labelled or 0) - (facts.source_rows or 0), 0)
    # a source that takes in what was served would be counted twice: the larger of the two is what is new
    return Growth(
        labelled_rows=facts.labelled_rows + new,
        at_last_training=max([facts.labelled_rows, *tried]),
        fitted_rows=watched.manifest.rows,
    )


def _is_new(decision: RetrainingDecision, facts: MonitoringReference) -> bool:
    """True if the window's rows came after everything that training could learn from."""
    return (
        facts.known_until is not None and not facts.known_until.isdigit() and decision.window.start > facts.known_until
    )
