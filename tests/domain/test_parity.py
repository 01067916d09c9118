"""Parity: an exported model may answer if nobody can tell it from the fitted one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.domain.metrics import Predictions
from everloop.domain.parity import SCORE_TOLERANCE, compare_answers, not_exported

CLASSES = ("no", "yes")


def numbers(*values: float) -> Predictions:
    """The answers of a regression."""
    return Predictions(np.array(values))


def classes(*shares: tuple[float, float], values: list[str] | None = None) -> Predictions:
    """The answers of a classification; by default the more probable class."""
    probabilities = np.array(shares)
    said = values or [CLASSES[best] for best in probabilities.argmax(axis=1)]
    return Predictions(np.array(said, dtype=object), probabilities, CLASSES)


def test_equal_answers_are_parity() -> None:
    """With nothing between them."""
    report = compare_answers(numbers(1, 2, 3), numbers(1, 2, 3))
    assert (report.passed, report.rows, report.largest_difference, report.labels_differing) == (True, 3, 0.0, 0)


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e9])
@pytest.mark.parametrize(("share", "passed"), [(0.9, True), (1.1, False)])
def test_a_regression_is_judged_in_standard_deviations_of_its_own_predictions(
    unit: float, share: float, passed: bool
) -> None:
    """So the unit of the target does not matter."""
    fitted = np.array([1.0, 2.0, 5.0]) * unit
    off = fitted + np.array([0, share * SCORE_TOLERANCE * np.std(fitted), 0])
    report = compare_answers(Predictions(fitted), Predictions(off))
    assert report.passed is passed
    assert report.allowed_difference == pytest.approx(SCORE_TOLERANCE * np.std(fitted))
    assert report.largest_difference == pytest.approx(share * SCORE_TOLERANCE * np.std(fitted), rel=1e-3)


@pytest.mark.parametrize(
    ("level", "allowed"), [(50.0, 50 * SCORE_TOLERANCE), (-50.0, 50 * SCORE_TOLERANCE), (0.0, SCORE_TOLERANCE)]
)
def test_predictions_that_are_all_equal_are_judged_by_their_size(level: float, allowed: float) -> None:
    """They have no spread, and all zero they have no size either."""
    assert compare_answers(numbers(level, level), numbers(level, level)).allowed_difference == pytest.approx(allowed)


def test_a_classification_is_judged_by_its_probabilities() -> None:
    """The largest difference of any of them."""
    fitted = classes((0.2, 0.8), (0.9, 0.1))
    assert compare_answers(fitted, classes((0.2, 0.8), (0.90009, 0.09991))).passed
    report = compare_answers(fitted, classes((0.2, 0.8), (0.9002, 0.0998)))
    assert not report.passed
    assert report.reason == "the largest difference on 2 holdout rows is 0.0002, more than 0.0001"


def test_one_label_that_differs_is_no_parity_however_close_the_probabilities() -> None:
    """A user sees the label."""
    report = compare_answers(classes((0.5, 0.5), (0.1, 0.9)), classes((0.49999, 0.50001), (0.1, 0.9)))
    assert (report.passed, report.labels_differing) == (False, 1)
    assert report.reason == "1 of 2 labels differ and the largest difference on 2 holdout rows is 1e-05, within 0.0001"


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_an_answer_that_is_no_number_is_no_parity(wrong: float) -> None:
    """A comparison with NaN is false, and must not pass for that."""
    assert not compare_answers(numbers(1, 2, 3), numbers(1, wrong, 3)).passed
    assert not compare_answers(classes((0.2, 0.8)), classes((wrong, 0.8), values=["yes"])).passed


def test_what_could_not_be_exported_is_no_parity_and_says_why() -> None:
    """There is nothing to compare."""
    report = not_exported("no ONNX for Odd: it has no converter")
    assert (report.passed, report.reason, report.rows) == (False, "no ONNX for Odd: it has no converter", 0)
    assert report.allowed_difference is None


finite = st.floats(-1e6, 1e6, width=32)


@given(st.lists(finite, min_size=1, max_size=20), st.data())
def test_parity_is_what_the_largest_difference_says(values: list[float], data: st.DataObject) -> None:
    """Passed if and only if every answer is within what is allowed."""
    other: list[Any] = data.draw(st.lists(finite, min_size=len(values), max_size=len(values)))
    report = compare_answers(numbers(*values), numbers(*other))
    assert report.largest_difference == np.max(np.abs(np.array(values) - np.array(other)))
    assert report.allowed_difference is not None
    assert report.passed is bool(report.largest_difference <= report.allowed_difference)
    assert compare_answers(numbers(*values), numbers(*values)).passed
