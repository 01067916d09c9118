"""Windows: the stretches of captured predictions that are judged at once."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from everloop.domain.monitor_spec import RowWindow, SpanWindow
from everloop.domain.spec_values import Frozen, parse_duration


class Window(Frozen):
    """One stretch of captured predictions; the same rows always make the same id."""

    id: str
    start: str
    end: str
    rows: int


def cut_windows(
    captured: pd.DataFrame, shape: RowWindow | SpanWindow, *, at: pd.Timestamp
) -> Iterator[tuple[Window, pd.DataFrame]]:
    """The complete windows of `captured`, oldest first, with their rows.

    Row windows follow the order of capture. Span windows are cut at multiples of the span in UTC event time
    and are complete when they end at or before `at`. Empty spans make no window.
    """
    if isinstance(shape, RowWindow):
        for first in range(0, len(captured) - shape.rows + 1, shape.rows):
            rows = captured.iloc[first : first + shape.rows]
            yield _window(f"rows-{first:09d}-{first + shape.rows - 1:09d}", rows), rows
        return
    span = parse_duration(shape.span)
    for start, rows in captured.groupby(captured["event_time"].dt.floor(pd.Timedelta(span)), sort=True):
        begin = pd.Timestamp(start)
        if begin + span <= at:
            name = f"{begin:%Y%m%dT%H%M%S}-{shape.span.replace(' ', '')}"
            yield Window(id=name, start=begin.isoformat(), end=(begin + span).isoformat(), rows=len(rows)), rows


def _window(name: str, rows: pd.DataFrame) -> Window:
    times = rows["event_time"]
    return Window(id=name, start=times.min().isoformat(), end=times.max().isoformat(), rows=len(rows))
