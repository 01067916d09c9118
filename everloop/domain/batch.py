"""A batch of rows as arrays: what every runtime of a model takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Batch:
    """n rows in canonical form: float32 numbers (n, k), NaN where absent, and text categories (n, m)."""

    numeric: np.ndarray
    categorical: np.ndarray

    def __len__(self) -> int:
        return len(self.numeric)
