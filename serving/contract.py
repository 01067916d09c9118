"""The HTTP contract of a served model: bodies are decoded and validated in one pass, by types made from its schema."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec

from everloop.domain.schema import FeatureSchema, RowSchema

_PATH = re.compile(r"^(?P<rule>.*?)(?: - at `\$(?P<path>.*)`)?$", re.DOTALL)
_ROW = re.compile(r"^\.(?:rows|labels)\[(?P<row>\d+)\](?:\.(?P<field>.+))?$")
_NAMED = re.compile(r"field `(?P<field>[^`]+)`")


# What JSON may hold and something behind it cannot: integers beyond 64 bits, floats beyond float32, years pandas has not.
Whole = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Number = Annotated[float, msgspec.Meta(ge=-3.4e38, le=3.4e38)]
YEARS = (1900, 2200)


class BadRequest(Exception):
    """The request breaks the contract; carries the HTTP status and what the client should mend."""

    def __init__(self, rule: str, *, status: int = 400, row: int | None = None, field: str | None = None) -> None:
        super().__init__(rule)
        self.status = status
        self.detail = {"error": {"row": row, "field": field, "rule": rule}}


class Label(msgspec.Struct, forbid_unknown_fields=True):
    """One observed truth; names its prediction by id or by natural key."""

    label: bool | Whole | Number | str
    prediction_id: str | None = None
    key: Whole | str | None = None
    observed_at: datetime | None = None


class LabelRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /labels."""

    labels: list[Label]


class Contract:
    """Decodes and validates the bodies of one model version."""

    def __init__(self, schema: RowSchema, *, max_rows: int) -> None:
        self.schema = schema
        self.max_rows = max_rows
        self._attributes = {feature.name: f"f{position}" for position, feature in enumerate(schema.features)}
        fields: list[Any] = [(self._attributes[feature.name], _type_of(feature)) for feature in schema.features]
        rename = {attribute: name for name, attribute in self._attributes.items()}
        for attribute, name, kind in (
            ("event_time", schema.time, datetime),
            ("key", schema.key, Whole if schema.key_type == "integer" else str),
        ):
            if name is not None:
                fields.append((attribute, kind | None, None))
                rename[attribute] = name
        row = msgspec.defstruct("Row", fields, rename=rename, forbid_unknown_fields=True)
        request = msgspec.defstruct("PredictRequest", [("rows", list[row])], forbid_unknown_fields=True)  # type: ignore[valid-type]
        self._rows = msgspec.json.Decoder(request)
        self._labels = msgspec.json.Decoder(LabelRequest)

    def rows(self, body: bytes) -> Sequence[Any]:
        """The rows of a POST /predict body, at least one and at most `max_rows`.

        Raises:
            BadRequest: names the row, the field and the rule.
        """
        rows: Sequence[Any] = _decode(self._rows, body).rows
        if not rows:
            raise BadRequest("rows is empty; send at least one row")
        if len(rows) > self.max_rows:
            raise BadRequest(f"{len(rows)} rows, at most {self.max_rows} are allowed in one request; split it")
        if self.schema.time is not None:
            for position, row in enumerate(rows):
                _check_year(row.event_time, position, self.schema.time)
        return rows

    def labels(self, body: bytes) -> Sequence[Label]:
        """The labels of a POST /labels body.

        Raises:
            BadRequest: names the row, the field and the rule.
        """
        labels: Sequence[Label] = _decode(self._labels, body).labels
        for position, label in enumerate(labels):
            self._check_label(position, label)
        return labels

    def columns(self, rows: Sequence[Any]) -> dict[str, list[Any]]:
        """The features of `rows` by name, in the schema's order, each a list of n values."""
        return {name: [getattr(row, attribute) for row in rows] for name, attribute in self._attributes.items()}

    def _check_label(self, position: int, label: Label) -> None:
        if (label.prediction_id is None) == (label.key is None):
            raise BadRequest("exactly one of prediction_id and key is required", row=position, field="prediction_id")
        if label.key is not None and self.schema.key is None:
            raise BadRequest("this model has no key; send prediction_id", row=position, field="key")
        if label.key is not None and isinstance(label.key, int) != (self.schema.key_type == "integer"):
            expected = "int" if self.schema.key_type == "integer" else "str"
            raise BadRequest(f"expected {expected}, got {type(label.key).__name__}", row=position, field="key")
        _check_year(label.observed_at, position, "observed_at")
        if not self.schema.classes:
            if isinstance(label.label, str | bool):
                raise BadRequest(f"expected a number, got {type(label.label).__name__}", row=position, field="label")
        elif not any(type(label.label) is type(name) for name in self.schema.classes):
            expected = type(self.schema.classes[0]).__name__
            raise BadRequest(f"expected {expected}, got {type(label.label).__name__}", row=position, field="label")


def utc(moment: datetime) -> str:
    """`moment` as ISO text in UTC; a time without a zone is UTC."""
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).replace(tzinfo=None).isoformat()


def _check_year(moment: datetime | None, row: int, field: str) -> None:
    if moment is not None and not YEARS[0] <= moment.year <= YEARS[1]:
        raise BadRequest(f"year {moment.year} is outside {YEARS[0]} to {YEARS[1]}", row=row, field=field)


def _type_of(feature: FeatureSchema) -> Any:
    kind: Any = {"number": Number, "integer": Whole, "text": str, "boolean": bool}[feature.type]
    if feature.role == "numeric":
        kind = Number
        if feature.low is not None:
            kind = Annotated[float, msgspec.Meta(ge=feature.low, le=feature.high)]
    return kind | None if feature.nullable else kind


def _decode(decoder: Any, body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as exc:
        raise _explain(str(exc)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise BadRequest(f"the body is not valid JSON: {exc}") from None


def _explain(message: str) -> BadRequest:
    parts = _PATH.match(message)
    rule, path = (parts["rule"], parts["path"] or "") if parts else (message, "")
    place = _ROW.match(path)
    named = _NAMED.search(rule)
    field = (place["field"] if place else None) or (named["field"] if named else None) or path.lstrip(".") or None
    return BadRequest(rule.replace("`", ""), row=int(place["row"]) if place else None, field=field)
