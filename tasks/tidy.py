"""Tidy: hourly profiles become daily ones, and what is older than its retention goes."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

from everloop.adapters.profile_store import ProfileStore
from everloop.domain.monitor_spec import SpanWindow
from everloop.domain.spec import ModelSpec
from everloop.domain.spec_values import parse_duration
from everloop.settings import settings
from tasks.step import step

log = logging.getLogger("everloop.tidy")


_DAY = timedelta(days=1)


@step(retries=1)
def tidy(spec: ModelSpec) -> None:
    """Afterwards closed days have one profile each, and profiles and reports are within EVERLOOP_KEEP_PROFILE_DAYS."""
    here, now = settings(), datetime.now(UTC)
    oldest = now - timedelta(days=here.keep_profile_days)
    store = ProfileStore(here.profiles / spec.name)
    rolled = store.roll_up(now - hourly_for(spec))
    gone = store.expire(oldest)
    for page in (here.reports / spec.name).glob("*.html"):
        if page.stat().st_mtime < oldest.timestamp():
            page.unlink(missing_ok=True)
            gone.append(page)
    if rolled or gone:
        log.info("%d hourly profiles rolled up, %d expired files deleted", rolled, len(gone))


def hourly_for(spec: ModelSpec) -> timedelta:
    """How long profiles stay hourly: windows shorter than a day that labels may still change are put together from them."""
    window = spec.monitor.window
    is_short = isinstance(window, SpanWindow) and parse_duration(window.span) < _DAY
    return max(parse_duration(spec.monitor.max_label_delay), _DAY) if is_short else _DAY
