"""A retraining that is asked for waits while another is in flight and while the cooldown runs."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everloop.domain.decision import RetrainingDecision
from everloop.domain.spec_values import parse_duration
from tests.domain.examples import fired, seen, take


@pytest.mark.parametrize(("day", "action"), [(11, "none"), (12, "none"), (13, "retrain"), (30, "retrain")])
def test_no_retraining_is_decided_while_the_cooldown_runs(day: int, action: str) -> None:
    decision = take(day, "D", earlier=[*seen("D"), fired(10)])
    assert decision.action == action
    assert ("cooldown" in decision.reason_codes) is (action == "none")


def test_a_retraining_held_back_by_the_cooldown_says_so_beside_its_signal() -> None:
    decision = take(12, "D", earlier=[*seen("D"), fired(10)])
    assert decision.reason_codes == ("degradation", "cooldown")
    assert decision.reason == (
        "degradation stands in 2 of the last 3 windows: the loss rose; "
        "held back: the last retraining was decided 2 days, 0:00:00 of event time ago, cooldown 3d"
    )


@pytest.mark.parametrize("outcome", ["promoted", "refused", "failed"])
def test_the_cooldown_runs_whatever_the_retraining_led_to_and_across_versions(outcome: str) -> None:
    earlier = [fired(10, outcome, version="1"), take(11, "D", version="2")]
    assert take(12, "D", earlier=earlier, version="2").reason_codes == ("degradation", "cooldown")
    assert take(13, "D", earlier=earlier, version="2").action == "retrain"


@pytest.mark.parametrize(("released", "action"), [(True, "none"), (False, "retrain")])
def test_a_rejected_challenger_is_retried_sooner_than_a_released_one_is_replaced(released: bool, action: str) -> None:
    before = fired(10).model_copy(update={"released": released})
    assert take(11, "D", earlier=[*seen("D"), before], retry_after="1d").action == action


def test_the_newest_retraining_starts_the_cooldown() -> None:
    assert take(12, "D", earlier=[fired(1), *seen("D"), fired(10)]).reason_codes == ("degradation", "cooldown")


def test_alerts_start_no_cooldown() -> None:
    assert take(1, "D", earlier=seen("D", action="alert")).action == "retrain"


@pytest.mark.parametrize("day", [3, 90])
def test_no_retraining_is_decided_while_another_is_in_flight(day: int) -> None:
    decision = take(day, "D", earlier=[*seen("D"), fired(2, outcome=None)])
    assert (decision.action, decision.reason_codes) == ("none", ("degradation", "in_flight"))
    assert decision.reason.endswith("; held back: the retraining of toy/day-02 is not finished")


def test_an_older_retraining_in_flight_holds_back_too() -> None:
    decision = take(40, "D", earlier=[fired(1, outcome=None), *seen("D"), fired(20)])
    assert decision.reason_codes == ("degradation", "in_flight")


def test_an_alert_gets_through_while_a_retraining_is_held_back() -> None:
    earlier = [*seen("D", "S"), fired(2, outcome=None)]
    decision = take(3, "D", "S", earlier=earlier, on_drift="alert")
    assert decision.action == "alert"
    assert decision.reason_codes == ("degradation", "drift", "in_flight")
    assert take(3, "D", "S", earlier=earlier, on_drift="retrain").action == "none"


@settings(max_examples=60)
@given(
    signals=st.lists(st.tuples(st.sampled_from("D.?_"), st.sampled_from("S._")), max_size=25),
    persistence=st.sampled_from(["1 of 1", "2 of 3", "3 of 3"]),
    cooldown=st.sampled_from(["1d", "3d", "1w"]),
)
def test_however_a_model_fares_its_retrainings_are_justified_and_spaced(
    signals: list[tuple[str, str]], persistence: str, cooldown: str
) -> None:
    rules = {"persistence": persistence, "cooldown": cooldown, "on_drift": "retrain"}
    taken: list[RetrainingDecision] = []
    for day, (loss, drift) in enumerate(signals):
        taken.append(take(day, loss, drift, earlier=tuple(taken), **rules).model_copy(update={"outcome": "refused"}))
    retrained = [datetime.fromisoformat(decision.window.end) for decision in taken if decision.action == "retrain"]
    assert all(later - sooner >= parse_duration(cooldown) for sooner, later in pairwise(retrained))
    for decision, (loss, drift) in zip(taken, signals, strict=True):
        assert decision.action != "retrain" or loss == "D" or drift == "S"
        assert decision.reason
        assert decision.reason_codes
