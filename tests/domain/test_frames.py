"""Frames: the arrays that training's rows become are those that a request with the same rows becomes."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everloop.domain.errors import SchemaMismatch
from everloop.domain.frames import batch_of, conform, derive_schema, frame_of
from everloop.domain.schema import MISSING, FeatureSchema, RowSchema
from serving.contract import Contract
from tests.factories import make_rows, make_spec

WHOLE = st.integers(-(2**53), 2**53)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
VALUES = {
    ("numeric", "number"): st.floats(-3.3e38, 3.3e38),
    ("numeric", "integer"): WHOLE,
    ("categorical", "integer"): WHOLE,
    ("categorical", "boolean"): st.booleans(),
    ("categorical", "text"): TEXT,
}


@st.composite
def schemas_and_rows(draw: st.DrawFn) -> tuple[RowSchema, list[dict[str, Any]]]:
    """A schema of up to five features, and rows of it as a client sends them."""
    kinds = draw(st.lists(st.tuples(st.sampled_from(sorted(VALUES)), st.booleans()), min_size=1, max_size=5))
    features = tuple(
        FeatureSchema(name=f"feature {position}", role=role, type=type_, nullable=nullable)  # type: ignore[arg-type]
        for position, ((role, type_), nullable) in enumerate(kinds)
    )
    row = {
        feature.name: st.none() | VALUES[feature.role, feature.type]
        if feature.nullable
        else VALUES[feature.role, feature.type]
        for feature in features
    }
    return RowSchema(features=features), draw(st.lists(st.fixed_dictionaries(row), min_size=1, max_size=6))


def as_column(values: list[Any], feature: FeatureSchema) -> pd.Series:
    """The values as a source gives them: with its own dtype, which nulls change."""
    if feature.type == "integer" and None in values:
        return pd.Series(values, dtype="Int64")
    if feature.type == "boolean" and None in values:
        return pd.Series(values, dtype=object)
    return pd.Series(values)


@settings(max_examples=100, deadline=None)
@given(schemas_and_rows())
def test_a_request_becomes_the_arrays_that_its_rows_are_in_training(
    drawn: tuple[RowSchema, list[dict[str, Any]]],
) -> None:
    """Bit by bit: what the model sees when it serves is what it saw when it was fitted."""
    schema, rows = drawn
    served = Contract(schema, max_rows=10).decode(json.dumps({"rows": rows}).encode()).batch
    frame = pd.DataFrame(
        {feature.name: as_column([row[feature.name] for row in rows], feature) for feature in schema.features}
    )
    trained = batch_of(frame, schema)
    assert served.numeric.dtype == trained.numeric.dtype == np.float32
    np.testing.assert_array_equal(served.numeric, trained.numeric)
    assert served.categorical.shape == trained.categorical.shape
    assert served.categorical.tolist() == trained.categorical.tolist()


@settings(max_examples=50, deadline=None)
@given(schemas_and_rows())
def test_a_frame_made_of_a_batch_is_the_conformed_one(drawn: tuple[RowSchema, list[dict[str, Any]]]) -> None:
    """There and back: a native model sees the columns that it was fitted on, in their order."""
    schema, rows = drawn
    frame = pd.DataFrame(
        {feature.name: as_column([row[feature.name] for row in rows], feature) for feature in schema.features}
    )
    pd.testing.assert_frame_equal(frame_of(batch_of(frame, schema), schema), conform(frame, schema), check_dtype=False)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (pd.Series([1.0, np.nan]), ["1", MISSING]),
        (pd.Series([1, None], dtype="Int64"), ["1", MISSING]),
        (pd.Series([1, None], dtype=object), ["1", MISSING]),
        (pd.Series([True, None], dtype=object), ["true", MISSING]),
        (pd.Series([True, None], dtype="boolean"), ["true", MISSING]),
        (pd.Series(["a", None], dtype="string"), ["a", MISSING]),
        (pd.Series(["a", None], dtype="category"), ["a", MISSING]),
    ],
    ids=lambda value: str(getattr(value, "dtype", "")),
)
def test_a_category_is_the_same_however_a_source_stores_it(stored: pd.Series, expected: list[str]) -> None:
    """Nulls change the dtype of a column, and nothing else."""
    schema = RowSchema(features=(FeatureSchema(name="c", role="categorical", type="text", nullable=True),))
    assert batch_of(pd.DataFrame({"c": stored}), schema).categorical[:, 0].tolist() == expected


def test_numbers_and_categories_are_apart_each_in_the_order_of_the_schema() -> None:
    """Whatever the order of the features between the two roles."""
    features = (
        FeatureSchema(name="c", role="categorical", type="text", nullable=False),
        FeatureSchema(name="x", role="numeric", type="number", nullable=True),
        FeatureSchema(name="d", role="categorical", type="integer", nullable=False),
        FeatureSchema(name="y", role="numeric", type="integer", nullable=False),
    )
    frame = pd.DataFrame({"y": [1, 2], "d": [3, 4], "x": [0.5, None], "c": ["a", "b"], "other": 0})
    batch = batch_of(frame, RowSchema(features=features))
    assert batch.categorical.tolist() == [["a", "3"], ["b", "4"]]
    assert batch.numeric[0].tolist() == [0.5, 1]
    assert math.isnan(batch.numeric[1, 0])
    assert frame_of(batch, RowSchema(features=features)).columns.tolist() == ["c", "x", "d", "y"]
    assert len(batch) == 2


@pytest.mark.parametrize("column", ["temp", "city"])
@pytest.mark.parametrize(
    "times",
    [
        pd.date_range("2024-01-01", periods=8),
        pd.to_timedelta(range(8), unit="h"),
        [pd.Timestamp("2024-01-01"), pd.NaT] * 4,
    ],
    ids=["time", "span", "with nulls"],
)
def test_times_are_neither_numbers_nor_categories(times: Any, column: str) -> None:
    expected = {"temp": "numbers", "city": "categories"}[column]
    with pytest.raises(
        SchemaMismatch, match=rf"^column '{column}' holds times \(.+\), expected {expected}; store the part"
    ):
        derive_schema(make_rows(8).assign(**{column: times}), make_spec())
