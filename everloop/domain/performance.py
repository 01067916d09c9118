"""Performance of the live model on a window whose labels have arrived, against the loss it was validated with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import stats

from everloop.domain.metrics import LossSummary, score, summarize
from everloop.domain.monitor_spec import MonitorSpec
from everloop.domain.spec import MetricName
from everloop.domain.spec_values import Frozen

LOSS_SHARE = 0.3  # of the false alarms that the spec allows; drift and slow decay have the rest


class PerformanceReport(Frozen):
    """What the labels of a window say about the champion.

    `low` to `high` is the 95 % interval of the window's metric; means and standard errors are those of the per-row loss, and
    the labelled rows are worth `effective_rows` independent ones.
    """

    verdict: Literal["degraded", "ok", "undetermined"]
    reason_code: Literal["loss_rose", "loss_within_margin", "labels_missing", "too_few_rows", "loss_undefined"]
    reason: str
    rows: int
    labelled: int
    metric: float | None = None
    baseline: float | None = None
    increase: float | None = None
    p_value: float | None = None
    low: float | None = None
    high: float | None = None
    loss_mean: float | None = None
    loss_se: float | None = None
    effective_rows: float | None = None
    baseline_mean: float | None = None
    baseline_se: float | None = None
    lag_seconds: float | None = None

    @property
    def coverage(self) -> float:
        """Share of the window's rows whose labels have arrived, 0 to 1."""
        return self.labelled / self.rows if self.rows else 0.0


def score_window(
    losses: np.ndarray,
    baseline: LossSummary,
    *,
    rows: int,
    metric: MetricName,
    policy: MonitorSpec,
    before: Sequence[PerformanceReport] = (),
    lag_seconds: float | None = None,
) -> PerformanceReport:
    """Whether the losses (labelled,), in time order, of a window of `rows` rows stand above the champion's `baseline`.

    `before` are the reports of the version's earlier windows. Degraded: the mean rose by more than `max_loss_increase`, and
    a one-sided t-test with effective sample sizes is significant at 0.3 of the policy's false alarms: against the validated
    losses, or against these with those of the windows that were ok (Bonferroni over the two). Too few rows or labels:
    undetermined.
    """
    if (untested := _without_test(losses, rows, policy)) is not None:
        return untested.model_copy(update={"lag_seconds": lag_seconds})
    found, validated = _as_dependent(summarize(losses), baseline)
    p_value, baseline_se = compare_means(found, validated)
    increase, against = _increase(found, validated), f"{baseline.mean:.4g} at validation"
    calm = [report for report in before if report.verdict == "ok" and report.effective_rows]
    if calm:
        known = _with_calm(validated, calm)
        found_like = found.model_copy(update={"design_effect": max(found.design_effect, known.design_effect)})
        other = compare_means(found_like, known)[0]
        if other < p_value:
            p_value, increase = other, _increase(found, known)
            against = f"{known.mean:.4g} at validation and in {len(calm)} calm windows since"
        p_value = min(1.0, 2 * p_value)
    degraded = p_value < LOSS_SHARE * policy.false_alarms and increase > policy.max_loss_increase
    low, high = interval_of(metric, found)
    return PerformanceReport(
        verdict="degraded" if degraded else "ok",
        reason_code="loss_rose" if degraded else "loss_within_margin",
        reason=(
            f"mean loss {found.mean:.4g} against {against}: {increase:+.0%} "
            f"(allowed {policy.max_loss_increase:+.0%}), p = {p_value:.2g}"
        ),
        rows=rows,
        labelled=len(losses),
        metric=score(metric, losses),
        baseline=float(np.sqrt(baseline.mean)) if metric == "rmse" else baseline.mean,
        increase=increase,
        p_value=p_value,
        low=low,
        high=high,
        loss_mean=found.mean,
        loss_se=found.standard_error,
        effective_rows=found.effective_n,
        baseline_mean=baseline.mean,
        baseline_se=baseline_se,
        lag_seconds=lag_seconds,
    )


def compare_means(found: LossSummary, baseline: LossSummary) -> tuple[float, float]:
    """The one-sided p-value that `found` is not above `baseline`, and the standard error of the baseline's mean under it.

    Student's t-test (1908) with effective sample sizes. If nothing changed, both have one spread, and the pooled one is what
    is known of it: losses are skewed, so a baseline that is low by chance also looks more certain than it is (Welch's test
    believes it).
    """
    n, m = max(found.effective_n, 2.0), max(baseline.effective_n, 2.0)
    spread = float(np.sqrt(((n - 1) * found.std**2 + (m - 1) * baseline.std**2) / (n + m - 2)))
    if spread == 0:
        return (0.0 if found.mean > baseline.mean else 1.0), 0.0
    test = stats.ttest_ind_from_stats(found.mean, spread, n, baseline.mean, spread, m, alternative="greater")
    return float(test.pvalue), spread / float(np.sqrt(m))


def interval_of(metric: MetricName, found: LossSummary) -> tuple[float, float]:
    """The 95 % interval of the metric by Student's t over the effective rows; of rmse, the root of that of its squares."""
    half = float(stats.t.ppf(0.975, max(found.effective_n - 1, 1.0))) * found.standard_error
    low, high = max(found.mean - half, 0.0), found.mean + half
    return (float(np.sqrt(low)), float(np.sqrt(high))) if metric == "rmse" else (low, high)


def _increase(found: LossSummary, baseline: LossSummary) -> float:
    return found.mean / baseline.mean - 1 if baseline.mean > 0 else float(found.mean > 0)


def _as_dependent(found: LossSummary, baseline: LossSummary) -> tuple[LossSummary, LossSummary]:
    """Both with the larger of their design effects: a short sample hardly shows how its rows depend on each other."""
    larger = {"design_effect": max(found.design_effect, baseline.design_effect)}
    return found.model_copy(update=larger), baseline.model_copy(update=larger)


def _with_calm(validated: LossSummary, calm: Sequence[PerformanceReport]) -> LossSummary:
    """The validated losses together with those of the `calm` windows.

    Where windows scatter more than their standard errors say (Cochran's Q, 1954), all rows are worth less by as much.
    """
    parts = [(validated.n, validated.mean, validated.std, validated.effective_n)]
    for report in calm:
        effective = report.effective_rows or 1.0
        parts.append((report.labelled, report.loss_mean or 0.0, (report.loss_se or 0.0) * effective**0.5, effective))
    n, means, spreads, effective_n = np.array(parts, dtype=float).T
    mean = float(np.average(means, weights=n))
    variance = float(np.average(spreads**2, weights=effective_n))
    scatter = float((effective_n * (means - mean) ** 2).sum() / variance / (len(parts) - 1)) if variance > 0 else 1.0
    worth = float(effective_n.sum()) / max(scatter, 1.0)
    total = int(n.sum())
    return LossSummary(n=total, mean=mean, std=variance**0.5, design_effect=total / min(worth, total))


def _without_test(losses: np.ndarray, rows: int, policy: MonitorSpec) -> PerformanceReport | None:
    """The report on losses that cannot be tested, None if they can."""
    labelled = len(losses)
    verdict: Literal["degraded", "undetermined"] = "undetermined"
    code: Literal["too_few_rows", "labels_missing", "loss_undefined"]
    if rows < policy.min_rows:
        code = "too_few_rows"
        reason = f"{rows:,} rows of the champion in the window, {policy.min_rows:,} are required"
    elif labelled < policy.min_label_coverage * rows or labelled < 2:
        code, required = "labels_missing", policy.min_label_coverage
        reason = f"{labelled / rows:.0%} of the window's labels have arrived, {required:.0%} are required"
    elif not np.isfinite(losses).all():
        verdict, code = "degraded", "loss_undefined"
        reason = f"the loss of {int((~np.isfinite(losses)).sum()):,} of {labelled:,} labelled rows is no finite number"
    else:
        return None
    return PerformanceReport(verdict=verdict, reason_code=code, reason=reason, rows=rows, labelled=labelled)
