"""The pictures of a window's report, as SVG that is written by hand: small, crisp, and coloured by the page's style.

Everything that a user may have named goes through `Markup.format`, which escapes it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from markupsafe import Markup

from everloop.adapters.window_report.svg import clipped, short, svg, ticks
from everloop.domain.summaries import ColumnSummary, Points, quantile_of

BARS = 8  # categories that are drawn; the rest are summed


_BINS = 36


_DISCRETE = 16  # so many distinct numbers or fewer are drawn as bars


_BULK = (0.002, 0.998)  # the quantiles between which a distribution is drawn


def plot_column(name: str, reference: ColumnSummary | None, window: ColumnSummary | None) -> Markup | None:
    """The values of the column in the reference and in the window, laid over each other; None if there is nothing to draw."""
    if reference is None or window is None:
        return None
    if reference.categories is not None and window.categories is not None:
        return _bars(name, *_shares(reference, window))
    known, found = reference.points, window.points
    if known is None or found is None:
        return None
    values = np.union1d(known[0], found[0])
    if len(values) <= _DISCRETE:
        names = [f"{value:.6g}" for value in values]
        return _bars(name, names, _steps(known, values), _steps(found, values), set())
    return _densities(name, reference, window)


def _steps(points: Points, values: np.ndarray) -> list[float]:
    """The share of each of `values`, for a column that has no others."""
    at = np.searchsorted(points[0], values, side="right")
    below = np.concatenate([[0.0], points[1]])[at]
    return [float(share) for share in np.diff(np.concatenate([[0.0], below]))]


def _edges(known: Points, found: Points) -> np.ndarray:
    """Edges of bins over the bulk of both. Values on a grid are binned by whole steps of it, or the bins would beat with it."""
    low = min(quantile_of(points, _BULK[0]) for points in (known, found))
    high = max(quantile_of(points, _BULK[1]) for points in (known, found))
    values = np.union1d(known[0], found[0])
    step = float(np.diff(values).min()) if len(values) > 1 else 0.0
    places = (values - low) / step if step else values
    if high > low and step and (high - low) / step < 1e5 and np.abs(places - np.round(places)).max() < 0.05:
        width = step * max(1, round((high - low) / step / _BINS))
        return np.arange(low - step / 2, high + width, width)
    return np.linspace(low, high if high > low else low + 1, _BINS + 1)


def _densities(name: str, reference: ColumnSummary, window: ColumnSummary) -> Markup:
    width, height, floor_ = 340, 132, 108
    both = [points for points in (reference.points, window.points) if points is not None]
    edges = _edges(*both)
    # not interpolated between the points that are known: a share that sits on one value would be smeared over two bins
    shares = [np.diff(summary.cdf(edges)) for summary in (reference, window) if summary.cdf is not None]
    top = max(float(share.max()) for share in shares) or 1.0
    x = 6 + (edges - edges[0]) / (edges[-1] - edges[0]) * (width - 12)
    parts = [Markup('<line class="axis" x1="6" x2="{}" y1="{}" y2="{}"/>').format(width - 6, floor_, floor_)]
    for style, share in zip(("ref", "win"), shares, strict=True):
        y = floor_ - share / top * (floor_ - 8)
        steps = " ".join(f"L{a:.1f} {h:.1f}L{b:.1f} {h:.1f}" for a, b, h in zip(x[:-1], x[1:], y, strict=True))
        parts.append(Markup('<path class="{}" d="M{} {}{}L{} {}"/>').format(style, 6, floor_, steps, width - 6, floor_))
    for value in ticks(edges[0], edges[-1], 4):
        place = 6 + (value - edges[0]) / (edges[-1] - edges[0]) * (width - 12)
        parts.append(Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(place, 125, short(value)))
    medians = [short(quantile_of(points, 0.5)) for points in both]
    title = f"distribution of {name}: median {medians[0]} in the training data, {medians[1]} in this window"
    return svg(width, height, title, parts)


def _shares(reference: ColumnSummary, window: ColumnSummary) -> tuple[list[str], list[float], list[float], set[str]]:
    """The most frequent categories with their shares in both, the rest in one; and which of them are new."""
    assert reference.categories is not None
    assert window.categories is not None
    known = _normalised(reference.categories)
    found = _normalised(window.categories)
    # by the larger share, so that what has come and what has gone both show
    names = sorted({*known, *found}, key=lambda name: (-max(known.get(name, 0), found.get(name, 0)), name))
    shown = names if len(names) <= BARS + 1 else names[:BARS]
    shown = _in_order(shown)
    shares = [[share.get(name, 0.0) for name in shown] for share in (known, found)]
    if rest := len(names) - len(shown):
        shown = [*shown, f"{rest:,} others"]
        shares = [[*share, max(0.0, 1 - sum(share))] for share in shares]
    return shown, shares[0], shares[1], {name for name in shown if name in found and name not in known}


def _in_order(names: list[str]) -> list[str]:
    """Numbers by their value, texts as they were."""
    try:
        return sorted(names, key=float)
    except ValueError:
        return names


def _normalised(counts: Mapping[str, int]) -> dict[str, float]:
    total = sum(counts.values()) or 1
    return {name: count / total for name, count in counts.items()}


def _bars(name: str, names: list[str], known: list[float], found: list[float], new: set[str]) -> Markup:
    width, row, left = 340, 25, 112
    top = max(*known, *found, 1e-9)
    parts: list[Markup] = []
    for position, (text, before, now) in enumerate(zip(names, known, found, strict=True)):
        y = 4 + position * row
        said = Markup("<title>{}: {:.1%} → {:.1%}{}</title>").format(text, before, now, " (new)" if text in new else "")
        label = clipped(text, 15 if text not in new else 11) + (" new" if text in new else "")
        parts.append(
            Markup('<g>{}<text x="{}" y="{}" text-anchor="end">{}</text>').format(said, left - 6, y + 14, label)
        )
        for style, share, offset in (("ref", before, 0), ("win", now, 10)):
            long = share / top * (width - left - 84)
            parts.append(
                Markup('<rect class="{}" x="{}" y="{}" width="{:.1f}" height="9"/>').format(
                    style, left, y + offset, long
                )
            )
        parts.append(
            Markup('<text class="small" x="{}" y="{}" text-anchor="end">{}</text></g>').format(
                width - 2, y + 14, f"{before:.0%} → {now:.0%}"
            )
        )
    spoken = "; ".join(f"{text} {a:.0%} → {b:.0%}" for text, a, b in zip(names, known, found, strict=True))
    return svg(width, 8 + row * len(names), f"shares of {name} in the training data → in this window: {spoken}", parts)
