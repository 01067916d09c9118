"""The application over HTTP: answers are the pipeline's, every answer is captured, every refusal is a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from starlette.testclient import TestClient

from everloop.adapters.inference_log import read_captured, read_labels
from everloop.adapters.registry import Version
from everloop.domain.pipelines import predict
from serving.app import Serving, build_app
from serving.capture import Capture
from serving.hotswap import HotSwap
from serving.runtime import LoadedModel
from tests.factories import LINEAR, START, as_requests, make_model, make_rows, make_spec

SPEC = make_spec()
ROWS = make_rows(3, seed=5)
REQUESTS = as_requests(ROWS, SPEC)


def no_champion() -> None:
    return None


def client_of(model: LoadedModel, folder: Path) -> TestClient:
    """A client of a service of `model` that captures under `folder`."""
    serving = Serving()
    swap = HotSwap(model, champion=no_champion, load=lambda _: model, poll_seconds=1)
    serving.open(swap, Capture(folder / "inference" / "bikes"), Capture(folder / "labels" / "bikes"))
    return TestClient(build_app(serving), raise_server_exceptions=False)


@pytest.fixture
def client(regressor: LoadedModel, tmp_path: Path) -> TestClient:
    return client_of(regressor, tmp_path)


def test_a_regression_answers_what_the_pipeline_says_and_with_which_version(
    client: TestClient, regressor: LoadedModel
) -> None:
    answer = client.post("/predict", json={"rows": REQUESTS})
    expected = predict(regressor.pipeline, ROWS, regressor.manifest.row_schema)
    assert answer.status_code == 200
    assert set(answer.json()) == {"predictions", "prediction_ids", "model_version"}
    assert answer.json()["predictions"] == pytest.approx(expected.values.tolist(), rel=1e-12)
    assert answer.json()["model_version"] == "1"


def test_a_classification_adds_probabilities_and_the_order_of_its_classes(
    classifier: LoadedModel, tmp_path: Path
) -> None:
    answer = client_of(classifier, tmp_path).post("/predict", json={"rows": REQUESTS}).json()
    expected = predict(classifier.pipeline, ROWS, classifier.manifest.row_schema)
    assert answer["classes"] == ["no", "yes"]
    assert answer["predictions"] == [answer["classes"][np.argmax(row)] for row in answer["probabilities"]]
    np.testing.assert_allclose(answer["probabilities"], expected.probabilities, rtol=1e-12)
    np.testing.assert_allclose(np.sum(answer["probabilities"], axis=1), 1)


def test_a_row_of_nulls_where_null_is_allowed_is_answered(client: TestClient) -> None:
    answer = client.post("/predict", json={"rows": [{**REQUESTS[0], "wind": None, "city": None}]})
    assert (answer.status_code, len(answer.json()["predictions"])) == (200, 1)


def test_a_category_that_training_never_saw_is_answered(client: TestClient) -> None:
    assert (
        client.post("/predict", json={"rows": [{**REQUESTS[0], "city": "Atlantis", "season": 99}]}).status_code == 200
    )


def test_prediction_ids_are_unique_over_rows_and_requests(client: TestClient) -> None:
    answers = [client.post("/predict", json={"rows": REQUESTS}).json()["prediction_ids"] for _ in range(20)]
    assert len({identifier for answer in answers for identifier in answer}) == 60


@pytest.mark.parametrize("kind", ["regressor", "classifier"])
def test_captured_lines_match_the_answers(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(kind)
    answer = client_of(model, tmp_path).post("/predict", json={"rows": REQUESTS}).json()
    found = read_captured(tmp_path / "inference", SPEC)
    assert found["prediction_id"].tolist() == answer["prediction_ids"]
    assert found["prediction"].tolist() == answer["predictions"]
    assert found["probabilities"].tolist() == answer.get("probabilities", [None] * 3)
    assert set(found["model_version"]) == {"1"}
    assert found["key"].tolist() == ROWS["id"].tolist()
    assert found["event_time"].tolist() == ROWS["when"].tolist()
    sent = pd.DataFrame(REQUESTS)[list(SPEC.features.names)]
    pd.testing.assert_frame_equal(found[[f"features.{name}" for name in sent]].set_axis(sent.columns, axis=1), sent)


def test_a_row_without_time_and_key_is_captured_with_the_time_it_was_served(client: TestClient, tmp_path: Path) -> None:
    bare = {name: REQUESTS[0][name] for name in SPEC.features.names}
    before = pd.Timestamp.now("UTC").tz_localize(None)
    client.post("/predict", json={"rows": [bare]})
    (line,) = read_captured(tmp_path / "inference", SPEC).to_dict("records")
    assert line["key"] is None
    assert before <= line["event_time"] == line["served_at"] <= pd.Timestamp.now("UTC").tz_localize(None)


@pytest.mark.parametrize("path", ["/predict", "/labels"])
def test_a_body_of_the_allowed_size_is_read_and_a_larger_one_is_413(client: TestClient, path: str) -> None:
    assert client.post(path, content=b" " * 4000).status_code == 400
    answer = client.post(path, content=b" " * 4001)
    assert answer.status_code == 413
    assert answer.json()["error"]["rule"] == "the body is larger than 4000 bytes; split the request"


def test_a_refusal_is_json_with_row_field_and_rule_and_nothing_is_captured(client: TestClient, tmp_path: Path) -> None:
    answer = client.post("/predict", json={"rows": [REQUESTS[0], {**REQUESTS[1], "temp": 51}]})
    assert answer.status_code == 400
    assert answer.json() == {"error": {"row": 1, "field": "temp", "rule": "Expected float <= 50.0"}}
    assert read_captured(tmp_path / "inference", SPEC).empty


@pytest.mark.parametrize(
    "change",
    [
        pytest.param('"wind": 1e39', id="a number that float32 makes infinite"),
        pytest.param(f'"season": 1{"0" * 20}', id="a category beyond 64 bits"),
        pytest.param(f'"id": 1{"0" * 20}', id="a key beyond 64 bits"),
        pytest.param('"when": "0001-01-01T00:00:00+05:00"', id="a time before the year 1 in UTC"),
    ],
)
def test_a_value_too_large_to_use_or_keep_is_refused(tmp_path: Path, change: str) -> None:
    client = client_of(make_model(estimator=LINEAR["regression"]), tmp_path)
    sent = json.dumps({"rows": [REQUESTS[0]]})[:-3] + f", {change}}}]}}"
    answer = client.post("/predict", content=sent.encode())
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json")


@pytest.mark.parametrize(
    "label",
    [
        pytest.param(
            {"key": 1, "label": 10**20},
        ),
        pytest.param(
            {"key": 1, "label": 1, "observed_at": "0001-01-01T00:00:00+05:00"},
        ),
    ],
)
def test_a_label_too_large_to_keep_is_refused(client: TestClient, label: dict[str, Any]) -> None:
    assert client.post("/labels", json={"labels": [label]}).status_code == 400


def test_labels_are_accepted_counted_and_kept(client: TestClient, tmp_path: Path) -> None:
    sent = [{"key": 1, "label": 5.5, "observed_at": "2024-03-02T01:00:00+01:00"}, {"prediction_id": "a", "label": 6}]
    before = pd.Timestamp.now("UTC").tz_localize(None)
    assert client.post("/labels", json={"labels": sent}).json() == {"accepted": 2}
    kept = read_labels(tmp_path / "labels", SPEC)
    assert kept["label"].tolist() == [5.5, 6]
    assert kept["observed_at"].iloc[0] == pd.Timestamp("2024-03-02")
    assert before <= kept["observed_at"].iloc[1] <= pd.Timestamp.now("UTC").tz_localize(None)


def test_when_nothing_can_be_captured_answers_go_on_and_the_lost_rows_are_counted(
    client: TestClient, tmp_path: Path
) -> None:
    (tmp_path / "inference").write_text("a file where the folder should be")
    assert client.get("/model").json()["capture"] == {"healthy": True, "lost_rows": 0}
    for _ in range(2):
        assert len(client.post("/predict", json={"rows": REQUESTS}).json()["predictions"]) == 3
    assert client.get("/model").json()["capture"] == {"healthy": False, "lost_rows": 6}


def test_labels_that_cannot_be_kept_are_not_accepted(client: TestClient, tmp_path: Path) -> None:
    (tmp_path / "labels").write_text("a file where the folder should be")
    answer = client.post("/labels", json={"labels": [{"key": 1, "label": 1}]})
    assert answer.status_code == 503
    assert answer.json()["error"]["rule"] == "the labels cannot be kept now (Not a directory); send them again later"


def test_model_says_what_is_served_and_on_what_it_was_trained(client: TestClient, regressor: LoadedModel) -> None:
    said = client.get("/model").json()
    assert {name: said[name] for name in ("name", "version", "rows", "refused", "code")} == {
        "name": "bikes",
        "version": "1",
        "rows": 120,
        "refused": None,
        "code": "same",
    }
    assert said["trained_from"] == START.isoformat()
    assert said["metrics"] == regressor.manifest.metrics
    assert [feature["name"] for feature in said["schema"]["features"]] == list(SPEC.features.names)


def test_after_a_swap_the_next_request_is_answered_by_the_new_version(regressor: LoadedModel, tmp_path: Path) -> None:
    serving, second = Serving(), make_model(version="2", estimator=LINEAR["regression"])
    swap = HotSwap(regressor, champion=lambda: Version("bikes", "2", "r", "s"), load=lambda _: second, poll_seconds=1)
    serving.open(swap, Capture(tmp_path / "p"), Capture(tmp_path / "l"))
    client = TestClient(build_app(serving))
    before = client.post("/predict", json={"rows": REQUESTS}).json()
    swap.check()
    after = client.post("/predict", json={"rows": REQUESTS}).json()
    assert (before["model_version"], after["model_version"]) == ("1", "2")
    assert after["predictions"] == pytest.approx(
        predict(second.pipeline, ROWS, second.manifest.row_schema).values.tolist()
    )
    assert client.get("/model").json()["version"] == "2"
