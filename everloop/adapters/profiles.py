"""Profiles of rows as mergeable whylogs sketches; the only place that imports whylogs.

`why.log` spends most of its time in per-element Python and fails on several pandas 3 types, so the sketches are fed
directly: numbers as one array, categories as one weighted update per distinct value.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from everloop.domain.frames import conform
from everloop.domain.schema import MISSING, RowSchema
from everloop.domain.spec import PREDICTION
from everloop.domain.summaries import ColumnSummary, ProfileSummary

KLL_K = 1024
FREQUENT_ITEMS_LG_MAX = 14  # counts up to 12,288 categories exactly
_SUPPORT = np.linspace(0, 1, 513)


def profile_rows(frame: pd.DataFrame, schema: RowSchema, *, predictions: np.ndarray | None = None) -> bytes:
    """The serialized profile of the features of `frame` (raw columns) and, if given, of what the model predicted for them, (n,)."""
    from whylogs.core import DatasetProfile

    columns = conform(frame, schema)
    if predictions is not None:
        numeric = not schema.classes
        columns = columns.assign(**{PREDICTION: predictions.astype("float32") if numeric else predictions.astype(str)})
    profile = DatasetProfile(schema=_sketches())
    profile._schema.resolve(pandas=columns)
    profile._initialize_new_columns(tuple(columns.columns))
    for name in columns:
        feed = _feed_numbers if columns[name].dtype.kind == "f" else _feed_categories
        feed(profile._columns[name], columns[name].to_numpy())
    serialized: bytes = profile.view().serialize()
    return serialized


def merge_profiles(first: bytes, second: bytes) -> bytes:
    """The profile of the rows of both."""
    from whylogs.core import DatasetProfileView

    merged: bytes = DatasetProfileView.deserialize(first).merge(DatasetProfileView.deserialize(second)).serialize()
    return merged


def summarize_profile(profile: bytes) -> ProfileSummary:
    """What the drift tests need to know of a profile."""
    from whylogs.core import DatasetProfileView

    view = DatasetProfileView.deserialize(profile)
    columns = {name: _summary(column) for name, column in view.get_columns().items()}
    return ProfileSummary(rows=max((column.n for column in columns.values()), default=0), columns=columns)


def _sketches() -> Any:
    from whylogs.core.datatypes import AnyType, Fractional, String
    from whylogs.core.metrics import StandardMetric
    from whylogs.core.metrics.metrics import MetricConfig
    from whylogs.core.resolvers import MetricSpec, ResolverSpec
    from whylogs.core.schema import DeclarativeSchema

    counts, types = MetricSpec(StandardMetric.counts.value), MetricSpec(StandardMetric.types.value)
    distribution, items = MetricSpec(StandardMetric.distribution.value), MetricSpec(StandardMetric.frequent_items.value)
    return DeclarativeSchema(
        [
            ResolverSpec(column_type=Fractional, metrics=[counts, types, distribution]),
            ResolverSpec(column_type=String, metrics=[counts, types, items]),
            ResolverSpec(column_type=AnyType, metrics=[counts, types, items]),
        ],
        default_config=MetricConfig(kll_k_large=KLL_K, fi_lg_max_k=FREQUENT_ITEMS_LG_MAX),
    )


def _feed_numbers(column: Any, values: np.ndarray) -> None:
    from whylogs.core.preprocessing import NumpyView, PreprocessedColumn

    nan, infinite = np.isnan(values), np.isinf(values)
    numbers = PreprocessedColumn()
    numbers.len, numbers.null_count = len(values), int(nan.sum())
    numbers.nan_count, numbers.inf_count = int(nan.sum()), int(infinite.sum())
    numbers.numpy = NumpyView(floats=np.ascontiguousarray(values[~(nan | infinite)], dtype=np.float64))
    column._process_extracted_column(numbers)


def _feed_categories(column: Any, values: np.ndarray) -> None:
    from whylogs.core.preprocessing import PreprocessedColumn

    counted = pd.Series(values, dtype=object).value_counts()
    missing = int(counted.get(MISSING, 0))
    empty = PreprocessedColumn()
    empty.len, empty.null_count = len(values), missing
    metrics = {"counts": column._metrics["counts"]}
    metrics["counts"].columnar_update(empty)
    sketch = column._metrics["frequent_items"].frequent_strings.value
    for category, weight in counted.items():
        if category != MISSING:
            sketch.update(str(category), int(weight))


def _summary(column: Any) -> ColumnSummary:
    counts = column.get_metric("counts")
    n, nulls = int(counts.n.value), int(counts.null.value)
    items = column.get_metric("frequent_items")
    if items is not None:
        return ColumnSummary(n=n, nulls=nulls, categories=_categories(items))
    sketch = column.get_metric("distribution").kll.value
    if sketch.is_empty():
        return ColumnSummary(n=n, nulls=nulls)
    support = np.unique(np.asarray(sketch.get_quantiles(_SUPPORT.tolist())))

    def cdf(points: np.ndarray) -> np.ndarray:
        # get_cdf counts what lies below a point; the next float up makes it "at or below"
        return np.asarray(sketch.get_cdf(np.nextafter(points, np.inf).tolist())[:-1])

    return ColumnSummary(n=n, nulls=nulls, cdf=cdf, support=support)


def _categories(items: Any) -> dict[str, int] | None:
    """The exact counts, None if there were more categories than the sketch holds: estimates would look like drift."""
    from whylogs_sketching import frequent_items_error_type

    sketch = items.frequent_strings.value
    found = sketch.get_frequent_items(frequent_items_error_type.NO_FALSE_NEGATIVES)
    if any(low < high for _, _, low, high in found):
        return None
    return {name: int(estimate) for name, estimate, _, _ in found}
