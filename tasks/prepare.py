"""Prepare: split by time and derive the schema from the rows that training may see."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from everloop.adapters.sources import Snapshot
from everloop.domain.frames import derive_schema
from everloop.domain.schema import RowSchema
from everloop.domain.spec import ModelSpec
from everloop.domain.splits import Split, split_by_time
from tasks.step import step

log = logging.getLogger("everloop.prepare")


@dataclass(frozen=True)
class Prepared:
    """What the search, the fit and the evaluation work on."""

    split: Split
    schema: RowSchema


@step
def prepare(spec: ModelSpec, snapshot: Snapshot) -> Prepared:
    """The split of a snapshot and the schema of its rows."""
    split = split_by_time(snapshot.rows, spec)
    log.info(
        "%d rows to train on, %d to choose on, %d to judge on",
        len(split.train),
        len(split.validation),
        len(split.holdout),
    )
    return Prepared(split=split, schema=derive_schema(snapshot.rows, spec))
