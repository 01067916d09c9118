"""Package, rehearse, approve, promote and verify a version."""

from __future__ import annotations

import logging

from prefect import flow

from everloop.adapters.orchestrator import emit_alert
from everloop.adapters.registry import CHALLENGER, Version
from everloop.domain.errors import PromotionRefused, RegistryError
from everloop.domain.spec import ModelSpec
from everloop.settings import settings
from tasks.approve import approve, require_releasable
from tasks.package import package
from tasks.promote import promote, take_back
from tasks.rehearse import rehearse
from tasks.verify import verify
from tasks.wiring import decisions, registry

log = logging.getLogger("everloop.release")


@flow(name="release", flow_run_name="{model} v{version}")
async def release(model: str, version: str | None = None, approved_by: str | None = None) -> str:
    """What became of the release, in one sentence. Without `version`, the one under the alias `challenger`.

    Raises:
        RegistryError: there is no such version.
        RehearsalFailed, ServingRefused: the bento does not start, or answers otherwise than training recorded.
        PromotionRefused: the gates or the service refuse it; the champion before it is live.
    """
    spec = settings().spec(model)
    candidate = registry().version(model, version) if version else registry().at_alias(model, CHALLENGER)
    if candidate is None:
        raise RegistryError(f"{model} has no challenger waiting; train one, or name a version")
    return release_version(spec, candidate, approved_by=approved_by)


def release_version(spec: ModelSpec, candidate: Version, *, approved_by: str | None = None) -> str:
    """What became of the release of `candidate`; raises as `release` does."""
    champion = registry().champion(spec.name)
    if champion and champion.number == candidate.number:
        return f"{candidate.label} is live: {verify(spec, candidate).detail}"
    require_releasable(candidate)
    packaged = package(candidate)
    rehearse(spec, candidate, packaged)
    approval = approve(spec, candidate, approved_by)
    if approval.status == "waiting":
        return f"{candidate.label} waits for approval"
    record = promote(candidate, approval.by)
    verification = verify(spec, candidate)
    if verification.status == "needs restart":
        emit_alert(spec.name, f"{candidate.label} is champion and not served: {verification.detail}")
    if verification.status == "refused":
        take_back(candidate, record, verification.detail)
        raise PromotionRefused(f"{candidate.label} is taken back: {verification.detail}")
    if (decision := candidate.tags.get("decision", "none")) != "none":
        decisions().mark_released(decision)
    return f"{candidate.label} is champion, approved by {approval.by}: {verification.detail}"
