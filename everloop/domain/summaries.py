"""What a profile knows of rows, without the tool that made it: values that statistics are computed from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

Points = tuple[np.ndarray, np.ndarray]  # ascending values, and the share of the column at or below each


def quantile_of(points: Points, share: float) -> float:
    """The value that `share` of the column does not exceed."""
    values, below = points
    return float(values[min(int(np.searchsorted(below, share)), len(values) - 1)])


@dataclass(frozen=True)
class ColumnSummary:
    """What a profile knows of one column: counts, and a distribution function or category counts.

    `cdf` maps points (m,) to P(X <= point), (m,); `support` are points that cover the distribution, ascending. Both
    speak of finite values only; `infinite` counts the others. `low` and `high` are the smallest and largest finite value.
    """

    n: int
    nulls: int
    infinite: int = 0
    cdf: Callable[[np.ndarray], np.ndarray] | None = None
    support: np.ndarray | None = None
    low: float | None = None
    high: float | None = None
    categories: Mapping[str, int] | None = None

    @property
    def present(self) -> int:
        """Values that are not null."""
        return self.n - self.nulls

    @property
    def has_numbers(self) -> bool:
        """True if it has a finite value."""
        return self.cdf is not None and self.support is not None and len(self.support) > 0

    @property
    def has_too_many_categories(self) -> bool:
        """True if its values are categories and the profile could not count them."""
        return self.present > self.infinite and self.cdf is None and self.categories is None

    @property
    def ends(self) -> tuple[float, float]:
        """The smallest and the largest finite value of a column that has numbers."""
        assert self.support is not None
        low = self.support[0] if self.low is None else self.low
        high = self.support[-1] if self.high is None else self.high
        return float(low), float(high)

    @property
    def points(self) -> Points | None:
        """The finite values from end to end, as far as `support` is fine; None if there are none."""
        if not self.has_numbers:
            return None
        assert self.cdf is not None
        assert self.support is not None
        values = np.union1d(self.support, self.ends)
        return values, self.cdf(values)

    def quantile(self, share: float) -> float | None:
        """The value that `share` of the finite values do not exceed, as far as `support` is fine; None if there are none."""
        points = self.points
        return None if points is None else quantile_of(points, share)

    @property
    def only_value(self) -> float | str | None:
        """The one value that the whole column holds beside nulls, None if there are several."""
        if self.categories is not None:
            return next(iter(self.categories)) if len(self.categories) == 1 else None
        if not self.has_numbers or self.infinite:
            return None
        low, high = self.ends
        return low if low == high else None


@dataclass(frozen=True)
class ProfileSummary:
    """The summaries of all columns of one profile."""

    rows: int
    columns: Mapping[str, ColumnSummary] = field(default_factory=dict)
