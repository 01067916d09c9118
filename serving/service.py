"""The BentoML service: hosts the front, one model a bento.

`release.json` and `manifest.json` beside the packages say which model; they are written by serving/build.py.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bentoml

from everloop.domain.errors import ServingRefused
from everloop.settings import Settings, settings
from serving.app import Serving
from serving.capture import Capture, Segments
from serving.doors import Keys
from serving.following import Fixed, Following
from serving.front import App, Front
from serving.logs import log_as_json
from serving.metrics import count_lost, count_swap, observe_preparation
from serving.models import RELEASE_FILE, LoadedModel, Release, load_model
from serving.plan import PlanFolder

ROOT = Path(__file__).resolve().parent.parent
_FILE = ROOT / RELEASE_FILE
_CONFIG: dict[str, Any] = json.loads((ROOT / "service.json").read_text()) if (ROOT / "service.json").is_file() else {}


_serving = Serving()


def _workers() -> int:
    """As today's spec says, if `everloop serve` has started this; else as it said when the bento was built."""
    today = settings().serving
    return today.workers if today else int(_CONFIG.get("workers", 1))


class Hosted(bentoml.Service[Any]):
    """A BentoML service whose workers have our front before BentoML's own application.

    BentoML's middleware costs more than a prediction; health, metrics and the documentation's page still pass through it.
    """

    __slots__ = ()

    def to_asgi(self, is_main: bool = True) -> App:
        """The application that a worker serves."""
        return Front(
            super().to_asgi(is_main),
            _serving.routes,
            serving=lambda: _serving.limits,
            keys=lambda: _serving.keys,
            on_error=_serving.count_error,
            on_close=_serving.close,
        )


@bentoml.service(
    name=_CONFIG.get("model", "everloop"),
    workers=_workers(),
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},
    service_class=Hosted,
)
class Service:
    """Serves its bento's version, or follows the plan of the `everloop serve` that started it."""

    def __init__(self) -> None:
        log_as_json()
        _in_thread(_end_with, os.getppid())
        here, release = settings(), Release.model_validate_json(_FILE.read_bytes())
        served = _follow(here, here.following) if here.following else Fixed(_load(release.tag, here))
        limits = here.serving or served.current.manifest.serving
        _serving.open(
            served,
            limits,
            keys=Keys(here.api_keys(limits)),
            predictions=_capture(here, here.inference / release.model, "predictions", release.model),
            labels=_capture(here, here.labels / release.model, "labels", release.model),
        )
        _in_thread(_serving.show_signals)


def _follow(here: Settings, folder: Path) -> Following:
    plan = PlanFolder(folder)
    try:
        following = Following(
            plan,
            load=lambda tag: _load(tag, here),
            on_prepared=observe_preparation,
            on_swap=_serving.note_swap,
            on_refused=lambda tag: count_swap(tag, "refused"),
        )
    except ServingRefused as exc:
        plan.report_failure(str(exc))
        raise
    following.follow()
    return following


def _load(tag: str, here: Settings) -> LoadedModel:
    try:
        folder = Path(bentoml.models.get(tag).path)
    except bentoml.exceptions.NotFound as exc:
        model = tag.partition(":")[0]
        raise ServingRefused(f"{tag} is not in the bento store; run `prefect deployment run release/{model}`") from exc
    return load_model(folder, here.serving)


def _capture(here: Settings, folder: Path, kind: str, model: str) -> Capture:
    segments = Segments(folder, max_bytes=here.segment_bytes, max_seconds=here.segment_seconds)
    return Capture(segments, on_lost=lambda items: count_lost(model, kind, items))


def _in_thread(target: Callable[..., None], *arguments: Any) -> None:
    threading.Thread(target=target, args=arguments, name=target.__name__, daemon=True).start()


def _end_with(parent: int) -> None:
    """End this worker once its parent is gone: a killed BentoML leaves workers in sessions of their own behind."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
