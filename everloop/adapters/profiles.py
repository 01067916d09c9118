"""Profiles of rows as mergeable whylogs sketches; the only place that imports whylogs.

`why.log` spends most of its time in per-element Python and fails on several pandas 3 types, so the sketches are fed
directly: numbers as one array, categories as one weighted update per distinct value. What is sketched is the canonical
form of everloop/domain/frames.py, reached column by column without building it: float32 numbers, text categories.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from everloop.adapters.column_values import categories_of, column_of, numbers_of
from everloop.domain.errors import SchemaMismatch
from everloop.domain.schema import RowSchema
from everloop.domain.spec import PREDICTION
from everloop.domain.summaries import ColumnSummary, ProfileSummary

KLL_K = 1024
FREQUENT_ITEMS_LG_MAX = 14  # counts up to 12,288 categories exactly
_PIECE, _RUN = 65_536, 256  # values that are sketched at once, and sorted at once
_SUPPORT = np.linspace(0, 1, 513)


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
            sketches[feature.name].add(column_of(chunk, feature.name))
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
        values = numbers_of(column)
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
        counted = categories_of(column)
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
        return ColumnSummary(n=n, nulls=nulls, categories=_exact_counts(items, n - nulls))
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


def _exact_counts(items: Any, present: int) -> dict[str, int] | None:
    """The exact counts, None if there were more categories than the sketch holds: estimates would look like drift."""
    from whylogs_sketching import frequent_items_error_type

    sketch = items.frequent_strings.value
    found = sketch.get_frequent_items(frequent_items_error_type.NO_FALSE_NEGATIVES)
    # a sketch that was too small has bounds apart, or has just thrown all its items away
    if any(low < high for _, _, low, high in found) or sum(low for _, _, low, _ in found) != present:
        return None
    return {name: int(estimate) for name, estimate, _, _ in found}
