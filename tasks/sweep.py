"""Sweep: start the retrainings that were decided and that nobody works on."""

from __future__ import annotations

import logging
from datetime import timedelta

from everloop.adapters.orchestrator import emit_alert, start_training
from everloop.domain.spec import ModelSpec
from everloop.settings import settings
from tasks.step import step
from tasks.wiring import decisions

log = logging.getLogger("everloop.sweep")


@step
async def sweep(spec: ModelSpec) -> list[str]:
    """The decisions whose retraining was started again; one that failed too often is given up, with an alert."""
    here, store, started = settings(), decisions(), []
    for decision, attempts in store.forgotten(spec.name, older_than=timedelta(seconds=here.sweep_seconds)):
        found = store.get(decision)
        run = await start_training(
            spec.name,
            reason=found.headline,
            decision=decision,
            window=f"{found.window.start} to {found.window.end}",
            attempts=attempts,
            most=here.max_attempts,
        )
        if run is not None:
            log.warning("nobody works on %s (%d runs so far): flow run %s does", decision, attempts, run)
            started.append(decision)
            continue
        outcome = f"given up after {here.max_attempts} runs that died"
        if store.give_up(decision, outcome):
            emit_alert(spec.name, f"{decision}: {outcome}; read the logs of these runs, then train on demand")
    return started
