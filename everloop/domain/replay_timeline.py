"""The simulated time of a replay: initial rows, then windows one after another, and which labels are known when.

Without a time column the rows' order is the time, and a window counts as a day.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from everloop.domain.errors import NotEnoughData, SpecError
from everloop.domain.spec_values import Duration, Frozen, parse_duration
from everloop.domain.windows import Window

_DAY_ZERO = pd.Timestamp("2000-01-01")
_DAY = pd.Timedelta(days=1)


class ReplayPlan(Frozen):
    """How a history is walked through: what is known at the start, how windows are cut, when labels come.

    `window_rows` and `window_span` win over `windows`; `label_delay` is a number of windows or a duration; `recent` is the
    share of all replayed rows that "recent history" holds, None for the share of the initial rows.
    """

    initial: float = Field(0.2, gt=0, lt=1)
    windows: int = Field(50, ge=2, le=100_000)
    window_rows: int | None = Field(None, ge=2)
    window_span: Duration | None = None
    label_delay: int | Duration = 0
    recent: float | None = Field(None, gt=0, le=1)

    @model_validator(mode="after")
    def _cuts_in_one_way(self) -> ReplayPlan:
        if self.window_rows is not None and self.window_span is not None:
            raise ValueError("windows are cut by rows or by a span of time, both were given; leave one out")
        if isinstance(self.label_delay, int) and self.label_delay < 0:
            raise ValueError(
                f"the label delay is {self.label_delay} windows; write 0 or more, or a duration such as 7d"
            )
        return self


@dataclass(frozen=True)
class Stretch:
    """One window and where its rows stand in the history: from `first` up to and without `last`."""

    index: int
    window: Window
    first: int
    last: int


@dataclass(frozen=True)
class Timeline:
    """The windows of a replay over `rows` rows, of which the first `initial` are known, with labels, at its start.

    `known[i]` counts the rows, from the first on, whose labels have arrived when window i closes. Windows of a span end where
    the next one may start (`spans`), others with their last row.
    """

    rows: int
    initial: int
    recent: int
    stretches: tuple[Stretch, ...]
    known: tuple[int, ...]
    spans: bool = False


def lay_out(frame: pd.DataFrame, time: str | None, plan: ReplayPlan) -> Timeline:
    """The timeline of `frame` (n rows in time order) under `plan`.

    Raises:
        NotEnoughData: fewer than two windows can be cut.
        SpecError: windows of a span are asked for and there is no time column.
    """
    if time is None and plan.window_span is not None:
        raise SpecError(
            f"windows of {plan.window_span} are asked for and the spec has no time column; cut by rows (--windows, "
            "--window-rows) or set time in the spec"
        )
    initial = round(len(frame) * plan.initial)
    recent = initial if plan.recent is None else round(len(frame) * plan.recent)
    bounds = _bounds(frame, time, plan, initial)
    if len(bounds) < 3:
        raise NotEnoughData(
            f"{len(frame) - initial:,} rows after the first {initial:,} make {max(len(bounds) - 1, 0)} windows, at least 2 are "
            "required: replay a longer history or cut smaller windows"
        )
    moments = _moments(frame, time, bounds)
    stretches = tuple(
        Stretch(index, _window(moments, first, last, time, plan), first, last)
        for index, (first, last) in enumerate(pairwise(bounds))
    )
    known = tuple(max(initial, count) for count in _known(stretches, moments, plan.label_delay))
    return Timeline(bounds[-1], initial, max(1, recent), stretches, known, spans=plan.window_span is not None)


def _bounds(frame: pd.DataFrame, time: str | None, plan: ReplayPlan, initial: int) -> list[int]:
    """Where windows begin, and where the last one ends."""
    rest = len(frame) - initial
    if plan.window_span is not None:
        spans = frame[time].iloc[initial:].dt.floor(pd.Timedelta(parse_duration(plan.window_span)))
        return [initial + int(at) for at in np.flatnonzero(spans.ne(spans.shift()))] + [len(frame)]
    if plan.window_rows is not None:
        return list(range(initial, len(frame) + 1, plan.window_rows))
    count = min(plan.windows, rest)
    return [initial + round(rest * place / count) for place in range(count + 1)] if count else []


def _moments(frame: pd.DataFrame, time: str | None, bounds: list[int]) -> np.ndarray:
    """The moment of each row, (n,): its event time or, without one, a day per window."""
    if time is not None:
        return frame[time].to_numpy(dtype="datetime64[us]")
    size = (bounds[-1] - bounds[0]) / (len(bounds) - 1)
    days = np.interp(np.arange(len(frame)), bounds, np.arange(len(bounds)), left=np.nan, right=len(bounds) - 1)
    before = np.isnan(days)
    days[before] = (np.flatnonzero(before) - bounds[0]) / size
    return (_DAY_ZERO + pd.to_timedelta(days, unit="D")).to_numpy(dtype="datetime64[us]")


def _window(moments: np.ndarray, first: int, last: int, time: str | None, plan: ReplayPlan) -> Window:
    start, end = pd.Timestamp(moments[first]), pd.Timestamp(moments[last - 1])
    if time is None:
        start, end = start.round("D"), start.round("D") + _DAY
    elif plan.window_span is not None:
        span = pd.Timedelta(parse_duration(plan.window_span))
        start, end = start.floor(span), start.floor(span) + span
    return Window(
        id=f"rows-{first:09d}-{last - 1:09d}", start=start.isoformat(), end=end.isoformat(), rows=last - first
    )


def _known(stretches: tuple[Stretch, ...], moments: np.ndarray, delay: int | str) -> list[int]:
    """How many rows have their label when each window closes."""
    if isinstance(delay, int):
        return [stretches[index - delay].last if index >= delay else 0 for index in range(len(stretches))]
    span = np.timedelta64(parse_duration(delay))
    closes = [np.datetime64(pd.Timestamp(stretch.window.end)) for stretch in stretches]
    return [
        min(stretch.last, int(np.searchsorted(moments, close - span, side="right")))
        for stretch, close in zip(stretches, closes, strict=True)
    ]
