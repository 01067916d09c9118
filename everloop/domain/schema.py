"""The schema of a model's rows. It travels with the version, and serving reads it, so it knows nothing of pandas."""

from __future__ import annotations

from typing import Literal

import numpy as np

from everloop.domain.spec import Scalar
from everloop.domain.spec_values import Frozen

MISSING = "<missing>"
MAX_LISTED_CATEGORIES = 1000


class FeatureSchema(Frozen):
    """One feature as the training data showed it."""

    name: str
    role: Literal["numeric", "categorical"]
    type: Literal["number", "integer", "text", "boolean"]
    nullable: bool
    low: float | None = None
    high: float | None = None
    categories: tuple[str, ...] = ()


class RowSchema(Frozen):
    """What a row of this model looks like; travels with the version."""

    features: tuple[FeatureSchema, ...]
    time: str | None = None
    key: str | None = None
    key_type: Literal["integer", "text"] = "text"
    classes: tuple[Scalar, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The features in the order the model sees them."""
        return tuple(feature.name for feature in self.features)

    @property
    def numeric(self) -> tuple[FeatureSchema, ...]:
        """The numeric features, in order."""
        return tuple(feature for feature in self.features if feature.role == "numeric")

    @property
    def categorical(self) -> tuple[FeatureSchema, ...]:
        """The categorical features, in order."""
        return tuple(feature for feature in self.features if feature.role == "categorical")


def canonical_category(value: object) -> str:
    """The text that stands for one category value: 1, 1.0 and '1' are the same category, True is 'true'."""
    if _is_absent(value):
        return MISSING
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _is_absent(value: object) -> bool:
    """None, NaN, NaT and pandas' NA, told without pandas: none of them equals itself."""
    try:
        return value is None or bool(value != value)
    except TypeError:  # pandas' NA has no truth value
        return True
