"""Tuning a policy on a history: chosen on the early windows, reported on the later ones that the choice never saw.

A policy decides each window on what is known then, so one replay from beginning to end serves both parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import product
from typing import Any, Literal

import numpy as np

from everloop.domain.errors import NotEnoughData
from everloop.domain.metrics import score
from everloop.domain.monitor_spec import MonitorSpec
from everloop.domain.replay_policy import PolicyRun, replay_policy
from everloop.domain.replay_timeline import Timeline
from everloop.domain.replay_training import Trainer
from everloop.domain.spec import MetricName
from everloop.domain.spec_values import Frozen

MIN_WINDOWS = 8  # in each part
KNOBS: dict[str, tuple[Any, ...]] = {
    "max_loss_increase": (0.05, 0.1, 0.2, 0.4),
    "persistence": ("1 of 1", "2 of 3"),
    "on_growth": (0.0, 0.15, 0.25, 0.5),
}
LONG_COOLDOWN = 5  # windows
_RESAMPLES = 4000
_CONFIDENCE = 0.9
_NEGLIGIBLE = 0.01  # share of the loss that no retraining is worth


class Side(Frozen):
    """What one policy came to in one part of the windows."""

    metric: float
    retrains: int
    rejected: int
    rows_trained: int


class Comparison(Frozen):
    """The chosen policy against another on the later windows: by how much its mean loss is lower, with a 90 % interval."""

    other: str
    gain: float
    low: float
    high: float
    more_retrains: int
    verdict: Literal["better", "worse", "within noise"]


class TuningReport(Frozen):
    """What tuning found: the chosen policy, and every policy's early and later part by name."""

    model: str
    metric: MetricName
    windows_early: int
    windows_late: int
    tried: int
    most_retrains: int
    chosen: MonitorSpec
    early: dict[str, Side]
    late: dict[str, Side]
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True)
class _Candidate:
    policy: MonitorSpec
    run: PolicyRun
    losses: np.ndarray  # mean per window


def candidates(current: MonitorSpec, timeline: Timeline) -> list[MonitorSpec]:
    """The grid over the policy's few knobs, with its own cooldown and one of five windows; the rest of the policy as it is."""
    ends = [datetime.fromisoformat(stretch.window.end) for stretch in timeline.stretches]
    window = (ends[-1] - ends[0]) / (len(ends) - 1)
    minutes = max(1, round(LONG_COOLDOWN * window.total_seconds() / 60))
    long = f"{minutes // 60}h" if minutes >= 60 else f"{minutes}m"
    knobs = {**KNOBS, "cooldown": (current.cooldown, long)}
    changes = [dict(zip(knobs, values, strict=True)) for values in product(*knobs.values())]
    return [MonitorSpec.model_validate({**current.model_dump(), **change}) for change in changes]


def tune_policy(
    timeline: Timeline,
    trainer: Trainer,
    current: MonitorSpec,
    *,
    share: float,
    most_retrains: int | None = None,
    grid: Sequence[MonitorSpec] | None = None,
    on_step: Callable[[int, int], None] = lambda _done, _all: None,
) -> TuningReport:
    """The policy of the grid that did best on the first `share` of the windows, against `current` and the shipped default later.

    At most `most_retrains` retrainings are allowed in the early part (default: three in ten windows). Of the policies whose
    early loss is within one standard error, or one per cent, of the best, the one with the fewest retrainings is chosen (Breiman
    et al. 1984, 3.4.3). If all need more than allowed, the one that needs fewest.

    Raises:
        NotEnoughData: a part holds fewer than 8 windows.
    """
    cut = round(len(timeline.stretches) * share)
    if min(cut, len(timeline.stretches) - cut) < MIN_WINDOWS:
        raise NotEnoughData(
            f"{cut} windows to choose on and {len(timeline.stretches) - cut} to report on, {MIN_WINDOWS} are required in each "
            "part: cut more windows or change --share"
        )
    allowed = max(1, round(0.3 * cut)) if most_retrains is None else most_retrains
    named = {"current": current, "default": MonitorSpec()}
    tried = [*named.values(), *(candidates(current, timeline) if grid is None else grid)]
    first, ran = trainer.first(timeline.initial), []
    for count, policy in enumerate(tried):
        run = replay_policy(timeline, trainer, first, policy)
        ran.append(_Candidate(policy, run, _by_window(run.losses, timeline)))
        on_step(count + 1, len(tried))
    chosen = _choose(ran, cut, allowed)
    sides = dict(zip(named, ran, strict=False)) | {"chosen": chosen}
    metric = trainer.subject.spec.gates.metric
    return TuningReport(
        model=trainer.subject.spec.name,
        metric=metric,
        windows_early=cut,
        windows_late=len(timeline.stretches) - cut,
        tried=len(tried),
        most_retrains=allowed,
        chosen=chosen.policy,
        early={name: _side(one.run, timeline, metric, 0, cut) for name, one in sides.items()},
        late={name: _side(one.run, timeline, metric, cut, len(timeline.stretches)) for name, one in sides.items()},
        comparisons=tuple(_compare(name, sides, cut) for name in named),
    )


def paired_interval(differences: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
    """The 90 % interval of the mean of paired `differences` (windows,), by a circular block bootstrap (Politis & Romano 1992).

    Blocks of about the cube root of their number: what a policy gains in one window it tends to gain in the next.
    """
    n = len(differences)
    length = max(1, round(n ** (1 / 3)))
    starts = np.random.default_rng(seed).integers(0, n, (_RESAMPLES, -(-n // length)))
    places = (starts[:, :, None] + np.arange(length)).reshape(_RESAMPLES, -1)[:, :n] % n
    means = differences[places].mean(axis=1)
    low, high = np.quantile(means, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return float(low), float(high)


def _choose(ran: Sequence[_Candidate], cut: int, allowed: int) -> _Candidate:
    fewest = min(_retrains(one.run, 0, cut) for one in ran)
    cheap = [one for one in ran if _retrains(one.run, 0, cut) <= max(allowed, fewest)]
    best = min(cheap, key=lambda one: float(one.losses[:cut].mean()))
    close = [one for one in cheap if _is_close(one.losses[:cut], best.losses[:cut])]
    return min(close, key=lambda one: (_retrains(one.run, 0, cut), float(one.losses[:cut].mean())))


def _is_close(losses: np.ndarray, best: np.ndarray) -> bool:
    differences = losses - best
    error = float(np.std(differences, ddof=1)) / np.sqrt(len(differences))
    return float(differences.mean()) <= max(error, _NEGLIGIBLE * float(best.mean()))


def _compare(other: str, sides: Mapping[str, _Candidate], cut: int) -> Comparison:
    differences = sides[other].losses[cut:] - sides["chosen"].losses[cut:]
    low, high = paired_interval(differences)
    count = len(sides[other].losses)
    return Comparison(
        other=other,
        gain=float(differences.mean()),
        low=low,
        high=high,
        more_retrains=_retrains(sides["chosen"].run, cut, count) - _retrains(sides[other].run, cut, count),
        verdict="better" if low > 0 else "worse" if high < 0 else "within noise",
    )


def _side(run: PolicyRun, timeline: Timeline, metric: MetricName, start: int, end: int) -> Side:
    begin = timeline.stretches[0].first
    rows = slice(timeline.stretches[start].first - begin, timeline.stretches[end - 1].last - begin)
    within = [training for training in run.trainings if start <= training.window < end]
    return Side(
        metric=score(metric, run.losses[rows]),
        retrains=len(within),
        rejected=sum(not training.released for training in within),
        rows_trained=sum(training.rows_trained for training in within),
    )


def _retrains(run: PolicyRun, start: int, end: int) -> int:
    return sum(start <= training.window < end for training in run.trainings)


def _by_window(losses: np.ndarray, timeline: Timeline) -> np.ndarray:
    bounds = [stretch.first - timeline.stretches[0].first for stretch in timeline.stretches]
    rows = np.array([stretch.last - stretch.first for stretch in timeline.stretches])
    return np.asarray(np.add.reduceat(losses, bounds) / rows)
