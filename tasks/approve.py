"""Approve: may this version go live? By its gates, or by a person."""

from __future__ import annotations

import logging
from typing import Literal

from everloop.adapters.orchestrator import show_markdown
from everloop.adapters.registry import CHALLENGER, Version
from everloop.domain.errors import PromotionRefused
from everloop.domain.spec import ModelSpec
from everloop.domain.spec_values import Frozen
from tasks.step import step
from tasks.wiring import registry

log = logging.getLogger("everloop.approve")


class Approval(Frozen):
    """Who lets the version go live; 'waiting' if a person is asked and has not answered."""

    status: Literal["approved", "waiting"]
    by: str


def require_releasable(version: Version) -> None:
    """Return if the gates let `version` go live, by themselves or by a person's word.

    Raises:
        PromotionRefused: a gate failed, or the champion is not the one it was judged against.
    """
    verdict = version.tags.get("verdict", "none")
    if verdict not in ("pass", "undetermined"):
        reasons = version.tags.get("verdict_reasons", "never judged")
        raise PromotionRefused(f"{version.label}: its gates say {verdict}: {reasons}; train again")
    champion = registry().champion(version.model)
    judged_against, now = version.tags.get("judged_against", "none"), champion.number if champion else "none"
    if judged_against != now:
        raise PromotionRefused(
            f"{version.label} was judged against champion {judged_against}, now it is {now}; train again to be judged anew"
        )


@step
def approve(spec: ModelSpec, version: Version, approved_by: str | None) -> Approval:
    """The approval of `version`; an undetermined verdict needs a person, and so does a version that was rolled back.

    Raises:
        PromotionRefused: it may not go live, whoever approves.
    """
    require_releasable(version)
    if approved_by:
        return Approval(status="approved", by=approved_by)
    verdict = version.tags["verdict"]
    if verdict == "pass" and spec.gates.approval == "auto" and "rolled_back_by" not in version.tags:
        return Approval(status="approved", by="gates")
    registry().set_alias(version, CHALLENGER)
    command = f"prefect deployment run release/{spec.name} -p version={version.number} -p approved_by=<you>"
    text = f"{version.label} ({verdict}) is packaged and rehearsed and waits for a person: `{command}`"
    show_markdown(f"approval-{spec.name}", f"# Waiting for approval\n\n{text}", description="Approval")
    log.warning(text)
    return Approval(status="waiting", by="nobody")
