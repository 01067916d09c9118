"""The OpenAPI description of one model's service: its real rows, its limits, its errors."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson

from everloop.domain.schema import RowSchema
from everloop.domain.spec import Scalar, ServingSpec
from serving.contract import YEARS
from serving.models import LoadedModel

_REFERENCE = "#/components/schemas/{name}"
_TEXT: dict[str, Any] = {"type": "string"}
_ANYTHING: dict[str, Any] = {"type": "object", "additionalProperties": True}
_MODEL = {
    "name": _TEXT,
    "version": _TEXT,
    "alias": {"anyOf": [_TEXT, {"type": "null"}]},
    "serving_since": {"type": "string", "format": "date-time"},
    "trained_from": _TEXT,
    "trained_until": _TEXT,
    "made_at": {"type": "string", "format": "date-time"},
    "rows": {"type": "integer"},
    "metrics": {"type": "object", "additionalProperties": {"type": "number"}},
    "estimator": _TEXT,
    "runtime": _TEXT,
    "runtime_reason": _TEXT,
    "code": _TEXT,
    "environment": {"type": "object", "additionalProperties": _TEXT},
    "workers": {"type": "array", "items": _ANYTHING},
    "starting": {"anyOf": [_TEXT, {"type": "null"}]},
    "refused": {"anyOf": [_ANYTHING, {"type": "null"}]},
    "registry_problem": {"anyOf": [_TEXT, {"type": "null"}]},
    "capture": _ANYTHING,
    "health": {"type": "string", "enum": ["healthy", "degraded"]},
    "problems": {"type": "array", "items": _TEXT},
    "schema": _ANYTHING,
}
_STATUSES = {
    "400": "The request breaks the contract; the error names the row, the field and the rule.",
    "401": "An API key is required.",
    "408": "The body did not arrive in time.",
    "413": "The body, or the number of rows, is over its limit.",
    "415": "The body is compressed.",
    "429": "Too many requests at a time.",
    "500": "The service failed; its log says why.",
    "502": "A worker ended while it answered.",
    "503": "The service cannot take this now.",
    "504": "The answer took too long.",
}


def describe_api(model: LoadedModel, limits: ServingSpec) -> bytes:
    """An OpenAPI 3.1 document as JSON."""
    manifest = model.manifest
    (request, labels), components = msgspec.json.schema_components(
        [model.contract.request_type, model.contract.labels_type], ref_template=_REFERENCE
    )
    components = _with_plain_integers(components) | _answers(model)
    _describe_times(components, manifest.row_schema)
    _describe_label(components, manifest.row_schema)
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
            "/labels": {
                "post": _operation(
                    "labels", "What turned out to be true.", labels, "LabelAnswer", _label_example(model)
                )
            },
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
    statuses = (
        _STATUSES
        if body is not None
        else {code: _STATUSES[code] for code in ("401", "429", "500", "502", "503", "504")}
    )
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": summary,
        "tags": ["model"],
        "responses": {
            "200": {
                "description": "Done.",
                "headers": {
                    "X-Request-ID": {"description": "The request's, or a new one.", "schema": {"type": "string"}}
                },
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
    value = _class_schema(classes) if classes else {"type": "number"}
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
        "Error": _object({"error": _object(problem, optional=("limit", "request_id"))}),
        "Model": _object(_MODEL),
    }


def _class_schema(classes: tuple[Scalar, ...]) -> dict[str, Any]:
    """The type of a class; text and whole numbers are listed, which generators understand."""
    kinds = {type(name) for name in classes}
    if kinds == {bool}:
        return {"type": "boolean"}
    if kinds == {str} or kinds == {int}:
        return {"type": "string" if kinds == {str} else "integer", "enum": list(classes)}
    return {"type": "number"} if kinds <= {int, float} else {}


def _with_plain_integers(schema: Any) -> Any:
    """`schema` without the second way to write a whole number: JSON Schema calls 1.0 an integer anyway."""
    if isinstance(schema, list):
        return [_with_plain_integers(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {name: _with_plain_integers(value) for name, value in schema.items()}
    if "anyOf" in plain:
        plain["anyOf"] = [kind for kind in plain["anyOf"] if kind.get("multipleOf") != 1]
        if len(plain["anyOf"]) == 1:
            return plain.pop("anyOf")[0] | plain
    return plain


def _describe_times(components: dict[str, Any], schema: RowSchema) -> None:
    """Say of times what msgspec does not: that they are times, in which years, and in which zone."""
    first, last = YEARS
    about = {
        "format": "date-time",
        "pattern": f"^({first // 100}|{first // 100 + 1}|{last // 100 - 1})\\d\\d-",
        "description": f"RFC 3339, years {first} to {last - 1}; without a zone it is UTC.",
    }
    for name, field in (("Row", schema.time), ("Label", "observed_at")):
        if field is not None:
            for kind in components[name]["properties"][field]["anyOf"]:
                kind.update(about if kind["type"] == "string" else {})


def _describe_label(components: dict[str, Any], schema: RowSchema) -> None:
    """A label names its prediction by its id or by the natural key, never by both: one schema for each way."""
    label = components.pop("Label")
    about = {name: label["properties"][name] for name in ("label", "observed_at")}
    ways = {"LabelById": ("prediction_id", _TEXT)}
    if schema.key is not None:
        key = next(kind for kind in label["properties"]["key"]["anyOf"] if kind["type"] != "null")
        ways["LabelByKey"] = ("key", key)
    for title, (name, kind) in ways.items():
        components[title] = {
            "type": "object",
            "title": title,
            "description": "One observed truth.",
            "properties": {name: kind, **about},
            "required": [name, "label"],
            "additionalProperties": False,
        }
    references = [{"$ref": _REFERENCE.format(name=title)} for title in ways]
    items = {"oneOf": references} if len(references) > 1 else references[0]
    components["LabelRequest"]["properties"]["labels"]["items"] = items


def _label_example(model: LoadedModel) -> Any:
    recorded = model.manifest.rehearsal[:1]
    return {"labels": [{"label": request.prediction, "prediction_id": f"{'0' * 32}-000000"} for request in recorded]}


def _object(properties: dict[str, Any], *, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
    }
