from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from everloop.adapters.decisions import DecisionStore
from everloop.domain.errors import DataBlocked, DecisionTaken
from tasks import claim as claims
from tasks.claim import claimed, still_holds
from tests.factories import make_decision


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DecisionStore]:
    """A store with one fired decision, in place of the process's own."""
    made = DecisionStore(f"sqlite:///{tmp_path / 'decisions.db'}", lease=timedelta(seconds=30))
    made.store(make_decision(action="retrain"))
    monkeypatch.setattr(claims, "decisions", lambda: made)
    return made


DECISION = make_decision(action="retrain").id


def test_a_run_on_demand_holds_nothing_and_is_never_stopped() -> None:
    with claimed(None) as claim:
        assert claim.is_held()
        assert still_holds()
        claim.finish("done")


def test_a_claim_is_held_until_the_run_says_what_became_of_it(store: DecisionStore) -> None:
    with claimed(DECISION) as claim:
        assert still_holds()
        with pytest.raises(DecisionTaken, match="held by another run"), claimed(DECISION):
            pass
        claim.finish("v2 is champion")
    assert store.get(DECISION).outcome == "v2 is champion"


def test_a_refusal_finishes_the_decision(store: DecisionStore) -> None:
    with pytest.raises(DataBlocked), claimed(DECISION):
        raise DataBlocked("temp is all null")
    assert store.get(DECISION).outcome == "refused: temp is all null"


def test_a_crash_leaves_the_decision_to_be_taken_over(store: DecisionStore) -> None:
    with pytest.raises(ConnectionError), claimed(DECISION):
        raise ConnectionError("the registry is away")
    assert store.get(DECISION).outcome is None


def test_a_run_that_was_replaced_knows_it(store: DecisionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with claimed(DECISION):
        monkeypatch.setattr(store, "_lease", timedelta(seconds=-1))
        store.claim(DECISION, "the run that took over")
        assert not still_holds()
