"""The contract: whatever a client sends, it is rows, or a sentence that names row, field and rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.domain.schema import MAX_LISTED_CATEGORIES, MISSING, FeatureSchema, RowSchema
from serving.contract import BadRequest, Contract

SCHEMA = RowSchema(
    features=(
        FeatureSchema(name="temp", role="numeric", type="number", nullable=False, low=-30, high=50),
        FeatureSchema(name="wind speed", role="numeric", type="integer", nullable=True),
        FeatureSchema(name="season", role="categorical", type="integer", nullable=False, categories=("1", "2")),
        FeatureSchema(name="city", role="categorical", type="text", nullable=True, categories=("Porto", "Łódź")),
        FeatureSchema(name="holiday", role="categorical", type="boolean", nullable=False, categories=("false", "true")),
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
        return {"status": exc.status, **exc.detail}
    return None


def refusal_of(sent: bytes) -> dict[str, Any]:
    """The error that a client gets for rows that must be refused."""
    found = refusal(CONTRACT.decode, sent)
    assert found is not None, "it was accepted"
    assert found.pop("status") == 400
    return found


def test_good_rows_come_out_as_arrays_in_the_schemas_order() -> None:
    """Numbers are float32, categories canonical text, in the order of the schema and not of the client."""
    sent = dict(reversed({**ROW, "temp": -30, "wind speed": None, "city": None, "holiday": False}.items()))
    batch = CONTRACT.decode(body(ROW, sent)).batch
    assert (batch.numeric.dtype, len(batch)) == (np.float32, 2)
    np.testing.assert_array_equal(batch.numeric, np.array([[1.5, 3], [-30, np.nan]], dtype=np.float32))
    assert batch.categorical.tolist() == [["2", "Porto", "true"], ["2", MISSING, "false"]]


def test_absent_values_and_categories_that_training_never_saw_are_counted() -> None:
    """They are answered, so only a count shows that the world has changed."""
    decoded = CONTRACT.decode(
        body(ROW, {**ROW, "wind speed": None, "city": None, "season": 9}, {**ROW, "city": "Atlantis", "season": 9})
    )
    assert (decoded.nulls, decoded.unseen) == (2, 3)
    plain = CONTRACT.decode(body(ROW))
    assert (plain.nulls, plain.unseen) == (0, 0)


def test_of_a_feature_with_too_many_categories_to_list_none_counts_as_unseen() -> None:
    """Its list is cut, so what is not on it may well have been seen; an absent value is still counted."""
    many = tuple(f"c{number:04d}" for number in range(MAX_LISTED_CATEGORIES))
    city = FeatureSchema(name="city", role="categorical", type="text", nullable=True, categories=many)
    decoded = Contract(RowSchema(features=(city,)), max_rows=3).decode(body({"city": "Atlantis"}, {"city": None}))
    assert (decoded.nulls, decoded.unseen) == (1, 0)


@pytest.mark.parametrize("role", ["numeric", "categorical"])
def test_a_model_with_one_kind_of_feature_has_an_empty_array_of_the_other(role: Any) -> None:
    """The number of rows survives in both arrays."""
    feature = FeatureSchema(name="x", role=role, type="integer", nullable=True)
    batch = Contract(RowSchema(features=(feature,)), max_rows=3).decode(body({"x": 1}, {"x": None})).batch
    assert len(batch) == 2
    widths = {"numeric": batch.numeric.shape, "categorical": batch.categorical.shape}
    assert widths.pop(role) == (2, 1)
    assert list(widths.values()) == [(2, 0)]


def test_a_whole_number_may_have_a_point() -> None:
    """JSON has one kind of number, and pandas sends 2.0 from an integer column that had a null."""
    batch = CONTRACT.decode(body({**ROW, "season": 2.0, "id": 7.0}, {**ROW, "season": 2})).batch
    assert batch.categorical[:, 0].tolist() == ["2", "2"]


def test_more_categories_than_are_remembered_are_all_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of texts is bounded, and only a memory."""
    monkeypatch.setattr("serving.contract.REMEMBERED", 2)
    contract = Contract(SCHEMA, max_rows=50)
    for _ in range(2):
        found = contract.decode(body(*({**ROW, "season": number} for number in range(50)))).batch.categorical[:, 0]
        assert found.tolist() == [str(number) for number in range(50)]


def test_time_and_key_are_optional_and_are_no_features() -> None:
    """They are checked and captured, and the model never sees them."""
    bare, full = body(ROW), body({**ROW, "when": "2024-03-01T02:00:00+02:00", "id": 7})
    assert CONTRACT.decode(full).batch.numeric.tolist() == CONTRACT.decode(bare).batch.numeric.tolist()


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
        ("season", 2.5, "Expected float that's a multiple of 1.0"),
        ("season", None, "Expected int | float, got null"),
        ("city", 5, "Expected str | null, got int"),
        ("holiday", 1, "Expected bool, got int"),
        ("when", "tomorrow", "Invalid RFC3339 encoded datetime"),
        ("when", 1709251200, "Expected datetime | null, got int"),
        ("id", "7", "Expected int | float | null, got str"),
        ("id", 7.5, "Expected float that's a multiple of 1.0"),
        ("id", True, "Expected int | float | null, got bool"),
        ("when", "0001-01-01T00:00:00+05:00", "year 1 is outside 1900 to 2200"),
        ("when", "9999-12-31T00:00:00", "year 9999 is outside 1900 to 2200"),
        ("wind speed", 3.5e38, "Expected float <= 3.4e+38"),
        ("season", 2**64, "Expected int <= 9223372036854775807"),
        ("id", -(2**64), "Expected int >= -9223372036854775808"),
    ],
)
def test_a_wrong_value_is_refused_with_its_row_field_and_rule(field: str, value: Any, rule: str) -> None:
    """The client learns which value of which row to mend."""
    wrong = {name: given_ for name, given_ in {**ROW, field: value}.items() if given_ is not OMIT}
    error = refusal_of(body(ROW, wrong))
    assert (error["row"], error["field"]) == (1, field)
    assert rule in error["rule"]


@pytest.mark.parametrize(
    ("sent", "field", "rule"),
    [
        (b'{"rows": []}', None, "rows is empty; send at least one row"),
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
    """A body that is no list of rows has no row to name."""
    error = refusal_of(sent)
    assert (error["row"], error["field"]) == (None, field)
    assert rule in error["rule"]


@pytest.mark.parametrize(
    ("read", "sent", "what"),
    [
        (CONTRACT.decode, body(ROW, ROW, ROW, ROW), "rows"),
        (CONTRACT.labels, json.dumps({"labels": [{"key": 1, "label": 1}] * 4}).encode(), "labels"),
    ],
)
def test_more_rows_or_labels_than_allowed_are_too_large_and_name_the_limit(
    read: Callable[[bytes], object], sent: bytes, what: str
) -> None:
    """The status is 413, and the message says what to do."""
    assert refusal(read, sent) == {
        "status": 413,
        "row": None,
        "field": None,
        "rule": f"4 {what}, at most 3 are allowed in one request; split it",
        "limit": "serving.max_rows",
    }


@pytest.mark.parametrize(
    ("exc", "kind"),
    [
        (BadRequest("wrong"), "contract"),
        (BadRequest("no key", status=401), "refused"),
        (BadRequest("too many", status=413, limit="serving.max_rows"), "serving.max_rows"),
    ],
)
def test_refusals_are_counted_by_the_limit_or_rule_they_broke(exc: BadRequest, kind: str) -> None:
    """The kind is a label of a metric, so it is one of few."""
    assert exc.kind == kind


@pytest.mark.parametrize(
    "number", ["1e999", "-1e999", "9" * 400, "9" * 5000], ids=["1e999", "-1e999", "10^400", "10^5000"]
)
def test_a_number_that_no_float_holds_is_refused(number: str) -> None:
    """It would become infinite."""
    sent = body(ROW).replace(b'"wind speed": 3', f'"wind speed": {number}'.encode())
    assert refusal_of(sent) == {"row": 0, "field": "wind speed", "rule": "Number out of range"}


@pytest.mark.parametrize("prefix", ['{"rows":', '{"rows":[{"city":', ""])
def test_deep_nesting_is_refused(prefix: str) -> None:
    """It neither crashes nor exhausts the stack."""
    assert refusal_of(f"{prefix}{'[' * 100_000}".encode())["rule"]


def test_of_a_repeated_key_the_last_counts_as_in_python() -> None:
    """What is predicted is what is captured and read again later."""
    sent = body(ROW).replace(b'"temp": 1.5', b'"temp": 1.5, "temp": 2.5')
    assert CONTRACT.decode(sent).batch.numeric[0, 0] == json.loads(sent)["rows"][0]["temp"] == 2.5


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
    """Whatever is sent."""
    for read in (CONTRACT.decode, CONTRACT.labels):
        refused = refusal(read, sent)
        assert refused is None or (set(refused) >= {"status", "row", "field", "rule"} and refused["rule"])


def labels_of(contract: Contract, *labels: dict[str, Any]) -> Any:
    return contract.labels(json.dumps({"labels": labels}).encode())


def contract_for(**changes: Any) -> Contract:
    return Contract(SCHEMA.model_copy(update=changes), max_rows=3)


@pytest.mark.parametrize(
    ("classes", "good", "wrong", "rule"),
    [
        ((), [0, 1.5, -3], ["5", True], "Expected float, got"),
        (("no", "yes"), ["no", "maybe"], [1, True, 0.5], "Expected str, got"),
        ((0, 1), [0, 1, 1.0], ["1", True], r"Expected int \| float, got"),
        ((False, True), [False, True], ["true", 1], "Expected bool, got"),
    ],
)
def test_a_label_has_the_type_of_the_target(
    classes: tuple[Any, ...], good: list[Any], wrong: list[Any], rule: str
) -> None:
    """A number for a regression, else the type of the classes."""
    contract = contract_for(classes=classes)
    kept = labels_of(contract, *({"key": 1, "label": value} for value in good))
    assert [label.label for label in kept] == good
    for value in wrong:
        with pytest.raises(BadRequest, match=rule) as caught:
            labels_of(contract, {"key": 1, "label": good[0]}, {"prediction_id": "a", "label": value})
        assert (caught.value.detail["row"], caught.value.detail["field"]) == (1, "label")


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
        ({}, {"key": 1, "label": 1, "observed_at": "1800-01-01T00:00:00"}, "observed_at", "year 1800 is outside"),
        ({"classes": (0, 1)}, {"key": 1, "label": 10**20}, "label", "Expected int <= 9223372036854775807"),
        ({"classes": (0, 1)}, {"key": 1, "label": 0.5}, "label", "Expected float that's a multiple of 1.0"),
        ({}, {"key": 1, "label": 1e39}, "label", "Expected float <="),
        ({"key_type": "integer"}, {"key": "7", "label": 1}, "key", r"Expected int \| float \| null, got str"),
        ({"key_type": "text"}, {"key": 7, "label": 1}, "key", r"Expected str \| null, got int"),
    ],
)
def test_a_label_that_breaks_a_rule_is_refused(
    changes: dict[str, Any], label: dict[str, Any], field: str, rule: str
) -> None:
    """With its position, its field and the rule."""
    with pytest.raises(BadRequest, match=rule) as caught:
        labels_of(contract_for(**changes), label)
    assert (caught.value.detail["row"], caught.value.detail["field"]) == (0, field)
