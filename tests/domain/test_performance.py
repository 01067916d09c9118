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
from everloop.domain.performance import ALPHA, PerformanceReport, score_window

POLICY = MonitorSpec(min_rows=100, min_label_coverage=0.8, max_loss_increase=0.1)
VALIDATED = np.random.default_rng(0).gamma(4, 0.25, 500)  # losses of a mean near 1
BASELINE = summarize(VALIDATED)


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
def test_the_p_value_is_welchs(mean: float) -> None:
    losses = window(mean, rows=120)
    expected = stats.ttest_ind(losses, VALIDATED, equal_var=False, alternative="greater").pvalue
    assert judged(losses).p_value == pytest.approx(expected)


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
