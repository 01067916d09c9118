"""Windows: the stretches of captured predictions that are judged at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from everloop.domain.monitor_spec import RowWindow, SpanWindow
from everloop.domain.spec_values import Frozen, parse_duration

_PLACE = "|"  # between the parts of a row's place


class Window(Frozen):
    """One stretch of captured predictions; the same rows always make the same id.

    `start` and `end` are event times. `first` and `last` are the places of its first and last row in the order of
    capture, and `before` is how many rows were captured before it (row windows only).
    """

    id: str
    start: str
    end: str
    rows: int
    first: str | None = None
    last: str | None = None
    before: int | None = None

    @property
    def served_from(self) -> str | None:
        """When its first row was served (ISO, naive UTC); None if it is not known."""
        return self.first and self.first.split(_PLACE)[0]

    @property
    def served_until(self) -> str | None:
        """When its last row was served."""
        return self.last and self.last.split(_PLACE)[0]


def cut_windows(
    captured: pd.DataFrame, shape: RowWindow | SpanWindow, *, at: pd.Timestamp, after: Window | None = None
) -> Iterator[tuple[Window, pd.DataFrame]]:
    """The complete windows of `captured`, oldest first, with their rows.

    Row windows follow the order of capture; with `after`, they go on where that one ended, so rows before it need not be
    read. Span windows are cut at multiples of the span in UTC event time and are complete when they end at or before `at`.
    Empty spans make no window.
    """
    if isinstance(shape, RowWindow):
        yield from _cut_rows(captured, shape.rows, after)
        return
    span = parse_duration(shape.span)
    for start, rows in captured.groupby(captured["event_time"].dt.floor(pd.Timedelta(span)), sort=True):
        begin = pd.Timestamp(start)
        if begin + span <= at:
            name = f"{begin:%Y%m%dT%H%M%S}-{shape.span.replace(' ', '')}"
            yield _window(name, rows, begin.isoformat(), (begin + span).isoformat()), rows


def anchor_of(windows: Sequence[Window], shape: RowWindow | SpanWindow) -> Window | None:
    """The row window among `windows` after which cutting may go on: the one that ends last, None for spans."""
    if isinstance(shape, SpanWindow):
        return None
    placed = [window for window in windows if window.before is not None and window.rows == shape.rows]
    return max(placed, key=lambda window: window.before or 0, default=None)


def _cut_rows(captured: pd.DataFrame, size: int, after: Window | None) -> Iterator[tuple[Window, pd.DataFrame]]:
    before = 0
    if after is not None and after.last is not None and after.before is not None:
        captured = captured[places(captured) > after.last]
        before = after.before + after.rows
    for first in range(0, len(captured) - size + 1, size):
        rows = captured.iloc[first : first + size]
        times, position = rows["event_time"], before + first
        name = f"rows-{position:09d}-{position + size - 1:09d}"
        window = _window(name, rows, times.min().isoformat(), times.max().isoformat())
        yield window.model_copy(update={"before": position}), rows


def places(captured: pd.DataFrame) -> pd.Series:
    """Where each row stands in the order of capture, as text that sorts: '2024-03-09T00:01:00.000000|<prediction id>'."""
    return captured["served_at"].dt.strftime("%Y-%m-%dT%H:%M:%S.%f") + _PLACE + captured["prediction_id"].astype(str)


def _window(name: str, rows: pd.DataFrame, start: str, end: str) -> Window:
    # the rows stand in the order of capture
    first, last = places(rows.iloc[[0, -1]])
    return Window(id=name, start=start, end=end, rows=len(rows), first=first, last=last)
