"""Losses per row. Every metric is a mean of them (rmse: its root), so that versions can be compared row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from everloop.domain.autocorrelation import autocorrelation_time
from everloop.domain.schema import canonical_category
from everloop.domain.spec import MetricName, Scalar
from everloop.domain.spec_values import Frozen

_FLOOR = 1e-15


@dataclass(frozen=True)
class Predictions:
    """What a model said about n rows: values (n,) and, for classifiers, probabilities (n, classes)."""

    values: np.ndarray
    probabilities: np.ndarray | None = None
    classes: tuple[Scalar, ...] = ()


class LossSummary(Frozen):
    """Count, mean and standard deviation (ddof 1) of per-row losses; n of them are worth n / design_effect independent ones."""

    n: int
    mean: float
    std: float
    design_effect: float = 1.0

    @property
    def effective_n(self) -> float:
        """How many independent losses would tell as much, at least 1."""
        return max(self.n / self.design_effect, 1.0)

    @property
    def standard_error(self) -> float:
        """The standard error of the mean."""
        return self.std / float(np.sqrt(self.effective_n))


def row_losses(metric: MetricName, actual: Sequence[object] | np.ndarray, predicted: Predictions) -> np.ndarray:
    """The loss of each row, shape (n,), 0 or more; lower is better.

    mae |y - p|; rmse (y - p)^2; log_loss -ln p(y) (Good 1952); brier (1 - p(y))^2 (Brier 1950, one of its two
    equal halves); error_rate 0 or 1. A class the model does not know has probability 1e-15.
    """
    truth = np.asarray(actual)
    if metric in ("mae", "rmse"):
        errors = np.abs(truth.astype(float) - predicted.values.astype(float))
        return errors if metric == "mae" else errors**2
    if metric == "error_rate":
        return (_texts(truth) != _texts(predicted.values)).astype(float)
    of_truth = _probability_of(truth, predicted)
    return -np.log(np.clip(of_truth, _FLOOR, 1)) if metric == "log_loss" else (1 - of_truth) ** 2


def score(metric: MetricName, losses: np.ndarray) -> float:
    """The metric that per-row `losses` amount to."""
    mean = float(np.mean(losses))
    return float(np.sqrt(mean)) if metric == "rmse" else mean


def summarize(losses: np.ndarray) -> LossSummary:
    """Count, mean, spread and dependence of `losses` in time order, of which there must be at least two."""
    return LossSummary(
        n=len(losses),
        mean=float(np.mean(losses)),
        std=float(np.std(losses, ddof=1)),
        design_effect=autocorrelation_time(losses),
    )


def trivial_predictions(metric: MetricName, known: np.ndarray, rows: int, classes: tuple[Scalar, ...]) -> Predictions:
    """What a model without features would say for `rows` rows: the median, the mean, or the class shares of `known`."""
    if not classes:
        value = np.median(known) if metric == "mae" else np.mean(known)
        return Predictions(np.full(rows, float(value)))
    shares = np.array([np.mean(_texts(known) == canonical_category(name)) for name in classes])
    most_common = classes[int(np.argmax(shares))]
    return Predictions(np.full(rows, most_common), np.tile(shares, (rows, 1)), classes)


def _probability_of(truth: np.ndarray, predicted: Predictions) -> np.ndarray:
    if predicted.probabilities is None:
        raise ValueError("this metric needs probabilities and the predictions carry none")
    position = {canonical_category(name): index for index, name in enumerate(predicted.classes)}
    columns = np.array([position.get(text, -1) for text in _texts(truth)])
    known = columns >= 0
    result = np.zeros(len(truth))
    result[known] = predicted.probabilities[np.flatnonzero(known), columns[known]]
    return result


def _texts(values: np.ndarray) -> np.ndarray:
    """Classes by their canonical text: a label 1 that came through a column with nulls is 1.0 and the same class."""
    return np.array([canonical_category(value) for value in values], dtype=object)
