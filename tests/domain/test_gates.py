from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from everloop.domain.gates import (
    GateResult,
    HoldoutScores,
    Verdict,
    beats_trivial_baseline,
    is_not_worse_than_champion,
    judge,
    meets_absolute_bar,
    regresses_on_no_slice,
    upper_bound_of_mean,
    worst,
)
from everloop.domain.spec import Gates

ROWS = 200
RNG = np.random.default_rng(0)
NOISE = RNG.gamma(4, 0.25, ROWS)  # losses of a mean near 1
FRESH = np.ones(ROWS, dtype=bool)


def gates(**changes: Any) -> Gates:
    return Gates(**{"metric": "mae", "worst_allowed": 2.0, "min_holdout_rows": 100, **changes})


def scores(challenger: np.ndarray, champion: np.ndarray | None = NOISE, **changes: Any) -> HoldoutScores:
    given_: dict[str, Any] = {"baseline": np.full(ROWS, 5.0), "fresh": FRESH, "champion_version": "3", **changes}
    return HoldoutScores(challenger=challenger, champion=champion, **given_)


@pytest.mark.parametrize(
    ("loss", "verdict", "word"), [(1.9, "pass", "within"), (2.0, "pass", "within"), (2.1, "fail", "above")]
)
def test_the_absolute_bar_is_the_worst_that_passes(loss: float, verdict: Verdict, word: str) -> None:
    result = meets_absolute_bar(scores(np.full(ROWS, loss)), gates())
    assert (result.verdict, result.reason) == (verdict, f"mae {loss:.4g} is {word} the bar 2")
    assert result.numbers == {"challenger": pytest.approx(loss), "bar": 2.0}


def test_the_bar_of_rmse_is_in_units_of_the_target() -> None:
    assert meets_absolute_bar(scores(np.full(ROWS, 3.9)), gates(metric="rmse")).verdict == "pass"
    assert meets_absolute_bar(scores(np.full(ROWS, 4.1)), gates(metric="rmse")).verdict == "fail"


@pytest.mark.parametrize(
    ("loss", "verdict", "word"), [(4.9, "pass", "better"), (5.0, "fail", "no better"), (5.1, "fail", "no better")]
)
def test_a_challenger_must_beat_a_model_without_features(loss: float, verdict: Verdict, word: str) -> None:
    result = beats_trivial_baseline(scores(np.full(ROWS, loss)), gates())
    assert (result.verdict, result.reason) == (verdict, f"mae {loss:.4g} is {word} than 5 without features")


@pytest.mark.parametrize(
    ("difference", "margin", "verdict"),
    [(-0.25, 0.0, "pass"), (0.0, 0.0, "pass"), (0.25, 0.0, "fail"), (0.25, 0.25, "pass"), (0.25, 0.125, "fail")],
)
def test_a_constant_difference_to_the_champion_is_held_against_the_margin(
    difference: float, margin: float, verdict: Verdict
) -> None:
    champion = np.full(ROWS, 1.0)
    result = is_not_worse_than_champion(scores(champion + difference, champion), gates(non_inferiority_margin=margin))
    assert result.verdict == verdict
    assert result.numbers["difference"] == result.numbers["upper_bound"] == pytest.approx(difference)


def test_a_challenger_that_is_only_luckily_better_is_refused() -> None:
    difference = RNG.normal(0, 1, ROWS)
    difference += -0.05 - difference.mean()
    result = is_not_worse_than_champion(scores(NOISE + difference), gates())
    assert result.numbers["difference"] < 0 < result.numbers["upper_bound"]
    assert result.verdict == "fail"
    upper = result.numbers["upper_bound"]
    assert result.reason == (
        "mean loss differs by -0.05 from champion v3 on 200 fresh rows; "
        f"with 95% confidence by at most {upper:+.4g}, allowed +0"
    )


def test_only_rows_fresh_to_the_champion_are_compared() -> None:
    fresh = np.arange(ROWS) >= 80
    challenger = np.where(fresh, NOISE - 0.1, NOISE + 100)
    result = is_not_worse_than_champion(scores(challenger, fresh=fresh), gates())
    assert (result.verdict, result.numbers["fresh_rows"]) == ("pass", 120)
    assert result.numbers["champion"] == pytest.approx(NOISE[80:].mean())


def test_too_few_fresh_rows_leave_the_question_open() -> None:
    result = is_not_worse_than_champion(scores(NOISE - 0.5, fresh=np.arange(ROWS) >= 101), gates())
    assert result.verdict == "undetermined"
    assert result.reason == "99 holdout rows are fresh to champion v3, 100 are required"
    assert is_not_worse_than_champion(scores(NOISE - 0.5, fresh=np.arange(ROWS) >= 100), gates()).verdict == "pass"


def test_a_champion_that_cannot_be_scored_leaves_the_question_open() -> None:
    result = is_not_worse_than_champion(scores(NOISE, None, fresh=None), gates())
    assert result.verdict == "undetermined"
    assert result.reason.startswith("champion v3 cannot be scored on this holdout: the columns it needs are not in")


def test_the_first_version_has_no_champion_to_meet() -> None:
    verdict = judge(scores(NOISE, None, fresh=None, champion_version=None, slices={"c": np.full(ROWS, "a")}), gates())
    assert (verdict.verdict, verdict.champion_version) == ("pass", None)
    assert verdict.reasons == ("every gate passed",)
    assert "there is no champion yet" in [result.reason for result in verdict.results]


def by_slice(rise: float, *, rows: int = 100, **changes: Any) -> GateResult:
    slices = np.where(np.arange(ROWS) < rows, "a", "b")
    challenger = NOISE * np.where(slices == "a", 1 + rise, 1)
    (result,) = regresses_on_no_slice(scores(challenger, slices={"c": slices}), gates(**changes))
    return result


def test_a_slice_that_regresses_is_refused_and_named() -> None:
    result = by_slice(0.5)
    before = NOISE[:100].mean()
    assert (result.gate, result.verdict) == ("slice c", "fail")
    assert result.reason == f"c=a: {before:.4g} → {1.5 * before:.4g} on 100 rows"
    assert result.numbers == {"a": pytest.approx(0.5 * before), "b": 0}


def test_a_rise_within_the_slice_margin_passes() -> None:
    assert by_slice(0.05).reason == "no slice of c regresses (2 judged)"
    assert by_slice(0.5, slice_margin=0.6).verdict == "pass"


def test_a_slice_too_small_to_judge_does_not_block() -> None:
    result = by_slice(0.5, rows=29)
    assert (result.verdict, result.reason) == ("pass", "no slice of c regresses (1 judged)")
    assert by_slice(0.5, rows=30).verdict == "fail"


def test_a_slice_is_judged_on_rows_fresh_to_the_champion_only() -> None:
    known = np.arange(ROWS) < 100
    challenger = np.where(known, NOISE + 100, NOISE)
    (result,) = regresses_on_no_slice(scores(challenger, fresh=~known, slices={"c": np.full(ROWS, "a")}), gates())
    assert (result.verdict, result.numbers) == ("pass", {"a": 0})


def test_without_a_champion_no_slice_is_judged() -> None:
    assert regresses_on_no_slice(scores(NOISE, None, fresh=None, slices={"c": FRESH}), gates()) == []


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_the_upper_bound_is_close_to_the_normal_one(confidence: float) -> None:
    values = np.random.default_rng(1).normal(3, 2, 1000)
    expected = values.mean() + stats.norm.ppf(confidence) * values.std() / np.sqrt(1000)
    assert upper_bound_of_mean(values, confidence=confidence, seed=0) == pytest.approx(expected, abs=0.02)


def test_the_upper_bound_is_repeated_by_its_seed_and_exact_without_spread() -> None:
    assert upper_bound_of_mean(NOISE, confidence=0.9, seed=4) == upper_bound_of_mean(NOISE, confidence=0.9, seed=4)
    assert upper_bound_of_mean(np.full(9, 0.1), confidence=0.9, seed=0) == 0.1


@settings(max_examples=20)
@given(st.lists(st.floats(-10, 10), min_size=2, max_size=30).map(np.array), st.floats(0.6, 0.95))
def test_an_upper_bound_lies_within_the_values_and_grows_with_confidence(values: np.ndarray, confidence: float) -> None:
    low, high = (upper_bound_of_mean(values, confidence=c, seed=0) for c in (confidence, 0.99))
    assert values.min() - 1e-9 <= low <= high + 1e-9 <= values.max() + 2e-9


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["pass", "pass"], "pass"),
        (["pass", "undetermined"], "undetermined"),
        (["undetermined", "fail", "pass"], "fail"),
    ],
)
def test_the_worst_verdict_counts(verdicts: list[Verdict], expected: Verdict) -> None:
    assert worst(verdicts) == expected


def test_every_gate_is_reported_and_every_refusal_has_its_reason() -> None:
    slices = {"c": np.full(ROWS, "a"), "d": np.full(ROWS, "b")}
    verdict = judge(scores(NOISE + 9, slices=slices), gates())
    assert [result.gate for result in verdict.results] == [
        "absolute bar", "trivial baseline", "not worse than the champion", "slice c", "slice d",
    ]  # fmt: skip
    assert verdict.verdict == "fail"
    assert verdict.reasons == tuple(result.reason for result in verdict.results)


def test_the_verdict_keeps_the_loss_a_live_model_is_held_against() -> None:
    loss = judge(scores(NOISE), gates()).challenger_loss
    assert (loss.n, loss.mean, loss.std) == (ROWS, pytest.approx(NOISE.mean()), pytest.approx(np.std(NOISE, ddof=1)))


@pytest.mark.filterwarnings("ignore::scipy.stats.DegenerateDataWarning")
@pytest.mark.parametrize("broken", ["challenger", "champion", "baseline"])
def test_losses_that_are_no_numbers_never_pass(broken: str) -> None:
    losses = {"challenger": NOISE - 0.5, "champion": NOISE, "baseline": np.full(ROWS, 5.0)}
    losses[broken] = np.where(np.arange(ROWS) == 7, np.nan, losses[broken])
    assert judge(scores(**losses), gates()).verdict != "pass"


@pytest.mark.parametrize(("worse_by", "least", "most"), [(0.1, 0, 8), (0.0, 58, 60)])
def test_a_challenger_as_bad_as_the_margin_rarely_passes_and_an_equal_one_nearly_always(
    worse_by: float, least: int, most: int
) -> None:
    passed = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        champion = rng.gamma(4, 0.25, ROWS)
        challenger = champion + rng.normal(worse_by, 0.3, ROWS)
        result = is_not_worse_than_champion(scores(challenger, champion), gates(non_inferiority_margin=0.1), seed=seed)
        passed += result.verdict == "pass"
    assert least <= passed <= most
