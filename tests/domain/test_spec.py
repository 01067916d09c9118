from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from everloop.domain.monitor_spec import SpanWindow
from everloop.domain.spec import DataSpec, Features, Range, parse_spec
from everloop.domain.spec_values import parse_duration
from tests.domain.examples import TIPS

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
BIKES = Path(__file__).parents[2] / "models/bike-demand/model.toml"
ORIGIN = "models/tips/model.toml"


@given(count=st.integers(1, 10**6), unit=st.sampled_from(sorted(SECONDS)), space=st.sampled_from(["", " ", "  "]))
def test_a_duration_is_its_number_times_its_unit(count: int, unit: str, space: str) -> None:
    assert parse_duration(f"{space}{count}{space}{unit}").total_seconds() == count * SECONDS[unit]


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "1.5h", "0d", "00s", "7 days", "1h30m", "7D"])
def test_what_is_no_duration_is_named_with_the_way_to_write_one(text: str) -> None:
    with pytest.raises(ValueError, match=r"^'" + text + r"' is not a duration; write a whole number .* 2w$"):
        parse_duration(text)


def test_a_duration_too_long_for_a_timedelta_is_refused_like_any_other() -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration("99999999999w")


def test_the_spec_of_the_demo_is_valid_and_bears_the_name_of_its_folder() -> None:
    assert parse_spec(BIKES.read_text(), origin=str(BIKES)).name == BIKES.parent.name


def test_a_spec_keeps_its_text_and_reads_each_column_once() -> None:
    spec = parse_spec(TIPS, origin=ORIGIN)
    assert spec.text == TIPS
    assert spec.columns == ("paid_at", "bill", "size", "day", "tip")


def test_a_candidate_keeps_values_lists_and_ranges_as_they_were_written() -> None:
    (ridge,) = parse_spec(TIPS, origin=ORIGIN).search.candidates
    assert ridge.parameters == {
        "alpha": Range(low=0.1, high=10, log=True),
        "solver": ("auto", "svd"),
        "fit_intercept": True,
    }
    assert ridge.parameters["fit_intercept"] is True


def test_a_spec_does_not_change() -> None:
    spec = parse_spec(TIPS, origin=ORIGIN)
    with pytest.raises(ValidationError, match="frozen"):
        spec.target = "bill"  # type: ignore[misc]


def test_persistence_reads_as_needed_of_recent_and_a_window_as_rows_or_span() -> None:
    monitor = parse_spec(TIPS.replace("{ rows = 500 }", '{ span = "1d" }'), origin=ORIGIN).monitor
    assert (monitor.needed, monitor.recent) == (2, 3)
    assert monitor.window == SpanWindow(span="1d")
    assert parse_duration(monitor.cooldown) == timedelta(hours=6)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("tips.csv", False),
        ("folder/*.parquet", False),
        ("file:///tips.csv", False),
        ("sqlite:///tips.db", True),
        ("postgresql+psycopg://user@host/db", True),
    ],
)
def test_a_url_is_a_database_and_a_path_is_not(source: str, expected: bool) -> None:
    assert DataSpec(source=source, query="select 1").is_database is expected


def test_a_feature_may_not_have_the_name_of_the_answers() -> None:
    with pytest.raises(ValidationError, match="'prediction' is the name of what the model answers"):
        Features(numeric=("prediction",))
