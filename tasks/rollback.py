"""Roll back: the version before is champion again, and it is written down who wanted it and why."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from everloop.adapters.registry import PREVIOUS, Version
from everloop.adapters.service import nudge_keeper
from everloop.domain.errors import PromotionRefused
from everloop.domain.spec_values import Frozen
from everloop.settings import settings
from tasks.wiring import registry

log = logging.getLogger("everloop.rollback")


class RollbackRecord(Frozen):
    """Which version went in place of which, when, by whose word and why."""

    model: str
    version: str
    rolled_back: str
    rolled_back_at: datetime
    by: str
    reason: str


def roll_back(model: str, *, reason: str, by: str) -> tuple[Version, RollbackRecord]:
    """The champion after the rollback, and the record of it; a second rollback goes one version further back.

    Raises:
        PromotionRefused: there is no version to go back to.
    """
    bad, back = registry().champion(model), registry().at_alias(model, PREVIOUS)
    if bad is not None and back is not None and back.number == bad.number:  # a promotion was killed between two aliases
        earlier = bad.tags.get("previous", "none")
        back = registry().version(model, earlier) if earlier != "none" else None
    if bad is None or back is None:
        live = f"its champion is {bad.label}" if bad else "it has no champion"
        raise PromotionRefused(f"{model} has no previous version to go back to ({live}); train and release another")
    record = RollbackRecord(
        model=model, version=back.number, rolled_back=bad.number, rolled_back_at=datetime.now(UTC), by=by, reason=reason
    )
    registry().tag(
        bad,
        rolled_back_at=record.rolled_back_at.isoformat(),
        rolled_back_by=by,
        rolled_back_to=back.number,
        rollback_reason=reason[:5000],
    )
    registry().restore(back)
    nudge_keeper(settings().keeper_folder(model))
    log.warning("%s is champion again in place of v%s, by %s: %s", back.label, bad.number, by, reason)
    return back, record
