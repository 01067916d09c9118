"""The BentoML service: hosts the ASGI application, one model a bento.

`release.json` and `manifest.json` beside the packages say which; they are written by serving/build.py.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import bentoml

from everloop.adapters.registry import Registry, Version
from everloop.settings import settings
from serving.app import Serving, build_app
from serving.capture import Capture
from serving.hotswap import HotSwap, stored_model_folder
from serving.metrics import SWAPS
from serving.runtime import RELEASE_FILE, LoadedModel, Release, load_model

ROOT = Path(__file__).resolve().parent.parent
_FILE = ROOT / RELEASE_FILE
_CONFIG: dict[str, Any] = json.loads((ROOT / "service.json").read_text()) if (ROOT / "service.json").is_file() else {}


_serving = Serving()


@bentoml.asgi_app(build_app(_serving), path="/")
@bentoml.service(
    name=_CONFIG.get("model", "everloop"),
    workers=_CONFIG.get("workers", 1),
    traffic={"timeout": 30},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},
)
class Service:
    """Loads its bento's version, then follows the champion alias (unless pinned)."""

    def __init__(self) -> None:
        logging.getLogger("everloop").setLevel(logging.INFO)
        threading.Thread(target=_end_with, args=(os.getppid(),), name="parent watch", daemon=True).start()
        release = Release.model_validate_json(_FILE.read_bytes())
        here = settings()
        registry = Registry(here.mlflow)
        self.swap = HotSwap(
            load_model(Path(bentoml.models.get(release.tag).path)),
            champion=lambda: registry.champion(release.model),
            load=_load,
            poll_seconds=here.poll_seconds,
            on_swap=lambda result: SWAPS.labels(result).inc(),
        )
        _serving.open(self.swap, Capture(here.inference / release.model), Capture(here.labels / release.model))
        if not here.pinned:
            self.swap.follow()


def _end_with(parent: int) -> None:
    """End this worker once its parent is gone: a killed BentoML leaves workers in sessions of their own behind."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def _load(version: Version) -> LoadedModel:
    return load_model(stored_model_folder(version))
