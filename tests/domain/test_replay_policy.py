"""Tests of everloop/domain/replay_policy.py and replay_training.py: what a policy does in simulated time, and on what it may rest."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from everloop.domain.drift import DriftReport
from everloop.domain.errors import NotEnoughData
from everloop.domain.monitor_spec import MonitorSpec
from everloop.domain.replay_policy import replay_policy
from everloop.domain.replay_strategies import always_retrain, never_retrain
from everloop.domain.replay_training import Trained
from everloop.domain.spec import ModelSpec
from tests.domain.replay_examples import (
    CHANGE,
    EAGER,
    NOTHING,
    a_changing_history,
    a_replay_spec,
    a_run,
    a_stage,
)


@pytest.fixture(name="spec")
def a_spec_with_time() -> ModelSpec:
    return a_replay_spec()


def test_a_policy_that_ignores_everything_equals_never_retraining(spec: ModelSpec) -> None:
    rows = a_changing_history()
    timeline, trainer, _ = a_stage(rows, spec)
    first = trainer.first(timeline.initial)
    run = replay_policy(timeline, trainer, first, NOTHING)
    assert run.retrains == 0
    np.testing.assert_array_equal(run.losses, never_retrain(timeline, first).losses)


def test_a_change_is_answered_by_a_retraining_that_lowers_the_loss(spec: ModelSpec) -> None:
    timeline, run, _ = a_run(a_changing_history(), spec, EAGER)
    changed = next(one.index for one in timeline.stretches if one.first <= CHANGE < one.last)
    fired = [training.window for training in run.trainings]
    assert fired
    assert fired[0] >= changed
    assert any(training.released for training in run.trainings)
    assert run.losses[-40:].mean() < 0.6 * run.losses[CHANGE - timeline.initial :][:40].mean()


def test_a_challenger_serves_from_the_window_after_the_one_that_asked_for_it(spec: ModelSpec) -> None:
    _, run, _ = a_run(a_changing_history(), spec, EAGER)
    at = next(training.window for training in run.trainings if training.released)
    assert run.versions[at] == "1"
    assert run.versions[at + 1] == next(training.version for training in run.trainings if training.released)


def test_a_rejected_challenger_is_counted_and_leaves_the_champion(spec: ModelSpec) -> None:
    strict = spec.model_copy(update={"gates": spec.gates.model_copy(update={"worst_allowed": 1e-9})})
    _, run, _ = a_run(a_changing_history(), strict, EAGER)
    assert run.retrains == run.rejected > 0
    assert set(run.versions) == {"1"}
    assert "not released (fail)" in (run.decisions[run.trainings[0].window].outcome or "")


@pytest.mark.parametrize("delay", [0, 3, "30h"])
def test_no_fit_learns_from_a_label_that_has_not_arrived(spec: ModelSpec, delay: int | str) -> None:
    timeline, run, fitter = a_run(a_changing_history(), spec, EAGER, label_delay=delay)
    assert run.trainings
    arrived = dict(enumerate(timeline.known))
    assert all(training.known == arrived[training.window] for training in run.trainings)
    assert max(request.last for request in fitter.requests) <= max(training.known for training in run.trainings) - 40


@pytest.mark.parametrize("delay", [0, 3])
def test_what_is_decided_is_the_same_whatever_labels_come_later(spec: ModelSpec, delay: int) -> None:
    rows = a_changing_history()
    timeline, run, _ = a_run(rows, spec, EAGER, label_delay=delay)
    half = len(timeline.stretches) // 2 + 3
    unknown = timeline.known[half]
    other = rows.assign(y=rows["y"].where(rows.index < unknown, -1000.0))
    _, again, _ = a_run(other, spec, EAGER, label_delay=delay)
    assert [t for t in run.trainings if t.window <= half] == [t for t in again.trainings if t.window <= half]
    assert run.trainings[0].window <= half


def test_a_window_is_scored_only_once_its_labels_are_there(spec: ModelSpec) -> None:
    rows = a_changing_history(change=10_000)
    _, run, _ = a_run(rows, spec, EAGER, label_delay=2)
    assert [decision.performance.verdict for decision in run.decisions[-2:]] == ["undetermined"] * 2
    assert {decision.performance.verdict for decision in run.decisions[:-2]} == {"ok"}


def test_windows_that_are_too_small_are_merged_with_those_before_them(spec: ModelSpec) -> None:
    policy = EAGER.model_copy(update={"min_rows": 100})
    _, run, _ = a_run(a_changing_history(change=10_000), spec, policy)
    assert [decision.merged_windows for decision in run.decisions[:4]] == [0, 1, 2, 2]
    assert [decision.performance.rows for decision in run.decisions[:4]] == [40, 80, 120, 120]
    assert run.decisions[0].performance.reason_code == "too_few_rows"


def test_growth_is_measured_from_the_rows_known_when_the_last_retraining_was_decided(spec: ModelSpec) -> None:
    policy = NOTHING.model_copy(update={"on_growth": 0.5})
    timeline, run, _ = a_run(a_changing_history(change=10_000), spec, policy)
    known = [timeline.initial, *(training.known for training in run.trainings)]
    fitted = timeline.initial - spec.gates.holdout_rows
    assert known[1] == next(rows for rows in timeline.known if rows - timeline.initial >= 0.5 * fitted)
    assert len(known) > 2
    assert all(after - before >= 0.5 * fitted for before, after in pairwise(known))


def test_works_without_a_time_column() -> None:
    spec = a_replay_spec(time=None, data={"source": "toy.csv", "history": ["all", "10%"], "include_served": False})
    _, run, _ = a_run(a_changing_history().drop(columns="t"), spec, EAGER)
    assert any(training.released for training in run.trainings)


def test_drift_is_compared_with_the_champion_of_the_moment(spec: ModelSpec) -> None:
    timeline, trainer, _ = a_stage(a_changing_history(), spec)
    asked: list[tuple[int, int]] = []

    def compare(model: Trained, first: int, _last: int, _policy: MonitorSpec) -> tuple[DriftReport, int]:
        asked.append((model.fitted.request.last, first))
        return DriftReport(verdict="no drift", reason="-", alpha=0, rows=1, reference_rows=1, tests=()), 1

    run = replay_policy(timeline, trainer, trainer.first(timeline.initial), EAGER, compare=compare)
    assert all(learnt <= first for learnt, first in asked)
    assert len({learnt for learnt, _ in asked}) == 1 + sum(training.released for training in run.trainings)


def test_the_holdout_is_never_learnt_from(spec: ModelSpec) -> None:
    timeline, trainer, fitter = a_stage(a_changing_history(), spec)
    first = trainer.first(timeline.initial)
    trainer.challenge(500, first)
    assert max(request.last for request in fitter.requests) == 500 - spec.gates.holdout_rows


def test_the_same_question_is_answered_once(spec: ModelSpec) -> None:
    timeline, trainer, fitter = a_stage(a_changing_history(), spec)
    first = trainer.first(timeline.initial)
    one = trainer.challenge(500, first)
    asked = len(fitter.requests)
    assert trainer.challenge(500, first) is one
    assert len(fitter.requests) == asked


def test_too_few_initial_rows_are_refused(spec: ModelSpec) -> None:
    _, trainer, _ = a_stage(a_changing_history(), spec)
    with pytest.raises(NotEnoughData, match="70 labelled rows, 40 of them for the holdout, leave 30 to train on"):
        trainer.first(70)


@pytest.mark.parametrize(("history", "first_rows"), [("all", [0, 0, 0]), ("recent", [40, 80, 120])])
def test_always_retraining_learns_from_all_or_the_newest_labelled_rows(
    spec: ModelSpec, history: str, first_rows: list[int]
) -> None:
    timeline, trainer, fitter = a_stage(a_changing_history(), spec)
    first = trainer.first(timeline.initial)
    run = always_retrain(timeline, first, fitter, history=history)  # type: ignore[arg-type]
    made = fitter.requests[1:]
    assert run.retrains == len(made) == len(timeline.stretches) - 1
    assert [request.first for request in made[:3]] == first_rows
    assert [request.last for request in made] == list(timeline.known[:-1])


def test_always_retraining_waits_for_labels(spec: ModelSpec) -> None:
    timeline, trainer, fitter = a_stage(a_changing_history(), spec, label_delay=4)
    run = always_retrain(timeline, trainer.first(timeline.initial), fitter, history="all")
    assert run.retrains == len(timeline.stretches) - 5
    assert len(run.losses) == timeline.rows - timeline.initial
