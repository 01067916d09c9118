"""Growth: what has come since the last training, counted once wherever it shows."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from everloop.adapters.decisions import DecisionStore
from everloop.adapters.registry import Version
from everloop.domain.dependencies import SourceState
from everloop.domain.evidence import Growth
from everloop.domain.reference import MonitoringReference
from everloop.domain.summaries import ProfileSummary
from tasks.measure_growth import labelled_before, measure_growth
from tasks.watch import Watched
from tests.factories import make_decision, make_model, make_spec

UNTIL = "2024-02-29T23:00:00"  # before the window of the first day that make_decision speaks of
FACTS = MonitoringReference(labelled_rows=1000, source_rows=900, known_until=UNTIL)


def watched(facts: MonitoringReference = FACTS) -> Watched:
    version = Version(model="bikes", number="1", run_id="r", source="s")
    return Watched(version, make_model().manifest, facts, ProfileSummary(rows=0))


def grown(
    served: int = 0, *, fired: Any = (), source: int | None = 900, facts: MonitoringReference = FACTS, **spec: Any
) -> Growth | None:
    """The growth that is measured with `served` labelled rows since, when the source holds `source`, None if it is gone."""
    state = SourceState(reachable=source is not None, reason="as it is", rows=source, labelled=source)
    step: Any = measure_growth
    found: Growth | None = step.fn(make_spec(**spec), watched(facts), state, served, fired)
    return found


def test_labelled_rows_since_the_training_are_growth() -> None:
    assert grown(60) == Growth(labelled_rows=1060, at_last_training=1000, fitted_rows=make_model().manifest.rows)


def test_windows_that_training_knew_are_not_new(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    store = DecisionStore(f"sqlite:///{tmp_path / 'decisions.db'}", lease=timedelta(hours=1))
    monkeypatch.setattr("tasks.measure_growth.decisions", lambda: store)
    for day, labelled in enumerate((24, 16, 10, 5)):
        store.store(make_decision("none", window=day).model_copy(update={"labelled_rows": labelled}))
    of_day_3 = make_decision(window=3).window
    assert labelled_before(make_spec(), watched(), of_day_3) == 50
    known = FACTS.model_copy(update={"known_until": "2024-03-02T00:00:00"})
    assert labelled_before(make_spec(), watched(known), of_day_3) == 10
    timeless = make_spec(time=None, data={"source": "rows.csv", "history": "all", "include_served": False})
    assert labelled_before(timeless, watched(), of_day_3) == 0


@pytest.mark.parametrize(("source", "expected"), [(900, 1040), (930, 1040), (990, 1090), (None, 1040), (100, 1040)])
def test_a_source_that_takes_in_what_was_served_is_not_counted_twice(source: int | None, expected: int) -> None:
    found = grown(40, source=source)
    assert found is not None
    assert found.labelled_rows == expected


def test_served_rows_do_not_count_for_a_model_that_does_not_learn_from_them() -> None:
    found = grown(90, data={"source": "rows.csv", "include_served": False})
    assert found is not None
    assert found.labelled_rows == 1000


def test_growth_begins_anew_with_a_retraining_that_could_not_replace_the_champion() -> None:
    growth = Growth(labelled_rows=1024, at_last_training=1000, fitted_rows=120)
    tried = make_decision("retrain", window=1).model_copy(update={"growth": growth, "trained": True})
    found = grown(58, fired=[tried])
    assert found is not None
    assert (found.labelled_rows, found.at_last_training) == (1058, 1024)


def test_a_retraining_without_a_challenger_has_trained_nothing() -> None:
    growth = Growth(labelled_rows=1024, at_last_training=1000, fitted_rows=120)
    gone = make_decision("retrain", window=1).model_copy(update={"growth": growth, "outcome": "refused: no rows"})
    found = grown(58, fired=[gone])
    assert found is not None
    assert found.at_last_training == 1000


def test_a_version_of_an_earlier_everloop_does_not_say_what_there_was() -> None:
    assert grown(facts=MonitoringReference()) is None
