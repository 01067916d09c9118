"""What a model's service answers: POST /predict, POST /labels, GET /model, GET /docs.json."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Protocol
from uuid import uuid4

import orjson

from everloop.adapters.model_files import environment
from everloop.domain.manifest import RUNTIMES
from everloop.domain.metrics import Predictions
from everloop.domain.spec import ServingSpec
from serving.capture import Capture
from serving.contract import BadRequest
from serving.doors import Keys
from serving.metrics import VersionMetrics, count_swap, show_lag
from serving.models import LoadedModel
from serving.openapi import describe_api
from serving.plan import Plan, WorkerState

log = logging.getLogger("everloop.serving")

ENVIRONMENT = environment()  # as this process was started with it
CLOSE_SECONDS = 4.0
LARGE_ROWS = 500
"""Requests of more rows are computed in a thread, so that small ones need not wait for them."""


class Served(Protocol):
    """The model that answers now, and what is known about it."""

    @property
    def since(self) -> datetime:
        """When it began to answer."""

    @property
    def plan(self) -> Plan | None:
        """What its workers were told, None if they follow nothing."""

    @property
    def current(self) -> LoadedModel:
        """The model of this moment."""

    def states(self) -> list[WorkerState]:
        """What every worker does."""


class Serving:
    """What the handlers share. It is opened when the worker has its model, after the application is made."""

    served: Served
    limits: ServingSpec
    keys: Keys

    def __init__(self) -> None:
        self.routes: dict[str, dict[str, Callable[[bytes, str], Awaitable[bytes]]]] = {
            "/predict": {"POST": self.predict},
            "/labels": {"POST": self.label},
            "/model": {"GET": self.model},
            "/docs.json": {"GET": self.docs},
            "/readyz": {"GET": self.ready},
        }
        self._metrics: dict[str, VersionMetrics] = {}

    def open(self, served: Served, limits: ServingSpec, *, keys: Keys, predictions: Capture, labels: Capture) -> None:
        """Afterwards the handlers can answer."""
        self.served, self.limits, self.keys = served, limits, keys
        self._predictions, self._labels = predictions, labels

    def close(self) -> None:
        """Afterwards what waited for a slow disk is kept, or counted as lost."""
        for capture in (self._predictions, self._labels):
            capture.close(CLOSE_SECONDS)

    def metrics_of(self, model: LoadedModel) -> VersionMetrics:
        """The series of the model's version."""
        found = self._metrics.get(model.release.version)
        if found is None:
            found = self._metrics[model.release.version] = VersionMetrics(model)
        return found

    def count_error(self, kind: str) -> None:
        """One request was refused, or failed."""
        self.metrics_of(self.served.current).count_error(kind)

    async def predict(self, body: bytes, request_id: str) -> bytes:
        """POST /predict: decode, predict, keep, answer."""
        started = time.perf_counter()
        model = self.served.current
        decoded = model.contract.decode(body)
        rows = len(decoded.batch)
        if rows > LARGE_ROWS:
            predicted = await self._in_thread(model, decoded.batch)
        else:
            predicted = model.runtime.predict(decoded.batch)
        prediction_id = uuid4().hex
        answer = orjson.dumps(_answer(model, predicted, prediction_id, rows), option=orjson.OPT_SERIALIZE_NUMPY)
        seconds = time.perf_counter() - started
        self._predictions.keep(_captured(body, answer, request_id, seconds), rows)
        self.metrics_of(model).count_answer(rows=rows, seconds=seconds, nulls=decoded.nulls, unseen=decoded.unseen)
        return answer

    async def label(self, body: bytes, request_id: str) -> bytes:
        """POST /labels; labels that cannot be kept are not accepted."""
        model = self.served.current
        labels = model.contract.labels(body)
        if not self._labels.keep(_captured(body, b"null", request_id, 0.0), len(labels)):
            problem = self._labels.problem
            raise BadRequest(f"the labels cannot be kept now ({problem}); send them again later", status=503)
        self.metrics_of(model).labels.inc(len(labels))
        return orjson.dumps({"accepted": len(labels)})

    async def model(self, _: bytes, __: str) -> bytes:
        """GET /model."""
        model, manifest = self.served.current, self.served.current.manifest
        plan, workers = self.served.plan, self.served.states()
        refused = (plan and plan.refused) or next((state.refused for state in workers if state.refused), None)
        captures = {"predictions": self._predictions, "labels": self._labels}
        return orjson.dumps(
            {
                "name": manifest.model,
                "version": model.release.version,
                "alias": "champion" if plan is not None else None,
                "serving_since": self.served.since.isoformat(),
                "trained_from": manifest.trained_from,
                "trained_until": manifest.trained_until,
                "made_at": manifest.made_at.isoformat(),
                "rows": manifest.rows,
                "metrics": manifest.metrics,
                "estimator": manifest.configuration.title,
                "runtime": RUNTIMES[manifest.runtime],
                "runtime_reason": manifest.runtime_reason,
                "code": model.release.code,
                "environment": ENVIRONMENT,
                "workers": [state.model_dump(mode="json") for state in workers],
                "starting": plan.starting if plan else None,
                "refused": refused.model_dump() if refused else None,
                "registry_problem": plan.registry_problem if plan else None,
                "capture": {name: _capture_health(capture) for name, capture in captures.items()},
                **self._health(),
                "schema": manifest.row_schema.model_dump(mode="json"),
            }
        )

    async def docs(self, _: bytes, __: str) -> bytes:
        """GET /docs.json: the OpenAPI description of this model's service."""
        return describe_api(self.served.current, self.limits)

    async def ready(self, _: bytes, __: str) -> bytes:
        """GET /readyz: ready, and in what health."""
        return orjson.dumps(self._health())

    def note_swap(self, model: LoadedModel) -> None:
        """Count a swap; `model` answers from now on."""
        count_swap(model.release.tag, "done")
        log.info("swapped to v%s", model.release.version, extra={"event": "swapped", "version": model.release.version})

    def show_signals(self) -> None:
        """Keep the gauges current; never returns."""
        shown = self.metrics_of(self.served.current)
        while True:
            now = self.metrics_of(self.served.current)
            if now is not shown:
                shown.hide_age()
            shown = now
            shown.show_age()
            lag = max(self._predictions.lag_seconds, self._labels.lag_seconds)
            show_lag(self.served.current.release.model, lag)
            time.sleep(1)

    def _health(self) -> dict[str, Any]:
        problems = self.problems()
        return {"health": "degraded" if problems else "healthy", "problems": problems}

    def problems(self) -> list[str]:
        """What is wrong while the service goes on answering; empty if nothing is."""
        plan = self.served.plan
        found = [
            f"{name} are not kept: {capture.problem or 'the disk is slow'}"
            for name, capture in (("predictions", self._predictions), ("labels", self._labels))
            if capture.is_degraded
        ]
        if plan is not None and plan.registry_problem:
            found.append(f"the registry cannot be read: {plan.registry_problem}")
        return found

    async def _in_thread(self, model: LoadedModel, batch: Any) -> Predictions:
        try:
            async with asyncio.timeout(self.limits.timeout_seconds):
                return await asyncio.to_thread(model.runtime.predict, batch)
        except TimeoutError:
            rule = f"the answer took more than {self.limits.timeout_seconds:g} s; send fewer rows"
            raise BadRequest(rule, status=504, limit="serving.timeout_seconds") from None


def _answer(model: LoadedModel, predicted: Predictions, prediction_id: str, rows: int) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "predictions": predicted.values if predicted.probabilities is None else predicted.values.tolist(),
        "prediction_ids": [prediction_id + suffix for suffix in _suffixes(rows)],
        "model_version": model.release.version,
    }
    if predicted.probabilities is not None:
        answer["probabilities"] = predicted.probabilities
        answer["classes"] = predicted.classes
    return answer


@lru_cache(maxsize=64)
def _suffixes(rows: int) -> tuple[str, ...]:
    """What makes the prediction ids of one request different, and sorts them."""
    return tuple(f"-{position:06d}" for position in range(rows))


def _captured(body: bytes, answer: bytes, request_id: str, seconds: float) -> bytes:
    """One line: what was asked and what was answered, as they went over the wire."""
    now = datetime.now(UTC).replace(tzinfo=None).isoformat()
    head = f'{{"at":"{now}","request_id":"{request_id}","ms":{seconds * 1000:.3f},"answer":'
    # JSON has no line breaks inside of values: those of the body are between them
    asked = body.replace(b"\n", b" ") if b"\n" in body else body
    return b"".join((head.encode(), answer, b',"request":', asked, b"}\n"))


def _capture_health(capture: Capture) -> dict[str, Any]:
    return {"healthy": not capture.is_degraded, "problem": capture.problem, "lost": capture.lost}
