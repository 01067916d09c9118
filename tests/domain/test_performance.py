from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from everloop.domain.metrics import LossSummary, summarize
from everloop.domain.monitor_spec import MonitorSpec
from everloop.domain.performance import LOSS_SHARE, PerformanceReport, score_window

POLICY = MonitorSpec(min_rows=100, min_label_coverage=0.8, max_loss_increase=0.1)
ALPHA = LOSS_SHARE * POLICY.false_alarms
VALIDATED = np.random.default_rng(0).gamma(4, 0.25, 500)  # losses of a mean near 1
BASELINE = summarize(VALIDATED).model_copy(update={"design_effect": 1.0})


def judged(
    losses: Any, *, rows: int | None = None, baseline: LossSummary = BASELINE, **changes: Any
) -> PerformanceReport:
    losses = np.asarray(losses, dtype=float)
    options: dict[str, Any] = {"rows": rows or len(losses), "metric": "mae", "policy": POLICY, **changes}
    return score_window(losses, baseline, **options)


def window(mean: float, rows: int = 200, seed: int = 1) -> np.ndarray:
    """Losses of about the baseline's spread and exactly this mean."""
    losses = np.random.default_rng(seed).gamma(4, 0.25, rows)
    return losses - losses.mean() + mean


def test_a_loss_as_validated_is_ok() -> None:
    report = judged(window(BASELINE.mean))
    assert (report.verdict, report.reason_code) == ("ok", "loss_within_margin")
    assert (report.metric, report.baseline) == (pytest.approx(BASELINE.mean), pytest.approx(BASELINE.mean))
    assert report.increase == pytest.approx(0)
    assert report.p_value == pytest.approx(0.5, abs=1e-6)


def test_a_loss_that_rose_is_degraded_and_says_by_how_much() -> None:
    report = judged(window(1.3 * BASELINE.mean))
    assert (report.verdict, report.reason_code) == ("degraded", "loss_rose")
    assert report.increase == pytest.approx(0.3)
    assert report.reason == (
        f"mean loss {1.3 * BASELINE.mean:.4g} against {BASELINE.mean:.4g} at validation: +30% (allowed +10%), "
        f"p = {report.p_value:.2g}"
    )


@pytest.mark.parametrize("mean", [0.9, 1.0, 1.2, 1.5])
def test_the_p_value_is_students(mean: float) -> None:
    losses = window(mean, rows=120)
    expected = stats.ttest_ind(losses, VALIDATED, alternative="greater").pvalue
    assert judged(losses).p_value == pytest.approx(expected)


def test_a_skewed_baseline_that_is_low_by_chance_does_not_look_more_certain_than_it_is() -> None:
    """The mean of skewed losses and their spread err together; the window's spread stands for both."""
    losses = np.random.default_rng(3).exponential(1, 10_000)
    low = np.sort(np.random.default_rng(4).exponential(1, 300))[:-12]  # the largest losses happened not to come
    report = judged(losses, baseline=summarize(low).model_copy(update={"design_effect": 1.0}))
    assert report.baseline_se == pytest.approx(losses.std() / sqrt(288), rel=0.02)
    assert low.std() / sqrt(288) < 0.9 * report.baseline_se


def test_a_rise_within_the_margin_is_ok_however_certain() -> None:
    report = judged(np.full(1000, 1.09 * BASELINE.mean))
    assert report.p_value is not None
    assert report.p_value < ALPHA
    assert report.verdict == "ok"
    assert judged(np.full(1000, 1.11 * BASELINE.mean)).verdict == "degraded"


def test_a_large_rise_that_may_be_chance_is_ok() -> None:
    losses = np.append(np.zeros(99), 300.0)
    report = judged(losses)
    assert report.increase is not None
    assert report.increase > 1
    assert report.verdict == "ok"


def test_a_loss_that_fell_is_ok() -> None:
    assert judged(window(0.2 * BASELINE.mean)).verdict == "ok"


def test_too_few_rows_are_undetermined_however_bad() -> None:
    report = judged(np.full(99, 50.0))
    assert (report.verdict, report.reason_code) == ("undetermined", "too_few_rows")
    assert report.reason == "99 rows of the champion in the window, 100 are required"
    assert judged(np.full(100, 50.0)).verdict == "degraded"


def test_missing_labels_are_undetermined_however_bad() -> None:
    report = judged(np.full(159, 50.0), rows=200)
    assert (report.verdict, report.reason_code) == ("undetermined", "labels_missing")
    assert report.reason == "80% of the window's labels have arrived, 80% are required"
    assert (report.rows, report.labelled, report.coverage) == (200, 159, 159 / 200)
    assert judged(np.full(160, 50.0), rows=200).verdict == "degraded"


@pytest.mark.parametrize("labelled", [0, 1])
def test_one_label_is_never_enough(labelled: int) -> None:
    policy = POLICY.model_copy(update={"min_label_coverage": 0.001})
    assert judged(np.full(labelled, 50.0), rows=1000, policy=policy).reason_code == "labels_missing"


def test_an_empty_window_is_undetermined_and_covers_nothing() -> None:
    report = score_window(np.empty(0), BASELINE, rows=0, metric="mae", policy=POLICY)
    assert (report.verdict, report.reason_code, report.coverage) == ("undetermined", "too_few_rows", 0.0)


def test_rmse_is_reported_in_units_of_the_target_and_compared_in_squares() -> None:
    report = judged(window(4 * BASELINE.mean), metric="rmse")
    assert (report.metric, report.baseline) == (
        pytest.approx(2 * sqrt(BASELINE.mean)),
        pytest.approx(sqrt(BASELINE.mean)),
    )
    assert report.increase == pytest.approx(3)


@pytest.mark.parametrize(("loss", "verdict", "p_value"), [(0.0, "ok", 1.0), (0.5, "degraded", 0.0)])
def test_losses_without_any_spread_are_compared_as_they_are(loss: float, verdict: str, p_value: float) -> None:
    report = judged(np.full(100, loss), baseline=LossSummary(n=50, mean=0, std=0))
    assert (report.verdict, report.p_value) == (verdict, p_value)


@given(st.floats(0.01, 5), st.floats(0.01, 5))
def test_a_higher_loss_is_never_judged_better(one: float, other: float) -> None:
    low, high = sorted([one, other])
    better, worse = judged(window(low)), judged(window(high))
    assert (better.verdict, worse.verdict) != ("degraded", "ok")


def test_unchanged_windows_degrade_in_at_most_two_of_a_hundred() -> None:
    rng = np.random.default_rng(2)
    verdicts = [judged(rng.gamma(4, 0.25, 150)).verdict for _ in range(500)]
    assert verdicts.count("degraded") <= 10


def test_losses_that_are_no_numbers_are_not_ok() -> None:
    assert judged(np.append(window(9.0), np.nan)).verdict != "ok"


def in_runs(mean: float, *, length: int = 20, rows: int = 400, seed: int = 3) -> np.ndarray:
    """Losses of the baseline's spread that stay the same for `length` rows each, with exactly this mean."""
    losses = np.repeat(np.random.default_rng(seed).gamma(4, 0.25, rows // length), length)
    return losses - losses.mean() + mean


def test_losses_that_come_in_runs_count_for_as_many_rows_as_there_are_runs() -> None:
    losses = in_runs(1.2 * BASELINE.mean)
    report, alone = judged(losses), stats.ttest_ind(losses, VALIDATED, alternative="greater").pvalue
    assert alone < ALPHA
    assert report.p_value is not None
    assert report.p_value > 100 * alone
    assert report.verdict == "ok"
    assert report.loss_se == pytest.approx(losses.std(ddof=1) / sqrt(400 / 20), rel=0.4)


def test_a_short_window_borrows_the_dependence_that_the_baseline_showed() -> None:
    dependent = BASELINE.model_copy(update={"design_effect": 9.0})
    losses = window(1.2 * BASELINE.mean)
    alone, borrowed = judged(losses), judged(losses, baseline=dependent)
    assert borrowed.loss_se == pytest.approx(3 * losses.std(ddof=1) / sqrt(200))
    assert borrowed.baseline_se == pytest.approx(3 * BASELINE.std / sqrt(500), rel=0.02)
    assert (alone.verdict, borrowed.verdict) == ("degraded", "ok")


def test_unchanged_windows_of_dependent_losses_degrade_in_at_most_one_of_a_hundred() -> None:
    baseline = summarize(in_runs(1.0, rows=4000, seed=9))
    rng = np.random.default_rng(4)
    verdicts = [judged(np.repeat(rng.gamma(4, 0.25, 20), 20), baseline=baseline).verdict for _ in range(500)]
    assert verdicts.count("degraded") <= 5


def test_the_interval_is_students_and_that_of_rmse_its_root() -> None:
    losses = window(2.0, rows=150)
    low, high = stats.t.interval(0.95, 149, losses.mean(), stats.sem(losses))
    mae, rmse = judged(losses), judged(losses, metric="rmse")
    assert (mae.low, mae.high) == (pytest.approx(low), pytest.approx(high))
    assert (rmse.low, rmse.high) == (pytest.approx(sqrt(low)), pytest.approx(sqrt(high)))
    assert (mae.loss_mean, mae.baseline_mean) == (pytest.approx(2.0), BASELINE.mean)
    assert mae.loss_se == pytest.approx(stats.sem(losses))


def test_the_interval_holds_the_true_mean_of_dependent_losses_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    baseline = summarize(in_runs(1.0, rows=4000, seed=9))
    reports = [judged(np.repeat(rng.gamma(4, 0.25, 50), 20), baseline=baseline) for _ in range(300)]
    inside = [
        report.low <= 1.0 <= report.high for report in reports if report.low is not None and report.high is not None
    ]
    assert 0.9 < np.mean(inside) < 0.99


def test_the_allowed_false_alarms_set_the_level() -> None:
    losses = window(1.1 * BASELINE.mean + 0.01, rows=200)
    verdicts = {
        rate: judged(losses, policy=POLICY.model_copy(update={"false_alarms": rate})).verdict for rate in (0.001, 0.2)
    }
    assert verdicts == {0.001: "ok", 0.2: "degraded"}


@pytest.mark.parametrize("rows", [10, 200], ids=["too few", "enough"])
def test_the_lag_of_the_labels_is_reported_whatever_the_verdict(rows: int) -> None:
    assert judged(window(1.0, rows=rows), lag_seconds=90.0).lag_seconds == 90.0


def test_a_report_stored_before_there_were_intervals_still_loads() -> None:
    stored = {
        "verdict": "ok",
        "reason_code": "loss_within_margin",
        "reason": "",
        "rows": 5,
        "labelled": 5,
        "metric": 1.0,
    }
    assert PerformanceReport.model_validate(stored).loss_se is None


def errors(share: float, rows: int = 2000) -> np.ndarray:
    """0/1 losses with exactly this share of errors, independent of each other."""
    hit = np.arange(rows) < round(share * rows)
    return np.random.default_rng(7).permutation(hit).astype(float)


SHORT = summarize(errors(0.2, 200)).model_copy(update={"design_effect": 1.0})


def calm(*shares: float) -> list[PerformanceReport]:
    return [judged(errors(share), baseline=SHORT) for share in shares]


def test_calm_windows_sharpen_a_short_validation() -> None:
    """A rise of five points is within the error of 200 validated rows, and far outside of that of 4,200."""
    assert judged(errors(0.25), baseline=SHORT).verdict == "ok"
    report = judged(errors(0.25), baseline=SHORT, before=calm(0.2, 0.2))
    assert report.verdict == "degraded"
    assert "against 0.2 at validation and in 2 calm windows since: +25%" in report.reason
    assert report.baseline_mean == SHORT.mean, "what the champion was validated with stays the aim"


def test_the_sharpened_test_is_students_on_all_rows_and_corrected_for_being_one_of_two() -> None:
    before = calm(0.2, 0.21)
    parts = [errors(0.2, 200), errors(0.2), errors(0.21)]
    effective = [SHORT.effective_n, *(report.effective_rows or 0 for report in before)]
    assert effective == pytest.approx([200, 2000, 2000], rel=0.3)
    expected = stats.ttest_ind(errors(0.25), np.concatenate(parts), alternative="greater").pvalue
    found = judged(errors(0.25), baseline=SHORT, before=before).p_value
    assert found is not None
    assert np.log(found) == pytest.approx(np.log(2 * expected), rel=0.3)


def test_windows_that_scatter_more_than_their_rows_say_make_the_test_less_sure() -> None:
    steady, scattered = calm(0.2, 0.2, 0.2, 0.2), calm(0.12, 0.28, 0.13, 0.27)
    scattered = [report.model_copy(update={"verdict": "ok"}) for report in scattered]
    assert judged(errors(0.25), baseline=SHORT, before=steady).verdict == "degraded"
    assert judged(errors(0.25), baseline=SHORT, before=scattered).verdict == "ok"


def test_degraded_windows_are_not_what_is_normal() -> None:
    worse = [report.model_copy(update={"verdict": "degraded"}) for report in calm(0.4, 0.4)]
    alone = judged(errors(0.25), baseline=SHORT)
    assert judged(errors(0.25), baseline=SHORT, before=worse) == alone


def test_a_short_baseline_borrows_the_dependence_that_a_long_window_shows() -> None:
    losses = in_runs(1.0, rows=2000)
    report, own = judged(losses), summarize(losses).design_effect
    assert own > 5
    assert report.baseline_se == pytest.approx(BASELINE.std * sqrt(own / 500), rel=0.2)
