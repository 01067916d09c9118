"""Growth: what has come since the last training, counted once wherever it shows."""

from __future__ import annotations

from typing import Any

import pytest

from everloop.adapters.registry import Version
from everloop.domain.decision import RetrainingDecision
from everloop.domain.dependencies import SourceState
from everloop.domain.evidence import Growth
from everloop.domain.reference import MonitoringReference
from everloop.domain.summaries import ProfileSummary
from tasks.measure_growth import measure_growth
from tasks.watch import Watched
from tests.factories import make_decision, make_model, make_spec

UNTIL = "2024-02-29T23:00:00"  # before the window of the first day that make_decision speaks of
FACTS = MonitoringReference(labelled_rows=1000, source_rows=900, known_until=UNTIL)


def watched(facts: MonitoringReference = FACTS) -> Watched:
    version = Version(model="bikes", number="1", run_id="r", source="s")
    return Watched(version, make_model().manifest, facts, ProfileSummary(rows=0))


def grown(
    *, labelled: int = 0, earlier: Any = (), source: int | None = 900, facts: MonitoringReference = FACTS, **spec: Any
) -> Growth | None:
    """The growth that is measured when the source holds `source` labelled rows, None if it is gone."""
    state = SourceState(reachable=source is not None, reason="as it is", rows=source, labelled=source)
    step: Any = measure_growth
    found: Growth | None = step.fn(make_spec(**spec), watched(facts), state, labelled, earlier)
    return found


def decided(day: int, labelled: int, **became: Any) -> RetrainingDecision:
    made = make_decision("none", window=day)
    performance = made.performance.model_copy(update={"labelled": labelled})
    return made.model_copy(update={"performance": performance, **became})


def test_labelled_rows_of_windows_after_the_training_data_are_new() -> None:
    found = grown(labelled=20, earlier=[decided(0, 24), decided(1, 16)])
    assert found == Growth(labelled_rows=1060, at_last_training=1000, fitted_rows=make_model().manifest.rows)


def test_windows_that_training_knew_are_not_new() -> None:
    facts = FACTS.model_copy(update={"known_until": "2024-03-02T00:00:00"})
    found = grown(earlier=[decided(0, 24), decided(1, 16), decided(2, 10)], facts=facts)
    assert found is not None
    assert found.labelled_rows == 1010


@pytest.mark.parametrize(("source", "expected"), [(900, 1040), (930, 1040), (990, 1090), (None, 1040), (100, 1040)])
def test_a_source_that_takes_in_what_was_served_is_not_counted_twice(source: int | None, expected: int) -> None:
    found = grown(earlier=[decided(0, 40)], source=source)
    assert found is not None
    assert found.labelled_rows == expected


def test_served_rows_do_not_count_for_a_model_that_does_not_learn_from_them() -> None:
    found = grown(labelled=50, earlier=[decided(0, 40)], data={"source": "rows.csv", "include_served": False})
    assert found is not None
    assert found.labelled_rows == 1000


def test_growth_begins_anew_with_a_retraining_that_could_not_replace_the_champion() -> None:
    tried = decided(1, 24, action="retrain", growth=Growth(labelled_rows=1024, at_last_training=1000, fitted_rows=120))
    found = grown(labelled=10, earlier=[decided(0, 24), tried])
    assert found is not None
    assert (found.labelled_rows, found.at_last_training) == (1058, 1024)


def test_a_version_of_an_earlier_everloop_does_not_say_what_there_was() -> None:
    assert grown(facts=MonitoringReference()) is None
