"""The parts of an SVG. Everything that a user may have named goes through `Markup.format`, which escapes it."""

from __future__ import annotations

from collections.abc import Iterable
from math import floor, log10

from markupsafe import Markup


def circle(style: str, x: float, y: float, title: Markup) -> Markup:
    return Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="4">{}</circle>').format(style, x, y, title)


def label(x: float, y: float, text: str, *, anchor: str = "start") -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, text)


def svg(width: int, height: int, title: str, parts: Iterable[Markup], *, kind: str = "column") -> Markup:
    return Markup('<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        kind, width, height, title, Markup("").join(parts)
    )


def ticks(low: float, high: float, count: int) -> list[float]:
    """At most `count` + 1 round values from `low` to `high`."""
    if high <= low:
        return [low]
    raw = (high - low) / count
    unit = 10.0 ** floor(log10(raw))
    step = next(factor * unit for factor in (1, 2, 2.5, 5, 10) if factor * unit >= raw)
    first = -floor(-low / step)
    return [
        round(step * number, 12) for number in range(first, first + count + 2) if step * number <= high * (1 + 1e-12)
    ]


def short(value: float) -> str:
    size = abs(value)
    return f"{value:,.0f}" if 1000 <= size < 1e7 else f"{value:.4g}"


def clipped(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
