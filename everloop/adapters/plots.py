"""The plots of a training run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from everloop.domain.metrics import Predictions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIZE = (6.4, 4.4)


def training_plots(
    pipeline: Any, features: pd.DataFrame, truth: np.ndarray, predicted: Predictions, *, time: pd.Series | None
) -> Iterator[tuple[str, Figure]]:
    """Name and figure of each plot a person wants to see about n holdout rows; `features` in canonical form."""
    if predicted.probabilities is None:
        yield "predicted_against_actual", _predicted_against_actual(truth, predicted.values)
        yield "residuals", _residuals(truth, predicted.values, time)
    else:
        yield "curves", _curves(truth, predicted)
        yield "confusion", _confusion(truth, predicted)
    yield "feature_importance", _importance(pipeline, features, truth)


def _new() -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, layout="constrained")
    return figure, figure.subplots()


def _predicted_against_actual(truth: np.ndarray, values: np.ndarray) -> Figure:
    figure, axes = _new()
    axes.scatter(truth, values, s=9, alpha=0.45, linewidths=0)
    ends = [min(truth.min(), values.min()), max(truth.max(), values.max())]
    axes.plot(ends, ends, color="black", linewidth=0.8)
    axes.set(xlabel="actual", ylabel="predicted", title="Predicted against actual, holdout")
    return figure


def _residuals(truth: np.ndarray, values: np.ndarray, time: pd.Series | None) -> Figure:
    figure, axes = _new()
    axes.scatter(np.arange(len(truth)) if time is None else time, values - truth, s=9, alpha=0.45, linewidths=0)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(
        xlabel="holdout row" if time is None else str(time.name),
        ylabel="predicted − actual",
        title="Residuals, holdout",
    )
    figure.autofmt_xdate()
    return figure


def _curves(truth: np.ndarray, predicted: Predictions) -> Figure:
    """ROC, precision-recall and calibration of each class against the rest (of the second class if there are two)."""
    from matplotlib.figure import Figure
    from sklearn.calibration import CalibrationDisplay
    from sklearn.metrics import PrecisionRecallDisplay, RocCurveDisplay

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    panels = figure.subplots(1, 3)
    assert predicted.probabilities is not None
    positions = [1] if len(predicted.classes) == 2 else range(len(predicted.classes))
    for position in positions:
        name, shares = str(predicted.classes[position]), predicted.probabilities[:, position]
        is_class = truth.astype(str) == name
        if not 0 < is_class.sum() < len(is_class):
            continue
        RocCurveDisplay.from_predictions(is_class, shares, name=name, ax=panels[0])
        PrecisionRecallDisplay.from_predictions(is_class, shares, name=name, ax=panels[1])
        CalibrationDisplay.from_predictions(is_class, shares, n_bins=10, strategy="quantile", name=name, ax=panels[2])
    for panel, title in zip(panels, ("ROC", "Precision and recall", "Calibration"), strict=True):
        panel.set_title(f"{title}, holdout")
    return figure


def _confusion(truth: np.ndarray, predicted: Predictions) -> Figure:
    from sklearn.metrics import ConfusionMatrixDisplay

    figure, axes = _new()
    ConfusionMatrixDisplay.from_predictions(
        truth.astype(str), predicted.values.astype(str), normalize="true", ax=axes, colorbar=False
    )
    axes.set_title("Confusion, holdout, share of the actual class")
    return figure


def _importance(pipeline: Any, features: pd.DataFrame, truth: np.ndarray) -> Figure:
    """Permutation importance (Breiman 2001) on at most 200 holdout rows."""
    from sklearn.inspection import permutation_importance

    rows = slice(-200, None)
    found = permutation_importance(pipeline, features.iloc[rows], truth[rows], n_repeats=2, random_state=0)
    order = np.argsort(found.importances_mean)[-20:]
    figure, axes = _new()
    axes.barh(features.columns[order], found.importances_mean[order], xerr=found.importances_std[order], height=0.7)
    axes.set(xlabel="drop of the score when shuffled", title="Feature importance, holdout")
    return figure
