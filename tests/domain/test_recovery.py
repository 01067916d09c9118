"""A retraining that did not restore the loss is followed by another, and not for ever."""

from __future__ import annotations

from typing import Any

import pytest

from everloop.domain.decision import RetrainingDecision
from everloop.domain.evidence import Growth
from everloop.domain.recovery import Unrestored, find_unrestored
from tests.domain.examples import a_performance_report, policy, take

POLICY = policy(max_loss_increase=0.1)


def retrained(day: int, validated: float, code: str = "degradation", **became: Any) -> RetrainingDecision:
    """A released retraining whose champion at that time had been validated with this loss."""
    performance = a_performance_report("D").model_copy(update={"baseline_mean": validated})
    growth = Growth(labelled_rows=1000 + 100 * day, at_last_training=1000, fitted_rows=100_000)
    changes = {"action": "retrain", "reason_codes": (code,), "outcome": "live", "trained": True, "released": True}
    return take(day, "D", seen={"growth": growth}).model_copy(update={**changes, "performance": performance, **became})


def attempts(number: int) -> list[RetrainingDecision]:
    """Retrainings day after day after a degradation, none of which restored the loss of 10."""
    return [retrained(10, 10.0), *(retrained(10 + at, 30.0, "not_restored") for at in range(1, number))]


@pytest.mark.parametrize(
    ("validated", "expected"), [(11.0, None), (11.1, Unrestored(10, 1)), (9.0, None)], ids=["margin", "above", "better"]
)
def test_a_champion_validated_above_the_loss_before_the_trouble_has_not_restored_it(
    validated: float, expected: Unrestored | None
) -> None:
    assert find_unrestored(validated, [retrained(10, 10.0)], policy=POLICY) == expected


def test_retrainings_that_do_not_help_are_counted_from_the_loss_before_the_first_of_them() -> None:
    trouble = [retrained(10, 10.0), retrained(12, 30.0, "not_restored"), retrained(15, 25.0, "not_restored")]
    assert find_unrestored(20.0, trouble, policy=POLICY) == Unrestored(10.0, 3)
    assert find_unrestored(10.5, trouble, policy=POLICY) is None


@pytest.mark.parametrize("code", ["degradation", "slow_decay"])
def test_the_loss_before_the_trouble_stays_the_aim_until_it_is_given_up(code: str) -> None:
    trouble = [
        retrained(10, 10.0),
        *(retrained(12 + at, 30.0, "not_restored") for at in range(3)),
        retrained(50, 30.0, code),
    ]
    assert len(trouble) == POLICY.max_rejections
    assert find_unrestored(40.0, trouble, policy=POLICY) == Unrestored(10.0, 5)
    trouble.append(retrained(150, 20.0, code))
    assert find_unrestored(40.0, trouble, policy=POLICY) == Unrestored(20.0, 1), (
        "it degraded anew after it was given up"
    )
    assert find_unrestored(22.0, trouble, policy=POLICY) is None


def test_a_restored_loss_ends_the_trouble_and_the_next_one_begins_anew() -> None:
    trouble = [retrained(10, 10.0), retrained(12, 30.0, "not_restored"), retrained(40, 10.2, "degradation")]
    assert find_unrestored(20.0, trouble, policy=POLICY) == Unrestored(10.2, 1)


def test_growth_and_what_was_not_released_are_no_trouble() -> None:
    assert find_unrestored(99.0, [retrained(10, 10.0, "growth")], policy=POLICY) is None
    assert find_unrestored(99.0, [retrained(10, 10.0, released=False)], policy=POLICY) is None
    both = [retrained(10, 10.0), retrained(20, 30.0, "growth")]
    assert find_unrestored(25.0, both, policy=POLICY) == Unrestored(10.0, 1), "more data did not restore it either"


@pytest.mark.parametrize(
    ("new", "retrainings", "code"),
    [
        (399, 1, "not_restored_yet"),
        (400, 1, "not_restored"),
        (799, 2, "not_restored_yet"),
        (800, 2, "not_restored"),
        (1599, 3, "not_restored_yet"),
        (1600, 3, "not_restored"),
    ],
)
def test_each_attempt_waits_for_twice_as_many_new_labelled_rows(new: int, retrainings: int, code: str) -> None:
    earlier = attempts(retrainings)
    last = earlier[-1].growth
    assert last is not None
    growth = last.model_copy(update={"labelled_rows": last.labelled_rows + new})
    decision = take(40, ".", version="2", earlier=earlier, seen={"growth": growth, "performance": _validated(30.0)})
    assert decision.reason_codes == (code,)
    assert decision.action == ("retrain" if code == "not_restored" else "none")


def test_a_loss_that_retrainings_do_not_restore_is_told_once_after_each_further_one() -> None:
    earlier = attempts(3)
    assert earlier[-1].growth is not None
    seen = {"performance": _validated(30.0), "growth": earlier[-1].growth.model_copy(update={"labelled_rows": 90_000})}
    rules = {"version": "2", "seen": seen, "max_rejections": 3, "on_growth": 0}
    told = take(40, ".", earlier=earlier, **rules)
    assert (told.action, told.reason_codes) == ("alert", ("given_up",))
    assert told.reason.startswith("3 retrainings have not restored the loss: validated with 30, 10 before the trouble")
    assert take(40, ".", earlier=earlier, **rules) == told, "judged again it says the same"
    assert take(41, ".", earlier=[*earlier, told], **rules).reason_codes == ("nothing_found",)
    grown = [*earlier, told, retrained(42, 30.0, "growth")]
    assert take(43, ".", earlier=grown, **rules).action == "alert"


def test_a_spec_that_only_alerts_on_degradation_alerts_here_too() -> None:
    earlier = [retrained(10, 10.0)]
    assert earlier[0].growth is not None
    growth = earlier[0].growth.model_copy(update={"labelled_rows": 9000})
    seen = {"growth": growth, "performance": _validated(30.0)}
    assert take(40, ".", version="2", earlier=earlier, seen=seen, on_degradation="alert").action == "alert"
    assert take(40, ".", version="2", earlier=earlier, seen=seen, on_degradation="ignore").action == "none"


def _validated(loss: float) -> Any:
    """The report of a calm window of a champion that was validated with this loss."""
    return a_performance_report(".").model_copy(update={"baseline_mean": loss})
