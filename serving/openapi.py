"""The OpenAPI description of one model's service: its real rows, its limits, its errors."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson

from everloop.domain.spec import ServingSpec
from serving.contract import LabelRequest
from serving.models import LoadedModel

_REFERENCE = "#/components/schemas/{name}"
_STATUSES = {
    "400": "The request breaks the contract; the error names the row, the field and the rule.",
    "401": "An API key is required.",
    "408": "The body did not arrive in time.",
    "413": "The body, or the number of rows, is over its limit.",
    "415": "The body is compressed.",
    "429": "Too many requests at a time.",
    "500": "The service failed; its log says why.",
    "503": "The service cannot take this now.",
    "504": "The answer took too long.",
}


def describe_api(model: LoadedModel, limits: ServingSpec) -> bytes:
    """An OpenAPI 3.1 document as JSON."""
    manifest = model.manifest
    (request, labels), components = msgspec.json.schema_components(
        [model.contract.request_type, LabelRequest], ref_template=_REFERENCE
    )
    components |= _answers(model)
    components["PredictRequest"]["properties"]["rows"] |= {"minItems": 1, "maxItems": limits.max_rows}
    components["LabelRequest"]["properties"]["labels"] |= {"minItems": 1, "maxItems": limits.max_rows}
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": manifest.model,
            "version": model.release.version,
            "description": f"{manifest.configuration.title}, trained on data until {manifest.trained_until}.",
        },
        "paths": {
            "/predict": {
                "post": _operation("predict", "Predictions for rows.", request, "PredictAnswer", _example(model))
            },
            "/labels": {"post": _operation("labels", "What turned out to be true.", labels, "LabelAnswer", None)},
            "/model": {"get": _operation("model", "What is served.", None, "Model", None)},
        },
        "components": {"schemas": components},
    }
    if limits.api_key_env is not None:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
    return orjson.dumps(document)


def _operation(name: str, summary: str, body: Any, answer: str, example: Any) -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": _REFERENCE.format(name="Error")}}}
    statuses = _STATUSES if body is not None else {code: _STATUSES[code] for code in ("401", "429", "500")}
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": summary,
        "responses": {
            "200": {
                "description": "Done.",
                "content": {"application/json": {"schema": {"$ref": _REFERENCE.format(name=answer)}}},
            },
            **{code: {"description": text, "content": error} for code, text in statuses.items()},
        },
    }
    if body is not None:
        content = {"schema": body} | ({"example": example} if example else {})
        operation["requestBody"] = {"required": True, "content": {"application/json": content}}
    return operation


def _example(model: LoadedModel) -> Any:
    recorded = model.manifest.rehearsal[:1]
    return {"rows": [request.row for request in recorded]} if recorded else None


def _answers(model: LoadedModel) -> dict[str, Any]:
    classes = model.manifest.row_schema.classes
    value: dict[str, Any] = {"enum": list(classes)} if classes else {"type": "number"}
    many = {"type": "array", "items": value}
    answer: dict[str, Any] = {
        "predictions": many,
        "prediction_ids": {"type": "array", "items": {"type": "string"}},
        "model_version": {"type": "string"},
    }
    if classes:
        answer["probabilities"] = {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}
        answer["classes"] = many
    text, or_null = {"type": "string"}, lambda kind: {"anyOf": [{"type": kind}, {"type": "null"}]}
    problem = {
        "row": or_null("integer"),
        "field": or_null("string"),
        "rule": text,
        "limit": text,
        "request_id": text,
    }
    return {
        "PredictAnswer": _object(answer),
        "LabelAnswer": _object({"accepted": {"type": "integer"}}),
        "Error": _object({"error": _object(problem, optional=("limit",))}),
        "Model": {"type": "object", "properties": {"name": text, "version": text}, "required": ["name", "version"]},
    }


def _object(properties: dict[str, Any], *, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
    }
