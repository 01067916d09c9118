"""The HTTP contract of a served model: bodies are decoded and validated in one pass, by types made from its schema."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from itertools import chain
from operator import or_
from typing import Annotated, Any

import msgspec
import numpy as np

from everloop.domain.batch import Batch
from everloop.domain.schema import MAX_LISTED_CATEGORIES, MISSING, FeatureSchema, RowSchema, canonical_category

_PATH = re.compile(r"^(?P<rule>.*?)(?: - at `\$(?P<path>.*)`)?$", re.DOTALL)
_ROW = re.compile(r"^\.(?:rows|labels)\[(?P<row>\d+)\](?:\.(?P<field>.+))?$")
_NAMED = re.compile(r"field `(?P<field>[^`]+)`")


# What JSON may hold and something behind it cannot: integers beyond 64 bits, floats beyond float32, years pandas has not.
Whole = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
# JSON has one kind of number: 1.0 is whole, and what pandas sends for an integer column that had a null.
WholeNumber = Whole | Annotated[float, msgspec.Meta(multiple_of=1, ge=-(2**53), le=2**53)]
Number = Annotated[float, msgspec.Meta(ge=-3.4e38, le=3.4e38)]
YEARS = (1900, 2200)
REMEMBERED = 10_000
_STRICT: dict[str, Any] = {"forbid_unknown_fields": True, "gc": False}


class BadRequest(Exception):
    """The request breaks the contract; carries the HTTP status and what the client should mend.

    `limit` names the setting that was exceeded, if it was one. `is_unread`: the client may still be sending its body.
    """

    def __init__(
        self,
        rule: str,
        *,
        status: int = 400,
        row: int | None = None,
        field: str | None = None,
        limit: str | None = None,
        is_unread: bool = False,
    ) -> None:
        super().__init__(rule)
        self.status = status
        self.is_unread = is_unread
        self.kind = limit or ("contract" if status == 400 else "refused")
        self.detail = {"row": row, "field": field, "rule": rule} | ({"limit": limit} if limit else {})


@dataclass(frozen=True, slots=True)
class Decoded:
    """The rows of one request: as arrays, and what was counted on the way."""

    batch: Batch
    nulls: int
    unseen: int


class Contract:
    """Decodes and validates the bodies of one model version."""

    def __init__(self, schema: RowSchema, *, max_rows: int) -> None:
        self.schema = schema
        self.max_rows = max_rows
        self.row_type = _row_type(schema)
        self.request_type = msgspec.defstruct("PredictRequest", [("rows", list[self.row_type])], **_STRICT)  # type: ignore[name-defined]
        self.labels_type = msgspec.defstruct("LabelRequest", [("labels", list[_label_type(schema)])], **_STRICT)  # type: ignore[misc]
        self._numbers = len(schema.numeric)
        self._categories = [_Categorical(feature) for feature in schema.categorical]
        self._time_at = len(schema.features)
        self._has_absent_numbers = any(feature.nullable for feature in schema.numeric)
        self._rows = msgspec.json.Decoder(self.request_type)
        self._labels = msgspec.json.Decoder(self.labels_type)

    def decode(self, body: bytes) -> Decoded:
        """The rows of a POST /predict body, at least one and at most `max_rows`.

        Raises:
            BadRequest: names the row, the field and the rule.
        """
        rows: list[Any] = _decode(self._rows, body).rows
        self._check_count(rows, "rows")
        return self._as_arrays(rows)

    def labels(self, body: bytes) -> Sequence[Any]:
        """The labels of a POST /labels body, at least one and at most `max_rows`.

        Raises:
            BadRequest: names the row, the field and the rule.
        """
        labels: Sequence[Any] = _decode(self._labels, body).labels
        self._check_count(labels, "labels")
        for position, label in enumerate(labels):
            self._check_label(position, label)
        return labels

    def _check_count(self, found: Sequence[Any], what: str) -> None:
        if not found:
            raise BadRequest(f"{what} is empty; send at least one {what.removesuffix('s')}")
        if len(found) > self.max_rows:
            rule = f"{len(found)} {what}, at most {self.max_rows} are allowed in one request; split it"
            raise BadRequest(rule, status=413, limit="serving.max_rows")

    def _as_arrays(self, rows: list[Any]) -> Decoded:
        columns = list(zip(*map(msgspec.structs.astuple, rows), strict=True))
        if self.schema.time is not None:
            _check_years(columns[self._time_at], self.schema.time)
        numeric = self._numeric(columns, len(rows))
        categorical = np.empty((len(rows), len(self._categories)), dtype=object)
        nulls = int(np.count_nonzero(np.isnan(numeric))) if self._has_absent_numbers else 0
        unseen = 0
        for at, column in enumerate(self._categories):
            found = column.texts(columns[self._numbers + at])
            categorical[:, at] = found
            if not column.known.issuperset(found):
                strange = [text for text in found if text not in column.known]
                absent = strange.count(MISSING)
                nulls += absent
                unseen += len(strange) - absent if column.is_complete else 0
        return Decoded(Batch(numeric, categorical), nulls, unseen)

    def _numeric(self, columns: list[Any], rows: int) -> np.ndarray:
        """The numeric columns as float32 (rows, k); what is absent is NaN."""
        if self._has_absent_numbers:
            by_column = np.array(columns[: self._numbers], dtype=np.float32)
        else:  # twice as fast, and knows no None
            values = chain.from_iterable(columns[: self._numbers])
            by_column = np.fromiter(values, dtype=np.float32, count=self._numbers * rows)
        return np.ascontiguousarray(by_column.reshape(self._numbers, rows).T)

    def _check_label(self, position: int, label: Any) -> None:
        if (label.prediction_id is None) == (label.key is None):
            raise BadRequest("exactly one of prediction_id and key is required", row=position, field="prediction_id")
        if label.key is not None and self.schema.key is None:
            raise BadRequest("this model has no key; send prediction_id", row=position, field="key")
        _check_year(label.observed_at, position, "observed_at")


class _Categorical:
    """One categorical column: how its values become texts, and which were seen in training."""

    def __init__(self, feature: FeatureSchema) -> None:
        self.known = frozenset(feature.categories)
        self.is_complete = len(feature.categories) < MAX_LISTED_CATEGORIES
        self._is_text = feature.type == "text" and not feature.nullable
        self._texts = _Texts()

    def texts(self, values: Sequence[Any]) -> Sequence[str]:
        """The canonical text of each value; within a column all values have one type, so equal values have one text."""
        return values if self._is_text else list(map(self._texts.__getitem__, values))


class _Texts(dict[Any, str]):
    """Values and their canonical texts, remembered up to a bound: looking up is ten times faster than making."""

    def __missing__(self, value: Any) -> str:
        text = canonical_category(value)
        if len(self) < REMEMBERED:
            self[value] = text
        return text


def _row_type(schema: RowSchema) -> Any:
    """A struct with the numeric features first, then the categorical ones, then event time and key."""
    features = (*schema.numeric, *schema.categorical)
    fields: list[Any] = [(f"f{position}", _type_of(feature)) for position, feature in enumerate(features)]
    rename = {f"f{position}": feature.name for position, feature in enumerate(features)}
    for attribute, name, kind in (
        ("event_time", schema.time, datetime),
        ("key", schema.key, _key_type(schema)),
    ):
        if name is not None:
            fields.append((attribute, kind | None, None))
            rename[attribute] = name
    return msgspec.defstruct("Row", fields, rename=rename, **_STRICT)


def _label_type(schema: RowSchema) -> Any:
    """A struct for one observed truth, which names its prediction by id or by natural key."""
    classes: dict[type, Any] = {str: str, bool: bool, int: WholeNumber, float: Number}
    kinds = {type(name) for name in schema.classes}
    label: Any = reduce(or_, [classes[kind] for kind in classes if kind in kinds]) if kinds else Number
    return msgspec.defstruct(
        "Label",
        [
            ("label", label),
            ("prediction_id", str | None, None),
            ("key", _key_type(schema) | None, None),
            ("observed_at", datetime | None, None),
        ],
        **_STRICT,
    )


def _key_type(schema: RowSchema) -> Any:
    return WholeNumber if schema.key_type == "integer" else str


def _check_year(moment: datetime | None, row: int, field: str) -> None:
    if moment is not None and not YEARS[0] <= moment.year <= YEARS[1]:
        raise BadRequest(f"year {moment.year} is outside {YEARS[0]} to {YEARS[1]}", row=row, field=field)


def _check_years(moments: Sequence[datetime | None], field: str) -> None:
    first, last = YEARS
    for row, moment in enumerate(moments):
        if moment is not None and not first <= moment.year <= last:
            _check_year(moment, row, field)


def _type_of(feature: FeatureSchema) -> Any:
    kind: Any = {"number": Number, "integer": WholeNumber, "text": str, "boolean": bool}[feature.type]
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
