"""What a classifier's loss probably is while labels are missing, read off its own probabilities.

Confidence-based performance estimation (NannyML, "How it works: CBPE"; Białek et al. 2024): if P(y|x) is still what the
probabilities say, the expected loss of a row follows from them alone. What the same estimate said on the holdout, against
the truth there, rescales it (the idea of Guillory et al. 2021; Garg et al. 2022 compare such estimates). An estimate
annotates: it neither clears an alarm nor raises one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import stats

from everloop.domain.metrics import Predictions, row_losses
from everloop.domain.schema import canonical_category
from everloop.domain.spec import Kind, MetricName, Scalar
from everloop.domain.spec_values import Frozen

CONFIDENCE = 0.95
VALIDITY = (
    "It holds only while the relation of features and label is what it was (P(y|x) unchanged) and is blind to concept drift: "
    "in our study it said .74 where the truth was .65. It neither clears an alarm nor raises one."
)
_FLOOR = 1e-15  # as in metrics.py
_REGRESSION = (
    "a regression model says a number and not how sure it is, so nothing of its loss can be read off its answers; "
    "wait for labels"
)


class CalibrationOfEstimate(Frozen):
    """What the estimate said on the holdout, what was true there, and the spread of actual - ratio x estimated (ddof 1)."""

    estimated: float
    actual: float
    rows: int
    residual_std: float = 0.0

    @property
    def ratio(self) -> float:
        """Factor from the estimate to the truth; 1 if the estimate was 0."""
        return self.actual / self.estimated if self.estimated > 0 else 1.0

    @property
    def ratio_error(self) -> float:
        """Standard error of the ratio of two means (Cochran 1977, 6.4)."""
        return self.residual_std / self.estimated / np.sqrt(self.rows) if self.estimated > 0 and self.rows else 0.0


class EstimatedPerformance(Frozen):
    """The estimated loss of a window and its interval; `note` says how far it may be trusted, or why there is none."""

    verdict: Literal["estimated", "not estimated"]
    note: str
    rows: int
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    baseline: float | None = None


def expected_losses(metric: MetricName, probabilities: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """The loss to expect of each row, (n,), if labels come as `probabilities` (n, k) say; `predicted` are class indices (n,).

    log_loss: the entropy of the row; brier: sum of p (1 - p)^2; error_rate: 1 - p of the predicted class.
    """
    return (probabilities * _losses_by_label(metric, probabilities, predicted)).sum(axis=1)


def calibrate_estimate(
    metric: MetricName, actual: Sequence[object] | np.ndarray, predicted: Predictions
) -> CalibrationOfEstimate:
    """How the estimate compares with the truth on labelled rows, of which there must be at least two."""
    if predicted.probabilities is None:
        raise ValueError(f"{metric} cannot be estimated: the predictions carry no probabilities")
    chosen = _indices(predicted.values, predicted.classes)
    expected = expected_losses(metric, predicted.probabilities, chosen)
    losses = row_losses(metric, actual, predicted)
    found = CalibrationOfEstimate(estimated=float(expected.mean()), actual=float(losses.mean()), rows=len(losses))
    return found.model_copy(update={"residual_std": float(np.std(losses - found.ratio * expected, ddof=1))})


def estimate_performance(
    metric: MetricName,
    kind: Kind,
    probabilities: np.ndarray | None,
    classes: tuple[Scalar, ...],
    values: Sequence[object] | np.ndarray,
    *,
    reference: CalibrationOfEstimate | None = None,
) -> EstimatedPerformance:
    """The mean loss to expect of rows with these `probabilities` (n, k) and predicted `values` (n,).

    The interval is a normal one at 95 % for the mean loss the labels will show: the variance of the rows' expected losses,
    that of the labels around them (Bernoulli's, for error_rate), and that of the holdout's ratio.
    """
    baseline = None if reference is None else reference.actual
    if kind == "regression":
        return EstimatedPerformance(verdict="not estimated", note=_REGRESSION, rows=len(values), baseline=baseline)
    shares, chosen = _usable(probabilities, classes, values)
    n = len(shares)
    if n < 2:
        note = f"{n} of {len(values):,} rows carry probabilities of the {len(classes)} classes, at least 2 are required"
        return EstimatedPerformance(verdict="not estimated", note=note, rows=n, baseline=baseline)
    by_label = _losses_by_label(metric, shares, chosen)
    expected = (shares * by_label).sum(axis=1)
    around = (shares * (by_label - expected[:, None]) ** 2).sum(axis=1)
    ratio, ratio_error = (1.0, 0.0) if reference is None else (reference.ratio, reference.ratio_error)
    mean = float(expected.mean())
    error = np.sqrt(ratio**2 * (expected.var(ddof=1) + around.mean()) / n + (mean * ratio_error) ** 2)
    half = float(stats.norm.ppf((1 + CONFIDENCE) / 2) * error)
    most = np.inf if metric == "log_loss" else 1.0
    return EstimatedPerformance(
        verdict="estimated",
        note=f"{_scaled(reference)} {VALIDITY}",
        rows=n,
        estimate=min(ratio * mean, most),
        low=max(min(ratio * mean, most) - half, 0.0),
        high=min(ratio * mean + half, most),
        baseline=baseline,
    )


def _losses_by_label(metric: MetricName, probabilities: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """The loss (n, k) of each row if its label were the class of the column."""
    if metric == "log_loss":
        return -np.log(np.clip(probabilities, _FLOOR, 1))
    if metric == "brier":
        return (1 - probabilities) ** 2
    if metric == "error_rate":
        return (np.arange(probabilities.shape[1]) != predicted[:, None]).astype(float)
    raise ValueError(f"{metric} is no metric of a classifier; it cannot be estimated from probabilities")


def _usable(
    probabilities: np.ndarray | None, classes: tuple[Scalar, ...], values: Sequence[object] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The rows whose probabilities are finite, with sum 1, and the indices of the classes predicted for them."""
    none = np.empty((0, max(len(classes), 1))), np.empty(0, dtype=int)
    if probabilities is None or len(probabilities) == 0:
        return none
    shares = np.asarray(probabilities, dtype=float)
    if shares.ndim != 2 or shares.shape[1] != len(classes):
        return none
    chosen = _indices(values, classes)
    usable = np.isfinite(shares).all(axis=1) & (shares >= 0).all(axis=1) & (shares.sum(axis=1) > 0) & (chosen >= 0)
    shares = shares[usable]
    return shares / shares.sum(axis=1, keepdims=True), chosen[usable]


def _indices(values: Sequence[object] | np.ndarray, classes: tuple[Scalar, ...]) -> np.ndarray:
    """The position of each value among `classes`, -1 for a stranger."""
    position = {canonical_category(name): index for index, name in enumerate(classes)}
    return np.array([position.get(canonical_category(value), -1) for value in values], dtype=int)


def _scaled(reference: CalibrationOfEstimate | None) -> str:
    if reference is None:
        return "An estimate from the model's own probabilities, not compared with any labels."
    return (
        f"An estimate from the model's own probabilities times {reference.ratio:.3g}: on the holdout's {reference.rows:,} rows "
        f"it said {reference.estimated:.4g} and the truth was {reference.actual:.4g}."
    )
