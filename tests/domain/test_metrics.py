from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics
from sklearn.dummy import DummyClassifier, DummyRegressor

from everloop.domain.metrics import LossSummary, Predictions, row_losses, score, summarize, trivial_predictions
from everloop.domain.spec import MetricName

RNG = np.random.default_rng(0)
NUMBERS = RNG.normal(10, 3, 50), RNG.normal(10, 3, 50)
LABELS = RNG.choice(["no", "yes"], 50)
SHARES = RNG.uniform(0.05, 0.95, 50)
OF_YES = Predictions(np.where(SHARES > 0.5, "yes", "no"), np.column_stack([1 - SHARES, SHARES]), ("no", "yes"))
ALL: tuple[MetricName, ...] = ("mae", "rmse", "log_loss", "error_rate", "brier")


@pytest.mark.parametrize(
    ("metric", "expected"), [("mae", metrics.mean_absolute_error), ("rmse", metrics.root_mean_squared_error)]
)
def test_a_regression_metric_equals_scikit_learns(metric: MetricName, expected: Callable[..., float]) -> None:
    actual, predicted = NUMBERS
    assert score(metric, row_losses(metric, actual, Predictions(predicted))) == pytest.approx(
        expected(actual, predicted)
    )


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("log_loss", metrics.log_loss(LABELS, SHARES)),
        ("brier", metrics.brier_score_loss(LABELS, SHARES, pos_label="yes")),
        ("error_rate", 1 - metrics.accuracy_score(LABELS, OF_YES.values)),
    ],
)
def test_a_classification_metric_equals_scikit_learns(metric: MetricName, expected: float) -> None:
    assert score(metric, row_losses(metric, LABELS, OF_YES)) == pytest.approx(expected)


def test_losses_of_single_rows_by_hand() -> None:
    assert row_losses("mae", [1, 5], Predictions(np.array([3.0, 4.0]))).tolist() == [2, 1]
    assert row_losses("rmse", [1, 5], Predictions(np.array([3.0, 4.0]))).tolist() == [4, 1]
    said = Predictions(np.array(["a", "b"]), np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]), ("a", "b", "c"))
    assert row_losses("log_loss", ["a", "c"], said) == pytest.approx([np.log(2), np.log(10)])
    assert row_losses("brier", ["a", "c"], said) == pytest.approx([0.25, 0.81])
    assert row_losses("error_rate", ["a", "c"], said).tolist() == [0, 1]


@given(arrays(float, 5, elements=st.floats(-1e6, 1e6)), arrays(float, 5, elements=st.floats(-1e6, 1e6)))
def test_losses_are_zero_or_more_and_zero_for_the_truth(actual: np.ndarray, predicted: np.ndarray) -> None:
    for metric in ("mae", "rmse"):
        assert (row_losses(metric, actual, Predictions(predicted)) >= 0).all()
        assert (row_losses(metric, actual, Predictions(actual)) == 0).all()


def test_a_class_the_model_does_not_know_costs_the_most_there_is() -> None:
    said = Predictions(np.array([0]), np.array([[1.0, 0.0]]), (0, 1))
    assert row_losses("log_loss", [2], said) == pytest.approx([-np.log(1e-15)])
    assert row_losses("brier", [2], said) == [1]
    assert row_losses("error_rate", [2], said) == [1]


@pytest.mark.parametrize("classes", [(0, 1), (False, True), ("0", "1")])
def test_labels_match_classes_of_the_same_type(classes: tuple) -> None:
    said = Predictions(np.array(classes), np.eye(2), classes)
    for metric in ("log_loss", "brier", "error_rate"):
        assert row_losses(metric, list(classes), said) == pytest.approx([0, 0], abs=1e-12)


@pytest.mark.parametrize("metric", ["log_loss", "brier", "error_rate"])
def test_a_whole_number_label_matches_its_class_when_pandas_made_it_a_float(metric: MetricName) -> None:
    said = Predictions(np.array([0, 1]), np.eye(2), (0, 1))
    assert row_losses(metric, np.array([0.0, 1.0]), said) == pytest.approx([0, 0], abs=1e-12)


@pytest.mark.parametrize("metric", ["log_loss", "brier"])
def test_a_metric_of_probabilities_refuses_predictions_without_them(metric: MetricName) -> None:
    with pytest.raises(ValueError, match=r"^this metric needs probabilities and the predictions carry none$"):
        row_losses(metric, [1], Predictions(np.array([1])))


def test_a_summary_is_count_mean_and_sample_deviation() -> None:
    summary = summarize(np.array([1.0, 2.0, 6.0]))
    assert (summary.n, summary.mean, summary.std) == (3, 3.0, pytest.approx(np.sqrt((4 + 1 + 9) / 2)))
    assert summary.design_effect == 1
    assert summary.standard_error == pytest.approx(summary.std / np.sqrt(3))


def test_losses_that_come_in_runs_tell_less_about_their_mean() -> None:
    runs = np.repeat(RNG.exponential(1, 100), 9)
    summary = summarize(runs)
    assert 6 < summary.design_effect < 14
    assert summary.effective_n == pytest.approx(900 / summary.design_effect)
    assert summary.standard_error == pytest.approx(summary.std / np.sqrt(summary.effective_n))


def test_a_summary_stored_before_dependence_was_measured_still_loads() -> None:
    assert LossSummary.model_validate({"n": 9, "mean": 1, "std": 3}).standard_error == 1


@pytest.mark.parametrize(("metric", "strategy"), [("mae", "median"), ("rmse", "mean")])
def test_the_trivial_regressor_equals_scikit_learns(metric: MetricName, strategy: str) -> None:
    known = NUMBERS[0]
    expected = DummyRegressor(strategy=strategy).fit(np.zeros((50, 1)), known).predict(np.zeros((3, 1)))
    assert trivial_predictions(metric, known, 3, ()).values == pytest.approx(expected)


@pytest.mark.parametrize(
    "known", [LABELS, RNG.integers(0, 3, 50), RNG.random(50) > 0.7], ids=["text", "integer", "boolean"]
)
def test_the_trivial_classifier_equals_scikit_learns(known: np.ndarray) -> None:
    dummy = DummyClassifier(strategy="prior").fit(np.zeros((50, 1)), known)
    trivial = trivial_predictions("log_loss", known, 4, tuple(dummy.classes_.tolist()))
    assert trivial.probabilities == pytest.approx(dummy.predict_proba(np.zeros((4, 1))))
    assert trivial.values.tolist() == dummy.predict(np.zeros((4, 1))).tolist()


@given(arrays(float, 20, elements=st.floats(-100, 100)), st.floats(-100, 100))
def test_no_constant_beats_the_trivial_regressor_on_what_it_knows(known: np.ndarray, constant: float) -> None:
    for metric in ("mae", "rmse"):
        trivial = row_losses(metric, known, trivial_predictions(metric, known, 20, ()))
        other = row_losses(metric, known, Predictions(np.full(20, constant)))
        assert score(metric, trivial) <= score(metric, other) + 1e-9
