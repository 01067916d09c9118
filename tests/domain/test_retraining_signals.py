"""What else speaks for a retraining, or against it: growth, slow decay, broken data, slices, usage."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from everloop.domain.checks import Finding
from everloop.domain.decay import DecayReport
from everloop.domain.dependencies import DependencyReport
from everloop.domain.evidence import Growth, SliceEvidence
from everloop.domain.quality import QualityReport
from everloop.domain.usage import Spike, UsageReport
from tests.domain.examples import a_drift_report, a_performance_report, fired, seen, take

BROKEN = QualityReport(
    verdict="fail",
    reason="1 error",
    rows=200,
    findings=(Finding(column="x", rule="not empty", severity="error", message="all 200 values are null"),),
)
ODD = BROKEN.model_copy(
    update={"verdict": "warning", "findings": (BROKEN.findings[0].model_copy(update={"severity": "warning"}),)}
)


@pytest.mark.parametrize(
    ("labelled", "on_growth", "action"), [(1249, 0.25, "none"), (1250, 0.25, "retrain"), (9000, 0, "none")]
)
def test_growth_of_the_labelled_rows_retrains_at_once(labelled: int, on_growth: float, action: str) -> None:
    growth = Growth(labelled_rows=labelled, at_last_training=1000, fitted_rows=1000)
    decision = take(0, ".", seen={"growth": growth}, on_growth=on_growth)
    assert decision.action == action
    if action == "retrain":
        assert decision.reason_codes == ("growth",)
        assert decision.reason == (
            "250 labelled rows since the last training are 25% of the 1,000 that the champion was fitted on (on_growth 25%)"
        )


def test_growth_is_measured_in_rows_that_the_champion_was_fitted_on() -> None:
    """A champion on recent history alone is outgrown sooner than one on all of it."""
    assert Growth(labelled_rows=1200, at_last_training=1000, fitted_rows=1000).share == 0.2
    assert Growth(labelled_rows=1200, at_last_training=1000, fitted_rows=200).share == 1.0
    assert Growth(labelled_rows=500, at_last_training=0, fitted_rows=0).share == 0.0


def _decay(verdict: str) -> dict[str, Any]:
    report = DecayReport.model_construct(verdict=verdict, reason="EWMA 0.08 above 0.05")
    return {"decay": report}


@pytest.mark.parametrize(("reaction", "action"), [("retrain", "retrain"), ("alert", "alert"), ("ignore", "none")])
def test_slow_decay_is_degradation_that_needs_no_persistence(reaction: str, action: str) -> None:
    decision = take(0, ".", seen=_decay("decaying"), on_degradation=reaction)
    assert decision.action == action
    assert take(0, ".", seen=_decay("ok")).action == "none"


def test_broken_data_alert_and_block_what_would_retrain() -> None:
    decision = take(1, "D", earlier=seen("D"), seen={"quality": BROKEN})
    assert decision.action == "alert"
    assert decision.reason_codes == ("data_quality", "degradation", "blocked")
    assert "x: all 200 values are null" in decision.reason
    assert decision.reason.endswith("held back: the data of this window are broken; mend them first")


def test_broken_data_alert_also_when_nothing_else_is_wrong() -> None:
    assert take(0, ".", seen={"quality": BROKEN}).reason_codes == ("data_quality",)


def test_odd_data_are_noted_and_block_nothing() -> None:
    assert take(1, "D", earlier=seen("D"), seen={"quality": ODD}).action == "retrain"
    assert take(0, ".", seen={"quality": ODD}).reason_codes == ("data_quality_warning",)


def _slices(*degraded: str, drifted: tuple[str, ...] = ()) -> dict[str, Any]:
    found = [
        SliceEvidence(
            column="city",
            value=value,
            rows=200,
            drift=a_drift_report("S" if value in drifted else "."),
            performance=a_performance_report("D" if value in degraded else "."),
        )
        for value in ("Porto", "Łódź")
    ]
    return {"slices": tuple(found)}


def test_a_slice_that_stays_degraded_alerts_and_retrains_nothing() -> None:
    first = take(0, ".", seen=_slices("Porto"))
    assert (first.action, first.reason_codes) == ("none", ("slice_degradation_not_persistent",))
    second = take(1, ".", seen=_slices("Porto"), earlier=[first])
    assert (second.action, second.reason_codes) == ("alert", ("slice_degradation",))
    assert "city=Porto" in second.reason
    other = take(1, ".", seen=_slices("Łódź"), earlier=[first])
    assert other.reason_codes == ("slice_degradation_not_persistent",)


def test_a_slice_that_stays_drifted_alerts_unless_drift_is_ignored() -> None:
    drifted = _slices(drifted=("Łódź",))
    first = take(0, ".", seen=drifted)
    assert take(1, ".", seen=drifted, earlier=[first]).reason_codes == ("slice_drift",)
    assert take(1, ".", seen=drifted, earlier=[first], on_drift="ignore").reason_codes == ("nothing_found",)


def test_drift_of_a_slice_stands_when_it_does_in_as_many_windows_as_its_own_training_data_ask_for() -> None:
    def seen_drifted(needed: int) -> dict[str, Any]:
        found = _slices(drifted=("Porto",))["slices"]
        return {"slices": tuple(one.model_copy(update={"drift_persistence": needed}) for one in found)}

    first = take(0, ".", seen=seen_drifted(3))
    second = take(1, ".", seen=seen_drifted(3), earlier=[first])
    assert second.reason_codes == ("slice_drift_not_persistent",)
    assert take(2, ".", seen=seen_drifted(3), earlier=[first, second]).reason_codes == ("slice_drift",)
    assert take(1, ".", seen=seen_drifted(1), earlier=[first]).reason_codes == ("slice_drift",)


def test_irregular_usage_alerts() -> None:
    spike = Spike.model_construct(
        hour=datetime(2024, 1, 1, 3), what="requests", sentence="requests at 03:00 are 4,000, typical are 120"
    )
    usage = UsageReport.model_construct(verdict="irregular", spikes=(spike,))
    decision = take(0, ".", seen={"usage": usage})
    assert (decision.action, decision.reason_codes, decision.reason) == ("alert", ("usage",), spike.sentence)


def test_three_rejected_challengers_in_a_row_open_the_breaker_which_asks_for_a_person() -> None:
    rejected = [fired(day, "rejected: no better", rejected=True) for day in (10, 20, 30)]
    decision = take(41, "D", earlier=[*rejected, *seen("D")], max_rejections=3)
    assert decision.action == "alert"
    assert decision.reason_codes == ("degradation", "breaker_open")
    assert "3 challengers in a row were rejected, the last with: rejected: no better" in decision.reason
    assert "`everloop resume toy`" in decision.reason
    assert take(41, "D", earlier=[*rejected[1:], *seen("D")], max_rejections=3).action == "retrain"


@pytest.mark.parametrize("became", [{"released": True}, {"acknowledged_by": "ada"}, {"version": "0"}])
def test_a_release_a_person_or_another_champion_closes_the_breaker(became: dict[str, Any]) -> None:
    rejected = [fired(day, "rejected", rejected=True) for day in (10, 20)]
    last = fired(30, "it ended", rejected="released" not in became).model_copy(update=became)
    assert take(41, "D", earlier=[*rejected, last, *seen("D")], max_rejections=3).action == "retrain"


def test_a_rejection_that_growth_asked_for_holds_nothing_back() -> None:
    rejected = [fired(day, "rejected", rejected=True, reason_codes=("growth",)) for day in (10, 20, 30)]
    much = Growth(labelled_rows=9000, at_last_training=5000, fitted_rows=5000)
    assert take(41, ".", earlier=rejected, seen={"growth": much}, max_rejections=3).reason_codes == ("growth",)
    assert take(41, "D", earlier=[*rejected, *seen("D")], max_rejections=3).action == "retrain"


@pytest.mark.parametrize(
    ("rejections", "new", "action"), [(1, 399, "none"), (1, 400, "retrain"), (3, 1599, "none"), (3, 1600, "retrain")]
)
def test_each_rejection_waits_for_twice_as_many_new_rows(rejections: int, new: int, action: str) -> None:
    def growth(labelled: int) -> Growth:
        return Growth(labelled_rows=labelled, at_last_training=labelled, fitted_rows=5000)

    rejected = [fired(day, "rejected", rejected=True, growth=growth(5000)) for day in range(10, 10 + rejections)]
    decision = take(20, "D", earlier=[*rejected, *seen("D")], seen={"growth": growth(5000 + new)})
    assert decision.action == action
    assert ("back_off" in decision.reason_codes) is (action == "none")


def test_the_days_budget_holds_back_and_is_there_again_the_day_after() -> None:
    released = fired(9, released=True)
    spent = [released.model_copy(update={"id": f"toy/{number}"}) for number in range(3)]
    rules = {"earlier": [*spent, *seen("D")], "cooldown": "1h", "budget_per_day": 3}
    held = take(9.5, "D", **rules)
    assert (held.action, held.reason_codes) == ("none", ("degradation", "budget"))
    assert held.reason.endswith("3 retrainings were decided within the last 24 hours, budget_per_day 3")
    assert take(9.5, "D", **{**rules, "budget_per_day": 4}).action == "retrain"
    assert take(10, "D", **rules).action == "retrain"


def test_a_back_off_ends_when_labels_may_not_come_any_more() -> None:
    still = Growth(labelled_rows=5000, at_last_training=5000, fitted_rows=5000)
    rejected = [fired(10, "rejected", rejected=True, growth=still)]
    assert take(39, "D", earlier=[*rejected, *seen("D")], seen={"growth": still}).reason_codes[-1] == "back_off"
    assert take(40, "D", earlier=[*rejected, *seen("D")], seen={"growth": still}).action == "retrain"


def test_what_ended_without_a_verdict_on_a_challenger_is_no_rejection() -> None:
    """A source that was gone, or a version that waits for a person."""
    gone = [fired(day, "refused: the source does not exist") for day in (10, 11, 12)]
    assert take(20, "D", earlier=[*gone, *seen("D")], max_rejections=3).action == "retrain"


def test_mere_attempts_to_restore_a_loss_open_no_breaker() -> None:
    tries = [fired(day, "rejected", rejected=True, reason_codes=("not_restored",)) for day in (10, 11, 12)]
    assert take(20, "D", earlier=[*tries, *seen("D")], max_rejections=3).action == "retrain"
    both = [found.model_copy(update={"asks": ("degradation", "not_restored")}) for found in tries]
    assert take(20, "D", earlier=[*both, *seen("D")], max_rejections=3).reason_codes == ("degradation", "breaker_open")


def test_growth_retrains_although_challengers_for_the_risen_loss_were_rejected() -> None:
    rejected = [fired(day, "rejected", rejected=True) for day in (10, 20, 30)]
    much = Growth(labelled_rows=9000, at_last_training=5000, fitted_rows=5000)
    decision = take(41, "D", earlier=[*rejected, *seen("D")], seen={"growth": much}, max_rejections=3)
    assert (decision.action, decision.asks) == ("retrain", ("degradation", "growth"))


def test_dependencies_that_are_broken_today_hold_back_what_an_older_window_asks_for() -> None:
    """Only the newest window's evidence has them: they are of the moment."""
    gone = DependencyReport(verdict="fail", reason="the source is gone", findings=())
    decision = take(3, "D", earlier=seen("D"), dependencies=gone)
    assert (decision.action, decision.reason_codes) == ("alert", ("degradation", "blocked"))
    assert decision.dependencies is None


def test_retrainings_of_later_windows_hold_back_too() -> None:
    """Labels come in any order, and so do decisions."""
    later = [fired(5, outcome=None)]
    assert take(3, "D", earlier=seen("D")).action == "retrain"
    evidence = {"earlier": seen("D")}
    assert take(3, "D", **evidence, fired=later).reason_codes == ("degradation", "in_flight")
    done = [fired(5, released=True)]
    assert take(3, "D", **evidence, fired=done).reason_codes == ("degradation", "cooldown")
