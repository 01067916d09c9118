"""Profiles of rows as mergeable whylogs sketches; the only place that imports whylogs.

`why.log` spends most of its time in per-element Python and fails on several pandas 3 types, so the sketches are fed
directly: numbers as one array, categories as one weighted update per distinct value. What is sketched is the canonical
form of everloop/domain/frames.py, reached column by column without building it: float32 numbers, text categories.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pandas.api import types

from everloop.domain.errors import SchemaMismatch
from everloop.domain.schema import MISSING, RowSchema, canonical_category
from everloop.domain.spec import PREDICTION
from everloop.domain.summaries import ColumnSummary, ProfileSummary

KLL_K = 1024
FREQUENT_ITEMS_LG_MAX = 14  # counts up to 12,288 categories exactly
_PIECE, _RUN = 65_536, 256  # values that are sketched at once, and sorted at once
_SUPPORT = np.linspace(0, 1, 513)
_UNIFORM = {"string", "boolean", "integer", "floating", "mixed-integer-float", "empty"}
_TIMES = (date, time, timedelta, np.datetime64, np.timedelta64, pd.Period, pd.Timedelta)
_NESTED = (list, tuple, dict, set, frozenset, np.ndarray)
_REMEDIES = {
    "times": "list age, hour, weekday or month under monitor.time_parts, or store the part that matters as a number or text",
    "complex numbers": "store the real and the imaginary part as two columns",
    "nested values": "store each part as a column of its own",
}


def profile_rows(
    frame: pd.DataFrame,
    schema: RowSchema,
    *,
    predictions: np.ndarray | None = None,
    extra: pd.DataFrame | None = None,
) -> bytes:
    """The serialized profile of the features of `frame` (raw columns) and, if given, of what the model predicted for them, (n,).

    `extra` holds further columns of the same rows: floats are numbers, all else is categories.

    Raises:
        SchemaMismatch: a column is absent, or holds what its role cannot be.
    """
    return profile_chunks(
        [frame],
        schema,
        predict=None if predictions is None else lambda _: predictions,
        extra=None if extra is None else lambda _: extra,
    )


def profile_chunks(
    chunks: Iterable[pd.DataFrame],
    schema: RowSchema,
    *,
    predict: Callable[[pd.DataFrame], np.ndarray] | None = None,
    extra: Callable[[pd.DataFrame], pd.DataFrame] | None = None,
) -> bytes:
    """The profile of the rows of all chunks; one chunk is held at a time. `predict` and `extra` are asked for each chunk.

    Raises:
        SchemaMismatch: as `profile_rows` says, for any chunk.
    """
    sketches = {feature.name: _sketch(feature.role) for feature in schema.features}
    for chunk in chunks:
        for feature in schema.features:
            sketches[feature.name].add(_column(chunk, feature.name))
        if predict is not None:
            predicted = pd.Series(predict(chunk), name=PREDICTION)
            _add_beside(sketches, predicted, "categorical" if schema.classes else "numeric", schema, rows=len(chunk))
        for name, column in extra(chunk).items() if extra is not None else ():
            role = "numeric" if column.dtype.kind == "f" else "categorical"
            _add_beside(sketches, column.rename(str(name)), role, schema, rows=len(chunk))
    return _serialize(sketches)


def merge_profiles(profiles: Sequence[bytes]) -> bytes:
    """The profile of the rows of all `profiles`, of which there is at least one; the same ones in any order give the same counts."""
    from whylogs.core.view.dataset_profile_view import DatasetProfileView

    if len(profiles) == 1:
        return profiles[0]
    merged = DatasetProfileView.deserialize(profiles[0])
    for profile in profiles[1:]:
        merged = merged.merge(DatasetProfileView.deserialize(profile))
    serialized: bytes = merged.serialize()
    return serialized


def summarize_profile(profile: bytes) -> ProfileSummary:
    """What the drift tests need to know of a profile."""
    from whylogs.core.view.dataset_profile_view import DatasetProfileView

    view = DatasetProfileView.deserialize(profile)
    columns = {name: _summary(column) for name, column in view.get_columns().items()}
    return ProfileSummary(rows=max((column.n for column in columns.values()), default=0), columns=columns)


class _NumberSketch:
    """Counts, a KLL sketch of the finite values (Karnin, Lang, Liberty 2016), and their mean and sum of squared deviations."""

    def __init__(self) -> None:
        from whylogs_sketching import kll_doubles_sketch

        self.n = self.nulls = self.infinite = 0
        self.mean = self.m2 = 0.0
        self.kll = kll_doubles_sketch(KLL_K)

    def add(self, column: pd.Series) -> None:
        values = _numbers(column)
        self.n += len(values)
        finite = np.isfinite(values)
        if not finite.all():
            nulls = int(np.isnan(values).sum())
            self.nulls += nulls
            self.infinite += int(len(values) - finite.sum()) - nulls
            values = values[finite]
        for first in range(0, len(values), _PIECE):
            self._add_finite(values[first : first + _PIECE])

    def _add_finite(self, values: np.ndarray) -> None:
        """The moments of two parts make those of both by Chan, Golub and LeVeque (1983), eq. 2.1.

        KLL holds for any order of its input, and takes half the time for short descending runs, which numpy sorts quickly.
        """
        negated = -values
        negated[: len(values) // _RUN * _RUN].reshape(-1, _RUN).sort(axis=1)
        descending = np.negative(negated, dtype=np.float64)
        before, more = self.kll.get_n(), len(values)
        distance = float(descending.mean()) - self.mean
        self.m2 += float(descending.var()) * more + distance**2 * before * more / (before + more)
        self.mean += distance * more / (before + more)
        self.kll.update(descending)

    def view(self) -> Any:
        from whylogs.core.metrics.metric_components import FractionalComponent, KllComponent
        from whylogs.core.metrics.metrics import DistributionMetric

        distribution = DistributionMetric(
            kll=KllComponent(self.kll), mean=FractionalComponent(self.mean), m2=FractionalComponent(self.m2)
        )
        return _column_view(self.n, self.nulls, self.infinite, distribution)


class _CategorySketch:
    """Counts, and those of each category (frequent items: Anderson et al. 2017)."""

    def __init__(self) -> None:
        from whylogs_sketching import frequent_strings_sketch

        self.n = self.nulls = 0
        self.items = frequent_strings_sketch(lg_max_k=FREQUENT_ITEMS_LG_MAX)

    def add(self, column: pd.Series) -> None:
        counted = _categories(column)
        self.n += len(column)
        self.nulls += len(column) - counted.total()
        for category, weight in counted.items():
            # half a surrogate pair is a Python text and no UTF-8
            self.items.update(category.encode("utf-8", "backslashreplace").decode(), weight)

    def view(self) -> Any:
        from whylogs.core.metrics.metric_components import FrequentStringsComponent
        from whylogs.core.metrics.metrics import FrequentItemsMetric

        return _column_view(self.n, self.nulls, 0, FrequentItemsMetric(FrequentStringsComponent(self.items)))


def _sketch(role: str) -> _NumberSketch | _CategorySketch:
    return _NumberSketch() if role == "numeric" else _CategorySketch()


def _add_beside(sketches: dict[str, Any], column: pd.Series, role: str, schema: RowSchema, *, rows: int) -> None:
    """Afterwards `sketches` speak of a column that stands beside the features."""
    name = str(column.name)
    if name in schema.names:
        raise SchemaMismatch(f"{name!r} is a feature and the name of a column beside the features; rename the feature")
    if len(column) != rows:
        raise SchemaMismatch(f"{name!r} has {len(column):,} values for {rows:,} rows; one a row is required")
    sketches.setdefault(name, _sketch(role)).add(column)


def _column_view(n: int, nulls: int, infinite: int, metric: Any) -> Any:
    from whylogs.core.metrics.column_metrics import ColumnCountsMetric
    from whylogs.core.metrics.metric_components import IntegralComponent
    from whylogs.core.view.column_profile_view import ColumnProfileView

    counts = ColumnCountsMetric(n=IntegralComponent(n), null=IntegralComponent(nulls), inf=IntegralComponent(infinite))
    return ColumnProfileView({"counts": counts, metric.namespace: metric})


def _serialize(sketches: dict[str, Any]) -> bytes:
    from whylogs.core.view.dataset_profile_view import DatasetProfileView

    now = datetime.now(UTC)
    columns = {name: sketch.view() for name, sketch in sketches.items()}
    view = DatasetProfileView(columns=columns, dataset_timestamp=now, creation_timestamp=now)
    serialized: bytes = view.serialize()
    return serialized


def _summary(column: Any) -> ColumnSummary:
    counts = column.get_metric("counts")
    n, nulls = int(counts.n.value), int(counts.null.value)
    items = column.get_metric("frequent_items")
    if items is not None:
        return ColumnSummary(n=n, nulls=nulls, categories=_exact_counts(items))
    sketch = column.get_metric("distribution").kll.value
    if sketch.is_empty():
        return ColumnSummary(n=n, nulls=nulls, infinite=int(counts.inf.value))
    support = np.unique(np.asarray(sketch.get_quantiles(_SUPPORT.tolist())))

    def cdf(points: np.ndarray) -> np.ndarray:
        # get_cdf counts what lies below a point; the next float up makes it "at or below"
        return np.asarray(sketch.get_cdf(np.nextafter(points, np.inf).tolist())[:-1])

    return ColumnSummary(
        n=n,
        nulls=nulls,
        infinite=int(counts.inf.value),
        cdf=cdf,
        support=support,
        low=float(sketch.get_min_value()),
        high=float(sketch.get_max_value()),
    )


def _exact_counts(items: Any) -> dict[str, int] | None:
    """The exact counts, None if there were more categories than the sketch holds: estimates would look like drift."""
    from whylogs_sketching import frequent_items_error_type

    sketch = items.frequent_strings.value
    found = sketch.get_frequent_items(frequent_items_error_type.NO_FALSE_NEGATIVES)
    if any(low < high for _, _, low, high in found):
        return None
    return {name: int(estimate) for name, estimate, _, _ in found}


def _column(frame: pd.DataFrame, name: str) -> pd.Series:
    if list(frame.columns).count(name) != 1:
        found = ", ".join(map(repr, frame.columns))
        raise SchemaMismatch(f"column {name!r} is required once; found {found}; bring it or train without it")
    return frame[name]


def _numbers(column: pd.Series) -> np.ndarray:
    """The column as float32, (n,); absent values are NaN, and what float32 cannot hold is infinite.

    Raises:
        SchemaMismatch: it holds times, complex or nested values, or text that is no number.
    """
    _refuse_unfit(column, "numbers")
    with np.errstate(over="ignore"):
        if isinstance(column.dtype, pd.CategoricalDtype):
            return _numbers_of_codes(column)
        if isinstance(column.dtype, np.dtype) and column.dtype.kind in "iufb":
            return column.to_numpy().astype(np.float32)
        if isinstance(column.dtype, pd.SparseDtype):
            return np.asarray(column, dtype=np.float32)
        if types.is_numeric_dtype(column.dtype):
            return column.to_numpy(np.float32, na_value=np.nan)
        return _parsed(column).to_numpy(np.float32, na_value=np.nan)


def _numbers_of_codes(column: pd.Series) -> np.ndarray:
    """The numbers of a category column: only the categories that occur are looked at."""
    codes = column.cat.codes.to_numpy()
    used = np.unique(codes[codes >= 0])
    numbers = np.full(len(column.cat.categories) + 1, np.nan, dtype=np.float32)  # the last one is code -1
    numbers[used] = _numbers(pd.Series(column.cat.categories[used], name=column.name))
    return numbers[codes]


def _parsed(column: pd.Series) -> pd.Series:
    """Numbers that are stored as text, or as objects of several types."""
    try:
        return pd.to_numeric(column.astype(object), errors="raise")
    except (ValueError, TypeError) as exc:
        wrong = column[pd.to_numeric(column.astype(object), errors="coerce").isna() & column.notna()]
        raise SchemaMismatch(
            f"column {column.name!r} is not a number in {len(wrong):,} of {len(column):,} rows (first: {wrong.iloc[0]!r} in "
            f"row {wrong.index[0]}), expected numbers; clean the source or list {column.name!r} under features.categorical"
        ) from exc


def _categories(column: pd.Series) -> Counter[str]:
    """How often each category occurs, by its canonical text; absent values are left out.

    Raises:
        SchemaMismatch: the column holds times, complex or nested values.
    """
    _refuse_unfit(column, "categories")
    counts: Counter[str] = Counter()
    if column.dtype == object and types.infer_dtype(column, skipna=True) not in _UNIFORM:
        counts.update(map(canonical_category, column))  # 1 and True are equal to a hash table, and two categories
    else:
        counted = column.value_counts(sort=False)
        weights = counted.to_numpy()
        for value, weight in zip(counted.index[weights > 0], weights[weights > 0].tolist(), strict=True):
            counts[canonical_category(value)] += weight
    counts.pop(MISSING, None)
    return counts


def _refuse_unfit(column: pd.Series, expected: str) -> None:
    """Raises SchemaMismatch if the values are neither numbers nor categories."""
    values = column.cat.categories.to_series() if isinstance(column.dtype, pd.CategoricalDtype) else column
    found = _unfit_objects(values) if values.dtype == object else _unfit(values.dtype)
    if found is not None:
        raise SchemaMismatch(
            f"column {column.name!r} holds {found} ({column.dtype}), expected {expected}; {_REMEDIES[found]}"
        )


def _unfit(dtype: Any) -> str | None:
    """What a column of the type holds that is neither number nor category."""
    arrow = dtype.pyarrow_dtype if isinstance(dtype, pd.ArrowDtype) else None
    if arrow is not None and pa.types.is_dictionary(arrow):
        arrow = arrow.value_type
    if dtype.kind in "mM" or isinstance(dtype, pd.PeriodDtype) or (arrow is not None and pa.types.is_temporal(arrow)):
        return "times"
    if arrow is not None and pa.types.is_nested(arrow):
        return "nested values"
    return "complex numbers" if dtype.kind == "c" else None


def _unfit_objects(values: pd.Series) -> str | None:
    if types.infer_dtype(values, skipna=True) in _UNIFORM:
        return None
    kinds = set(map(type, values.dropna()))
    for found, unfit in (
        ("times", _TIMES),
        ("nested values", _NESTED),
        ("complex numbers", (complex, np.complexfloating)),
    ):
        if any(issubclass(kind, unfit) for kind in kinds):
            return found
    return None
