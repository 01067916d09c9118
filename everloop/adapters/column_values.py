"""The values of a column of any pandas type, as a profile counts them: float32 numbers, or categories by their canonical text.

What can be neither is refused with one sentence. The canonical forms are those of everloop/domain/frames.py, made faster.
"""

from __future__ import annotations

from collections import Counter
from datetime import date, time, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pandas.api import types

from everloop.domain.errors import SchemaMismatch
from everloop.domain.schema import MISSING, canonical_category

_UNIFORM = {"string", "boolean", "integer", "floating", "mixed-integer-float", "empty"}
_TIMES = (date, time, timedelta, np.datetime64, np.timedelta64, pd.Period, pd.Timedelta)
_NESTED = (list, tuple, dict, set, frozenset, np.ndarray)
_REMEDIES = {
    "times": "store the part that matters as a number or text; of the event time itself, monitor.time_parts watches parts",
    "complex numbers": "store the real and the imaginary part as two columns",
    "nested values": "store each part as a column of its own",
}


def column_of(frame: pd.DataFrame, name: str) -> pd.Series:
    if list(frame.columns).count(name) != 1:
        found = ", ".join(map(repr, frame.columns))
        raise SchemaMismatch(f"column {name!r} is required once; found {found}; bring it or train without it")
    return frame[name]


def numbers_of(column: pd.Series) -> np.ndarray:
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
    try:
        numbers[used] = numbers_of(pd.Series(column.cat.categories[used], name=column.name))
    except SchemaMismatch:
        _parsed(column)  # says the same of the rows
        raise
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


def categories_of(column: pd.Series) -> Counter[str]:
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
