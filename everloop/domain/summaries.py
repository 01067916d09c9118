"""What a profile knows of rows, without the tool that made it: values that statistics are computed from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np


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


@dataclass(frozen=True)
class ProfileSummary:
    """The summaries of all columns of one profile."""

    rows: int
    columns: Mapping[str, ColumnSummary] = field(default_factory=dict)
