"""`everloop serve`: keep the service of a model's champion."""

from __future__ import annotations

import logging

from everloop.settings import settings
from serving.keeper import Keeper


def serve_champion(model: str) -> None:
    """Serve the champion and follow it, until asked to end; before the first promotion, wait for it."""
    here = settings()
    spec = here.spec(model)
    here.api_keys(spec.serving)  # a missing key is told now, not by the first worker
    here.apply()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    Keeper(spec, here).run()
