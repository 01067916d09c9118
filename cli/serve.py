"""`everloop serve`: become the service of a model's champion."""

from __future__ import annotations

import os
import time

from everloop.adapters.registry import Registry
from everloop.adapters.service import serve_command
from everloop.settings import settings


def serve_champion(model: str) -> None:
    """Replace this process by the champion's service; before the first promotion, wait for it."""
    here = settings()
    spec = here.spec(model)
    here.apply()
    registry = Registry(here.mlflow)
    champion = registry.champion(model)
    if champion is None:
        print(f"{model} has no champion yet; waiting for the first release", flush=True)  # noqa: T201
    while champion is None:
        time.sleep(here.poll_seconds)
        champion = registry.champion(model)
    command = serve_command(champion.bento, here.port_of(spec))
    os.execve(command[0], command, here.environment(threads=1))  # noqa: S606
