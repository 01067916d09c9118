"""Rows as frames: the schema they show, and the one canonical form in which training and serving see them.

Numbers are float32, categories are text, an absent category is `MISSING`: the same in every place that builds,
judges, profiles or serves a model.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
from pandas.api import types

from everloop.domain.batch import Batch
from everloop.domain.errors import SchemaMismatch
from everloop.domain.schema import MAX_LISTED_CATEGORIES, MISSING, FeatureSchema, RowSchema, canonical_category
from everloop.domain.spec import ModelSpec, Scalar


def derive_schema(frame: pd.DataFrame, spec: ModelSpec) -> RowSchema:
    """The schema that the training rows show for `spec`'s features; ranges only where the spec sets them.

    Raises:
        SchemaMismatch: a numeric feature holds text, or a categorical one fractions.
    """
    features = [_numeric_feature(frame[name], spec) for name in spec.features.numeric]
    features += [_categorical_feature(frame[name]) for name in spec.features.categorical]
    classes: tuple[Scalar, ...] = ()
    if spec.kind != "regression":
        classes = tuple(_plain_class(value) for value in np.unique(frame[spec.target].dropna().to_numpy()))
    key_is_integer = spec.key is not None and types.is_integer_dtype(frame[spec.key].dropna().infer_objects())
    return RowSchema(
        features=tuple(features),
        time=spec.time,
        key=spec.key,
        key_type="integer" if key_is_integer else "text",
        classes=classes,
    )


def conform(frame: pd.DataFrame, schema: RowSchema) -> pd.DataFrame:
    """The features of `frame` in canonical form: float32 numbers and text categories, in the schema's order."""
    return pd.DataFrame({feature.name: _canonical(frame[feature.name], feature) for feature in schema.features})


def batch_of(frame: pd.DataFrame, schema: RowSchema) -> Batch:
    """The rows of `frame` as arrays in canonical form."""
    features = conform(frame, schema)
    return Batch(
        features[[feature.name for feature in schema.numeric]].to_numpy(np.float32),
        features[[feature.name for feature in schema.categorical]].to_numpy(object),
    )


def frame_of(batch: Batch, schema: RowSchema) -> pd.DataFrame:
    """The rows of `batch` as the frame that a fitted pipeline takes."""
    columns = {feature.name: batch.numeric[:, at] for at, feature in enumerate(schema.numeric)}
    columns |= {feature.name: batch.categorical[:, at] for at, feature in enumerate(schema.categorical)}
    return pd.DataFrame(columns)[list(schema.names)]


def _canonical(column: pd.Series, feature: FeatureSchema) -> pd.Series:
    if feature.role == "numeric":
        return pd.to_numeric(column, errors="raise").astype("float32")
    codes, values = pd.factorize(column)
    texts = np.array([*(canonical_category(value) for value in values), MISSING], dtype=object)
    return pd.Series(texts[codes], index=column.index, dtype=object)


def _numeric_feature(column: pd.Series, spec: ModelSpec) -> FeatureSchema:
    name = str(column.name)
    _refuse_times(column, "numbers")
    if not types.is_numeric_dtype(column):
        numbers = pd.to_numeric(column, errors="coerce")
        wrong = column[numbers.isna() & column.notna()]
        if len(wrong):
            raise SchemaMismatch(
                f"column {name!r} is not a number in {len(wrong):,} of {len(column):,} rows (first: {wrong.iloc[0]!r} in row "
                f"{wrong.index[0]}), expected numbers; clean the source or list {name!r} under features.categorical"
            )
    low, high = spec.features.ranges.get(name, (None, None))
    whole = types.is_integer_dtype(column) or types.is_bool_dtype(column)
    return FeatureSchema(
        name=name,
        role="numeric",
        type="integer" if whole else "number",
        nullable=bool(column.isna().any()),
        low=low,
        high=high,
    )


def _categorical_feature(column: pd.Series) -> FeatureSchema:
    _refuse_times(column, "categories")
    present = column.dropna().infer_objects()
    if types.is_bool_dtype(present):
        type_: Literal["integer", "text", "boolean"] = "boolean"
    elif types.is_integer_dtype(present):
        type_ = "integer"
    elif types.is_float_dtype(present):
        fractions = present[present % 1 != 0]
        if len(fractions):
            raise SchemaMismatch(
                f"column {column.name!r} is categorical in the spec and holds fractions in {len(fractions):,} rows (first: "
                f"{fractions.iloc[0]}); list it under features.numeric or store whole numbers or text"
            )
        type_ = "integer"
    else:
        type_ = "text"
    categories = sorted({canonical_category(value) for value in present.unique()})
    return FeatureSchema(
        name=str(column.name),
        role="categorical",
        type=type_,
        nullable=bool(column.isna().any()),
        categories=tuple(categories[:MAX_LISTED_CATEGORIES]),
    )


def _refuse_times(column: pd.Series, expected: str) -> None:
    """Times would pass as nanoseconds since 1970, or as one category a moment; no request sends either."""
    if column.dtype.kind in "mM":
        raise SchemaMismatch(
            f"column {str(column.name)!r} holds times ({column.dtype}), expected {expected}; store the part that matters, its hour "
            "or its age for example, in data.query or in the source"
        )


def _plain_class(value: object) -> Scalar:
    """A class as JSON knows it; 1.0, which is 1 in a column that has nulls, is 1."""
    plain: Any = value.item() if isinstance(value, np.generic) else value
    return int(plain) if isinstance(plain, float) and plain.is_integer() else plain
