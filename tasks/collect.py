"""Collect: captured predictions with the labels that have arrived."""

from __future__ import annotations

import logging

import pandas as pd

from everloop.adapters.inference_log import join_labels, read_captured, read_labels
from everloop.domain.spec import ModelSpec
from everloop.settings import settings
from tasks.step import step

log = logging.getLogger("everloop.collect")


@step(retries=2, retry_delay_seconds=2)
def collect(spec: ModelSpec, at: pd.Timestamp | None) -> pd.DataFrame:
    """Captured predictions in the order of capture, with `label`; with `at`, only what was known at that event time."""
    here = settings()
    captured = read_captured(here.inference, spec, until=at)
    joined = join_labels(captured, read_labels(here.labels, spec, until=at))
    log.info("collected %s predictions, %s labelled", f"{len(joined):,}", f"{joined['label'].notna().sum():,}")
    return joined
