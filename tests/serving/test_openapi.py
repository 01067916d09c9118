"""The description of the API: it is about this model's rows, its limits and its errors, and its example works."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from everloop.domain.spec import ServingSpec
from serving.openapi import describe_api
from tests.factories import MadeModel


def described(model: MadeModel, **limits: Any) -> dict[str, Any]:
    """The document for `model` under these limits."""
    found: dict[str, Any] = json.loads(describe_api(model, ServingSpec(**limits)))
    return found


def references(value: Any) -> Iterator[str]:
    """Every `$ref` in a document."""
    if isinstance(value, dict):
        yield from (found for name, found in value.items() if name == "$ref")
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from references(item)


@pytest.mark.parametrize("name", ["regressor", "classifier"])
def test_every_reference_points_to_a_component(name: str, request: pytest.FixtureRequest) -> None:
    """A generator of clients would stop at one that does not."""
    document = described(request.getfixturevalue(name))
    known = {f"#/components/schemas/{found}" for found in document["components"]["schemas"]}
    assert set(references(document)) <= known


def test_a_row_is_described_with_types_ranges_and_nulls(regressor: MadeModel) -> None:
    """As the contract has them."""
    row = described(regressor)["components"]["schemas"]["Row"]
    assert row["properties"]["temp"] == {"type": "number", "minimum": -30.0, "maximum": 50.0}
    assert {found.get("type") for found in row["properties"]["wind"]["anyOf"]} == {"number", "null"}
    assert row["properties"]["holiday"] == {"type": "boolean"}
    assert set(row["required"]) == set(regressor.manifest.row_schema.names)
    assert row["additionalProperties"] is False
    assert {"when", "id"} <= set(row["properties"])


def test_the_example_is_a_request_that_the_contract_takes(regressor: MadeModel) -> None:
    """It is one of those that training recorded."""
    content = described(regressor)["paths"]["/predict"]["post"]["requestBody"]["content"]
    example = content["application/json"]["example"]
    assert len(regressor.contract.decode(json.dumps(example).encode()).batch) == 1


def test_limits_in_force_are_in_the_description(regressor: MadeModel) -> None:
    """Today's, and not those of training."""
    schemas = described(regressor, max_rows=7)["components"]["schemas"]
    assert (schemas["PredictRequest"]["properties"]["rows"]["maxItems"]) == 7
    assert (schemas["LabelRequest"]["properties"]["labels"]["minItems"]) == 1


def test_an_answer_of_a_classification_names_its_classes(regressor: MadeModel, classifier: MadeModel) -> None:
    """A regression has none, and no probabilities."""
    numbers = described(regressor)["components"]["schemas"]["PredictAnswer"]["properties"]
    names = described(classifier)["components"]["schemas"]["PredictAnswer"]["properties"]
    assert set(names) - set(numbers) == {"probabilities", "classes"}
    assert names["predictions"]["items"] == {"type": "string", "enum": ["no", "yes"]}
    assert numbers["predictions"]["items"] == {"type": "number"}


def test_every_status_of_a_refusal_is_described_with_the_error_it_carries(regressor: MadeModel) -> None:
    """A client can be written against it."""
    document = described(regressor)
    responses = document["paths"]["/predict"]["post"]["responses"]
    assert set(responses) == {"200", "400", "401", "408", "413", "415", "429", "500", "502", "503", "504"}
    error = document["components"]["schemas"]["Error"]["properties"]["error"]
    assert error["required"] == ["row", "field", "rule"]
    assert set(error["properties"]) == {"row", "field", "rule", "limit", "request_id"}
    assert set(document["paths"]["/model"]["get"]["responses"]) == {"200", "401", "429", "500", "502", "503", "504"}


@pytest.mark.parametrize(("variable", "locked"), [(None, False), ("BIKE_KEYS", True)])
def test_a_key_is_asked_for_where_the_spec_asks_for_one(
    regressor: MadeModel, variable: str | None, locked: bool
) -> None:
    """The description says so, and never which."""
    document = described(regressor, api_key_env=variable)
    assert ("security" in document, "securitySchemes" in document["components"]) == (locked, locked)
    assert "BIKE_KEYS" not in json.dumps(document)


def test_the_description_is_of_this_model_and_version(regressor: MadeModel) -> None:
    """Name, version, and what it was trained on."""
    info = described(regressor)["info"]
    assert (info["title"], info["version"]) == ("bikes", "1")
    assert info["description"].startswith(
        "HistGradientBoostingRegressor(max_iter=10) on all, trained on data until 2024-"
    )
