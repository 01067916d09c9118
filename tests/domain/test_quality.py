"""Data quality of a window: broken rows block, odd ones warn, harmless ones pass."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from scipy import stats

from everloop.domain.calibration import Calibration, calibrate
from everloop.domain.quality import QualityReport, judge_quality
from everloop.domain.schema import FeatureSchema, RowSchema
from everloop.domain.summaries import ColumnSummary, ProfileSummary
from tests.domain.examples import categories, numbers

SCHEMA = RowSchema(
    features=(
        FeatureSchema(name="temp", role="numeric", type="number", nullable=True, low=-30, high=50),
        FeatureSchema(name="wind", role="numeric", type="number", nullable=True),
        FeatureSchema(name="city", role="categorical", type="text", nullable=True),
        FeatureSchema(name="code", role="categorical", type="integer", nullable=False),
    ),
    time="when",
    key="id",
)
RNG = np.random.default_rng(0)
NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)


def columns(rows: int, *, rng: np.random.Generator = RNG) -> dict[str, ColumnSummary]:
    return {
        "temp": numbers(rng.normal(10, 8, rows).clip(-30, 50)),
        "wind": numbers(np.where(rng.random(rows) < 0.1, np.nan, rng.gamma(2, 3, rows))),
        "city": categories(rng.choice(["Porto", "Lodz", "Bergen"], rows)),
        "code": categories(rng.integers(1, 6, rows)),
    }


REFERENCE = ProfileSummary(rows=5000, columns=columns(5000))


ARGUMENTS = ("duplicates", "newest", "at", "max_age", "calibration", "false_alarms")


def judge(rows: int = 500, *, without: tuple[str, ...] = (), **changes: Any) -> QualityReport:
    """The report on a window like the reference but for columns by their name, and arguments by theirs."""
    arguments = {name: changes.pop(name) for name in ARGUMENTS if name in changes}
    found = {**columns(rows), **changes}
    window = ProfileSummary(rows=rows, columns={name: c for name, c in found.items() if name not in without})
    return judge_quality(REFERENCE, window, SCHEMA, **arguments)


def trained_on(**values: np.ndarray) -> tuple[ProfileSummary, Calibration]:
    """The reference of such columns of equal length, and what its blocks of 100 rows say."""

    def profile(start: int, stop: int) -> ProfileSummary:
        summaries = {
            name: (numbers if column.dtype == float else categories)(column[start:stop])
            for name, column in values.items()
        }
        return ProfileSummary(rows=stop - start, columns=summaries)

    rows = len(next(iter(values.values())))
    whole = profile(0, rows)
    return whole, calibrate([profile(at, at + 100) for at in range(0, rows, 100)], whole, false_alarms=0.01)


def seen(report: QualityReport) -> list[tuple[str, str, str]]:
    return [(finding.severity, finding.column, finding.rule) for finding in report.findings]


def with_nulls(rows: int, nulls: int) -> ColumnSummary:
    return numbers(np.r_[np.full(nulls, np.nan), RNG.normal(10, 8, rows - nulls)])


@pytest.mark.parametrize("rows", [1, 20, 500, 20_000])
def test_a_window_like_the_training_data_is_ok(rows: int) -> None:
    report = judge(rows)
    assert (report.verdict, seen(report)) == ("ok", [])
    assert report.reason == f"0 errors and 0 warnings in {rows:,} rows of 4 features"


@pytest.mark.parametrize("rows", [20, 200, 1000])
def test_unchanged_windows_warn_in_less_than_one_of_a_hundred_and_never_fail(rows: int) -> None:
    rng = np.random.default_rng(rows)
    verdicts = [
        judge_quality(REFERENCE, ProfileSummary(rows=rows, columns=columns(rows, rng=rng)), SCHEMA).verdict
        for _ in range(400)
    ]
    assert "fail" not in verdicts
    assert verdicts.count("warning") <= 4


def test_an_empty_window_is_undetermined() -> None:
    assert judge_quality(REFERENCE, ProfileSummary(rows=0), SCHEMA).verdict == "undetermined"


def test_a_missing_column_fails_and_a_new_one_warns_but_answers_and_parts_of_time_are_no_features() -> None:
    extra = {"prediction": numbers([1, 2]), "time.hour": numbers([1, 2]), "rain": numbers([1, 2])}
    report = judge(without=("temp",), **extra)
    assert seen(report) == [("error", "temp", "is there"), ("warning", "rain", "is known")]
    assert report.verdict == "fail"
    assert "mend what sends the rows" in report.errors[0].message


@pytest.mark.parametrize(
    ("nulls", "expected"),
    [
        (2, []),  # under the floor
        (25, [("warning", "temp", "has values")]),
        (99, [("warning", "temp", "has values")]),
        (100, [("error", "temp", "has values")]),
        (500, [("error", "temp", "is a number")]),
    ],
)
def test_nulls_count_by_how_much_their_share_rose(nulls: int, expected: list[tuple[str, str, str]]) -> None:
    report = judge(temp=with_nulls(500, nulls))
    assert seen(report) == expected
    assert report.shares["temp.nulls"] == nulls / 500


def test_nulls_that_training_had_are_not_held_against_the_window() -> None:
    few = numbers(np.r_[np.full(3, np.nan), RNG.gamma(2, 3, 7)])  # 30 % of ten rows where 10 % are expected
    assert stats.binom.sf(2, 10, 0.1) > 0.01
    assert judge(10, wind=few).verdict == "ok"


def test_a_category_column_that_is_empty_fails() -> None:
    report = judge(city=categories([], nulls=500))
    assert seen(report) == [("error", "city", "is not empty")]
    assert "all 500 values are null or unreadable, 0.0% in the training data" in report.findings[0].message


def test_a_numeric_column_of_which_no_value_is_a_number_fails() -> None:
    assert seen(judge(temp=ColumnSummary(n=500, nulls=0))) == [("error", "temp", "is a number")]


@pytest.mark.parametrize(("infinite", "severity"), [(1, "warning"), (4, "warning"), (5, "error")])
def test_a_few_infinities_warn_and_a_share_of_them_fails(infinite: int, severity: str) -> None:
    report = judge(wind=replace(numbers(RNG.gamma(2, 3, 500)), infinite=infinite))
    assert seen(report) == [(severity, "wind", "is finite")]
    assert report.shares["wind.infinite"] == infinite / 500


@pytest.mark.parametrize(("outside", "severity"), [(1, "warning"), (5, "error")])
def test_values_outside_the_range_of_the_spec_are_counted(outside: int, severity: str) -> None:
    values = np.r_[np.full(outside, -999.0), RNG.uniform(-30, 50, 500 - outside)]
    report = judge(temp=numbers(values))
    assert seen(report) == [(severity, "temp", "is in range")]
    assert f"about {outside} of 500 values are outside the range of the spec, [-30, 50]" in report.findings[0].message
    assert report.shares["temp.outside"] == outside / 500


def test_an_end_of_the_range_is_inside_though_float32_moves_it() -> None:
    schema = RowSchema(
        features=(FeatureSchema(name="x", role="numeric", type="number", nullable=False, low=0.7, high=0.9),)
    )
    values = np.float32([0.7, 0.9] * 100)
    assert float(values[0]) < 0.7
    profile = ProfileSummary(rows=200, columns={"x": numbers(values)})
    assert judge_quality(profile, profile, schema).verdict == "ok"


def test_new_categories_warn_however_many_they_are_because_retraining_learns_them() -> None:
    assert seen(judge(city=categories(["Porto"] * 497 + ["Oslo"] * 3))) == []
    report = judge(city=categories(["Oslo"] * 250 + ["Rome"] * 250))
    assert seen(report) == [("warning", "city", "is known")]
    assert report.shares["city.unseen"] == 1.0


def test_categories_that_training_saw_once_make_unseen_ones_expected() -> None:
    singles = categories([f"customer {number}" for number in range(5000)])
    window = categories([f"visitor {number}" for number in range(500)])
    reference = ProfileSummary(rows=5000, columns={**REFERENCE.columns, "city": singles})
    found = judge_quality(reference, ProfileSummary(rows=500, columns={**columns(500), "city": window}), SCHEMA)
    assert found.verdict == "ok"


def test_known_categories_in_another_spelling_fail() -> None:
    report = judge(city=categories(["PORTO"] * 300 + ["Lodz "] * 200))
    assert seen(report) == [("error", "city", "keeps its spelling")]
    assert "500 of 500 values (100.0%) are known categories in another spelling" in report.findings[0].message


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        (
            "city",
            ["1"] * 300 + ["2"] * 200,
            "500 of 500 values (100.0%) are numbers (most often '1'), training saw words",
        ),
        (
            "code",
            ["one"] * 200 + ["1"] * 300,
            "200 of 500 values (40.0%) are words (most often 'one'), training saw numbers",
        ),
    ],
)
def test_categories_that_are_coded_anew_fail(column: str, values: list[str], message: str) -> None:
    report = judge(**{column: categories(values)})
    assert ("error", column, "keeps its type") in seen(report)
    assert message in report.errors[0].message


def test_more_categories_than_a_profile_counts_fail_unless_training_had_so_many() -> None:
    uncounted = ColumnSummary(n=500, nulls=0)
    report = judge(city=uncounted)
    assert seen(report) == [("error", "city", "can be counted")]
    assert "more categories than a profile counts, training saw 3" in report.errors[0].message
    reference = ProfileSummary(rows=5000, columns={**REFERENCE.columns, "city": uncounted})
    for city in (uncounted, columns(500)["city"]):
        window = ProfileSummary(rows=500, columns={**columns(500), "city": city})
        assert judge_quality(reference, window, SCHEMA).verdict == "ok"


@pytest.mark.parametrize(("rows", "expected"), [(49, []), (50, [("warning", "temp", "varies")])])
def test_a_column_that_stands_still_for_fifty_rows_warns(rows: int, expected: list[tuple[str, str, str]]) -> None:
    assert seen(judge(rows, temp=numbers(np.full(rows, 10.0)))) == expected


def test_a_column_that_stood_still_in_a_stretch_of_the_training_data_may_do_so_again() -> None:
    still = np.full(100, 10.0)
    temp, wind = np.r_[still, RNG.normal(10, 8, 400)], RNG.gamma(2, 3, 500)
    reference, calibration = trained_on(temp=temp, wind=wind)
    window = ProfileSummary(rows=100, columns={**columns(100), "temp": numbers(still), "wind": numbers(still)})
    report = judge_quality(reference, window, SCHEMA, calibration=calibration)
    assert seen(report) == [("warning", "wind", "varies")]


def test_what_the_blocks_of_the_training_data_did_is_no_news() -> None:
    """A sensor that is off every third shift, and a fair every day beside the one shop: so is it in the window."""
    block = np.arange(3000) // 100
    off, shop = block % 3 == 0, np.where(np.arange(3000) % 2 == 0, "shop", block.astype(str))
    temp, wind = np.where(off, np.nan, RNG.normal(10, 8, 3000)), RNG.gamma(2, 3, 3000)
    reference, calibration = trained_on(temp=temp, wind=wind, city=shop)
    shift = {"temp": numbers(np.full(100, np.nan)), "city": categories(["31"] * 50 + ["shop"] * 50)}
    same = {**columns(100), "wind": numbers(RNG.gamma(2, 3, 100))}
    window = ProfileSummary(rows=100, columns={**same, **shift})
    assert seen(judge_quality(reference, window, SCHEMA, calibration=calibration)) == []
    without = judge_quality(reference, window, SCHEMA)
    assert seen(without) == [("error", "temp", "is a number"), ("warning", "city", "is known")]
    broken = ProfileSummary(rows=100, columns={**same, "wind": shift["temp"]})
    found = seen(judge_quality(reference, broken, SCHEMA, calibration=calibration))
    assert ("error", "wind", "is a number") in found


@pytest.mark.parametrize("rows", [1000, 2000, 6000])
def test_a_single_outage_in_training_excuses_none(rows: int) -> None:
    temp = RNG.normal(10, 8, rows)
    temp[500:600] = np.nan
    reference, calibration = trained_on(temp=temp)
    for nulls, expected in ((100, ("error", "temp", "is a number")), (90, ("warning", "temp", "has values"))):
        column = numbers(np.r_[np.full(nulls, np.nan), RNG.normal(10, 8, 100 - nulls)])
        window = ProfileSummary(rows=100, columns={**columns(100), "temp": column})
        found = seen(judge_quality(reference, window, SCHEMA, calibration=calibration))
        assert expected in found


def test_nulls_that_come_in_bursts_in_training_too_are_no_error() -> None:
    rng = np.random.default_rng(1)
    share = np.repeat(rng.beta(0.5, 4, 60), 100)
    reference, calibration = trained_on(temp=np.where(rng.random(6000) < share, np.nan, rng.normal(10, 8, 6000)))
    errors = 0
    for burst in rng.beta(0.5, 4, 400):
        column = numbers(np.where(rng.random(100) < burst, np.nan, rng.normal(10, 8, 100)))
        window = ProfileSummary(rows=100, columns={**columns(100), "temp": column})
        report = judge_quality(reference, window, SCHEMA, calibration=calibration)
        errors += any(finding.column == "temp" for finding in report.errors)
    assert errors == 0


def test_a_known_category_spelt_otherwise_is_one_though_new_categories_are_usual() -> None:
    city = np.where(np.arange(3000) % 2 == 0, "Porto", (np.arange(3000) // 50).astype(str))
    reference, calibration = trained_on(city=city)
    window = ProfileSummary(rows=90, columns={**columns(90), "city": categories(["porto"] * 30 + ["Porto"] * 60)})
    found = seen(judge_quality(reference, window, SCHEMA, calibration=calibration))
    assert ("error", "city", "keeps its spelling") in found


def test_the_tests_of_a_window_share_its_false_alarms() -> None:
    found = [seen(judge(wind=with_nulls(500, 90), false_alarms=rate)) for rate in (0.01, 1e-9)]
    assert found == [[("warning", "wind", "has values")], []]


@pytest.mark.parametrize(("usual", "verdict"), [(2600, "ok"), (2400, "warning")])
def test_a_constant_that_was_the_usual_value_does_not_warn(usual: int, verdict: str) -> None:
    """'No holiday' fills weeks: on the hourly bike rentals a test of chance alone warned in 11 of 25 windows of 504 rows."""
    city = categories(["no"] * usual + ["yes"] * (5000 - usual))
    reference = ProfileSummary(rows=5000, columns={**REFERENCE.columns, "city": city})
    window = ProfileSummary(rows=1000, columns={**columns(1000), "city": categories(["no"] * 1000)})
    assert judge_quality(reference, window, SCHEMA).verdict == verdict


@pytest.mark.parametrize(
    ("duplicates", "expected"),
    [(5, []), (6, [("warning", "id", "is unique")]), (101, [("error", "id", "is unique")])],
)
def test_repeated_keys_count_by_their_share(duplicates: int, expected: list[tuple[str, str, str]]) -> None:
    report = judge(duplicates=duplicates)
    assert seen(report) == expected
    assert report.shares["rows.duplicates"] == duplicates / 500


@pytest.mark.parametrize("newest", [NOW - timedelta(days=2), (NOW - timedelta(days=2)).replace(tzinfo=None)])
def test_rows_older_than_allowed_fail(newest: datetime) -> None:
    assert judge(newest=newest, at=NOW, max_age=timedelta(days=2)).verdict == "ok"
    assert judge(newest=newest, at=NOW).verdict == "ok"
    report = judge(newest=newest, at=NOW, max_age=timedelta(days=1))
    assert seen(report) == [("error", "when", "is fresh")]
    assert "2 days, 0:00:00 before 2024-06-01 12:00; at most 1 day, 0:00:00 is allowed" in report.findings[0].message


def test_a_report_is_json_and_comes_back() -> None:
    report = judge(duplicates=200)
    assert QualityReport.model_validate_json(report.model_dump_json()) == report
