from __future__ import annotations

import pytest

from everloop.domain.decision import RetrainingDecision
from tests.domain.examples import PERFORMANCE, a_drift_report, fired, seen, take


@pytest.mark.parametrize(
    ("persistence", "losses", "action"),
    [
        ("1 of 1", "D", "retrain"),
        ("1 of 1", "DDD.", "none"),
        ("2 of 2", ".D", "none"),
        ("2 of 2", "DD", "retrain"),
        ("2 of 2", "D.D", "none"),
        ("2 of 3", "D", "none"),
        ("2 of 3", "DD", "retrain"),
        ("2 of 3", "D.D", "retrain"),
        ("2 of 3", "D..D", "none"),
        ("3 of 3", ".DD", "none"),
        ("3 of 3", "DDD", "retrain"),
        ("3 of 5", "D.D.D", "retrain"),
        ("3 of 5", "DD....D", "none"),
    ],
)
@pytest.mark.parametrize("signal", ["degradation", "drift"])
def test_a_signal_counts_when_it_stands_in_n_of_the_last_m_windows(
    persistence: str, losses: str, action: str, signal: str
) -> None:
    if signal == "drift":
        drifts, calm = losses.replace("D", "S"), "." * len(losses)
        earlier = seen(calm[:-1], drifts[:-1])
        decision = take(len(calm), ".", drifts[-1], earlier=earlier, persistence=persistence, on_drift="retrain")
    else:
        decision = take(len(losses), losses[-1], earlier=seen(losses[:-1]), persistence=persistence)
    assert decision.action == action
    assert (signal in decision.reason_codes) is (action == "retrain")


@pytest.mark.parametrize("newest", [".", "?", "_"])
def test_retrains_only_when_the_newest_window_degrades(newest: str) -> None:
    assert take(3, newest, earlier=seen("DDD")).action == "none"
    assert take(3, "D", earlier=seen("DDD")).action == "retrain"


def test_degradation_and_drift_do_not_add_up() -> None:
    decision = take(2, "D", ".", earlier=seen("..", "SS"), on_drift="retrain")
    assert decision.action == "none"


def test_a_window_without_a_verdict_is_a_window_without_a_signal() -> None:
    assert take(2, "D", earlier=seen("D?")).action == "retrain"
    assert take(3, "D", earlier=seen("D?_")).action == "none"


def test_a_signal_that_stands_says_how_often_and_why() -> None:
    decision = take(1, "D", earlier=seen("D"))
    assert decision.reason_codes == ("degradation",)
    assert decision.reason == "degradation stands in 2 of the last 3 windows: the loss rose"
    assert (decision.id, decision.model, decision.version) == ("toy/day-01", "toy", "1")


def test_a_signal_that_does_not_stand_yet_is_noted() -> None:
    decision = take(0, "D", "S")
    assert decision.action == "none"
    assert decision.reason_codes == ("degradation_not_persistent", "drift_not_persistent")
    assert decision.reason == (
        "degradation in 1 of the last 3 windows, 2 are required: the loss rose; "
        "drift in 1 of the last 3 windows, 2 are required: x drifted"
    )


def test_a_calm_window_says_what_was_looked_at() -> None:
    decision = take(0, ".")
    assert (decision.action, decision.reason_codes) == ("none", ("nothing_found",))
    assert decision.reason == "no standing signal: the loss is fine; no column drifted"


@pytest.mark.parametrize(("loss", "code"), [("?", "labels_missing"), ("_", "too_few_rows")])
def test_what_could_not_be_judged_is_named_and_labels_are_waited_for(loss: str, code: str) -> None:
    decision = take(0, loss, "_" if loss == "_" else ".")
    assert (decision.action, decision.reason_codes) == ("none", (code,))
    assert decision.reason == PERFORMANCE[loss][2]
    changes = [decision.may_change(labelled, rows=200, min_label_coverage=0.8) for labelled in (0, 9, 160)]
    assert changes == [False, False, True], "only labels that came may change it"


@pytest.mark.parametrize(
    ("before", "labelled", "changes"),
    [(160, 160, False), (160, 169, False), (160, 170, True), (195, 199, False), (195, 200, True), (0, 159, True)],
)
def test_a_window_is_scored_again_for_a_twentieth_of_its_rows_in_new_labels_and_with_the_last(
    before: int, labelled: int, changes: bool
) -> None:
    decision = take(0, ".", seen={"labelled_rows": before})
    assert decision.may_change(labelled, rows=200, min_label_coverage=0.8) is changes


def test_a_window_that_had_too_few_labels_is_scored_as_soon_as_there_are_enough() -> None:
    decision = take(0, "?", seen={"labelled_rows": 158})
    assert decision.may_change(159, rows=200, min_label_coverage=0.8) is False
    assert decision.may_change(160, rows=200, min_label_coverage=0.8) is True


def test_windows_that_were_merged_into_this_one_are_no_second_witness() -> None:
    assert take(2, "D", earlier=seen(".D")).action == "retrain"
    assert take(2, "D", earlier=seen(".D"), seen={"merged_windows": 1}).action == "none"
    assert take(3, "D", earlier=seen("DD."), seen={"merged_windows": 1}).action == "retrain"


def test_a_retraining_does_not_change_any_more_also_without_labels() -> None:
    decision = take(1, "?", "S", earlier=seen("?", "S"), on_drift="retrain")
    assert (decision.action, decision.reason_codes) == ("retrain", ("drift", "labels_missing"))
    assert not decision.may_change(200, rows=200, min_label_coverage=0.8)


def test_drift_stands_only_where_the_same_test_of_the_same_column_says_so_again() -> None:
    before = seen(".", "S")
    for column, signal, stands in (("x", "distribution", True), ("y", "distribution", False), ("x", "nulls", False)):
        report = a_drift_report("S", column=column, signal=signal)
        decision = take(1, ".", earlier=before, seen={"drift_report": report})
        assert ("drift" in decision.reason_codes) is stands, (column, signal)


def test_drift_must_stand_as_often_as_the_training_data_says() -> None:
    twice = seen("..", ".S")
    assert take(2, ".", "S", earlier=twice).reason_codes == ("drift",)
    assert take(2, ".", "S", earlier=twice, seen={"drift_persistence": 3}).reason_codes == ("drift_not_persistent",)
    assert take(2, ".", "S", earlier=seen("..", "SS"), seen={"drift_persistence": 3}).reason_codes == ("drift",)


@pytest.mark.parametrize(
    ("on_degradation", "on_drift", "action"),
    [
        ("retrain", "alert", "retrain"),
        ("alert", "retrain", "retrain"),
        ("alert", "alert", "alert"),
        ("ignore", "alert", "alert"),
        ("alert", "ignore", "alert"),
        ("ignore", "ignore", "none"),
    ],
)
def test_the_strongest_action_that_is_asked_for_wins(on_degradation: str, on_drift: str, action: str) -> None:
    decision = take(1, "D", "S", earlier=seen("D", "S"), on_degradation=on_degradation, on_drift=on_drift)
    assert decision.action == action


@pytest.mark.parametrize("signal", ["degradation", "drift"])
def test_an_ignored_signal_that_stands_is_not_called_fleeting(signal: str) -> None:
    decision = take(1, "D", "S", earlier=seen("D", "S"), **{f"on_{signal}": "ignore"})
    assert f"{signal}_not_persistent" not in decision.reason_codes


def test_windows_of_another_version_do_not_count() -> None:
    assert take(2, "D", earlier=seen("DD"), version="2").action == "none"
    assert take(3, "D", earlier=seen("DDD", versions="112"), version="2").action == "retrain"


def test_a_version_that_is_live_again_begins_anew() -> None:
    """Before, one degraded window after a rollback stood together with one of months ago."""
    assert take(4, "D", earlier=seen("D...", versions="2111"), version="2").action == "none"
    assert take(5, "D", earlier=seen("D...D", versions="21112"), version="2").action == "retrain"


def test_a_restart_decides_the_same_from_what_was_stored() -> None:
    earlier = [*seen("D.", "S."), fired(2), *seen("..D")]
    stored = [RetrainingDecision.model_validate_json(decision.model_dump_json()) for decision in earlier]
    assert stored == earlier
    assert take(9, "D", "S", earlier=stored) == take(9, "D", "S", earlier=earlier)


def test_the_headline_is_the_signal_that_decided() -> None:
    decision = take(3, "D", "S", earlier=seen("D"))
    assert decision.headline == "degradation stands in 2 of the last 3 windows: the loss rose"
    assert len(decision.reason) > len(decision.headline)
