"""Watch the champion: judge each window of its predictions once, and retrain when it degrades."""

from __future__ import annotations

import logging

import pandas as pd
from prefect import flow

from everloop.adapters.sources import read_times
from everloop.domain.retraining import RetrainingDecision, decision_id
from everloop.domain.windows import cut_windows
from everloop.settings import settings
from tasks.collect import collect
from tasks.compact import compact
from tasks.compare import compare
from tasks.decide import decide
from tasks.profile import profile_window, reference_profile
from tasks.score import score
from tasks.sweep import sweep
from tasks.wiring import decisions, registry

log = logging.getLogger("everloop.monitor")


@flow(name="monitor", flow_run_name="{model}")
async def monitor(model: str, at: str | None = None) -> list[RetrainingDecision]:
    """The decisions about every complete window that was not decided yet, oldest first.

    `at` is an ISO event time in UTC: only predictions and labels known then count. Default: all, now.
    """
    spec = settings().spec(model)
    await sweep(spec)
    champion = registry().champion(model)
    if champion is None:
        log.info("%s has no champion yet; nothing to watch", model)
        return []
    moment = read_times(pd.Series([at]), where="the parameter `at`").iloc[0] if at else None
    compact(spec)
    captured = collect(spec, moment)
    decided = {decision.id for decision in decisions().list(model) if decision.is_final}
    windows = cut_windows(captured, spec.monitor.window, at=moment or pd.Timestamp.now("UTC").tz_localize(None))
    pending = [(window, rows) for window, rows in windows if decision_id(model, window) not in decided]
    if not pending:
        return []
    manifest, reference, made = registry().manifest(champion), reference_profile(champion), []
    for window, rows in pending:
        of_champion = rows[rows["model_version"] == champion.number]
        drift = compare(spec, reference, profile_window(spec, manifest.row_schema, window, of_champion))
        made.append(decide(spec, champion, window, drift, score(spec, manifest, of_champion)))
    return made
