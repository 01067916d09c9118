"""Parts of the event time that are profiled beside the features, where the spec asks.

The age of a row is a number. Hour, weekday and month go round, so they are categories: midnight is no farther from 23 o'clock
than from 1, which a test on numbers would not know.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from everloop.domain.errors import SchemaMismatch
from everloop.domain.monitor_spec import TimePart
from everloop.domain.schema import MISSING

_HOURS = [f"{hour:02}" for hour in range(24)]
_WEEKDAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


def time_parts(times: pd.Series, parts: Sequence[TimePart], *, seen: pd.Series | pd.Timestamp) -> pd.DataFrame:
    """Columns `time.<part>` for the rows of `times`, in the order of `parts`; with the index of `times`.

    `time.age` is in seconds from the event to `seen`, when the row became known (one a row by position, or one for all);
    negative if the event lay ahead. The others are text in UTC: "00" to "23", "Mon" to "Sun", "Jan" to "Dec". Times without a
    zone are UTC. Where a time is absent the age is NaN and the others are `MISSING`.

    Raises:
        SchemaMismatch: `times` or `seen` holds something else than times.
    """
    events = _as_utc(times, str(times.name))
    columns: dict[str, pd.Series] = {}
    for part in parts:
        if part == "age":
            known = seen if isinstance(seen, pd.Series) else pd.Series([seen] * len(times), dtype=object)
            age = _as_utc(known, "seen").to_numpy() - events.to_numpy()
            columns["time.age"] = pd.Series(age / np.timedelta64(1, "s"), index=times.index, dtype=float)
        elif part == "hour":
            columns["time.hour"] = _named(events.dt.hour, _HOURS)
        elif part == "weekday":
            columns["time.weekday"] = _named(events.dt.weekday, _WEEKDAYS)
        else:
            columns["time.month"] = _named(events.dt.month - 1, _MONTHS)
    return pd.DataFrame(columns, index=times.index)


def _as_utc(times: pd.Series, name: str) -> pd.Series:
    """Naive UTC timestamps in microseconds."""
    if pd.api.types.is_numeric_dtype(times) and len(times):
        raise SchemaMismatch(f"{name!r} holds numbers ({times.iloc[0]!r}), expected times; correct `time` in the spec")
    try:
        return pd.to_datetime(times, utc=True).dt.tz_localize(None).astype("datetime64[us]")
    except (ValueError, TypeError) as exc:
        raise SchemaMismatch(
            f"{name!r} does not hold times ({exc}); correct `time` in the spec or clean the source"
        ) from exc


def _named(places: pd.Series, names: Sequence[str]) -> pd.Series:
    """The name at each place, `MISSING` where the place is null; every name is a category, so that parts can be concatenated."""
    codes: np.ndarray = places.fillna(len(names)).to_numpy(np.int8)
    return pd.Series(pd.Categorical.from_codes(codes, pd.Index([*names, MISSING])), index=places.index)
