"""Rehearse: boot the bento beside everything else and ask it what training recorded."""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Sequence

import httpx
import numpy as np

from everloop.adapters.orchestrator import show_markdown
from everloop.adapters.registry import Version
from everloop.adapters.service import authorization, running_service
from everloop.domain.errors import RehearsalFailed
from everloop.domain.manifest import Manifest, RecordedRequest
from everloop.domain.spec import ModelSpec
from everloop.domain.spec_values import Frozen
from everloop.settings import settings
from serving.models import Release, differences
from tasks.step import step
from tasks.wiring import registry

log = logging.getLogger("everloop.rehearse")


SINGLE_REQUESTS = 100


class Rehearsal(Frozen):
    """How the packaged model answered."""

    rows: int
    p95_ms: float
    boot_seconds: float


@step
def rehearse(spec: ModelSpec, version: Version, release: Release) -> Rehearsal:
    """What a service of the bento answered to the recorded requests, one row a request and all at once.

    Raises:
        ServingRefused: it does not start.
        RehearsalFailed: an answer differs from what training recorded, or the 95th percentile is above the bar.
    """
    here = settings()
    with tempfile.TemporaryDirectory(prefix="everloop-rehearsal-") as scratch:
        manifest = registry().manifest(version)
        environment = here.environment() | {
            "EVERLOOP_CAPTURE": f"{scratch}/inference",
            "EVERLOOP_SERVING": spec.serving.model_dump_json(),
        }
        log_file = here.home / "logs" / "rehearsal" / f"{release.tag.replace(':', '-')}.log"
        started = time.monotonic()
        keys = here.api_keys(spec.serving)
        with running_service(
            release.tag, environment=environment, log=log_file, boot_seconds=here.boot_seconds, keys=keys
        ) as url:
            boot_seconds = time.monotonic() - started
            p95_ms = _ask(url, keys, manifest, at_once=_rows_at_once(spec, manifest))
    if p95_ms > spec.gates.max_p95_latency_ms:
        raise RehearsalFailed(
            f"{version.label}: 95 % of single-row requests within {p95_ms:.1f} ms, {spec.gates.max_p95_latency_ms:g} ms are allowed "
            "(gates.max_p95_latency_ms); the champion stays"
        )
    rehearsal = Rehearsal(rows=len(manifest.rehearsal), p95_ms=p95_ms, boot_seconds=boot_seconds)
    registry().tag(version, rehearsal_rows=str(rehearsal.rows), rehearsal_p95_ms=f"{p95_ms:.2f}")
    text = f"{rehearsal.rows} recorded requests answered as training recorded them; p95 {p95_ms:.1f} ms, booted in {boot_seconds:.1f} s."
    show_markdown(f"rehearsal-{spec.name}", f"# Rehearsal of {version.label}\n\n{text}", description="Rehearsal")
    log.info("%s: %s", version.label, text)
    return rehearsal


def _rows_at_once(spec: ModelSpec, manifest: Manifest) -> int:
    """How many recorded rows fit into one request."""
    largest = max(len(json.dumps(request.row)) + 2 for request in manifest.rehearsal)
    return max(1, min(spec.serving.max_rows, (spec.serving.max_body_bytes - 20) // largest))


def _ask(url: str, keys: Sequence[str], manifest: Manifest, *, at_once: int) -> float:
    """The 95th percentile in ms of single-row requests, the first ten left out; every answer is compared."""
    recorded = manifest.rehearsal
    with httpx.Client(base_url=url, timeout=30, headers=authorization(keys), trust_env=False) as client:
        for first in range(0, len(recorded), at_once):
            some = recorded[first : first + at_once]
            _compare(some, _predict(client, [request.row for request in some]), manifest.tolerance)
        seconds = []
        for request in recorded[-SINGLE_REQUESTS:]:
            started = time.perf_counter()
            answer = _predict(client, [request.row])
            seconds.append(time.perf_counter() - started)
            _compare((request,), answer, manifest.tolerance)
    return float(np.percentile(seconds[10:] or seconds, 95) * 1000)


def _predict(client: httpx.Client, rows: list[dict[str, object]]) -> dict[str, list[object]]:
    answer = client.post("/predict", json={"rows": rows})
    if not answer.is_success:
        raise RehearsalFailed(
            f"a recorded request was answered with {answer.status_code}: {answer.text[:300]}; the champion stays"
        )
    found: dict[str, list[object]] = answer.json()
    return found


def _compare(recorded: tuple[RecordedRequest, ...], answer: dict[str, list[object]], tolerance: float) -> None:
    wrong = differences(recorded, answer["predictions"], answer.get("probabilities"), tolerance=tolerance)
    if wrong:
        raise RehearsalFailed(
            f"{len(wrong)} of {len(recorded)} recorded answers differ, first: {wrong[0]}; the champion stays"
        )
