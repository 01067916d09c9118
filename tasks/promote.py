"""Promote: the alias moves; running services follow it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from everloop.adapters.registry import CHAMPION, Version
from everloop.adapters.service import nudge_keeper
from everloop.domain.errors import DecisionTaken
from everloop.domain.spec_values import Frozen
from everloop.settings import settings
from tasks.claim import still_holds
from tasks.step import step
from tasks.wiring import registry

log = logging.getLogger("everloop.promote")


class PromotionRecord(Frozen):
    """Which version went live in place of which, when, and by whose word."""

    model: str
    version: str
    previous: str | None
    promoted_at: datetime
    approved_by: str


@step
def promote(version: Version, approved_by: str) -> PromotionRecord:
    """The record of the promotion; `version` is champion, the champion before it `previous`.

    Raises:
        DecisionTaken: the run lost the decision it acts on to another run.
    """
    if not still_holds():
        raise DecisionTaken(f"{version.label} is not promoted: this run lost its retraining decision to another run")
    before = registry().promote(version)
    nudge_keeper(settings().keeper_folder(version.model))
    record = PromotionRecord(
        model=version.model,
        version=version.number,
        previous=before.number if before and before.number != version.number else None,
        promoted_at=datetime.now(UTC),
        approved_by=approved_by,
    )
    registry().tag(
        version, promoted_at=record.promoted_at.isoformat(), approved_by=approved_by, previous=record.previous or "none"
    )
    log.info("%s is champion, approved by %s", version.label, approved_by)
    return record


def take_back(version: Version, record: PromotionRecord, reason: str) -> None:
    """Afterwards the version before is champion again (or there is none) and `version` says why it is not."""
    registry().tag(version, verdict="fail", verdict_reasons=f"taken back: {reason}"[:5000])
    live = registry().champion(version.model)
    if live is None or live.number != version.number:
        log.warning("%s is not champion any more, so the alias stays where somebody put it: %s", version.label, reason)
        return
    if record.previous is None:
        registry().remove_alias(version.model, CHAMPION)
    else:
        registry().restore(registry().version(version.model, record.previous))
    nudge_keeper(settings().keeper_folder(version.model))
    log.warning("%s is taken back, champion is v%s: %s", version.label, record.previous, reason)
