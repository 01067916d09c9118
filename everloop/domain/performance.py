"""Performance of the live model on a window whose labels have arrived, against the loss it was validated with."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy import stats

from everloop.domain.metrics import LossSummary, score, summarize
from everloop.domain.monitor_spec import MonitorSpec
from everloop.domain.spec import MetricName
from everloop.domain.spec_values import Frozen

ALPHA = 0.005


class PerformanceReport(Frozen):
    """What the labels of a window say about the champion."""

    verdict: Literal["degraded", "ok", "undetermined"]
    reason_code: Literal["loss_rose", "loss_within_margin", "labels_missing", "too_few_rows", "loss_undefined"]
    reason: str
    rows: int
    labelled: int
    metric: float | None = None
    baseline: float | None = None
    increase: float | None = None
    p_value: float | None = None

    @property
    def coverage(self) -> float:
        """Share of the window's rows whose labels have arrived, 0 to 1."""
        return self.labelled / self.rows if self.rows else 0.0


def score_window(
    losses: np.ndarray, baseline: LossSummary, *, rows: int, metric: MetricName, policy: MonitorSpec
) -> PerformanceReport:
    """Whether the losses (labelled,) of a window of `rows` rows stand above the champion's `baseline`.

    Degraded: a one-sided Welch test (Welch 1947) is significant at 0.005 and the mean rose by more than
    `max_loss_increase`. Too few rows or labels: undetermined.
    """
    labelled = len(losses)
    if rows < policy.min_rows:
        reason = f"{rows:,} rows of the champion in the window, {policy.min_rows:,} are required"
        return PerformanceReport(
            verdict="undetermined", reason_code="too_few_rows", reason=reason, rows=rows, labelled=labelled
        )
    if labelled < policy.min_label_coverage * rows or labelled < 2:
        reason = (
            f"{labelled / rows:.0%} of the window's labels have arrived, {policy.min_label_coverage:.0%} are required"
        )
        return PerformanceReport(
            verdict="undetermined", reason_code="labels_missing", reason=reason, rows=rows, labelled=labelled
        )
    if not np.isfinite(losses).all():
        reason = f"the loss of {int((~np.isfinite(losses)).sum()):,} of {labelled:,} labelled rows is no finite number"
        return PerformanceReport(
            verdict="degraded", reason_code="loss_undefined", reason=reason, rows=rows, labelled=labelled
        )
    found = summarize(losses)
    increase = found.mean / baseline.mean - 1 if baseline.mean > 0 else float(found.mean > 0)
    p_value = _welch(found, baseline)
    degraded = p_value < ALPHA and increase > policy.max_loss_increase
    return PerformanceReport(
        verdict="degraded" if degraded else "ok",
        reason_code="loss_rose" if degraded else "loss_within_margin",
        reason=(
            f"mean loss {found.mean:.4g} against {baseline.mean:.4g} at validation: {increase:+.0%} "
            f"(allowed {policy.max_loss_increase:+.0%}), p = {p_value:.2g}"
        ),
        rows=rows,
        labelled=labelled,
        metric=score(metric, losses),
        baseline=float(np.sqrt(baseline.mean)) if metric == "rmse" else baseline.mean,
        increase=increase,
        p_value=p_value,
    )


def _welch(found: LossSummary, baseline: LossSummary) -> float:
    if found.std == 0 and baseline.std == 0:
        return 0.0 if found.mean > baseline.mean else 1.0
    test = stats.ttest_ind_from_stats(
        found.mean, found.std, found.n, baseline.mean, baseline.std, baseline.n, equal_var=False, alternative="greater"
    )
    return float(test.pvalue)
