"""Slow decay: a loss that creeps up over many windows, each of which passes on its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import stats

from everloop.domain.monitor_spec import MonitorSpec
from everloop.domain.performance import PerformanceReport
from everloop.domain.spec_values import Frozen

DECAY_SHARE = 0.02  # of the false alarms that the spec allows; decay retrains without persistence, so it gets little
WEIGHT = (
    0.2  # of the newest window; 0.05 to 0.25 are usual (Montgomery, Introduction to Statistical Quality Control, 9.2)
)
MIN_WINDOWS = 3
_FLOOR_SHARE = 0.5  # of max_loss_increase


class DecayReport(Frozen):
    """What the matured windows of one version say together: their weighted mean loss against the limit it may reach."""

    verdict: Literal["decaying", "ok", "undetermined"]
    reason: str
    windows: int
    ewma: float | None = None
    limit: float | None = None
    increase: float | None = None


def slow_decay(reports: Sequence[PerformanceReport], *, policy: MonitorSpec) -> DecayReport:
    """Whether the exponentially weighted mean loss (Roberts 1959) of one version's windows, oldest first, stands too high.

    Weights are normalised over the windows there are, which equals the exact limits of an average that starts at the
    baseline (Lucas & Saccucci 1990). The baseline's own error is common to all windows and does not average out. Decaying:
    above the limit at 0.02 of the policy's false alarms, and up by more than half of `max_loss_increase`.
    """
    scored = [report for report in reports if report.verdict != "undetermined" and report.loss_mean is not None]
    if len(scored) < MIN_WINDOWS:
        reason = f"{len(scored)} matured windows of this version, {MIN_WINDOWS} are required to see slow decay"
        return DecayReport(verdict="undetermined", reason=reason, windows=len(scored))
    baseline, baseline_se = scored[-1].baseline_mean or 0.0, scored[-1].baseline_se or 0.0
    means = np.array([report.loss_mean for report in scored], dtype=float)
    errors = np.array([report.loss_se or 0.0 for report in scored], dtype=float)
    weights = WEIGHT * (1 - WEIGHT) ** np.arange(len(scored))[::-1]
    weights /= weights.sum()
    ewma = float(weights @ means)
    error = float(np.sqrt(weights**2 @ errors**2 + baseline_se**2))
    significant = baseline + float(stats.norm.isf(DECAY_SHARE * policy.false_alarms)) * error
    limit = max(significant, baseline * (1 + _FLOOR_SHARE * policy.max_loss_increase))
    increase = ewma / baseline - 1 if baseline > 0 else float(ewma > 0)
    return DecayReport(
        verdict="decaying" if ewma > limit else "ok",
        reason=f"mean loss over {len(scored)} windows, newest first in weight, {ewma:.4g} against {baseline:.4g} at "
        f"validation: {increase:+.1%}; the limit is {limit:.4g}",
        windows=len(scored),
        ewma=ewma,
        limit=limit,
        increase=increase,
    )
