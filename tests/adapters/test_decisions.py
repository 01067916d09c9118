"""The decision store: one decision, one retraining, however many processes want it and whichever of them dies."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from everloop.adapters.decisions import DecisionStore
from everloop.domain.errors import DecisionTaken, EverloopError
from tests.factories import make_decision

HOUR, BLINK = timedelta(hours=1), timedelta(milliseconds=50)
FIRED = make_decision()
RACERS, ROUNDS = 5, 6


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'decisions.db'}"


@pytest.fixture
def store(url: str) -> DecisionStore:
    return DecisionStore(url, lease=HOUR)


def wait_until(is_so: Callable[[], Any], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        time.sleep(0.01)


def test_a_decision_fires_once_and_is_never_overwritten(store: DecisionStore) -> None:
    assert store.store(make_decision("none")) is False
    assert store.store(FIRED) is True
    assert store.store(FIRED) is False
    assert store.store(make_decision("none")) is False
    assert store.get(FIRED.id) == FIRED
    assert abs(datetime.now(UTC) - store.fired_at(FIRED.id)) < timedelta(seconds=10)


def test_decisions_of_a_model_are_listed_oldest_window_first_with_their_outcome(store: DecisionStore) -> None:
    for window in (2, 0, 1):
        store.store(make_decision("alert", window=window))
    store.store(make_decision(window=3))
    store.store(make_decision(model="scooters"))
    store.claim(make_decision(window=3).id, "run")
    store.finish(make_decision(window=3).id, "run", "promoted v2")
    assert [decision.window.id for decision in store.list("bikes")] == [
        make_decision(window=n).window.id for n in range(4)
    ]
    assert [decision.outcome for decision in store.list("bikes")] == [None, None, None, "promoted v2"]


@pytest.mark.parametrize("ask", ["get", "claim"])
def test_a_decision_that_is_not_stored_is_named_with_the_store(store: DecisionStore, ask: str, url: str) -> None:
    with pytest.raises(
        EverloopError, match=f"decision 'bikes/nope' is not stored in {url}; `everloop decisions` lists"
    ):
        store.get("bikes/nope") if ask == "get" else store.claim("bikes/nope", "run")


def test_a_decision_that_has_not_fired_has_no_time(store: DecisionStore) -> None:
    store.store(make_decision("alert"))
    with pytest.raises(EverloopError, match=r"decision 'bikes/.*' has not fired"):
        store.fired_at(FIRED.id)


def test_claiming_a_decision_that_has_not_fired_says_so(store: DecisionStore) -> None:
    store.store(make_decision("alert"))
    with pytest.raises(EverloopError, match="has not fired"):
        store.claim(FIRED.id, "run")


def test_a_held_decision_is_refused_to_others_and_given_again_to_its_holder(store: DecisionStore) -> None:
    store.store(FIRED)
    store.claim(FIRED.id, "first")
    with pytest.raises(DecisionTaken, match=f"{FIRED.id} is held by another run; one decision starts one retraining"):
        store.claim(FIRED.id, "second")
    store.claim(FIRED.id, "first")
    assert store.renew(FIRED.id, "first")


def test_only_the_holder_finishes_once_and_then_nobody_claims(store: DecisionStore) -> None:
    store.store(FIRED)
    store.claim(FIRED.id, "first")
    assert not store.finish(FIRED.id, "second", "stolen")
    assert store.finish(FIRED.id, "first", "promoted v2")
    assert not store.finish(FIRED.id, "first", "again")
    with pytest.raises(DecisionTaken, match="is finished: promoted v2; one decision starts one retraining"):
        store.claim(FIRED.id, "first")


def test_when_the_lease_ends_another_run_takes_over_and_the_first_has_lost_it(url: str) -> None:
    store = DecisionStore(url, lease=BLINK)
    store.store(FIRED)
    store.claim(FIRED.id, "first")
    wait_until(lambda: store.forgotten("bikes", older_than=HOUR) == [(FIRED.id, 1)])
    store.claim(FIRED.id, "second")
    assert not store.renew(FIRED.id, "first")
    assert not store.finish(FIRED.id, "first", "too late")
    assert store.finish(FIRED.id, "second", "promoted v2")


class Watched(DecisionStore):
    """Counts its renewals; the first `broken` of them fail as on a busy database."""

    renewals, broken = 0, 0

    def renew(self, decision: str, by: str) -> bool:
        self.renewals += 1
        if self.renewals <= self.broken:
            raise sqlalchemy.exc.OperationalError("update decisions", {}, Exception("database is locked"))
        return super().renew(decision, by)


def test_while_it_is_held_the_lease_does_not_end(url: str) -> None:
    store = Watched(url, lease=timedelta(seconds=1))
    store.store(FIRED)
    store.claim(FIRED.id, "first")
    with store.holding(FIRED.id, "first"):
        wait_until(lambda: store.renewals >= 9)  # a lease and a half
        with pytest.raises(DecisionTaken, match="is held by another run"):
            store.claim(FIRED.id, "second")
    wait_until(lambda: store.forgotten("bikes", older_than=HOUR))
    store.claim(FIRED.id, "second")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_renewal_that_failed_is_tried_again(url: str) -> None:
    store = Watched(url, lease=BLINK)
    store.broken = 1
    with store.holding(FIRED.id, "first"):
        wait_until(lambda: store.renewals > 1, seconds=2)


def test_forgotten_are_fired_decisions_that_nobody_works_on(store: DecisionStore) -> None:
    for window, action in enumerate(("retrain", "retrain", "retrain", "alert")):
        store.store(make_decision(action, window=window))
    store.claim(make_decision(window=1).id, "alive")
    store.claim(make_decision(window=2).id, "done")
    store.finish(make_decision(window=2).id, "done", "promoted v2")
    assert store.forgotten("bikes", older_than=timedelta(0)) == [(make_decision(window=0).id, 0)]
    assert store.forgotten("bikes", older_than=HOUR) == []
    assert store.forgotten("scooters", older_than=timedelta(0)) == []


def test_giving_up_needs_a_dead_or_absent_holder_and_is_final(url: str, store: DecisionStore) -> None:
    store.store(FIRED)
    store.claim(FIRED.id, "first")
    assert not store.give_up(FIRED.id, "given up")
    impatient = DecisionStore(url, lease=BLINK)
    wait_until(lambda: impatient.give_up(FIRED.id, "given up after 1 run that died"))
    assert not impatient.give_up(FIRED.id, "again")
    assert not store.renew(FIRED.id, "first")
    assert store.get(FIRED.id).outcome == "given up after 1 run that died"


@pytest.mark.parametrize("url", ["mysql+pymysql://h/db", "nosuch://h/db"])
def test_another_database_is_refused_with_those_that_can_be_used(url: str) -> None:
    with pytest.raises(EverloopError, match=r"EVERLOOP_DATABASE_URL names .*; use sqlite:///… or postgresql"):
        DecisionStore(url, lease=HOUR)


def stores(store: DecisionStore, number: int, name: str) -> bool:
    return store.store(make_decision(window=number))


def claims(store: DecisionStore, number: int, name: str) -> bool:
    with contextlib.suppress(DecisionTaken):
        store.claim(make_decision(window=number).id, name)
        return True
    return False


def opens(store: DecisionStore, number: int, name: str) -> bool:
    with contextlib.suppress(sqlalchemy.exc.OperationalError):
        DecisionStore(str(store._engine.url).replace(".db", f"-{number}.db"), lease=HOUR)
        return True
    return False


def race(attempt: Callable[[DecisionStore, int, str], bool], url: str, name: str, start: Any, results: Any) -> None:
    """In a process of its own: all begin each round together; report the rounds in which this one succeeded."""
    store, won = DecisionStore(url, lease=HOUR), []
    for number in range(ROUNDS):
        start.wait(20)
        if attempt(store, number, name):
            won.append(number)
    results.put(won)


def run_race(attempt: Callable[[DecisionStore, int, str], bool], url: str) -> list[int]:
    """The number of each round, as often as a process succeeded in it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    start, results = context.Barrier(RACERS), context.Queue()
    racers = [context.Process(target=race, args=(attempt, url, f"run {n}", start, results)) for n in range(RACERS)]
    for racer in racers:
        racer.start()
    won = [number for _ in racers for number in results.get(timeout=60)]
    for racer in racers:
        racer.join(30)
    return sorted(won)


def test_of_processes_that_store_the_same_decision_one_makes_it_fire(store: DecisionStore, url: str) -> None:
    assert run_race(stores, url) == list(range(ROUNDS))
    assert len(store.list("bikes")) == ROUNDS


def test_of_processes_that_claim_the_same_decision_one_gets_it(store: DecisionStore, url: str) -> None:
    for number in range(ROUNDS):
        store.store(make_decision(window=number))
    assert run_race(claims, url) == list(range(ROUNDS))


def test_processes_that_open_a_new_store_together_can_all_use_it(store: DecisionStore, url: str) -> None:
    assert run_race(opens, url) == sorted(list(range(ROUNDS)) * RACERS)


def test_the_history_looks_back_on_the_newest_decisions_and_on_those_that_fired_before_them(
    store: DecisionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("everloop.adapters.decisions._RECENT", 3)
    for window in range(10):
        store.store(make_decision("retrain" if window in (1, 2) else "none", window=window))
    ids = [make_decision(window=window).id for window in range(10)]
    assert [decision.id for decision in store.history("bikes")] == [ids[n] for n in (1, 2, 7, 8, 9)]
    before = make_decision(window=6).window
    assert [decision.id for decision in store.history("bikes", before=before)] == [ids[n] for n in (1, 2, 3, 4, 5)]
    assert store.history("scooters") == []


def test_row_windows_of_one_moment_are_looked_back_on_in_the_order_of_capture(store: DecisionStore) -> None:
    """Where event times are days, many windows end at the same one; a window must not see those after it."""
    made = []
    for number in range(4):
        decision = make_decision("none")
        place = {"first": f"2024-03-09T00:0{number}|a", "last": f"2024-03-09T00:0{number}|z", "before": 100 * number}
        window = decision.window.model_copy(update={**place, "id": f"rows-{number}"})
        made.append(decision.model_copy(update={"id": f"bikes/rows-{number}", "window": window}))
        store.store(made[-1])
    assert [found.window.id for found in store.history("bikes", before=made[2].window)] == ["rows-0", "rows-1"]


def test_a_decision_counts_as_published_until_it_is_judged_anew(store: DecisionStore) -> None:
    found = make_decision("none")
    store.store(found)
    assert store.get(found.id).published is False
    store.mark_published(found.id)
    assert store.get(found.id).published is True
    store.store(found)
    assert store.get(found.id).published is False


def test_a_person_acknowledges_rejected_challengers_and_nothing_else(store: DecisionStore) -> None:
    for window, outcome in enumerate(["rejected", "released", None]):
        store.store(made := make_decision(window=window))
        store.claim(made.id, "run")
        if outcome:
            store.finish(made.id, "run", outcome, released=outcome == "released", rejected=outcome == "rejected")
    assert store.acknowledge("bikes", "ada") == 1
    assert store.acknowledge("bikes", "bob") == 0
    assert [decision.acknowledged_by for decision in store.list("bikes")] == ["ada", None, None]
    assert [decision.was_rejected for decision in store.list("bikes")] == [False, False, False]


@pytest.mark.parametrize(("outcome", "trained"), [("promoted v2", True), ("refused: no rows", False), (None, False)])
def test_a_store_of_an_earlier_version_is_brought_up_to_date_and_keeps_its_rows(
    url: str, outcome: str | None, trained: bool
) -> None:
    engine = sqlalchemy.create_engine(url)
    body = FIRED.model_dump_json(include={"id", "model", "version", "window", "action", "reason_codes", "reason"})
    old = FIRED.model_dump_json(include={"drift", "performance"})
    with engine.begin() as connection:
        connection.execute(
            sqlalchemy.text(
                "create table decisions (id varchar primary key, model varchar not null, window_end varchar not null, "
                "window_id varchar not null, action varchar not null, body text not null, fired_at datetime, claimed_by varchar, "
                "renewed_at datetime, attempts integer not null, outcome varchar, released boolean not null)"
            )
        )
        connection.execute(
            sqlalchemy.text(
                "insert into decisions values (:id, 'bikes', :end, :window, 'retrain', :body, '2024-03-01 00:00:00', null, null, 0, "
                ":outcome, 1)"
            ),
            {
                "outcome": outcome,
                "id": FIRED.id,
                "end": FIRED.window.end,
                "window": FIRED.window.id,
                "body": f"{body[:-1]},{old[1:]}",
            },
        )
    for _ in range(2):
        (found,) = DecisionStore(url, lease=HOUR).list("bikes")
    assert found == FIRED.model_copy(
        update={"outcome": outcome, "trained": trained, "released": True, "published": True}
    )


def placed(number: int, *, days: float, labelled: int = 10) -> Any:
    """A decision about a window whose newest row was served so many days after a moment."""
    made = make_decision("none", window=number)
    place = f"{datetime(2024, 6, 1) + timedelta(days=days):%Y-%m-%dT%H:%M:%S.%f}|p{number}"
    return made.model_copy(update={"window": made.window.model_copy(update={"last": place}), "labelled_rows": labelled})


def test_every_window_that_was_served_since_a_moment_is_known_and_some_before_it_in_the_order_of_capture(
    store: DecisionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("everloop.adapters.decisions._RECENT", 2)
    monkeypatch.setattr("everloop.adapters.decisions._SETTLED", 3)
    order = [7, 3, 0, 9, 1, 5, 2, 8, 4, 6]  # the order of capture is not that of event time
    for place, number in enumerate(order):
        store.store(placed(number, days=place))
    found = store.served_since("bikes", datetime(2024, 6, 6))
    assert [decision.window.id for decision in found] == [make_decision(window=n).window.id for n in order[2:]]
    assert len(store.served_since("bikes", datetime(2025, 1, 1))) == 3


def test_labelled_rows_of_windows_after_a_moment_are_summed_however_many_there_are(
    store: DecisionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("everloop.adapters.decisions._RECENT", 2)
    for number in range(8):
        store.store(placed(number, days=number, labelled=number))
    start = make_decision(window=2).window.start
    besides = make_decision(window=5).id
    end = make_decision(window=6).window.end
    assert store.labelled_between("bikes", start, end, besides=besides) == 3 + 4 + 6
    assert store.labelled_between("scooters", start, end, besides=besides) == 0


def test_those_that_fired_are_found_wherever_their_window_lies(store: DecisionStore) -> None:
    for number in range(5):
        store.store(make_decision("retrain" if number in (1, 3) else "alert", window=number))
    one, three = make_decision(window=1).id, make_decision(window=3).id
    assert [decision.id for decision in store.fired("bikes")] == [one, three]
    assert [decision.id for decision in store.fired("bikes", besides=three)] == [one]


def test_a_version_that_a_person_let_go_live_later_makes_its_decision_a_release(store: DecisionStore) -> None:
    store.store(FIRED)
    store.mark_released(FIRED.id)
    assert store.get(FIRED.id).released is False, "it is not finished"
    store.claim(FIRED.id, "run")
    store.finish(FIRED.id, "run", "v2 waits for approval")
    store.mark_released(FIRED.id)
    assert store.get(FIRED.id).released is True
