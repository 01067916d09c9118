"""Approve: may this version go live? By its gates, or by a person."""

from __future__ import annotations

import logging
from typing import Literal

from everloop.adapters.orchestrator import show_markdown
from everloop.adapters.registry import CHALLENGER, Version
from everloop.domain.errors import PromotionRefused
from everloop.domain.spec import Frozen, ModelSpec
from tasks.step import step
from tasks.wiring import registry

log = logging.getLogger("everloop.approve")


class Approval(Frozen):
    """Who lets the version go live; 'waiting' if a person is asked and has not answered."""

    status: Literal["approved", "waiting"]
    by: str


@step
def approve(spec: ModelSpec, version: Version, approved_by: str | None) -> Approval:
    """The approval of `version`. An undetermined verdict needs a person; a failed one is never approved.

    Raises:
        PromotionRefused: a gate failed, or the champion is not the one it was judged against.
    """
    verdict = version.tags.get("verdict", "none")
    if verdict not in ("pass", "undetermined"):
        raise PromotionRefused(
            f"{version.label}: its gates say {verdict}: {version.tags.get('verdict_reasons', 'never judged')}; train again"
        )
    champion = registry().champion(spec.name)
    judged_against = version.tags.get("judged_against", "none")
    now = champion.number if champion else "none"
    if judged_against != now:
        raise PromotionRefused(
            f"{version.label} was judged against v{judged_against}, the champion is v{now}; train again to be judged against it"
        )
    if approved_by:
        return Approval(status="approved", by=approved_by)
    if verdict == "pass" and spec.gates.approval == "auto":
        return Approval(status="approved", by="gates")
    registry().set_alias(version, CHALLENGER)
    command = f"prefect deployment run release/{spec.name} -p version={version.number} -p approved_by=<you>"
    text = f"{version.label} ({verdict}) is packaged and rehearsed and waits for a person: `{command}`"
    show_markdown(f"approval-{spec.name}", f"# Waiting for approval\n\n{text}", description="Approval")
    log.warning(text)
    return Approval(status="waiting", by="nobody")
