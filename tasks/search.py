"""Search: try the candidates on the newest part of the training rows."""

from __future__ import annotations

import logging

from everloop.adapters.orchestrator import show_table
from everloop.domain.search import SearchResult, search_configurations
from everloop.domain.spec import ModelSpec
from tasks.prepare import Prepared
from tasks.step import step

log = logging.getLogger("everloop.search")


@step
def search(spec: ModelSpec, data: Prepared) -> SearchResult:
    """All trials, the best one first."""
    metric = spec.gates.metric
    result = search_configurations(
        spec,
        data.split,
        data.schema,
        on_trial=lambda trial: log.info("%s %.4g: %s", metric, trial.metric, trial.configuration.title),
    )
    rows = [{"configuration": t.configuration.title, metric: f"{t.metric:.4g}", "rows": t.rows} for t in result.trials]
    show_table(f"trials-{spec.name}", rows, description=f"{len(rows)} trials on {len(data.split.validation):,} rows")
    return result
