"""Replay: what never retraining, retraining all the time, and policies would have done on a model's own history."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from everloop.domain.metrics import score
from everloop.domain.monitor_spec import MonitorSpec
from everloop.domain.replay_alarms import AlarmCount, count_alarms, is_alarm
from everloop.domain.replay_fits import Fits
from everloop.domain.replay_policy import Compare, PolicyRun, Training, replay_policy
from everloop.domain.replay_strategies import StrategyRun, always_retrain, never_retrain
from everloop.domain.replay_timeline import Timeline
from everloop.domain.replay_training import Trainer
from everloop.domain.spec_values import Frozen

NEVER, ALWAYS_ALL, ALWAYS_RECENT = "never", "always_all", "always_recent"
Step = Callable[[str, int, int], None]


class PolicyResult(Frozen):
    """What one policy came to. `gain_share` is None where retraining all the time gains nothing over never retraining.

    A window is degraded if its mean loss is above that its champion was validated with by more than the policy's
    `max_loss_increase`.
    """

    name: str
    metric: float
    gain_share: float | None
    retrains: int
    retrain_share: float | None
    rejected: int
    rows_trained: int
    seconds_trained: float
    windows_degraded: int
    rows_degraded: int
    alarms: AlarmCount | None
    trainings: tuple[dict[str, Any], ...]
    changes: dict[str, Any]


class WindowResult(Frozen):
    """One window under every strategy; `metric_policy`, `action`, `reason_codes` and `version` are of the first policy."""

    index: int
    start: str
    end: str
    rows: int
    metric_never: float
    metric_always_all: float
    metric_always_recent: float
    metric_policy: float
    action: str
    reason_codes: tuple[str, ...]
    version: str
    policies: dict[str, dict[str, Any]]


class ReplayReport(Frozen):
    """Everything a replay found; keys without a policy's name are of the first policy."""

    model: str
    metric: str
    configuration: str
    rows: int
    initial_rows: int
    recent_rows: int
    policy: str
    metric_never: float
    metric_always_all: float
    metric_always_recent: float
    metric_policy: float
    retrains_policy: int
    retrains_always: int
    gain_share: float | None
    retrain_share: float | None
    rejected: int
    rows_trained: dict[str, int]
    seconds_trained: dict[str, float]
    windows_degraded: dict[str, int]
    rows_degraded: dict[str, int]
    alarms: AlarmCount | None
    policies: tuple[PolicyResult, ...]
    windows: tuple[WindowResult, ...]


def replay_history(
    timeline: Timeline,
    trainer: Trainer,
    fits: Fits,
    policies: Mapping[str, MonitorSpec],
    *,
    compare: Compare | None = None,
    changes: Sequence[int] = (),
    alarm_within: int = 10,
    on_step: Step = lambda _what, _done, _all: None,
) -> ReplayReport:
    """The report over `timeline` of the three plain strategies and `policies`, of which there is at least one."""
    first = trainer.first(timeline.initial)
    runs: dict[str, StrategyRun] = {
        NEVER: never_retrain(timeline, first),
        ALWAYS_ALL: always_retrain(timeline, first, fits, history="all", on_step=_of(on_step, "always, all history")),
        ALWAYS_RECENT: always_retrain(timeline, first, fits, history="recent", on_step=_of(on_step, "always, recent")),
    }
    decided = {
        name: replay_policy(timeline, trainer, first, policy, compare=compare, on_step=_of(on_step, f"policy {name}"))
        for name, policy in policies.items()
    }
    metric = trainer.subject.spec.gates.metric
    found = {name: score(metric, run.losses) for name, run in (runs | decided).items()}
    results = tuple(
        _result(name, decided[name], policies[name], timeline, found, runs[ALWAYS_ALL].retrains, changes, alarm_within)
        for name in policies
    )
    of_never = _degraded(
        runs[NEVER], timeline, [first.baseline.mean] * len(timeline.stretches), policies[results[0].name]
    )
    return ReplayReport(
        model=trainer.subject.spec.name,
        metric=metric,
        configuration=trainer.subject.configuration.title,
        rows=timeline.rows,
        initial_rows=timeline.initial,
        recent_rows=timeline.recent,
        policy=results[0].name,
        metric_never=found[NEVER],
        metric_always_all=found[ALWAYS_ALL],
        metric_always_recent=found[ALWAYS_RECENT],
        metric_policy=results[0].metric,
        retrains_policy=results[0].retrains,
        retrains_always=runs[ALWAYS_ALL].retrains,
        gain_share=results[0].gain_share,
        retrain_share=results[0].retrain_share,
        rejected=results[0].rejected,
        rows_trained={name: run.rows_trained for name, run in (runs | decided).items()},
        seconds_trained={name: round(run.seconds_trained, 3) for name, run in (runs | decided).items()},
        windows_degraded={NEVER: of_never[0]} | {result.name: result.windows_degraded for result in results},
        rows_degraded={NEVER: of_never[1]} | {result.name: result.rows_degraded for result in results},
        alarms=results[0].alarms,
        policies=results,
        windows=_windows(timeline, trainer, runs, decided),
    )


def gain_share(never: float, always: Sequence[float], policy: float) -> float | None:
    """The share of what the better always-strategy gains over never retraining that `policy` reaches, None if it gains nothing."""
    best = min(always)
    return (never - policy) / (never - best) if best < never else None


def _result(
    name: str,
    run: PolicyRun,
    policy: MonitorSpec,
    timeline: Timeline,
    found: Mapping[str, float],
    always: int,
    changes: Sequence[int],
    within: int,
) -> PolicyResult:
    windows, rows = _degraded(run, timeline, run.validated, policy)
    alarmed = [is_alarm(decision) for decision in run.decisions]
    shipped = MonitorSpec().model_dump(mode="json")
    return PolicyResult(
        name=name,
        metric=found[name],
        gain_share=gain_share(found[NEVER], (found[ALWAYS_ALL], found[ALWAYS_RECENT]), found[name]),
        retrains=run.retrains,
        retrain_share=run.retrains / always if always else None,
        rejected=run.rejected,
        rows_trained=run.rows_trained,
        seconds_trained=round(run.seconds_trained, 3),
        windows_degraded=windows,
        rows_degraded=rows,
        alarms=count_alarms(alarmed, changes, within=within) if changes else None,
        trainings=tuple(_training(training) for training in run.trainings),
        changes={key: value for key, value in policy.model_dump(mode="json").items() if value != shipped[key]},
    )


def _training(training: Training) -> dict[str, Any]:
    return {**vars(training), "seconds_trained": round(training.seconds_trained, 3)}


def _degraded(run: StrategyRun, timeline: Timeline, validated: Sequence[float], policy: MonitorSpec) -> tuple[int, int]:
    """Windows, and rows in them, whose mean loss is above the validated one by more than the policy allows."""
    rows = [
        stretch.last - stretch.first
        for stretch, losses, before in zip(timeline.stretches, _by_window(run.losses, timeline), validated, strict=True)
        if losses.mean() > before * (1 + policy.max_loss_increase)
    ]
    return len(rows), sum(rows)


def _by_window(losses: np.ndarray, timeline: Timeline) -> list[np.ndarray]:
    begin = timeline.stretches[0].first
    return [losses[stretch.first - begin : stretch.last - begin] for stretch in timeline.stretches]


def _windows(
    timeline: Timeline, trainer: Trainer, runs: Mapping[str, StrategyRun], decided: Mapping[str, PolicyRun]
) -> tuple[WindowResult, ...]:
    metric = trainer.subject.spec.gates.metric
    scores = {
        name: [score(metric, losses) for losses in _by_window(run.losses, timeline)]
        for name, run in {**runs, **decided}.items()
    }
    lead = next(iter(decided))
    return tuple(
        WindowResult(
            index=at,
            start=stretch.window.start,
            end=stretch.window.end,
            rows=stretch.window.rows,
            metric_never=scores[NEVER][at],
            metric_always_all=scores[ALWAYS_ALL][at],
            metric_always_recent=scores[ALWAYS_RECENT][at],
            metric_policy=scores[lead][at],
            action=decided[lead].decisions[at].action,
            reason_codes=decided[lead].decisions[at].reason_codes,
            version=decided[lead].versions[at],
            policies={
                name: {
                    "metric": scores[name][at],
                    "action": run.decisions[at].action,
                    "reason_codes": list(run.decisions[at].reason_codes),
                    "reason": run.decisions[at].reason,
                    "version": run.versions[at],
                    "drifted": list(run.decisions[at].drift.drifted),
                }
                for name, run in decided.items()
            },
        )
        for at, stretch in enumerate(timeline.stretches)
    )


def _of(on_step: Step, what: str) -> Callable[[int, int], None]:
    return lambda done, whole: on_step(what, done, whole)
