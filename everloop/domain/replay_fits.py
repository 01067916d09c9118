"""What a replay asks of a fitted model: the loss and the answer for every later row.

A fit is named by the rows it learns from, so that strategies and policies which train on the same rows share it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from everloop.domain.configuration import Configuration
from everloop.domain.frames import conform
from everloop.domain.metrics import row_losses
from everloop.domain.pipelines import predict_conformed
from everloop.domain.schema import RowSchema
from everloop.domain.search import fit_configuration
from everloop.domain.spec import ModelSpec
from everloop.domain.spec_values import Frozen


@dataclass(frozen=True)
class Subject:
    """What is replayed: labelled rows in time order, the spec, and the configuration that every fit uses."""

    rows: pd.DataFrame
    spec: ModelSpec
    schema: RowSchema
    configuration: Configuration
    features: pd.DataFrame = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", conform(self.rows, self.schema))


class FitRequest(Frozen):
    """Learn from the rows `first` up to `last`; answer the rows `since` up to `upto` (ends are not included).

    `since` is `last`, or `first` where a profile of the answers for the training rows is wanted as well.
    """

    first: int
    last: int
    upto: int
    since: int


@dataclass(frozen=True)
class Fitted:
    """The losses and answers, (upto - since,), of one fit; or why it failed.

    Answers are numbers or, for classifiers, positions among the schema's classes; `seconds` is what the fit took.
    """

    request: FitRequest
    losses: np.ndarray
    answers: np.ndarray
    seconds: float = 0.0
    failure: str | None = None

    @property
    def rows(self) -> int:
        """How many rows it learnt from."""
        return self.request.last - self.request.first

    def losses_of(self, first: int, last: int) -> np.ndarray:
        """The losses of the rows `first` up to `last`, all of them after those it learnt from."""
        if first < self.request.last:
            raise ValueError(f"row {first} is asked of a model that learnt from the rows up to {self.request.last}")
        return self.losses[self._places(first, last)]

    def answers_of(self, first: int, last: int) -> np.ndarray:
        """The answers for the rows `first` up to `last`."""
        return self.answers[self._places(first, last)]

    def _places(self, first: int, last: int) -> slice:
        if first < self.request.since or last > self.request.upto:
            raise ValueError(f"rows {first} to {last} were not asked of {self.request}")
        return slice(first - self.request.since, last - self.request.since)


Fits = Callable[[Sequence[FitRequest]], list[Fitted]]


def fit_request(request: FitRequest, subject: Subject) -> Fitted:
    """What the subject's configuration, fitted on the requested rows, says about the rows after them."""
    spec, schema, asked = subject.spec, subject.schema, slice(request.since, request.upto)
    try:
        pipeline = fit_configuration(
            subject.configuration, subject.rows.iloc[request.first : request.last], spec, schema
        )
    except ValueError as exc:  # scikit-learn's word for rows that it cannot learn from, one class only for example
        return Fitted(request, np.empty(0), np.empty(0), failure=str(exc).splitlines()[0])
    predicted = predict_conformed(pipeline, subject.features.iloc[asked], classes=schema.classes)
    losses = row_losses(spec.gates.metric, subject.rows[spec.target].iloc[asked].to_numpy(), predicted)
    answers = predicted.values if predicted.probabilities is None else predicted.probabilities.argmax(axis=1)
    return Fitted(request, losses, np.asarray(answers, dtype=float))
