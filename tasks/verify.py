"""Verify: the running service serves what was promoted."""

from __future__ import annotations

import logging
import time
from typing import Any, Literal

from everloop.adapters.registry import Version
from everloop.adapters.service import describe_service, serves
from everloop.domain.spec import ModelSpec
from everloop.domain.spec_values import Frozen
from everloop.settings import settings
from tasks.step import step

log = logging.getLogger("everloop.verify")


RESTART = "everloop restart"
Status = Literal["served", "no service", "needs restart", "refused"]


class Verification(Frozen):
    """What the service at the model's address serves."""

    status: Status
    detail: str
    seconds: float


@step
def verify(spec: ModelSpec, version: Version) -> Verification:
    """What the service says it serves, as soon as every worker serves `version` or at the end of the wait."""
    verification = wait_until_served(spec, version)
    log.info("%s: %s", version.label, verification.detail)
    return verification


def wait_until_served(spec: ModelSpec, version: Version) -> Verification:
    """The same outside of a flow."""
    here = settings()
    url, keys, started = here.service_url(spec), here.api_keys(spec.serving), time.monotonic()
    found = describe_service(url, keys)
    while time.monotonic() - started < here.verify_seconds + (here.boot_seconds if _is_starting(found, version) else 0):
        if serves(found, version.number) or _refusal(found, version):
            break
        time.sleep(0.1)
        found = describe_service(url, keys)
    return _judge(found, version, url, time.monotonic() - started)


def _judge(found: dict[str, Any] | None, version: Version, url: str, seconds: float) -> Verification:
    if found is None:
        detail = f"no service answers at {url}; start it with `everloop up` or `everloop serve {version.model}`"
        return Verification(status="no service", detail=detail, seconds=seconds)
    if serves(found, version.number):
        return Verification(status="served", detail=f"served at {url} after {seconds:.1f} s", seconds=seconds)
    reason = _refusal(found, version) or f"it still serves v{found['version']} after {seconds:.0f} s"
    status: Status = "needs restart" if RESTART in reason else "refused"
    return Verification(status=status, detail=f"the service at {url} does not serve it: {reason}", seconds=seconds)


def _is_starting(found: dict[str, Any] | None, version: Version) -> bool:
    """True while the bento of `version` is being started to take over: that takes as long as a boot may."""
    return found is not None and found["starting"] == version.number


def _refusal(found: dict[str, Any] | None, version: Version) -> str:
    """Why the service refused the version, empty if it did not."""
    refused = found and found["refused"]
    return str(refused["reason"]) if refused and refused["version"] == version.number else ""
