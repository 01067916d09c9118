from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everloop.domain.errors import SchemaMismatch
from everloop.domain.frames import conform, derive_schema
from everloop.domain.schema import MISSING, FeatureSchema, RowSchema, canonical_category
from tests.domain.examples import a_history, a_spec

whole = st.integers(-(2**53), 2**53)
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text())


def of_category(values: Any, name: str = "c") -> list[str]:
    schema = RowSchema(features=(FeatureSchema(name=name, role="categorical", type="text", nullable=True),))
    return conform(pd.DataFrame({name: values}), schema)[name].tolist()


@given(whole)
def test_a_whole_number_is_one_category_however_it_is_stored(number: int) -> None:
    forms = (number, float(number), np.int64(number), np.float64(number), str(number))
    assert {canonical_category(form) for form in forms} == {str(number)}


@given(scalars)
def test_a_canonical_category_stays_as_it_is(value: object) -> None:
    assert canonical_category(canonical_category(value)) == canonical_category(value)


@given(st.text(), st.text())
def test_two_texts_are_two_categories(one: str, other: str) -> None:
    assert (canonical_category(one) == canonical_category(other)) is (one == other)


@pytest.mark.parametrize("value", [None, pd.NA, float("nan"), np.nan, np.float64("nan")])
def test_an_absent_category_is_named(value: object) -> None:
    assert canonical_category(value) == MISSING


@pytest.mark.parametrize("value", [np.float32("nan"), pd.NaT])
def test_every_null_of_numpy_and_pandas_is_an_absent_category(value: object) -> None:
    assert canonical_category(value) == MISSING


@pytest.mark.parametrize(
    ("value", "expected"), [(True, "true"), (np.False_, "false"), (0.5, "0.5"), (-0.0, "0"), (" a", " a")]
)
def test_booleans_are_lower_case_and_all_else_is_its_text(value: object, expected: str) -> None:
    assert canonical_category(value) == expected


def test_conform_makes_float32_numbers_and_text_categories_in_the_order_of_the_schema() -> None:
    schema = derive_schema(a_history(), a_spec())
    rows = pd.DataFrame({"extra": [0, 0], "c": [1, 2.0], "x": ["3", None]}, index=[7, 9])
    conformed = conform(rows, schema)
    assert conformed.columns.tolist() == ["x", "c"] == list(schema.names)
    assert conformed["x"].dtype == "float32"
    assert conformed["c"].tolist() == ["1", "2"]
    assert conformed.index.tolist() == [7, 9]
    assert rows["x"].iloc[0] == "3", "the argument was changed"


@settings(max_examples=40)
@given(st.lists(st.one_of(st.none(), st.integers(-3, 3), st.floats(), st.text(max_size=3)), min_size=1))
def test_a_batch_is_conformed_like_its_rows_one_by_one(values: list[object]) -> None:
    column = pd.Series(values, dtype=object)
    assert of_category(column) == [of_category(pd.Series([value], dtype=object))[0] for value in values]


@pytest.mark.parametrize("values", [["a", None], pd.Categorical(["a", None]), pd.array(["a", pd.NA], dtype=object)])
def test_a_null_among_texts_becomes_the_missing_category(values: Any) -> None:
    assert of_category(values) == ["a", MISSING]


@pytest.mark.parametrize(("dtype", "value"), [("Int32", 1), ("Int64", 1), ("boolean", True), ("string", "a")])
def test_a_null_in_a_nullable_column_becomes_the_missing_category(dtype: str, value: object) -> None:
    assert of_category(pd.array([value, None], dtype=dtype)) == [canonical_category(value), MISSING]


@pytest.mark.parametrize(
    ("column", "type_", "categories"),
    [
        ([2, 1, 2], "integer", ("1", "2")),
        ([2.0, 1.0, np.nan], "integer", ("1", "2")),
        (pd.array([2, 1, None], dtype="Int64"), "integer", ("1", "2")),
        ([True, False, True], "boolean", ("false", "true")),
        (pd.array([True, False, None], dtype="boolean"), "boolean", ("false", "true")),
        (["b", "a", None], "text", ("a", "b")),
    ],
)
def test_a_categorical_feature_is_typed_by_what_it_holds(column: Any, type_: str, categories: tuple[str, ...]) -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0], "c": column, "y": 0.0, "t": pd.Timestamp("2024")})
    feature = derive_schema(frame, a_spec()).features[1]
    assert (feature.type, feature.categories) == (type_, categories)
    assert feature.nullable is bool(frame["c"].isna().any())


@pytest.mark.parametrize(("value", "type_"), [(True, "boolean"), (1, "integer")])
def test_an_object_column_with_nulls_is_typed_by_its_values(value: object, type_: str) -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0], "c": pd.Series([value, None], dtype=object), "y": 0.0, "t": 0})
    assert derive_schema(frame, a_spec()).features[1].type == type_


def test_a_numeric_feature_is_whole_or_not_and_takes_its_range_from_the_spec_alone() -> None:
    spec = a_spec(features={"numeric": ["x", "n"], "ranges": {"x": [0, 9]}})
    x, n, _ = derive_schema(a_history().assign(n=3), spec).features
    assert (x.type, x.low, x.high, x.nullable) == ("number", 0, 9, False)
    assert (n.type, n.low, n.high) == ("integer", None, None)


def test_classes_are_the_plain_values_of_the_target_in_order() -> None:
    spec = a_spec(kind="multiclass", key="id")
    schema = derive_schema(a_history(3).assign(y=np.array([2, 0, 1]), id=[7, 8, 9]), spec)
    assert schema.classes == (0, 1, 2)
    assert all(type(name) is int for name in schema.classes)
    assert (schema.key, schema.key_type, schema.time) == ("id", "integer", "t")


def test_text_in_a_numeric_feature_is_named_with_its_first_row() -> None:
    frame = a_history(4).assign(x=["1", "n/a", "2", "?"])
    message = (
        r"^column 'x' is not a number in 2 of 4 rows \(first: 'n/a' in row 1\), expected numbers; "
        r"clean the source or list 'x' under features.categorical$"
    )
    with pytest.raises(SchemaMismatch, match=message):
        derive_schema(frame, a_spec())


def test_fractions_in_a_categorical_feature_are_named() -> None:
    frame = a_history(4).assign(c=[1.0, 2.5, np.nan, 0.5])
    message = (
        r"^column 'c' is categorical in the spec and holds fractions in 2 rows \(first: 2.5\); "
        r"list it under features.numeric or store whole numbers or text$"
    )
    with pytest.raises(SchemaMismatch, match=message):
        derive_schema(frame, a_spec())


@pytest.mark.parametrize(
    ("keys", "type_"),
    [([1, 2], "integer"), ([1, None], "integer"), (["a", None], "text")],
)
def test_a_key_column_that_holds_objects_is_typed_by_its_values(keys: list[Any], type_: str) -> None:
    spec = a_spec(key="k")
    rows = a_history().head(2).assign(k=pd.Series(keys, dtype=object))
    assert derive_schema(rows, spec).key_type == type_
