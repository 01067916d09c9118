"""Tidy: hourly profiles become daily ones, and what is older than its retention goes."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

from everloop.adapters.profile_store import ProfileStore
from everloop.domain.spec import ModelSpec
from everloop.settings import settings
from tasks.step import step

log = logging.getLogger("everloop.tidy")


@step(retries=1)
def tidy(spec: ModelSpec) -> None:
    """Afterwards closed days have one profile each, and profiles and reports are within EVERLOOP_KEEP_PROFILE_DAYS."""
    here, now = settings(), datetime.now(UTC)
    oldest = now - timedelta(days=here.keep_profile_days)
    store = ProfileStore(here.profiles / spec.name)
    rolled = store.roll_up(now - timedelta(days=1))
    gone = store.expire(oldest)
    for page in (here.reports / spec.name).glob("*.html"):
        if page.stat().st_mtime < oldest.timestamp():
            page.unlink(missing_ok=True)
            gone.append(page)
    if rolled or gone:
        log.info("%d hourly profiles rolled up, %d expired files deleted", rolled, len(gone))
