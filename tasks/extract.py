"""Extract: the source and the served rows whose labels have arrived, as one content-addressed snapshot."""

from __future__ import annotations

import logging

import pandas as pd

from everloop.adapters.inference_log import read_captured, read_labels, served_examples
from everloop.adapters.sources import Snapshot, order_rows, read_source, store_snapshot
from everloop.domain.spec import ModelSpec
from everloop.settings import settings
from tasks.step import step

log = logging.getLogger("everloop.extract")


@step(retries=2, retry_delay_seconds=5, retry_condition_fn=lambda _task, _run, state: _is_io_error(state))
def extract(spec: ModelSpec) -> Snapshot:
    """The snapshot that this training run reads."""
    here = settings()
    source = read_source(spec, base=here.data)
    served = _served_rows(spec, source)
    rows = (
        order_rows(pd.concat([source, served], ignore_index=True), spec, where="source and served rows")
        if len(served)
        else source
    )
    snapshot = store_snapshot(
        rows, here.home / "snapshots" / spec.name, source_rows=len(source), served_rows=len(served)
    )
    log.info("extracted %s rows (%s served) into %s", f"{len(rows):,}", f"{len(served):,}", snapshot.path.name[:12])
    return snapshot


def _served_rows(spec: ModelSpec, source: pd.DataFrame) -> pd.DataFrame:
    """Labelled served rows; where the source already has a row's key, the source's row counts."""
    if not spec.data.include_served:
        return source.iloc[:0]
    here = settings()
    served = served_examples(read_captured(here.inference, spec), read_labels(here.labels, spec), spec)
    return served if spec.key is None else served[~served[spec.key].isin(source[spec.key])]


def _is_io_error(state: object) -> bool:
    """Reading again helps against a busy disk or network, not against wrong data."""
    return isinstance(getattr(state, "data", None), OSError)
