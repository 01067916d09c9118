"""The performance of the model over its windows as one SVG: intervals, baseline and margin, labels, decisions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from markupsafe import Markup

from everloop.adapters.window_report.svg import circle, label, short, svg, ticks

Mark = Literal["none", "alert", "retrain"]


@dataclass(frozen=True)
class WindowPoint:
    """One window of the picture over time; None: not known. `coverage` is a share, `label` the text below it."""

    label: str
    version: str
    action: Mark
    title: str
    metric: float | None = None
    low: float | None = None
    high: float | None = None
    baseline: float | None = None
    estimate: float | None = None
    coverage: float = 0.0
    is_degraded: bool = False


def plot_over_time(points: Sequence[WindowPoint], *, metric: str, limit: float | None) -> Markup:
    """Metric, label coverage and decision of windows, oldest first; `limit` is the factor by which the baseline may be exceeded."""
    drawing = _Timeline(points, metric, limit)
    title = f"{metric} of the last {len(points)} windows with its 95 % interval; the table below has the numbers"
    return svg(_Timeline.width, _Timeline.height, title, drawing.parts(), kind="timeline")


@dataclass
class _Timeline:
    """The picture over time: the metric above, label coverage and decisions below, one place a window."""

    points: Sequence[WindowPoint]
    metric: str
    limit: float | None
    width = 860
    height = 330
    left, right, top, bottom = 58, 12, 24, 222
    low: float = field(init=False)
    high: float = field(init=False)

    def __post_init__(self) -> None:
        factor = max(1.0, self.limit or 1.0)
        values = [
            value
            for point in self.points
            for value in (point.metric, point.low, point.high, point.baseline, point.estimate)
            if value is not None
        ]
        values += [point.baseline * factor for point in self.points if point.baseline is not None]
        low, high = min(values, default=0.0), max(values, default=1.0)
        room = (high - low or abs(high) or 1.0) * 0.08
        self.high = high + room
        self.low = 0.0 if 0 <= low < 0.4 * high else low - room

    def parts(self) -> list[Markup]:
        """Every shape of the picture, from back to front."""
        return [
            *self._grid(),
            *self._baselines(),
            *self._estimates(),
            *self._versions(),
            *self._line(),
            *(shape for place, point in enumerate(self.points) for shape in self._window(place, point)),
            *self._labels(),
        ]

    def _x(self, place: float) -> float:
        step = (self.width - self.left - self.right) / max(len(self.points), 1)
        return self.left + (place + 0.5) * step

    def _y(self, value: float) -> float:
        return self.bottom - (value - self.low) / (self.high - self.low) * (self.bottom - self.top)

    def _grid(self) -> Iterable[Markup]:
        for value in ticks(self.low, self.high, 5):
            y = self._y(value)
            yield Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
                self.left, self.width - self.right, y, y
            )
            yield label(self.left - 6, y + 4, short(value), anchor="end")
        yield label(4, 14, self.metric)
        for y, name in ((254, "labels"), (286, "decision")):
            yield label(self.left - 6, y, name, anchor="end")

    def _runs(self) -> Iterable[tuple[int, int]]:
        """First and last place of each run of windows of one version."""
        first = 0
        for place in range(1, len(self.points) + 1):
            if place == len(self.points) or self.points[place].version != self.points[first].version:
                yield first, place - 1
                first = place

    def _baselines(self) -> Iterable[Markup]:
        """The validated loss of each version, and above it the band it may rise into."""
        for first, last in self._runs():
            known = [point.baseline for point in self.points[first : last + 1] if point.baseline is not None]
            if not known:
                continue
            x, end, y = self._x(first - 0.5), self._x(last + 0.5), self._y(known[-1])
            if self.limit is not None:
                allowed = self._y(known[-1] * self.limit)
                yield Markup('<rect class="margin" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
                    x, allowed, end - x, y - allowed
                )
            yield Markup('<line class="baseline" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>').format(
                x, end, y, y
            )

    def _estimates(self) -> Iterable[Markup]:
        known = [(place, point.estimate) for place, point in enumerate(self.points) if point.estimate is not None]
        if len(known) > 1:
            yield Markup('<path class="estimate" d="M{}"/>').format(self._path(known))
        for place, value in known:
            x, y = self._x(place), self._y(value)
            yield Markup('<path class="estimate dot" d="M{:.1f} {:.1f}l4 4l-4 4l-4 -4z"/>').format(x, y - 4)

    def _versions(self) -> Iterable[Markup]:
        for first, _ in self._runs():
            if first:
                x = self._x(first - 0.5)
                yield Markup('<line class="version" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>').format(
                    x, x, self.top - 6, 296
                )
            yield label(self._x(first - 0.5) + 4, self.top - 2, f"v{self.points[first].version}")

    def _line(self) -> Iterable[Markup]:
        """The metric as a line that does not lead over windows without one, nor from one version to the next."""
        for first, last in self._runs():
            piece: list[tuple[int, float]] = []
            for place in range(first, last + 2):
                value = self.points[place].metric if place <= last else None
                if value is not None:
                    piece.append((place, value))
                    continue
                if len(piece) > 1:
                    yield Markup('<path class="line" d="M{}"/>').format(self._path(piece))
                piece = []

    def _window(self, place: int, point: WindowPoint) -> Iterable[Markup]:
        x, title = self._x(place), Markup("<title>{}</title>").format(point.title)
        if point.metric is not None and point.low is not None and point.high is not None:
            yield Markup('<line class="interval" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>').format(
                x, x, self._y(point.high), self._y(point.low)
            )
        if point.metric is not None:
            style = "point degraded" if point.is_degraded else "point"
            yield circle(style, x, self._y(point.metric), title)
        else:
            yield circle(
                "point hollow", x, self._y(point.estimate) if point.estimate is not None else self.bottom, title
            )
        step = min(14.0, (self.width - self.left - self.right) / max(len(self.points), 1) - 3)
        yield Markup('<rect class="slot" x="{:.1f}" y="236" width="{:.1f}" height="26"/>').format(x - step / 2, step)
        filled = 26 * min(max(point.coverage, 0.0), 1.0)
        yield Markup(
            '<rect class="labels" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>'
        ).format(
            x - step / 2, 262 - filled, step, filled, f"{point.label}: {point.coverage:.0%} of the labels have arrived"
        )
        yield _decision(point.action, x, 282, title)

    def _labels(self) -> Iterable[Markup]:
        every = max(1, -(-len(self.points) // 7))
        for place in range(len(self.points) - 1, -1, -every):
            # the newest is this window: its name may not stick out on the right
            anchor = "end" if place == len(self.points) - 1 and len(self.points) > 1 else "middle"
            x = self._x(place + 0.5) if anchor == "end" else self._x(place)
            yield label(x, 314, self.points[place].label, anchor=anchor)

    def _path(self, values: Sequence[tuple[int, float]]) -> str:
        return "L".join(f"{self._x(place):.1f} {self._y(value):.1f}" for place, value in values)


def _decision(action: Mark, x: float, y: float, title: Markup) -> Markup:
    """The decision as a shape of its own, so that nobody has to tell colours apart."""
    if action == "retrain":
        return Markup('<path class="retrain" d="M{:.1f} {:.1f}l8 14h-16z">{}</path>').format(x, y - 9, title)
    if action == "alert":
        return Markup('<path class="alert" d="M{:.1f} {:.1f}l7 7l-7 7l-7 -7z">{}</path>').format(x, y - 8, title)
    return Markup('<circle class="none" cx="{:.1f}" cy="{:.1f}" r="2.5">{}</circle>').format(x, y, title)
