"""The ASGI application: POST /predict, POST /labels, GET /model. It knows HTTP and nothing of BentoML."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from everloop.domain.metrics import Predictions
from serving.capture import Capture
from serving.contract import BadRequest, Label, utc
from serving.hotswap import HotSwap
from serving.metrics import CAPTURE_LOST, LATENCY, REQUESTS, ROWS
from serving.runtime import LoadedModel

log = logging.getLogger("everloop.serving")


class Serving:
    """What the handlers share: the model that answers, and where predictions and labels are kept."""

    swap: HotSwap
    _predictions: Capture
    _labels: Capture
    _lost_rows = 0

    def open(self, swap: HotSwap, predictions: Capture, labels: Capture) -> None:
        """Afterwards the handlers can answer; the application is mounted before the worker has its model."""
        self.swap, self._predictions, self._labels = swap, predictions, labels

    async def predict(self, request: Request) -> Response:
        """POST /predict."""
        started = time.perf_counter()
        model = self.swap.current
        rows = model.contract.rows(await _read_body(request, model.manifest.serving.max_body_bytes))
        columns = model.contract.columns(rows)
        predicted = model.predict(columns)
        request_id = uuid4().hex
        identifiers = [f"{request_id}-{position:06d}" for position in range(len(rows))]
        self._keep(model, rows, columns, predicted, identifiers)
        answer: dict[str, Any] = {
            "predictions": predicted.values.tolist(),
            "prediction_ids": identifiers,
            "model_version": model.release.version,
        }
        if predicted.probabilities is not None:
            answer["probabilities"] = predicted.probabilities.tolist()
            answer["classes"] = list(predicted.classes)
        ROWS.labels(model.release.version).inc(len(rows))
        LATENCY.labels(model.release.version).observe(time.perf_counter() - started)
        return _json(answer)

    async def label(self, request: Request) -> Response:
        """POST /labels; a label that cannot be kept is not accepted."""
        model = self.swap.current
        labels = model.contract.labels(await _read_body(request, model.manifest.serving.max_body_bytes))
        now = datetime.now(UTC)
        try:
            self._labels.append([_label_line(label, now) for label in labels])
        except OSError as exc:
            log.exception("labels cannot be kept")
            raise BadRequest(
                f"the labels cannot be kept now ({exc.strerror}); send them again later", status=503
            ) from exc
        return _json({"accepted": len(labels)})

    async def model(self, _: Request) -> Response:
        """GET /model."""
        model, manifest = self.swap.current, self.swap.current.manifest
        return _json(
            {
                "name": manifest.model,
                "version": model.release.version,
                "alias": "champion" if self.swap.is_following else None,
                "serving_since": self.swap.since.isoformat(),
                "trained_from": manifest.trained_from,
                "trained_until": manifest.trained_until,
                "rows": manifest.rows,
                "metrics": manifest.metrics,
                "estimator": manifest.configuration.title,
                "runtime": "scikit-learn",
                "code": model.release.code,
                "refused": self.swap.refused,
                "capture": {"healthy": self._lost_rows == 0, "lost_rows": self._lost_rows},
                "schema": manifest.row_schema.model_dump(mode="json"),
            }
        )

    def _keep(
        self,
        model: LoadedModel,
        rows: Sequence[Any],
        columns: dict[str, list[Any]],
        predicted: Predictions,
        identifiers: list[str],
    ) -> None:
        """Append one line a row; a full disk is counted and does not stop the answers."""
        served_at = utc(datetime.now(UTC))
        values = predicted.values.tolist()
        lines = []
        for position, row in enumerate(rows):
            event_time = getattr(row, "event_time", None)
            lines.append(
                {
                    "prediction_id": identifiers[position],
                    "key": getattr(row, "key", None),
                    "event_time": utc(event_time) if event_time else served_at,
                    "served_at": served_at,
                    "model_version": model.release.version,
                    "features": {name: column[position] for name, column in columns.items()},
                    "prediction": values[position],
                    "probabilities": None
                    if predicted.probabilities is None
                    else predicted.probabilities[position].tolist(),
                }
            )
        try:
            self._predictions.append(lines)
        except OSError:
            self._lost_rows += len(lines)
            CAPTURE_LOST.inc(len(lines))
            log.exception("%d predictions could not be captured", len(lines))


def build_app(serving: Serving) -> Starlette:
    """The application over `serving`; every refusal is JSON with row, field and rule."""
    return Starlette(
        routes=[
            Route("/predict", serving.predict, methods=["POST"]),
            Route("/labels", serving.label, methods=["POST"]),
            Route("/model", serving.model, methods=["GET"]),
        ],
        exception_handlers={BadRequest: _refuse, Exception: _fail},
    )


async def _refuse(_: Request, exc: Exception) -> Response:
    assert isinstance(exc, BadRequest)
    REQUESTS.labels(str(exc.status)).inc()
    return _json(exc.detail, exc.status)


async def _fail(_: Request, exc: Exception) -> Response:
    log.error("unexpected error", exc_info=exc)
    REQUESTS.labels("500").inc()
    rule = "the service failed on this request; its log says why"
    return _json({"error": {"row": None, "field": None, "rule": rule}}, 500)


async def _read_body(request: Request, limit: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise BadRequest(f"the body is larger than {limit} bytes; split the request", status=413)
    return bytes(body)


def _label_line(label: Label, now: datetime) -> dict[str, Any]:
    observed = utc(label.observed_at or now)
    return {"prediction_id": label.prediction_id, "key": label.key, "label": label.label, "observed_at": observed}


def _json(content: Any, status: int = 200) -> Response:
    if status == 200:
        REQUESTS.labels("200").inc()
    return Response(orjson.dumps(content), status_code=status, media_type="application/json")
