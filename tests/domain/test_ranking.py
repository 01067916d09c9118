"""Rank metrics: the same numbers as scikit-learn's, intervals as wide as theory says, in a fraction of a second."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from everloop.domain.ranking import RankReport, rank_quality


def a_window(n: int, *, share: float = 0.3, shift: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < share
    return truth, rng.normal(size=n) + shift * truth


@pytest.mark.parametrize("digits", [None, 1, 0])
@pytest.mark.parametrize("n", [60, 1000])
def test_auc_and_average_precision_are_those_of_scikit_learn_with_ties_too(n: int, digits: int | None) -> None:
    truth, scores = a_window(n)
    scores = scores if digits is None else scores.round(digits)
    found = rank_quality(truth, scores)
    assert found.auc == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    assert found.average_precision == pytest.approx(average_precision_score(truth, scores), abs=1e-12)
    assert (found.positives, found.negatives) == (truth.sum(), (~truth).sum())


def test_auc_of_two_normals_is_the_closed_form() -> None:
    found = rank_quality(*a_window(200_000), resamples=20)
    assert found.auc == pytest.approx(stats.norm.cdf(1 / np.sqrt(2)), abs=0.003)


def test_the_interval_is_as_wide_as_theory_says() -> None:
    """Hanley and McNeil (1982): the standard error of an AUC under exponential scores; here DeLong's (1988), on raw data."""
    truth, scores = a_window(2000)
    found = rank_quality(truth, scores, resamples=2000)
    above = scores[truth][:, None] > scores[~truth][None, :]
    error = np.sqrt(above.mean(axis=1).var(ddof=1) / truth.sum() + above.mean(axis=0).var(ddof=1) / (~truth).sum())
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(error, rel=0.08)


def test_the_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    real = stats.norm.cdf(1 / np.sqrt(2))
    reports = [rank_quality(*a_window(400, seed=seed)) for seed in range(300)]
    held = np.mean([report.low <= real <= report.high for report in reports])
    assert 0.91 <= held <= 0.985


def test_an_average_precision_interval_is_that_of_a_plain_bootstrap() -> None:
    truth, scores = a_window(300)
    rng = np.random.default_rng(1)
    drawn = [rng.integers(0, 300, 300) for _ in range(1000)]
    low, high = np.quantile([average_precision_score(truth[rows], scores[rows]) for rows in drawn], [0.025, 0.975])
    found = rank_quality(truth, scores, resamples=1000)
    assert found.average_precision_low == pytest.approx(low, abs=0.02)
    assert found.average_precision_high == pytest.approx(high, abs=0.02)


def test_few_rows_of_a_class_are_undetermined() -> None:
    found = rank_quality(np.r_[np.ones(9), np.zeros(500)], np.arange(509.0))
    assert (found.verdict, found.auc) == ("undetermined", None)
    assert found.reason == "9 positive and 500 negative rows, 10 of each are required"
    assert rank_quality(np.empty(0), np.empty(0)).verdict == "undetermined"


def test_rows_without_a_score_are_left_out_and_counted() -> None:
    truth, scores = a_window(200)
    broken = scores.copy()
    broken[:5] = np.nan
    found = rank_quality(truth, broken)
    assert found.auc == pytest.approx(roc_auc_score(truth[5:], scores[5:]))
    assert found.reason.endswith("5 rows without a finite score left out")


def test_the_same_seed_gives_the_same_interval() -> None:
    window = a_window(500)
    first = rank_quality(*window, seed=3)
    assert rank_quality(*window, seed=3) == first
    assert rank_quality(*window, seed=4) != first


def test_a_window_of_100_000_rows_takes_well_under_a_second() -> None:
    window = a_window(100_000)
    took = []
    for _ in range(3):
        start = time.perf_counter()
        rank_quality(*window)
        took.append(time.perf_counter() - start)
    assert min(took) < 1.0


def test_a_report_is_json_and_comes_back() -> None:
    found = rank_quality(*a_window(100))
    assert RankReport.model_validate_json(found.model_dump_json()) == found
