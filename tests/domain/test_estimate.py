"""Estimated performance: right while P(y|x) holds, and honest about when it does not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from everloop.domain.estimate import (
    CalibrationOfEstimate,
    EstimatedPerformance,
    calibrate_estimate,
    estimate_performance,
    expected_losses,
)
from everloop.domain.metrics import Predictions, row_losses
from everloop.domain.spec import MetricName

METRICS: list[MetricName] = ["log_loss", "error_rate", "brier"]
CLASSES = ("no", "yes")


def classify(positive: np.ndarray) -> Predictions:
    """What a model says whose probability of 'yes' is `positive` (n,)."""
    shares = np.column_stack([1 - positive, positive])
    return Predictions(np.array(CLASSES, dtype=object)[shares.argmax(axis=1)], shares, CLASSES)


def draw(positive: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.random(len(positive)) < positive, "yes", "no")


def estimate(
    metric: MetricName, said: Predictions, reference: CalibrationOfEstimate | None = None
) -> EstimatedPerformance:
    return estimate_performance(metric, "binary", said.probabilities, CLASSES, said.values, reference=reference)


@pytest.mark.parametrize("metric", METRICS)
def test_the_expected_loss_is_the_mean_of_the_loss_over_every_label(metric: MetricName) -> None:
    shares = np.random.default_rng(0).dirichlet([1, 2, 3], 40)
    classes = (1, 2, 3)
    said = Predictions(np.array(classes)[shares.argmax(axis=1)], shares, classes)
    by_label = [shares[:, i] * row_losses(metric, np.full(40, label), said) for i, label in enumerate(classes)]
    assert expected_losses(metric, shares, shares.argmax(axis=1)) == pytest.approx(sum(by_label))


def test_the_closed_forms_are_entropy_distance_from_certainty_and_p_times_1_minus_p() -> None:
    p = np.linspace(0, 1, 11)
    shares, chosen = np.column_stack([1 - p, p]), (p > 0.5).astype(int)
    assert expected_losses("log_loss", shares, chosen) == pytest.approx(stats.entropy(shares, axis=1))
    assert expected_losses("error_rate", shares, chosen) == pytest.approx(1 - shares.max(axis=1))
    assert expected_losses("brier", shares, chosen) == pytest.approx(p * (1 - p))


@pytest.mark.parametrize("metric", METRICS)
def test_under_covariate_shift_the_interval_holds_the_loss_about_as_often_as_it_says(metric: MetricName) -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        positive = rng.beta(2, 5, 500)  # the model was calibrated on Beta(2, 2)
        truth = draw(positive, rng)
        found = estimate(metric, classify(positive))
        assert found.low is not None
        assert found.high is not None
        held += found.low <= row_losses(metric, truth, classify(positive)).mean() <= found.high
    assert 0.93 <= held / 400 <= 1.0


def test_the_interval_is_that_of_a_share_when_every_row_is_alike() -> None:
    found = estimate("error_rate", classify(np.full(1000, 0.9)))
    half = stats.norm.ppf(0.975) * np.sqrt(0.1 * 0.9 / 1000)
    assert (found.estimate, found.low, found.high) == pytest.approx((0.1, 0.1 - half, 0.1 + half))


def test_an_overconfident_model_is_estimated_right_after_its_calibration() -> None:
    rng = np.random.default_rng(2)
    real = rng.beta(2, 2, 20_000)
    said = classify(np.clip(0.5 + 1.6 * (real - 0.5), 0.001, 0.999))  # too sure of itself
    truth = draw(real, rng)
    reference = calibrate_estimate(
        "error_rate", truth[:10_000], Predictions(said.values[:10_000], said.probabilities[:10_000], CLASSES)
    )
    window = Predictions(said.values[10_000:], said.probabilities[10_000:], CLASSES)
    actual = row_losses("error_rate", truth[10_000:], window).mean()
    assert estimate("error_rate", window).estimate < actual - 0.05
    found = estimate("error_rate", window, reference)
    assert found.low < actual < found.high
    assert found.estimate == pytest.approx(actual, abs=0.015)
    assert found.baseline == reference.actual
    assert f"times {reference.ratio:.3g}: on the holdout's 10,000 rows" in found.note


def test_the_spread_of_the_ratio_is_that_of_the_bootstrap() -> None:
    rng = np.random.default_rng(3)
    positive = rng.beta(2, 2, 400)
    said, truth = classify(positive), draw(positive, rng)
    found = calibrate_estimate("log_loss", truth, said)
    losses = row_losses("log_loss", truth, said)
    expected = expected_losses("log_loss", said.probabilities, (positive > 0.5).astype(int))
    drawn = rng.integers(0, 400, (4000, 400))
    ratios = losses[drawn].mean(axis=1) / expected[drawn].mean(axis=1)
    assert found.ratio == pytest.approx(losses.mean() / expected.mean())
    assert found.ratio_error == pytest.approx(ratios.std(), rel=0.06)


def test_it_is_blind_to_concept_drift_and_says_so() -> None:
    rng = np.random.default_rng(4)
    positive = rng.beta(2, 2, 5000)
    said = classify(positive)
    flipped = row_losses("error_rate", draw(1 - positive, rng), said).mean()
    found = estimate("error_rate", said)
    assert flipped - found.high > 0.2
    assert "blind to concept drift" in found.note
    assert "neither clears an alarm nor raises one" in found.note


def test_a_regression_is_not_estimated() -> None:
    found = estimate_performance("mae", "regression", None, (), np.arange(5.0))
    assert (found.verdict, found.estimate, found.rows) == ("not estimated", None, 5)
    assert "not how sure it is" in found.note


@pytest.mark.parametrize("probabilities", [None, np.full((3, 2), np.nan), np.full((3, 3), 1 / 3), np.zeros((3, 2))])
def test_rows_without_probabilities_of_the_classes_are_not_estimated(probabilities: np.ndarray | None) -> None:
    found = estimate_performance("log_loss", "binary", probabilities, CLASSES, ["no", "no", "yes"])
    assert found.verdict == "not estimated"
    assert "0 of 3 rows carry probabilities of the 2 classes" in found.note


def test_rows_that_lack_them_are_left_out() -> None:
    shares = np.array([[0.9, 0.1], [np.nan, np.nan], [0.2, 0.8], [0.4, 0.6]])
    found = estimate_performance("error_rate", "binary", shares, CLASSES, ["no", "no", "yes", "unknown"])
    assert (found.rows, found.estimate) == (2, pytest.approx(0.15))


def test_an_error_rate_stays_between_0_and_1() -> None:
    reference = CalibrationOfEstimate(estimated=0.1, actual=0.9, rows=100, residual_std=0.5)
    found = estimate("error_rate", classify(np.full(50, 0.6)), reference)
    assert (found.estimate, found.high) == (1.0, 1.0)
    assert 0 <= found.low < 1


def test_a_value_is_json_and_comes_back() -> None:
    found = estimate("brier", classify(np.linspace(0.1, 0.9, 20)))
    assert EstimatedPerformance.model_validate_json(found.model_dump_json()) == found
