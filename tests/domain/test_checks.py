from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from everloop.domain.checks import CheckReport, check_rows
from tests.domain.examples import a_history, a_spec

SPEC = a_spec(features={"ranges": {"x": [0, 5]}})


def found(report: CheckReport) -> list[tuple[str, str, str]]:
    return [(finding.severity, finding.column, finding.message) for finding in report.findings]


def test_rows_as_the_spec_says_pass_without_a_finding() -> None:
    report = check_rows(a_history(), SPEC)
    assert (report.rows, report.verdict, report.findings) == (100, "pass", ())


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("x", "n/a", "3 values are no numbers; clean the source or make 'x' categorical"),
        ("x", -0.5, "3 values are outside [0, 5]; clean the source or widen features.ranges"),
        ("x", 5.01, "3 values are outside [0, 5]; clean the source or widen features.ranges"),
        ("y", np.inf, "3 of 100 targets are no finite number; clean the source"),
        ("y", np.nan, "3 of 100 targets are no finite number; clean the source"),
        ("y", "many", "3 of 100 targets are no finite number; clean the source"),
    ],
)
def test_a_few_bad_values_fail_the_check_and_are_counted(column: str, values: Any, message: str) -> None:
    frame = a_history().astype({column: object})
    frame.loc[[5, 50, 99], column] = values
    report = check_rows(frame, SPEC)
    assert found(report) == [("error", column, message)]
    assert report.verdict == "fail"


def test_both_ends_of_a_range_belong_to_it() -> None:
    frame = a_history()
    frame.loc[[0, 1], "x"] = [0.0, 5.0]
    assert check_rows(frame, SPEC).findings == ()


def test_infinite_values_fail_the_check() -> None:
    frame = a_history()
    frame.loc[[0, 1], "x"] = [np.inf, -np.inf]
    report = check_rows(frame, a_spec())
    assert found(report) == [("error", "x", "2 values are infinite; clean the source")]


@pytest.mark.parametrize("column", ["x", "c"])
def test_an_empty_feature_fails_the_check(column: str) -> None:
    report = check_rows(a_history().assign(**{column: None}), SPEC)
    message = f"all 100 values are null; mend the source or take {column!r} out of [features]"
    assert found(report) == [("error", column, message)]


@pytest.mark.parametrize(("column", "value"), [("x", 1.5), ("c", "a")])
def test_a_constant_feature_is_a_warning_and_does_not_block(column: str, value: Any) -> None:
    report = check_rows(a_history().assign(**{column: value}), SPEC)
    assert found(report) == [("warning", column, f"every value is {value!r}; the model cannot use it yet")]
    assert (report.verdict, report.errors) == ("pass", ())


@pytest.mark.parametrize(("column", "dtype"), [("x", "float64"), ("x", "Float64"), ("c", "str"), ("c", object)])
def test_some_nulls_in_a_feature_are_no_finding(column: str, dtype: Any) -> None:
    frame = a_history().astype({column: dtype})
    frame.loc[:9, column] = None
    assert check_rows(frame, SPEC).findings == ()


def test_a_category_that_hardly_repeats_is_warned_of_as_an_identifier() -> None:
    report = check_rows(a_history(200).assign(c=[f"user-{n}" for n in range(200)]), SPEC)
    assert found(report) == [("warning", "c", "200 categories in 200 rows; it may be an identifier")]


def test_too_few_rows_fail_the_check() -> None:
    report = check_rows(a_history(39), SPEC)
    message = "39 rows, at least 40 are required (twice gates.holdout_rows); bring more data"
    assert found(report) == [("error", "y", message)]
    assert check_rows(a_history(40), SPEC).verdict == "pass"


def test_no_rows_at_all_fail_the_check() -> None:
    assert [finding.rule for finding in check_rows(a_history(0), SPEC).errors] == ["size"]


def test_a_constant_target_fails_the_check() -> None:
    report = check_rows(a_history().assign(y=7), SPEC)
    assert found(report) == [("error", "y", "every target is 7; there is nothing to learn")]


@pytest.mark.parametrize(
    ("kind", "classes", "message"),
    [
        ("binary", 1, "the target has 1 classes, a binary model needs 2; clean it or set kind"),
        ("binary", 2, None),
        ("binary", 3, "the target has 3 classes, a binary model needs 2; clean it or set kind"),
        ("multiclass", 1, "the target has 1 class, at least 2 are required"),
        ("multiclass", 3, None),
    ],
)
def test_a_classifier_needs_its_classes(kind: str, classes: int, message: str | None) -> None:
    report = check_rows(a_history().assign(y=np.arange(100) % classes), a_spec(kind=kind))
    assert found(report) == ([("error", "y", message)] if message else [])


def test_every_finding_is_reported_at_once() -> None:
    frame = a_history(30).assign(x=9.0, c=None)
    assert [finding.rule for finding in check_rows(frame, SPEC).findings] == ["size", "varies", "in range", "not empty"]


def test_the_rows_are_left_as_they_were() -> None:
    frame = a_history()
    before = frame.copy(deep=True)
    check_rows(frame, SPEC)
    pd.testing.assert_frame_equal(frame, before)
