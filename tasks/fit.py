"""Fit: the challenger, on everything before the holdout."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import pandas as pd

from everloop.domain.configuration import Configuration
from everloop.domain.search import SearchResult, fit_configuration
from everloop.domain.spec import ModelSpec
from everloop.domain.splits import within_history
from tasks.prepare import Prepared
from tasks.step import step

log = logging.getLogger("everloop.fit")


@dataclass(frozen=True)
class Challenger:
    """A fitted pipeline, how it was configured, and the rows it was fitted on."""

    pipeline: Any
    configuration: Configuration
    rows: pd.DataFrame


@step
def fit(spec: ModelSpec, data: Prepared, found: SearchResult) -> Challenger:
    """The best configuration, fitted on the rows before the holdout. What is judged is what is served: no refit follows."""
    rows = within_history(data.split.known, found.best.history, spec.time)
    log.info("fitting %s on %s rows", found.best.title, f"{len(rows):,}")
    return Challenger(fit_configuration(found.best, rows, spec, data.schema), found.best, rows)
