"""A retraining policy in simulated time: the monitor's own decisions, window after window, and what became of them.

Features and losses of a window are looked at as the monitor does; what only a live system has (usage, dependencies, the
quality of what clients send) and slices, which ask for a person but never retrain, are not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from everloop.domain.decay import slow_decay
from everloop.domain.decision import Past, RetrainingDecision, spell_of
from everloop.domain.drift import DriftReport
from everloop.domain.evidence import Evidence, Growth, disjoint
from everloop.domain.monitor_spec import MonitorSpec
from everloop.domain.performance import score_window
from everloop.domain.replay_strategies import StrategyRun
from everloop.domain.replay_timeline import Stretch, Timeline
from everloop.domain.replay_training import Trained, Trainer
from everloop.domain.retraining import decide

Compare = Callable[[Trained, int, int, MonitorSpec], tuple[DriftReport, int]]  # and the persistence it calls for
NOT_COMPARED = DriftReport(
    verdict="undetermined",
    reason="features are not compared in this replay",
    alpha=0,
    rows=0,
    reference_rows=0,
    tests=(),
)


@dataclass(frozen=True)
class Training:
    """One retraining that the policy asked for: after which window, on how many labelled rows, and what became of it."""

    window: int
    known: int
    version: str
    history: str | None
    released: bool
    reason: str
    rows_trained: int
    seconds_trained: float


@dataclass(frozen=True)
class PolicyRun(StrategyRun):
    """The losses under a policy, its decisions, one a window, its retrainings, and who served each window.

    `versions` and `validated` hold a value a window: the champion that served it, and the mean loss it was validated with.
    """

    decisions: tuple[RetrainingDecision, ...] = ()
    trainings: tuple[Training, ...] = ()
    versions: tuple[str, ...] = ()
    validated: tuple[float, ...] = ()

    @property
    def rejected(self) -> int:
        """Challengers that did not go live."""
        return sum(not training.released for training in self.trainings)


@dataclass
class _Live:
    """The champion of the moment and since which row it serves."""

    version: str
    model: Trained
    since: int


@dataclass
class _Loop:
    """What the loop goes by and what it remembers; decisions are by window, as stored ones are by id."""

    timeline: Timeline
    trainer: Trainer
    policy: MonitorSpec
    compare: Compare | None
    live: _Live
    trained_on: int
    decisions: dict[int, RetrainingDecision] = field(default_factory=dict)
    trainings: list[Training] = field(default_factory=list)
    undecided: list[Stretch] = field(default_factory=list)


def replay_policy(
    timeline: Timeline,
    trainer: Trainer,
    first: Trained,
    policy: MonitorSpec,
    *,
    compare: Compare | None = None,
    on_step: Callable[[int, int], None] = lambda _done, _all: None,
) -> PolicyRun:
    """What `policy` decides when each window closes, on what is known then, with everything that follows from it.

    A released challenger serves from the next window on. A window is decided again when labels of it arrive later.
    """
    loop = _Loop(
        timeline,
        trainer,
        policy,
        compare,
        live=_Live("1", first, timeline.stretches[0].first),
        trained_on=timeline.initial,
    )
    losses, versions, validated = [], [], []
    for stretch, known in zip(timeline.stretches, timeline.known, strict=True):
        losses.append(loop.live.model.fitted.losses_of(stretch.first, stretch.last))
        versions.append(loop.live.version)
        validated.append(loop.live.model.baseline.mean)
        loop.undecided.append(stretch)
        for pending in list(loop.undecided):
            _settle(loop, pending, stretch, known)
        on_step(stretch.index + 1, len(timeline.stretches))
    return PolicyRun(
        losses=np.concatenate(losses),
        retrains=len(loop.trainings),
        rows_trained=sum(training.rows_trained for training in loop.trainings),
        seconds_trained=sum(training.seconds_trained for training in loop.trainings),
        decisions=tuple(decision for _, decision in sorted(loop.decisions.items())),
        trainings=tuple(loop.trainings),
        versions=tuple(versions),
        validated=tuple(validated),
    )


def _settle(loop: _Loop, pending: Stretch, now: Stretch, known: int) -> None:
    """Afterwards the decision about `pending` is that of the moment `now`, and if it fires, it is acted on."""
    ordered = sorted(loop.decisions.items())
    before = [decision for index, decision in ordered if index < pending.index]
    evidence = _look(loop, pending, known, before)
    model, version = loop.trainer.subject.spec.name, loop.live.version
    fired = [decision for index, decision in ordered if index != pending.index and decision.is_fired]
    decision = decide(model, version, pending.window, evidence, policy=loop.policy, past=Past(before, fired))
    if decision.is_fired:
        decision = _retrain(loop, decision, now, known)
    loop.decisions[pending.index] = decision
    if decision.is_fired or known >= pending.last or evidence.performance.rows == 0:
        loop.undecided.remove(pending)


def _look(loop: _Loop, pending: Stretch, known: int, before: list[RetrainingDecision]) -> Evidence:
    """What is seen of the champion's rows in a window when the first `known` rows have their labels."""
    live, policy = loop.live, loop.policy
    begin, merged = _merge(pending, loop.timeline, live.since, policy.min_rows)
    others = disjoint(spell_of(live.version, before), merged)
    performance = score_window(
        live.model.fitted.losses_of(begin, max(begin, min(pending.last, known))),
        live.model.baseline,
        rows=pending.last - begin,
        metric=loop.trainer.subject.spec.gates.metric,
        policy=policy,
        before=others,
    )
    drift, persistence = NOT_COMPARED, 1
    if loop.compare is not None and begin < pending.last:
        drift, persistence = loop.compare(live.model, begin, pending.last, policy)
    return Evidence(
        drift=drift,
        drift_persistence=persistence,
        performance=performance,
        decay=slow_decay([*others, performance], policy=policy),
        growth=_growth(loop, known),
        merged_windows=merged,
    )


def _growth(loop: _Loop, known: int) -> Growth:
    fitted_rows = loop.live.model.fitted.rows
    return Growth(labelled_rows=known, at_last_training=loop.trained_on, fitted_rows=fitted_rows)


def _merge(stretch: Stretch, timeline: Timeline, since: int, min_rows: int) -> tuple[int, int]:
    """Where the champion's rows of this window begin, with windows before it until there are enough; and how many those are."""
    begin, merged = max(stretch.first, min(since, stretch.last)), 0
    while 0 < stretch.last - begin < min_rows and begin > since:
        merged += 1
        begin = max(since, timeline.stretches[stretch.index - merged].first)
    return begin, merged


def _retrain(loop: _Loop, decision: RetrainingDecision, now: Stretch, known: int) -> RetrainingDecision:
    challenge = loop.trainer.challenge(known, loop.live.model, loop.live.version)
    released = challenge.verdict == "pass" and challenge.model is not None
    version = str(len(loop.trainings) + 2)
    loop.trained_on = known
    loop.trainings.append(
        Training(
            window=now.index,
            known=known,
            version=version,
            history=challenge.model.history if challenge.model else None,
            released=released,
            reason=decision.headline if released else f"{decision.headline}; rejected: {challenge.reason}",
            rows_trained=challenge.rows_trained,
            seconds_trained=challenge.seconds_trained,
        )
    )
    if released and challenge.model is not None:
        loop.live = _Live(version, challenge.model, now.last)
        outcome = f"v{version} is released"
    else:
        outcome = f"v{version} is kept and not released ({challenge.verdict}): {challenge.reason}"
    return decision.model_copy(
        update={"outcome": outcome, "trained": True, "released": released, "rejected": not released}
    )
