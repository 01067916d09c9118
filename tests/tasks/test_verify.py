"""Verify: what the service says about itself is what the release says about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from everloop.adapters.registry import Version
from everloop.settings import Settings
from tasks import verify as verifying
from tasks.verify import Verification, wait_until_served
from tests.factories import make_spec

SPEC = make_spec(serving={"port": 3456})
SECOND = Version(model="bikes", number="2", run_id="r", source="s")


def said(
    version: str, *workers: str, refused: dict[str, str] | None = None, starting: str | None = None
) -> dict[str, Any]:
    """What GET /model says."""
    known = [{"version": number} for number in workers]
    return {"version": version, "workers": known, "refused": refused, "starting": starting}


@pytest.fixture
def verify(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The verification of version 2 by a service that says one thing after another, and then the last again."""

    def wait(*answers: dict[str, Any] | None, seconds: float = 20) -> Verification:
        left = list(answers)
        monkeypatch.setattr(verifying, "settings", lambda: Settings(verify_seconds=seconds))
        monkeypatch.setattr(verifying.time, "sleep", lambda _: None)
        monkeypatch.setattr(verifying, "describe_service", lambda *_: left.pop(0) if len(left) > 1 else left[0])
        return wait_until_served(SPEC, SECOND)

    return wait


def test_a_version_is_served_when_every_worker_serves_it(verify: Any) -> None:
    """Not when the first does."""
    found = verify(said("1", "1", "1"), said("2", "1", "2"), said("1", "2", "2"), said("2", "2", "2"))
    assert found.status == "served"
    assert found.detail.startswith("served at http://127.0.0.1:3456 after ")


def test_a_service_that_starts_in_time_is_waited_for(verify: Any) -> None:
    """It may be on its way up."""
    assert verify(None, None, said("2", "2")).status == "served"


def test_no_service_is_answered_with_how_to_start_one(verify: Any) -> None:
    """The release is done all the same."""
    found = verify(None, seconds=0)
    assert found.status == "no service"
    assert found.detail == (
        "no service answers at http://127.0.0.1:3456; start it with `everloop up` or `everloop serve bikes`"
    )


def test_a_refusal_ends_the_wait_with_its_reason(verify: Any) -> None:
    """There is nothing to wait for."""
    found = verify(
        said("1", "1"), said("1", "1", refused={"version": "2", "reason": "3 of 12 recorded answers differ"})
    )
    assert found.status == "refused"
    assert found.detail == "the service at http://127.0.0.1:3456 does not serve it: 3 of 12 recorded answers differ"


def test_the_refusal_of_another_version_is_not_its_own(verify: Any) -> None:
    """One of yesterday, that nobody has forgotten yet."""
    refused = {"version": "1", "reason": "it answers otherwise"}
    assert verify(said("0", "0", refused=refused), said("2", "2", refused=refused)).status == "served"


def test_a_service_that_cannot_hand_over_needs_a_restart(verify: Any) -> None:
    """The reason names the command, and so does the status."""
    reason = "there is no HAProxy to hand over with; start its bento with `everloop restart bikes`"
    assert verify(said("1", "1", refused={"version": "2", "reason": reason})).status == "needs restart"


def test_a_service_that_stays_with_the_old_version_is_told_with_it(verify: Any) -> None:
    """At the end of the wait."""
    found = verify(said("1", "1"), seconds=0)
    assert found.status == "refused"
    assert "does not serve it: it still serves v1 after 0 s" in found.detail


def test_a_bento_that_is_starting_to_take_over_is_waited_for_longer(verify: Any) -> None:
    """A boot may take longer than a swap; not yet is not refused."""
    found = verify(said("1", "1", starting="2"), said("1", "1", starting="2"), said("2", "2"), seconds=0)
    assert found.status == "served"
