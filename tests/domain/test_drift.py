from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from everloop.domain.calibration import DRIFT_SHARE, FLOORS, Calibration, SignalCalibration
from everloop.domain.drift import DriftReport, DriftTest, compare_profiles, drift_score
from everloop.domain.spec import PREDICTION
from everloop.domain.summaries import ColumnSummary, ProfileSummary
from tests.domain.examples import categories, numbers

Draw = Callable[[np.random.Generator, int], ColumnSummary]


def compare(reference: ColumnSummary, window: ColumnSummary, *, min_rows: int = 20) -> DriftReport:
    return compare_profiles(
        ProfileSummary(reference.n, {"c": reference}), ProfileSummary(window.n, {"c": window}), min_rows=min_rows
    )


def drifted_signals(report: DriftReport) -> list[str]:
    return [test.signal for test in report.tests if test.is_drift]


def test_unchanged_windows_drift_in_at_most_two_of_a_hundred() -> None:
    rng = np.random.default_rng(0)

    def profile(rows: int) -> ProfileSummary:
        heavy, holes = rng.lognormal(0, 1, rows), rng.random(rows) < 0.03
        columns = {
            "normal": numbers(rng.normal(0, 1, rows)),
            "heavy": numbers(np.where(holes, np.nan, heavy)),
            "whole": numbers(rng.poisson(3, rows)),
            "few": categories(rng.choice(["a", "b", "c"], rows, p=[0.6, 0.3, 0.1])),
            "many": categories(rng.integers(0, 30, rows)),
        }
        return ProfileSummary(rows, columns)

    reference = profile(2000)
    verdicts = [compare_profiles(reference, profile(200), min_rows=100).verdict for _ in range(200)]
    assert verdicts.count("drift") <= 4


def test_unchanged_windows_of_a_long_tailed_category_do_not_drift() -> None:
    rng = np.random.default_rng(0)
    shares = 1 / np.arange(1, 501) ** 1.5
    shares /= shares.sum()
    reference = categories(rng.choice(500, 2000, p=shares))
    verdicts = [compare(reference, categories(rng.choice(500, 200, p=shares))).verdict for _ in range(100)]
    assert verdicts.count("drift") <= 2


def normal(mean: float = 0, spread: float = 1) -> Draw:
    return lambda rng, rows: numbers(rng.normal(mean, spread, rows))


def mix(*shares: float) -> Draw:
    return lambda rng, rows: categories(rng.choice(list("abc"), rows, p=shares))


@pytest.mark.parametrize(
    ("before", "after"),
    [(normal(), normal(mean=0.5)), (normal(), normal(spread=2)), (mix(0.6, 0.3, 0.1), mix(0.35, 0.3, 0.35))],
    ids=["mean", "spread", "mix"],
)
def test_a_real_shift_is_seen_in_nearly_every_window(before: Draw, after: Draw) -> None:
    rng = np.random.default_rng(1)
    reference = before(rng, 2000)
    reports = [compare(reference, after(rng, 300)) for _ in range(50)]
    assert sum(drifted_signals(report) == ["distribution"] for report in reports) >= 48


def test_a_shift_too_small_to_matter_is_no_drift_however_many_rows_show_it() -> None:
    grid = np.linspace(0, 1, 200_000)
    report = compare(numbers(grid), numbers(grid + 0.02))
    (shift,) = [test for test in report.tests if test.signal == "distribution"]
    assert shift.p_value < 1e-20
    assert (shift.effect, shift.is_drift) == (pytest.approx(0.02, abs=1e-4), False)
    assert report.verdict == "no drift"


def test_a_large_effect_in_few_rows_is_no_drift() -> None:
    report = compare(numbers(np.arange(1000)), numbers(np.arange(0, 1000, 40) + 100))
    (shift,) = [test for test in report.tests if test.signal == "distribution"]
    assert shift.effect >= shift.floor
    assert not shift.is_drift


def test_nulls_that_rise_are_drift_and_nulls_that_fall_are_not() -> None:
    few, many = np.arange(500.0), np.arange(500.0)
    few[::50], many[::5] = np.nan, np.nan
    assert drifted_signals(compare(numbers(few), numbers(many))) == ["nulls"]
    assert drifted_signals(compare(numbers(many), numbers(few))) == []


def test_a_column_that_went_silent_is_drift() -> None:
    silent = ColumnSummary(n=200, nulls=200)
    assert drifted_signals(compare(numbers(np.arange(500)), silent)) == ["nulls"]
    assert compare(silent, silent).verdict == "no drift"


def test_categories_never_seen_before_are_drift_of_their_own() -> None:
    known = ["a", "b"] * 500
    report = compare(categories(known), categories(known[:190] + ["new"] * 10))
    assert drifted_signals(report) == ["unseen"]
    assert drifted_signals(compare(categories(known), categories(["new"] * 200))) == ["unseen"]
    assert drifted_signals(compare(categories(known), categories([*known[:199], "new"]))) == []


def test_a_window_with_too_few_rows_is_undetermined() -> None:
    report = compare(numbers(np.arange(100)), numbers(np.arange(1000, 1019)))
    assert (report.verdict, report.reason, report.tests) == (
        "undetermined",
        "19 rows in the window, 20 are required",
        (),
    )
    assert compare(numbers(np.arange(100)), numbers(np.arange(1000, 1020))).verdict == "drift"


def test_all_tests_of_a_window_share_one_alpha() -> None:
    grid = numbers(np.arange(100))
    profile = ProfileSummary(100, {"x": grid, "y": grid, "c": categories("ab" * 50)})
    report = compare_profiles(profile, profile, min_rows=20)
    assert len(report.tests) == 3 + 3 + 3
    assert report.alpha == pytest.approx(DRIFT_SHARE * 0.01 / 9)
    assert report.reason == "0 of 3 columns drifted (9 tests, alpha 6.7e-04 each); not calibrated on the reference"
    strict = compare_profiles(profile, profile, min_rows=20, false_alarms=0.001)
    assert strict.alpha == pytest.approx(report.alpha / 10)
    assert {test.signal: test.floor for test in report.tests} == FLOORS


def test_a_column_that_only_one_side_has_is_not_tested() -> None:
    grid = numbers(np.arange(100))
    report = compare_profiles(
        ProfileSummary(100, {"x": grid, "gone": grid}), ProfileSummary(100, {"x": grid, "new": grid}), min_rows=20
    )
    assert {test.column for test in report.tests} == {"x"}


def test_drifted_columns_are_named_once_and_strongest_first() -> None:
    grid = np.arange(1000.0)
    holes = np.where(np.arange(1000) % 4 == 0, np.nan, grid + 300)
    reference = {name: numbers(grid) for name in ("calm", "some", "most")}
    window = {"calm": numbers(grid), "some": numbers(holes), "most": numbers(grid + 2000)}
    report = compare_profiles(ProfileSummary(1000, reference), ProfileSummary(1000, window), min_rows=20)
    assert (report.verdict, report.drifted) == ("drift", ("most", "some"))
    assert report.reason.startswith("2 of 3 columns drifted (9 tests, alpha 6.7e-04 each)")


def infinities(count: int) -> ColumnSummary:
    grid = numbers(np.arange(500.0))
    return ColumnSummary(n=500 + count, nulls=0, infinite=count, cdf=grid.cdf, support=grid.support)


def test_infinities_that_rise_are_drift_of_their_own() -> None:
    assert drifted_signals(compare(infinities(0), infinities(10))) == ["infinite"]
    assert drifted_signals(compare(infinities(10), infinities(10))) == []
    assert drifted_signals(compare(numbers(np.arange(500)), ColumnSummary(n=300, nulls=0, infinite=300))) == [
        "infinite"
    ]


def taught(column: str, *, design_effect: float = 1.0, floor: float = 0.05) -> Calibration:
    entry = SignalCalibration(column=column, signal="distribution", design_effect=design_effect, floor=floor)
    return Calibration(
        blocks=20,
        block_rows=200,
        false_alarms=0.01,
        recent=3,
        persistence_needed=1,
        alarmed_share=0,
        reason="calibrated",
        signals=(entry,),
    )


def test_dependent_rows_count_for_less_and_a_higher_floor_forgives_more() -> None:
    rng = np.random.default_rng(0)
    reference = ProfileSummary(5000, {"x": numbers(rng.normal(0, 1, 5000))})
    window = ProfileSummary(400, {"x": numbers(rng.normal(0.4, 1, 400))})

    def shift(calibration: Calibration | None) -> DriftTest:
        report = compare_profiles(reference, window, min_rows=20, calibration=calibration)
        assert report.calibrated is (calibration is not None)
        return next(test for test in report.tests if test.signal == "distribution")

    plain, dependent, tolerant = shift(None), shift(taught("x", design_effect=10)), shift(taught("x", floor=0.3))
    assert (plain.is_drift, dependent.is_drift, tolerant.is_drift) == (True, False, False)
    assert plain.effect == dependent.effect == tolerant.effect
    assert (dependent.design_effect, dependent.p_value > plain.p_value) == (10, True)
    assert (tolerant.floor, tolerant.p_value) == (0.3, plain.p_value)
    assert shift(taught("another", design_effect=10)) == plain


def test_the_score_is_the_importance_weighted_mean_of_the_effects_without_the_prediction() -> None:
    grid = np.arange(1000.0)
    reference = ProfileSummary(1000, {name: numbers(grid) for name in ("a", "b", PREDICTION)})
    window = ProfileSummary(1000, {"a": numbers(grid), "b": numbers(grid + 400), PREDICTION: numbers(grid + 9000)})
    tests = compare_profiles(reference, window, min_rows=20).tests
    assert compare_profiles(reference, window, min_rows=20).score == pytest.approx(0.2)
    assert drift_score(tests, {"a": 3, "b": 1}) == pytest.approx(0.1)
    assert drift_score(tests, {"a": 1, PREDICTION: 5}) == 0
    assert drift_score(tests, {"gone": 1}) is None
    assert drift_score(()) is None


def test_a_report_stored_before_there_was_calibration_still_loads() -> None:
    stored = {"column": "x", "signal": "nulls", "statistic": "beta-binomial", "p_value": 1, "effect": 0, "floor": 0.01}
    report = DriftReport.model_validate(
        {
            "verdict": "no drift",
            "reason": "",
            "alpha": 0.001,
            "rows": 200,
            "reference_rows": 500,
            "tests": [{**stored, "is_drift": False}],
        }
    )
    assert (report.score, report.calibrated, report.tests[0].design_effect) == (None, False, 1.0)
