"""`everloop rollback`."""

from __future__ import annotations

import getpass
from typing import Any

from everloop.domain.errors import ServingRefused
from everloop.settings import settings
from tasks.rollback import roll_back
from tasks.verify import wait_until_served


def roll_back_and_wait(model: str, *, reason: str, by: str) -> dict[str, Any]:
    """What was rolled back, and what the service serves now; without a service there is nothing to wait for.

    Raises:
        PromotionRefused: there is no previous version.
        ServingRefused: the service does not serve it; the alias has moved all the same.
    """
    here = settings()
    here.apply()
    spec = here.spec(model)
    here.api_keys(spec.serving)  # a missing key is told before anything moves
    version, record = roll_back(model, reason=reason, by=by or getpass.getuser())
    found = wait_until_served(spec, version)
    if found.status not in ("served", "no service"):
        raise ServingRefused(f"{version.label} is champion again, and {found.detail}")
    return {
        "model": model,
        "champion": f"v{record.version}",
        "rolled back": f"v{record.rolled_back}",
        "by": record.by,
        "reason": record.reason,
        "service": found.detail,
    }
