"""Tests of everloop/domain/replay_tuning.py: chosen on the early part, reported on the later one."""

from __future__ import annotations

import numpy as np
import pytest

from everloop.domain.errors import NotEnoughData
from everloop.domain.monitor_spec import MonitorSpec
from everloop.domain.replay_tuning import candidates, paired_interval, tune_policy
from tests.domain.replay_examples import a_changing_history, a_replay_spec, a_stage

POLICY = MonitorSpec(min_rows=20, max_rejections=100)
GRID = [
    POLICY.model_copy(update={"on_growth": growth, "persistence": persistence, "on_degradation": reaction})
    for growth in (0.0, 0.2)
    for persistence in ("1 of 1", "2 of 3")
    for reaction in ("retrain", "ignore")
]


def test_the_choice_does_not_see_the_later_part() -> None:
    rows = a_changing_history(change=400)
    timeline, trainer, _ = a_stage(rows, a_replay_spec())
    found = tune_policy(timeline, trainer, POLICY, share=0.6, grid=GRID)
    later = timeline.stretches[found.windows_early].first
    other = rows.assign(y=rows["y"].where(rows.index < later, 1000.0))
    timeline, trainer, _ = a_stage(other, a_replay_spec())
    again = tune_policy(timeline, trainer, POLICY, share=0.6, grid=GRID)
    assert again.chosen == found.chosen
    assert again.early == found.early
    assert again.late != found.late


def test_where_the_world_changes_a_policy_that_retrains_is_chosen_and_proves_itself_later() -> None:
    timeline, trainer, _ = a_stage(a_changing_history(change=400), a_replay_spec())
    deaf = POLICY.model_copy(update={"on_degradation": "ignore", "on_growth": 0.0})
    found = tune_policy(timeline, trainer, deaf, share=0.6, most_retrains=6, grid=GRID)
    assert found.early["chosen"].retrains > 0
    assert next(one for one in found.comparisons if one.other == "current").verdict == "better"


@pytest.mark.parametrize("allowed", [0, 1, 2])
def test_no_more_retrainings_are_chosen_than_allowed(allowed: int) -> None:
    timeline, trainer, _ = a_stage(a_changing_history(change=400), a_replay_spec())
    found = tune_policy(timeline, trainer, POLICY, share=0.6, most_retrains=allowed, grid=GRID)
    assert found.early["chosen"].retrains <= allowed


def test_where_nothing_changes_the_cheapest_policy_is_chosen() -> None:
    timeline, trainer, _ = a_stage(a_changing_history(3000, change=10_000), a_replay_spec())
    found = tune_policy(timeline, trainer, POLICY, share=0.6, grid=GRID)
    assert found.early["chosen"].retrains == 0


def test_the_grid_varies_the_knobs_and_keeps_the_rest() -> None:
    timeline, _, _ = a_stage(a_changing_history(), a_replay_spec())
    current = MonitorSpec(min_rows=77, on_drift="ignore")
    found = candidates(current, timeline)
    assert len(found) == len({policy.model_dump_json() for policy in found}) == 64
    assert {(policy.min_rows, policy.on_drift) for policy in found} == {(77, "ignore")}


def test_too_few_windows_to_choose_or_report_are_refused() -> None:
    timeline, trainer, _ = a_stage(a_changing_history(), a_replay_spec(), windows=10)
    with pytest.raises(NotEnoughData, match="6 windows to choose on and 4 to report on, 8 are required in each part"):
        tune_policy(timeline, trainer, MonitorSpec(), share=0.6)


def test_the_interval_covers_the_mean_of_independent_differences_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = [low <= 0 <= high for low, high in (paired_interval(rng.normal(0, 1, 40)) for _ in range(300))]
    assert 0.8 < np.mean(covered) < 0.95  # 0.9 less what a percentile bootstrap of 40 windows loses


def test_the_interval_is_wider_where_neighbours_are_alike() -> None:
    steps = np.random.default_rng(1).normal(0, 1, 200)
    alike = np.convolve(steps, np.ones(6) / np.sqrt(6), mode="valid")
    shuffled = np.random.default_rng(2).permutation(alike)
    low, high = paired_interval(alike)
    low_shuffled, high_shuffled = paired_interval(shuffled)
    assert high - low > 1.3 * (high_shuffled - low_shuffled)
