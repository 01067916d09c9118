"""The contract: whatever a client sends, it is rows, or a sentence that names row, field and rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.domain.schema import FeatureSchema, RowSchema
from serving.contract import BadRequest, Contract, utc

SCHEMA = RowSchema(
    features=(
        FeatureSchema(name="temp", role="numeric", type="number", nullable=False, low=-30, high=50),
        FeatureSchema(name="wind speed", role="numeric", type="integer", nullable=True),
        FeatureSchema(name="season", role="categorical", type="integer", nullable=False),
        FeatureSchema(name="city", role="categorical", type="text", nullable=True),
        FeatureSchema(name="holiday", role="categorical", type="boolean", nullable=False),
    ),
    time="when",
    key="id",
    key_type="integer",
)
CONTRACT = Contract(SCHEMA, max_rows=3)
ROW: dict[str, Any] = {"temp": 1.5, "wind speed": 3, "season": 2, "city": "Porto", "holiday": True}
OMIT = object()


def body(*rows: Any) -> bytes:
    return json.dumps({"rows": rows}).encode()


def refusal(read: Callable[[bytes], object], sent: bytes) -> dict[str, Any] | None:
    """The error that a client gets for `sent`, None if it is accepted."""
    try:
        read(sent)
    except BadRequest as exc:
        return {"status": exc.status, **exc.detail["error"]}
    return None


def refusal_of(sent: bytes) -> dict[str, Any]:
    """The error that a client gets for rows that must be refused."""
    found = refusal(CONTRACT.rows, sent)
    assert found is not None
    assert found.pop("status") == 400
    return found


def test_good_rows_come_out_as_columns_in_the_schemas_order() -> None:
    rows = CONTRACT.rows(body(ROW, {**ROW, "temp": -30, "wind speed": None, "city": None}))
    assert CONTRACT.columns(rows) == {
        "temp": [1.5, -30.0],
        "wind speed": [3.0, None],
        "season": [2, 2],
        "city": ["Porto", None],
        "holiday": [True, True],
    }


def test_time_and_key_are_optional_and_read_with_their_types() -> None:
    bare, full = CONTRACT.rows(body(ROW, {**ROW, "when": "2024-03-01T02:00:00+02:00", "id": 7}))
    assert (bare.event_time, bare.key, full.key) == (None, None, 7)
    assert utc(full.event_time) == "2024-03-01T00:00:00"


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("temp", OMIT, "missing required field temp"),
        ("wind speed", OMIT, "missing required field wind speed"),
        ("humidity", 1, "unknown field humidity"),
        ("temp", "warm", "Expected float, got str"),
        ("temp", True, "Expected float, got bool"),
        ("temp", None, "Expected float, got null"),
        ("temp", 50.01, "Expected float <= 50.0"),
        ("temp", -31, "Expected float >= -30.0"),
        ("season", 2.5, "Expected int, got float"),
        ("season", None, "Expected int, got null"),
        ("city", 5, "Expected str | null, got int"),
        ("holiday", 1, "Expected bool, got int"),
        ("when", "tomorrow", "Invalid RFC3339 encoded datetime"),
        ("when", 1709251200, "Expected datetime | null, got int"),
        ("id", "7", "Expected int | null, got str"),
    ],
)
def test_a_wrong_value_is_refused_with_its_row_field_and_rule(field: str, value: Any, rule: str) -> None:
    wrong = {name: given_ for name, given_ in {**ROW, field: value}.items() if given_ is not OMIT}
    error = refusal_of(body(ROW, wrong))
    assert (error["row"], error["field"]) == (1, field)
    assert rule in error["rule"]


@pytest.mark.parametrize(
    ("sent", "field", "rule"),
    [
        (b'{"rows": []}', None, "rows is empty; send at least one row"),
        (body(ROW, ROW, ROW, ROW), None, "4 rows, at most 3 are allowed in one request; split it"),
        (b"{}", "rows", "missing required field rows"),
        (b'{"rows": null}', "rows", "Expected array, got null"),
        (b'{"rows": [], "row": []}', "row", "unknown field row"),
        (b"[]", None, "Expected object, got array"),
        (b"", None, "the body is not valid JSON: Input data was truncated"),
        (b'{"rows": [', None, "the body is not valid JSON: Input data was truncated"),
        (body(ROW) + b"x", None, "the body is not valid JSON: JSON is malformed: trailing characters"),
        (body(ROW).replace(b"1.5", b"NaN"), None, "the body is not valid JSON: JSON is malformed: invalid character"),
        (body(ROW).replace(b"Porto", b"\xff\xfe"), None, "the body is not valid JSON: 'utf-8' codec can't decode"),
        (body(ROW).replace(b"Porto", b"\\ud800"), None, "the body is not valid JSON: JSON is malformed"),
    ],
)
def test_a_wrong_body_is_refused_with_its_rule(sent: bytes, field: str | None, rule: str) -> None:
    error = refusal_of(sent)
    assert (error["row"], error["field"]) == (None, field)
    assert rule in error["rule"]


@pytest.mark.parametrize(
    "number", ["1e999", "-1e999", "9" * 400, "9" * 5000], ids=["1e999", "-1e999", "10^400", "10^5000"]
)
def test_a_number_that_no_float_holds_is_refused(number: str) -> None:
    sent = body(ROW).replace(b'"wind speed": 3', f'"wind speed": {number}'.encode())
    assert refusal_of(sent) == {"row": 0, "field": "wind speed", "rule": "Number out of range"}


@pytest.mark.parametrize("prefix", ['{"rows":', '{"rows":[{"city":', ""])
def test_deep_nesting_is_refused(prefix: str) -> None:
    assert refusal_of(f"{prefix}{'[' * 100_000}".encode())["rule"]


def test_of_a_repeated_key_the_last_counts_as_in_python() -> None:
    sent = body(ROW).replace(b'"temp": 1.5', b'"temp": 1.5, "temp": 2.5')
    assert CONTRACT.rows(sent)[0].f0 == json.loads(sent)["rows"][0]["temp"] == 2.5


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
NEARLY_ROWS = st.lists(
    st.fixed_dictionaries(
        {name: st.just(value) | JSON for name, value in ROW.items()},
        optional={"when": st.datetimes().map(datetime.isoformat) | JSON, "id": JSON, "x": JSON},
    ),
    max_size=5,
).map(lambda rows: {"rows": rows})
NEARLY_LABELS = st.lists(
    st.dictionaries(st.sampled_from(["label", "prediction_id", "key", "observed_at"]), JSON), max_size=4
).map(lambda labels: {"labels": labels})


@given(st.binary(max_size=80) | (JSON | NEARLY_ROWS | NEARLY_LABELS).map(lambda value: json.dumps(value).encode()))
def test_no_body_raises_anything_but_a_bad_request_with_a_rule(sent: bytes) -> None:
    for read in (CONTRACT.rows, CONTRACT.labels):
        refused = refusal(read, sent)
        assert refused is None or (set(refused) == {"status", "row", "field", "rule"} and refused["rule"])


def labels_of(contract: Contract, *labels: dict[str, Any]) -> Any:
    return contract.labels(json.dumps({"labels": labels}).encode())


def contract_for(**changes: Any) -> Contract:
    return Contract(SCHEMA.model_copy(update=changes), max_rows=3)


@pytest.mark.parametrize(
    ("classes", "good", "wrong", "rule"),
    [
        ((), [0, 1.5, -3], ["5", True], "expected a number, got"),
        (("no", "yes"), ["no", "maybe"], [1, True, 0.5], "expected str, got"),
        ((0, 1), [0, 1], ["1", True, 1.0], "expected int, got"),
        ((False, True), [False, True], ["true", 1], "expected bool, got"),
    ],
)
def test_a_label_has_the_type_of_the_target(
    classes: tuple[Any, ...], good: list[Any], wrong: list[Any], rule: str
) -> None:
    contract = contract_for(classes=classes)
    kept = labels_of(contract, *({"key": 1, "label": value} for value in good))
    assert [label.label for label in kept] == good
    for value in wrong:
        with pytest.raises(BadRequest, match=rule) as caught:
            labels_of(contract, {"key": 1, "label": good[0]}, {"prediction_id": "a", "label": value})
        assert (caught.value.detail["error"]["row"], caught.value.detail["error"]["field"]) == (1, "label")


@pytest.mark.parametrize(
    ("changes", "label", "field", "rule"),
    [
        ({}, {"label": 1}, "prediction_id", "exactly one of prediction_id and key is required"),
        ({}, {"label": 1, "key": 1, "prediction_id": "a"}, "prediction_id", "exactly one of prediction_id and key"),
        ({"key": None}, {"label": 1, "key": 1}, "key", "this model has no key; send prediction_id"),
        ({}, {"key": 1}, "label", "missing required field label"),
        ({}, {"key": 1, "label": None}, "label", "Expected .*, got null"),
        ({}, {"key": 1, "label": 1, "at": "now"}, "at", "unknown field at"),
        ({}, {"key": 1, "label": 1, "observed_at": "now"}, "observed_at", "Invalid RFC3339 encoded datetime"),
        pytest.param(
            {"key_type": "integer"},
            {"key": "7", "label": 1},
            "key",
            "expected int, got str",
        ),
        pytest.param(
            {"key_type": "text"},
            {"key": 7, "label": 1},
            "key",
            "expected str, got int",
        ),
    ],
)
def test_a_label_that_breaks_a_rule_is_refused(
    changes: dict[str, Any], label: dict[str, Any], field: str, rule: str
) -> None:
    with pytest.raises(BadRequest, match=rule) as caught:
        labels_of(contract_for(**changes), label)
    assert (caught.value.detail["error"]["row"], caught.value.detail["error"]["field"]) == (0, field)


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2024, 3, 1), "2024-03-01T00:00:00"),
        (datetime(2024, 3, 1, tzinfo=timezone(timedelta(hours=-5))), "2024-03-01T05:00:00"),
    ],
)
def test_times_are_written_in_utc(moment: datetime, text: str) -> None:
    assert utc(moment) == text
