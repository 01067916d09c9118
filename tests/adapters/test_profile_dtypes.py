"""Every dtype that a source may bring is profiled as training and serving see it, or refused with a sentence."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everloop.adapters.profiles import profile_rows, summarize_profile
from everloop.domain.errors import SchemaMismatch
from everloop.domain.frames import conform
from everloop.domain.schema import MISSING, FeatureSchema, RowSchema, canonical_category
from everloop.domain.summaries import ColumnSummary

Role = Literal["numeric", "categorical"]


def schema(role: Role) -> RowSchema:
    return RowSchema(features=(FeatureSchema(name="x", role=role, type="text", nullable=True),))


def profiled(column: pd.Series, role: Role) -> ColumnSummary:
    return summarize_profile(profile_rows(column.to_frame("x"), schema(role))).columns["x"]


def arrow(values: list[Any], kind: pa.DataType) -> pd.Series:
    return pd.Series(pd.arrays.ArrowExtensionArray(pa.array(values, type=kind)))


def of(values: Any, dtype: Any) -> pd.Series:
    return pd.Series(values, dtype=dtype)


NUMBERS = {
    "int8": of([1, 2, 2, -3], "int8"),
    "uint64": of([1, 2, 2**63], "uint64"),
    "int64 beyond float32": of([16_777_217, 2, 2], "int64"),
    "float16": of([0.5, 2, np.nan], "float16"),
    "float32": of([0.1, 2, np.nan], "float32"),
    "float64": of([0.1, 2, np.nan, np.inf, -np.inf, 1e300], "float64"),
    "bool": of([True, False, True], "bool"),
    "Int64": of([1, None, 3], "Int64"),
    "UInt8": of([1, None, 3], "UInt8"),
    "Float64": of([0.1, None, 3], "Float64"),
    "boolean": of([True, None, False], "boolean"),
    "str": of(["1", None, " 2.5 ", "1e3", "inf"], "str"),
    "string": of(["1", None, "2.5"], "string"),
    "category of numbers": of(pd.Categorical([3, None, 1, 3]), None),
    "category of text": of(pd.Categorical(["3", None, "1.5"], categories=["n/a", "1.5", "3"]), None),
    "object": of([1, 2.5, None, "3", True, np.nan], object),
    "object with NA": of([1, pd.NA, 2], object),
    "object of decimals": of([Decimal("1.25"), None], object),
    "only nulls": of([None, None], object),
    "sparse": of(pd.arrays.SparseArray([0.0, 1.5, np.nan, 0.0]), None),
    "arrow int": arrow([1, None, 3], pa.int32()),
    "arrow float": arrow([0.1, None, 3], pa.float64()),
    "arrow bool": arrow([True, None, False], pa.bool_()),
    "arrow text": arrow(["1", None, "2.5"], pa.string()),
    "arrow dictionary": arrow([5, None, 6, 5], pa.dictionary(pa.int8(), pa.int64())),
    "arrow dictionary of text": arrow(["5", None, "6.5"], pa.dictionary(pa.int8(), pa.string())),
    "arrow decimal": arrow([Decimal("1.25"), None], pa.decimal128(9, 2)),
    "arrow null": arrow([None, None], pa.null()),
    "empty": of([], object),
}
BY_HAND = {"arrow decimal": [1.25, None]}
"""The dtype that `conform` itself cannot turn into numbers."""


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_profiled_as_training_sees_them(name: str) -> None:
    column = NUMBERS[name]
    if name in BY_HAND:
        numbers = np.array(BY_HAND[name], dtype="float32")
    else:
        with np.errstate(over="ignore"):
            numbers = conform(column.to_frame("x"), schema("numeric"))["x"].to_numpy()
    found, finite = profiled(column, "numeric"), np.sort(numbers[np.isfinite(numbers)])
    counts = (len(numbers), int(np.isnan(numbers).sum()), int(np.isinf(numbers).sum()))
    assert (found.n, found.nulls, found.infinite) == counts
    if len(finite):
        assert found.cdf is not None
        points = np.unique(finite).astype("float64")
        assert found.cdf(points).tolist() == (np.searchsorted(finite, points, "right") / len(finite)).tolist()


CATEGORIES = {
    "int64 codes": of([7, 7, 2, -1], "int64"),
    "uint64": of([2**64 - 1, 3], "uint64"),
    "float codes with nulls": of([1.0, np.nan, 2.0, 1.0], "float64"),
    "float32 fractions": of([0.1, 0.1, np.inf], "float32"),
    "bool": of([True, False, True], "bool"),
    "Int64": of([1, None, 3, 1], "Int64"),
    "Float64": of([1.0, None, 2.5], "Float64"),
    "boolean": of([True, None, False], "boolean"),
    "str": of(["a", None, "", "Łódź", "1", "nan"], "str"),
    "string": of(["a", None, "b"], "string"),
    "python text": of(["a", None, "b", np.nan, pd.NA], object),
    "category with nulls": of(pd.Categorical(["a", None, "b", "a"], categories=["b", "a", "never"]), None),
    "category of codes": of(pd.Categorical([3, None, 1, 3]), None),
    "category of ranges": pd.cut(of([1, 5, 9], "int64"), [0, 4, 10]),
    "object booleans": of([True, None, False], object),
    "object whole numbers": of([1, 1.0, None, 2], object),
    "object mixture": of([1, "1", 1.0, "a", None, pd.NA, pd.NaT], object),
    "object decimals": of([Decimal("1.50"), None, Decimal(2)], object),
    "bytes": of([b"a", b"a", None], object),
    "sparse": of(pd.arrays.SparseArray([0, 1, 0]), None),
    "arrow int": arrow([1, None, 3], pa.int64()),
    "arrow bool": arrow([True, None, False], pa.bool_()),
    "arrow text": arrow(["a", None, "b", "a"], pa.string()),
    "arrow large text": arrow(["a", None, "b", "a"], pa.large_string()),
    "arrow dictionary": arrow(["a", None, "b", "a"], pa.dictionary(pa.int8(), pa.string())),
    "arrow decimal": arrow([Decimal("1.25"), None, Decimal("2.00")], pa.decimal128(9, 2)),
    "arrow binary": arrow([b"a", None], pa.binary()),
    "arrow null": arrow([None, None], pa.null()),
    "only nulls": of([None, np.nan, pd.NA], object),
    "empty": of([], "str"),
}


@pytest.mark.parametrize("name", CATEGORIES)
def test_categories_are_profiled_as_training_sees_them(name: str) -> None:
    column = CATEGORIES[name]
    counts = conform(column.to_frame("x"), schema("categorical"))["x"].value_counts().to_dict()
    nulls = counts.pop(MISSING, 0)
    found = profiled(column, "categorical")
    assert (found.n, found.nulls, found.categories) == (len(column), nulls, counts)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.none()
        | st.booleans()
        | st.integers(-(2**70), 2**70)
        | st.floats()
        | st.text(max_size=3)
        | st.sampled_from([pd.NA, pd.NaT, np.int8(1), np.float32(0.1), np.True_, Decimal("1.0"), "1", "true"])
    )
)
def test_a_mixture_of_objects_is_counted_by_the_canonical_text_of_each(values: list[Any]) -> None:
    texts = [canonical_category(value) for value in values]
    found = profiled(of(values, object), "categorical")
    assert found.nulls == texts.count(MISSING)
    expected = {
        text.encode("utf-8", "backslashreplace").decode(): texts.count(text) for text in texts if text != MISSING
    }
    assert found.categories == expected


def test_the_spec_says_whether_codes_are_categories_or_numbers() -> None:
    codes = of([10, 20, 20], "int64")
    assert profiled(codes, "categorical").categories == {"10": 1, "20": 2}
    assert profiled(codes, "numeric").high == 20
    assert profiled(codes, "numeric").categories is None


TIMES = {
    "datetime": of(["2024-01-01", None], "datetime64[us]"),
    "datetime with zone": of(["2024-01-01"], "datetime64[ns, Europe/Oslo]"),
    "timedelta": of([1], "timedelta64[s]"),
    "period": of(["2024-01"], "period[M]"),
    "category of times": of(pd.Categorical(pd.to_datetime(["2024-01-01"])), None),
    "objects: datetime": of([dt.datetime(2024, 1, 1), None], object),
    "objects: date": of([dt.date(2024, 1, 1)], object),
    "objects: timedelta": of([dt.timedelta(1)], object),
    "objects: text and a date": of(["a", dt.date(2024, 1, 1)], object),
    "arrow timestamp": arrow([dt.datetime(2024, 1, 1)], pa.timestamp("us")),
    "arrow date": arrow([dt.date(2024, 1, 1)], pa.date32()),
    "arrow duration": arrow([dt.timedelta(1)], pa.duration("s")),
    "arrow time": arrow([dt.time(1)], pa.time64("us")),
    "arrow dictionary of dates": of(
        pd.arrays.ArrowExtensionArray(pa.array([dt.date(2024, 1, 1)]).dictionary_encode()), None
    ),
}


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize(("role", "expected"), [("numeric", "numbers"), ("categorical", "categories")])
def test_times_are_refused_and_the_sentence_names_time_parts(name: str, role: Role, expected: str) -> None:
    with pytest.raises(
        SchemaMismatch, match=rf"'x' holds times \(.*\), expected {expected}; .* monitor.time_parts watches"
    ):
        profiled(TIMES[name], role)


@pytest.mark.parametrize(
    ("column", "found", "remedy"),
    [
        (of([1 + 2j], "complex128"), "complex numbers", "store the real and the imaginary part as two columns"),
        (of([[1], [2]], object), "nested values", "store each part as a column of its own"),
        (of([{"a": 1}, "b"], object), "nested values", "store each part as a column of its own"),
        (arrow([[1]], pa.list_(pa.int64())), "nested values", "store each part as a column of its own"),
        (arrow([{"a": 1}], pa.struct({"a": pa.int64()})), "nested values", "store each part as a column of its own"),
    ],
    ids=["complex", "lists", "dicts", "arrow lists", "arrow structs"],
)
@pytest.mark.parametrize("role", ["numeric", "categorical"])
def test_what_is_neither_number_nor_category_is_refused(column: pd.Series, found: str, remedy: str, role: Role) -> None:
    with pytest.raises(SchemaMismatch, match=f"'x' holds {found} .*; {remedy}"):
        profiled(column, role)


@pytest.mark.parametrize(
    "column",
    [
        of(["1", "n/a", None, "n/a"], "str"),
        of([1, "n/a", None, "n/a"], object),
        of(pd.Categorical(["1", "n/a", None, "n/a"]), None),
        arrow(["1", "n/a", None, "n/a"], pa.string()),
    ],
    ids=["str", "object", "category", "arrow"],
)
def test_text_in_a_numeric_feature_is_refused_with_the_first_value(column: pd.Series) -> None:
    with pytest.raises(
        SchemaMismatch,
        match=r"column 'x' is not a number in 2 of 4 rows \(first: 'n/a' in row 1\), expected numbers; clean the source or",
    ):
        profiled(column, "numeric")
