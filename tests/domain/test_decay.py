from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from everloop.domain.decay import DECAY_SHARE, WEIGHT, slow_decay
from everloop.domain.evidence import disjoint
from everloop.domain.metrics import LossSummary, summarize
from everloop.domain.monitor_spec import MonitorSpec
from everloop.domain.performance import PerformanceReport, score_window
from tests.domain.examples import take

POLICY = MonitorSpec(min_rows=100, max_loss_increase=0.1)
ROWS = 2000


def losses(rng: np.random.Generator, mean: float = 1.0, rows: int = ROWS) -> np.ndarray:
    return rng.gamma(4, mean / 4, rows)


def scored(values: np.ndarray, baseline: LossSummary, policy: MonitorSpec = POLICY) -> PerformanceReport:
    return score_window(values, baseline, rows=len(values), metric="mae", policy=policy)


def report(
    mean: float | None, *, error: float = 0.02, baseline_error: float = 0.0, **changes: Any
) -> PerformanceReport:
    return PerformanceReport(
        **{
            "verdict": "ok",
            "reason_code": "loss_within_margin",
            "reason": "",
            "rows": ROWS,
            "labelled": ROWS,
            "loss_mean": mean,
            "loss_se": error,
            "baseline_mean": 1.0,
            "baseline_se": baseline_error,
            **changes,
        }
    )


def test_the_average_is_roberts_with_the_exact_limits_of_lucas_and_saccucci() -> None:
    """Started at the baseline, z_t = λx_t + (1-λ)z_{t-1} has variance λ/(2-λ)·(1-(1-λ)^2t)·σ²; ours is z_t over 1-(1-λ)^t."""
    means, z = [1.1, 1.0, 1.3, 1.2, 1.4], 0.0
    for mean in means:
        z = WEIGHT * (mean - 1) + (1 - WEIGHT) * z
    share = 1 - (1 - WEIGHT) ** 5
    spread = 0.02 * np.sqrt(WEIGHT / (2 - WEIGHT) * (1 - (1 - WEIGHT) ** 10)) / share
    policy = POLICY.model_copy(update={"max_loss_increase": 0.0})
    found = slow_decay([report(mean) for mean in means], policy=policy)
    assert found.ewma == pytest.approx(1 + z / share)
    assert found.limit == pytest.approx(1 + stats.norm.isf(DECAY_SHARE * 0.01) * spread)
    assert (found.verdict, found.windows) == ("decaying", 5)


def test_the_error_of_the_baseline_does_not_average_out() -> None:
    policy = POLICY.model_copy(update={"max_loss_increase": 0.0})
    many = slow_decay([report(1.0, baseline_error=0.05)] * 50, policy=policy)
    assert many.limit is not None
    assert many.limit > 1 + stats.norm.isf(DECAY_SHARE * 0.01) * 0.05


def test_a_rise_of_less_than_half_of_what_is_allowed_is_no_decay_however_certain() -> None:
    assert slow_decay([report(1.049, error=1e-4)] * 20, policy=POLICY).verdict == "ok"
    assert slow_decay([report(1.051, error=1e-4)] * 20, policy=POLICY).verdict == "decaying"


def test_a_loss_that_falls_is_no_decay() -> None:
    found = slow_decay([report(0.5)] * 20, policy=POLICY)
    assert (found.verdict, found.increase) == ("ok", pytest.approx(-0.5))


def test_two_matured_windows_are_undetermined_and_unscored_ones_do_not_count() -> None:
    waiting = report(None, verdict="undetermined", reason_code="labels_missing")
    found = slow_decay([report(2.0), waiting, report(2.0), waiting], policy=POLICY)
    assert (found.verdict, found.windows, found.ewma) == ("undetermined", 2, None)
    assert found.reason == "2 matured windows of this version, 3 are required to see slow decay"
    assert slow_decay([report(2.0), waiting, report(2.0), report(2.0)], policy=POLICY).verdict == "decaying"
    assert slow_decay([], policy=POLICY).verdict == "undetermined"


@pytest.mark.parametrize("rows", [200, 2000])
def test_at_most_one_of_a_thousand_unchanged_windows_decays(rows: int) -> None:
    alarms, windows = 0, 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        baseline = summarize(losses(rng, rows=1000))
        reports = [scored(losses(rng, rows=rows), baseline) for _ in range(50)]
        alarms += sum(slow_decay(reports[: t + 1], policy=POLICY).verdict == "decaying" for t in range(50))
        windows += 50
    assert alarms <= windows / 1000


def first(verdicts: list[bool]) -> int:
    return verdicts.index(True) + 1 if True in verdicts else len(verdicts) + 1


def test_a_loss_that_grows_by_one_percent_a_window_is_seen_well_before_a_single_window_shows_it() -> None:
    slow, single = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        baseline = summarize(losses(rng, rows=5000))
        reports = [scored(losses(rng, 1 + 0.01 * t), baseline) for t in range(1, 31)]
        slow.append(first([slow_decay(reports[:t], policy=POLICY).verdict == "decaying" for t in range(1, 31)]))
        single.append(first([found.verdict == "degraded" for found in reports]))
    assert np.median(slow) <= np.median(single) - 2
    assert np.mean(np.array(slow) < np.array(single)) > 0.75


def test_windows_that_share_rows_by_merging_count_once() -> None:
    """Each was merged with the two before it, as far as there are any."""

    def seen(position: int, merged: int) -> Any:
        return take(position, ".").model_copy(update={"merged_windows": merged, "performance": report(position / 10)})

    earlier = [seen(position, min(position, 2)) for position in range(6)]
    assert [found.loss_mean for found in disjoint(earlier, 0)] == [0.2, 0.5]
    assert [found.loss_mean for found in disjoint(earlier, 1)] == [0.1, 0.4]
    assert disjoint([], 2) == []
