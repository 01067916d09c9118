"""What `everloop status` and `everloop decisions` show."""

from __future__ import annotations

from typing import Any

from everloop.adapters.registry import CHALLENGER, CHAMPION, PREVIOUS, Registry
from everloop.adapters.service import describe_service
from everloop.settings import settings
from tasks.wiring import decisions


def model_status(model: str) -> dict[str, Any]:
    """The aliases of one model, what its service answers, and its newest decision."""
    here = settings()
    spec, registry = here.spec(model), Registry(here.mlflow)
    aliases = {alias: registry.at_alias(model, alias) for alias in (CHAMPION, CHALLENGER, PREVIOUS)}
    service = describe_service(here.service_url(spec), here.api_keys(spec.serving))
    newest = decisions().history(model)[-1:]
    return {
        "model": model,
        **{alias: f"v{version.number}" if version else None for alias, version in aliases.items()},
        "served": f"v{service['version']}" if service else None,
        "runtime": service["runtime"] if service else None,
        "health": service["health"] if service else None,
        "address": here.service_url(spec),
        "decisions": newest[0].action + ": " + ", ".join(newest[0].reason_codes) if newest else None,
    }


def decision_rows(model: str) -> list[dict[str, Any]]:
    """One row a decision."""
    settings().spec(model)
    return [
        {
            "window": found.window.id,
            "end": found.window.end,
            "version": f"v{found.version}",
            "action": found.action,
            "reason codes": ", ".join(found.reason_codes),
            "loss": f"{found.performance.metric:.4g}" if found.performance.metric is not None else None,
            "drifted": len(found.drift.drifted),
            "outcome": found.outcome,
        }
        for found in decisions().list(model)
    ]
