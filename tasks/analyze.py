"""Analyze: what the training rows look like, for the person who opens the run."""

from __future__ import annotations

import logging

import pandas as pd

from everloop.adapters.orchestrator import show_table
from everloop.adapters.sources import Snapshot
from everloop.domain.spec import ModelSpec
from tasks.step import step

log = logging.getLogger("everloop.analyze")


@step
def analyze(spec: ModelSpec, snapshot: Snapshot) -> None:
    """Afterwards the run shows one row of figures for each column."""
    rows = [_describe(snapshot.rows[name], spec) for name in (*spec.features.names, spec.target)]
    show_table(f"columns-{spec.name}", rows, description=f"{len(snapshot.rows):,} rows of {spec.name}")
    log.info("analyzed %d columns", len(rows))


def _describe(column: pd.Series, spec: ModelSpec) -> dict[str, str | int]:
    role = (
        "target" if column.name == spec.target else "numeric" if column.name in spec.features.numeric else "categorical"
    )
    figures: dict[str, str | int] = {
        "column": str(column.name),
        "role": role,
        "nulls": f"{column.isna().mean():.1%}",
        "distinct": int(column.nunique()),
    }
    if pd.api.types.is_numeric_dtype(column) and role != "categorical":
        low, middle, high = column.quantile([0.05, 0.5, 0.95])
        return {**figures, "typical": f"{low:.4g} … {middle:.4g} … {high:.4g}"}
    return {**figures, "typical": ", ".join(str(value) for value in column.value_counts().index[:3])}
