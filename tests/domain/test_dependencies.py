"""Dependencies: a source that cannot be trained on fails, what differs warns, what was not seen is listed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from everloop.domain.dependencies import ColumnSkew, DependencyReport, SourceState, find_skew, judge_dependencies
from everloop.domain.schema import FeatureSchema, RowSchema

NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)
COLUMNS = {"id": "integer", "when": "time", "temp": "number", "season": "integer", "city": "text", "cnt": "number"}
ENVIRONMENT = {"lock": "sha256:1a", "python": "3.11"}
SOURCE = SourceState(
    reachable=True, reason="fine", rows=100, labelled=90, newest="2024-06-01T10:00:00", columns=COLUMNS
)
SAME = (ColumnSkew(column="temp", compared=50, differing=0, share=0.0),)
SCHEMA = RowSchema(
    features=(
        FeatureSchema(name="temp", role="numeric", type="number", nullable=True),
        FeatureSchema(name="season", role="categorical", type="integer", nullable=True),
    ),
    key="id",
)


def judge(**changes: Any) -> DependencyReport:
    """The report on a model around which nothing has changed but `changes`; those of the source by their names."""
    source = SOURCE.model_copy(update={name: changes.pop(name) for name in SourceState.model_fields if name in changes})
    looked_at = {
        "at": NOW,
        "max_age": timedelta(hours=3),
        "trained_columns": COLUMNS,
        "training": ENVIRONMENT,
        "serving": ENVIRONMENT,
        "skew": SAME,
    }
    return judge_dependencies(source=source, **{**looked_at, **changes})


def seen(report: DependencyReport) -> list[tuple[str, str, str]]:
    return [(finding.severity, finding.column, finding.rule) for finding in report.findings]


def test_a_model_around_which_nothing_has_changed_is_ok() -> None:
    report = judge()
    assert (report.verdict, report.findings, report.unknown) == ("ok", (), ())
    assert report.reason == "nothing that could be looked at has changed"


@pytest.mark.parametrize(
    ("changes", "rule", "message"),
    [
        ({"reachable": False, "reason": "sales.db: no such file"}, "is reachable", "sales.db: no such file"),
        ({"rows": 0, "labelled": 0}, "has rows", "it holds 0 rows"),
        ({"labelled": 0}, "has labels", "none of its 100 rows has a label"),
        ({"newest": "2024-06-01T08:59:00"}, "is fresh", "3:01:00 ago; at most 3:00:00 is allowed (monitor.max_age)"),
    ],
)
def test_a_source_that_is_gone_empty_without_labels_or_stale_fails(
    changes: dict[str, Any], rule: str, message: str
) -> None:
    report = judge(**changes)
    assert seen(report) == [("error", "source", rule)]
    assert report.verdict == "fail"
    assert message in report.reason


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({**COLUMNS, "temp": "text"}, [("error", "temp", "keeps its type")]),
        ({**COLUMNS, "season": "number"}, []),  # a whole number with a gap is a number to pandas
        ({**COLUMNS, "city": "unknown"}, []),  # all null
        ({name: kind for name, kind in COLUMNS.items() if name != "city"}, [("error", "city", "is in the source")]),
        ({**COLUMNS, "rain": "number"}, [("warning", "source", "keeps its columns")]),
    ],
)
def test_columns_of_the_source_are_those_of_training(
    columns: dict[str, str], expected: list[tuple[str, str, str]]
) -> None:
    assert seen(judge(columns=columns)) == expected


def test_a_serving_environment_that_is_not_the_training_one_warns() -> None:
    report = judge(serving={**ENVIRONMENT, "lock": "sha256:2b"})
    assert seen(report) == [("warning", "lock", "is the same in training and serving")]
    assert report.verdict == "warning"
    assert "sha256:1a trained the model and sha256:2b serves it" in report.reason


@pytest.mark.parametrize(("differing", "severity"), [(0, None), (1, "warning"), (19, "warning"), (20, "error")])
def test_skew_counts_by_its_share(differing: int, severity: str | None) -> None:
    found = ColumnSkew(column="temp", compared=100, differing=differing, share=differing / 100, example="key 7: …")
    assert [finding.severity for finding in judge(skew=[found]).findings] == ([severity] if severity else [])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"newest": None}, "the age of the source: the time of its newest row cannot be read"),
        ({"trained_columns": None}, "the source's columns: those of the training were not recorded"),
        ({"serving": None}, "the environment: that of training or of serving is not known"),
        ({"serving": {"lock": "sha256:1a"}}, "the environment: serving does not say its python"),
        ({"skew": None}, "training-serving skew: it was not looked for"),
        ({"skew": ()}, "training-serving skew: fewer than 20 served keys are in the source"),
    ],
)
def test_what_could_not_be_looked_at_is_listed(changes: dict[str, Any], message: str) -> None:
    report = judge(**changes)
    assert (report.verdict, report.unknown) == ("ok", (message,))


def rows(n: int = 40) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame({"id": np.arange(n), "temp": rng.normal(size=n), "season": rng.integers(1, 5, n)})


def test_values_that_went_through_float32_text_and_json_are_the_same() -> None:
    source = rows()
    served = source.assign(
        id=source["id"].astype(float),
        temp=source["temp"].astype("float32"),
        season=source["season"].astype(str),
    )
    assert [(s.column, s.compared, s.differing) for s in find_skew(served, source, SCHEMA)] == [
        ("temp", 40, 0),
        ("season", 40, 0),
    ]


def test_a_feature_that_serving_computes_otherwise_is_found_with_an_example() -> None:
    source = rows()
    served = source.assign(temp=source["temp"] * 1.8 + 32).sample(frac=1, random_state=0)
    first, second = find_skew(served, source, SCHEMA)
    assert (first.column, first.compared, first.differing, first.share) == ("temp", 40, 40, 1.0)
    assert (second.column, second.differing, second.example) == ("season", 0, None)
    key = int(str(first.example).split()[1].rstrip(":"))
    assert first.example == (
        f"key {key}: served {served.set_index('id')['temp'][key]}, the source says {source['temp'][key]}"
    )


def test_nothing_equals_nothing_and_nothing_else() -> None:
    source = rows()
    source["temp"] = source["temp"].where(source["id"] >= 3)
    source["season"] = source["season"].astype(object).where(source["id"] >= 3, None)
    served = source.assign(
        temp=source["temp"].where(source["id"] != 7), season=source["season"].where(source["id"] != 8, None)
    )
    assert {s.column: s.differing for s in find_skew(served, source, SCHEMA)} == {"temp": 1, "season": 1}


def test_of_a_key_that_was_asked_for_twice_the_newest_row_counts() -> None:
    source = rows()
    served = pd.concat([source.assign(temp=-99.0), source])
    assert [s.differing for s in find_skew(served, source, SCHEMA)] == [0, 0]


def test_only_common_keys_and_columns_are_compared_and_fewer_than_twenty_say_nothing() -> None:
    source = rows()
    assert [s.compared for s in find_skew(source.iloc[:20], source.drop(columns="temp"), SCHEMA)] == [20]
    assert find_skew(source.iloc[:19], source, SCHEMA) == ()
    assert find_skew(source, source, SCHEMA.model_copy(update={"key": None})) == ()


def test_a_report_is_json_and_comes_back() -> None:
    report = judge(rows=0)
    assert DependencyReport.model_validate_json(report.model_dump_json()) == report
