"""Compact: what the service has captured becomes Parquet, and what is older than its retention goes."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

from everloop.adapters.inference_log import compact_captured, compact_labels, expire
from everloop.domain.spec import ModelSpec
from everloop.settings import settings
from tasks.step import step

log = logging.getLogger("everloop.compact")


@step(retries=2, retry_delay_seconds=2)
def compact(spec: ModelSpec) -> None:
    """Afterwards closed segments of the model are Parquet files, and the log is within EVERLOOP_KEEP_DAYS and _BYTES."""
    here = settings()
    oldest = datetime.now(UTC) - timedelta(days=here.keep_days)
    for folder, compact_segments in ((here.inference, compact_captured), (here.labels, compact_labels)):
        done = compact_segments(folder, spec)
        gone = expire(folder / spec.name, older_than=oldest, above_bytes=here.keep_bytes)
        if done.failed:
            log.error("%s: %d segments cannot be compacted; they stay readable", folder.name, done.failed)
        if done.segments or gone:
            log.info(
                "%s: %d segments compacted, %s rows, %d torn lines dropped, %d expired files deleted",
                folder.name, done.segments, f"{done.rows:,}", done.torn, len(gone),
            )  # fmt: skip
