"""Parity: may the exported model answer in place of the fitted one? Decided on the holdout, row by row."""

from __future__ import annotations

import numpy as np

from everloop.domain.manifest import RuntimeName
from everloop.domain.metrics import Predictions
from everloop.domain.spec_values import Frozen

SCORE_TOLERANCE = 1e-4


class ParityReport(Frozen):
    """How far the exported model's answers are from the fitted one's."""

    passed: bool
    reason: str
    rows: int = 0
    largest_difference: float | None = None
    allowed_difference: float | None = None
    labels_differing: int = 0

    @property
    def runtime(self) -> RuntimeName:
        """What may serve the version."""
        return "onnx" if self.passed else "native"


def not_exported(reason: str) -> ParityReport:
    """The report when there is nothing to compare: the fitted model serves, for `reason`."""
    return ParityReport(passed=False, reason=reason)


def compare_answers(fitted: Predictions, exported: Predictions) -> ParityReport:
    """Passed if every label is equal and every score is within 1e-4.

    The scores of a classifier are its probabilities; those of a regression are measured in standard deviations of
    the fitted model's own predictions, so that the unit of the target does not matter.
    """
    allowed = SCORE_TOLERANCE * (1.0 if fitted.probabilities is not None else _spread(fitted.values))
    largest = _largest_difference(fitted, exported)
    differing = int(np.sum(fitted.values != exported.values)) if fitted.probabilities is not None else 0
    # not `largest > allowed`: a NaN is no parity
    passed = differing == 0 and largest <= allowed
    label = f"{differing} of {len(fitted.values)} labels differ and " if differing else ""
    relation = "within" if largest <= allowed else "more than"
    return ParityReport(
        passed=passed,
        reason=f"{label}the largest difference on {len(fitted.values)} holdout rows is {largest:.2g}, {relation} {allowed:.2g}",
        rows=len(fitted.values),
        largest_difference=largest,
        allowed_difference=allowed,
        labels_differing=differing,
    )


def _spread(values: np.ndarray) -> float:
    spread = float(np.std(values.astype(float)))
    return spread or float(np.max(np.abs(values.astype(float)))) or 1.0


def _largest_difference(fitted: Predictions, exported: Predictions) -> float:
    if fitted.probabilities is not None:
        assert exported.probabilities is not None
        return float(np.max(np.abs(fitted.probabilities - exported.probabilities)))
    return float(np.max(np.abs(fitted.values.astype(float) - exported.values.astype(float))))
