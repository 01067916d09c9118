"""Verify: the running service serves what was promoted."""

from __future__ import annotations

import logging
import time
from typing import Literal

from everloop.adapters.registry import Version
from everloop.adapters.service import describe_service
from everloop.domain.spec import Frozen, ModelSpec
from everloop.settings import settings
from serving.build import digest_code
from tasks.step import step

log = logging.getLogger("everloop.verify")


class Verification(Frozen):
    """What the service at the model's address serves."""

    status: Literal["served", "no service", "needs restart", "refused"]
    detail: str
    seconds: float


@step
def verify(spec: ModelSpec, version: Version) -> Verification:
    """What the service says it serves, as soon as it is `version` or at the end of the wait."""
    here = settings()
    url, started = here.service_url(spec), time.monotonic()
    found = describe_service(url)
    while time.monotonic() - started < here.verify_seconds:
        if found and (found["version"] == version.number or _refusal(found, version)):
            break
        time.sleep(0.2)
        found = describe_service(url)
    seconds = time.monotonic() - started
    verification = _judge(found, version, url, seconds)
    log.info("%s: %s", version.label, verification.detail)
    return verification


def _judge(found: dict[str, object] | None, version: Version, url: str, seconds: float) -> Verification:
    if found is None:
        detail = f"no service answers at {url}; start it with `everloop up` or `everloop serve {version.model}`"
        return Verification(status="no service", detail=detail, seconds=seconds)
    if found["version"] == version.number:
        return Verification(status="served", detail=f"served at {url} after {seconds:.1f} s", seconds=seconds)
    if found["code"] != digest_code():
        detail = f"the service at {url} runs other code or dependencies; `everloop restart {version.model}` starts the new bento"
        return Verification(status="needs restart", detail=detail, seconds=seconds)
    reason = _refusal(found, version) or f"it still serves v{found['version']} after {seconds:.0f} s"
    return Verification(status="refused", detail=f"the service at {url} does not serve it: {reason}", seconds=seconds)


def _refusal(found: dict[str, object], version: Version) -> str:
    """Why the service refused the version, empty if it did not."""
    refused = found.get("refused")
    return str(refused["reason"]) if isinstance(refused, dict) and refused["version"] == version.number else ""
