"""Watch the champion: judge each window of its predictions, and retrain when it degrades."""

from __future__ import annotations

import logging

import pandas as pd
from prefect import flow

from everloop.adapters.locks import one_at_a_time
from everloop.adapters.orchestrator import emit_watched
from everloop.adapters.registry import Version
from everloop.adapters.sources import read_times
from everloop.domain.decision import RetrainingDecision, decision_id
from everloop.domain.spec import ModelSpec
from everloop.settings import settings
from tasks.collect import collect, look_back
from tasks.compact import compact
from tasks.decide import decide, publish
from tasks.examine import examine, fill, goes_by_another, is_pending
from tasks.measure_growth import recount
from tasks.observe import observe, raise_alarm, settle_usage
from tasks.sweep import sweep
from tasks.tidy import tidy
from tasks.watch import watch
from tasks.wiring import decisions, registry

log = logging.getLogger("everloop.monitor")


@flow(name="monitor", flow_run_name="{model}")
async def monitor(model: str, at: str | None = None) -> list[RetrainingDecision]:
    """The decisions about every complete window that may still be decided, oldest first.

    `at` is an ISO event time in UTC: only predictions and labels known then count. Default: all, now.
    """
    spec = settings().spec(model)
    await sweep(spec)
    champion = registry().champion(model)
    if champion is None:
        log.info("%s has no champion yet; nothing to watch", model)
    moment = read_times(pd.Series([at]), where="the parameter `at`").iloc[0] if at else None
    # two monitors at once would each see no retraining in flight
    with one_at_a_time(settings().home / "locks" / f"monitor-{model}"):
        made = judge(spec, champion, moment) if champion else []
    emit_watched(model, {"decisions": len(made)})
    return made


def judge(spec: ModelSpec, champion: Version, at: pd.Timestamp | None) -> list[RetrainingDecision]:
    """The decisions of this run about windows that `champion` answered."""
    compact(spec)
    watched, known = watch(champion), look_back(spec, champion.number)
    found = collect(spec, watched, known, at)
    surroundings = observe(spec, watched, found, at)
    decided = {decision.id: decision for decision in known}
    pending = {window.id for window, rows in found.windows if is_pending(window, rows, champion, decided, spec)}
    newest = decision_id(spec.name, found.windows[-1][0]) if found.windows else ""
    made, current = list[RetrainingDecision](), list[RetrainingDecision]()
    for window, rows in found.windows:
        name = decision_id(spec.name, window)
        before = decided.get(name)
        is_due = window.id in pending or (before and goes_by_another(before, window, current, champion, spec))
        if not is_due:
            if before is not None:
                recount(before, rows)
                current.append(before)
            continue
        past = decisions().past(spec.name, window)
        filled, around = fill(window, rows, found, spec, champion), surroundings if name == newest else None
        seen = examine(spec, watched, window, filled, around, surroundings.source, past)
        decision = decide(spec, watched, window, seen.evidence, past, surroundings.dependencies)
        publish(spec, watched, decision, seen.profile, past.earlier)
        made.append(decision)
        current.append(decision)
    last = decided.get(newest)
    if newest not in [decision.id for decision in made] or (last is not None and last.is_fired):
        raise_alarm(spec, surroundings, last)  # there is no new decision that says it
    # a window that goes by another one stays open until both are said
    for decision in made:
        decisions().mark_published(decision.id)
    settle_usage(spec, surroundings)
    tidy(spec)
    return made
