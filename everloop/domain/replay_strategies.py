"""What a policy is measured against: never retraining, and retraining after every window without asking anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from everloop.domain.replay_fits import FitRequest, Fits, Fitted
from everloop.domain.replay_timeline import Timeline
from everloop.domain.replay_training import Trained

_AT_ONCE = 8  # so that progress is seen while fits run side by side


@dataclass(frozen=True)
class StrategyRun:
    """The losses (n,) of the rows of all windows under one strategy, and what its trainings cost."""

    losses: np.ndarray
    retrains: int = 0
    rows_trained: int = 0
    seconds_trained: float = 0.0


def never_retrain(timeline: Timeline, first: Trained) -> StrategyRun:
    """The model of the start answers to the end."""
    return StrategyRun(first.fitted.losses_of(timeline.stretches[0].first, timeline.stretches[-1].last))


def always_retrain(
    timeline: Timeline,
    first: Trained,
    fits: Fits,
    *,
    history: Literal["all", "recent"],
    on_step: Callable[[int, int], None] = lambda _done, _all: None,
) -> StrategyRun:
    """After each window, if labels have come, a model is fitted on every row whose label is known, or on the newest of them.

    It answers until the next one, without gates: the naive practice. A fit that fails leaves the model before it.
    """
    turns = _turns(timeline)
    requests = [_request(timeline, known, timeline.stretches[end - 1].last, history) for known, _, end in turns]
    fitted: list[Fitted] = []
    for start in range(0, len(requests), _AT_ONCE):
        fitted += fits(requests[start : start + _AT_ONCE])
        on_step(len(fitted), len(requests))
    opening = turns[0][1] if turns else len(timeline.stretches)
    begin = timeline.stretches[0].first
    losses = [first.fitted.losses_of(begin, timeline.stretches[opening - 1].last)]
    model = first.fitted
    for (_, start, end), fit in zip(turns, fitted, strict=True):
        upto = timeline.stretches[end - 1].last
        if fit.failure is None:
            model = fit
        elif model.request.upto < upto:
            model = fits([model.request.model_copy(update={"upto": upto})])[0]
        losses.append(model.losses_of(timeline.stretches[start].first, upto))
    return StrategyRun(
        np.concatenate(losses), len(fitted), sum(fit.rows for fit in fitted), sum(fit.seconds for fit in fitted)
    )


def _turns(timeline: Timeline) -> list[tuple[int, int, int]]:
    """Known rows of each retraining, and the windows that its model answers: from one up to another, not included."""
    count = len(timeline.stretches)
    starts = [
        index
        for index in range(1, count)
        if timeline.known[index - 1] > max(timeline.initial, *timeline.known[: index - 1], 0)
    ]
    return [(timeline.known[start - 1], start, end) for start, end in zip(starts, [*starts[1:], count], strict=True)]


def _request(timeline: Timeline, known: int, upto: int, history: Literal["all", "recent"]) -> FitRequest:
    first = 0 if history == "all" else max(0, known - timeline.recent)
    return FitRequest(first=first, last=known, upto=upto, since=known)
