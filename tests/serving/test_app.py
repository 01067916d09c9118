"""The application over HTTP: answers are the model's, every answer is captured, every refusal is a sentence."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from prometheus_client import REGISTRY
from starlette.testclient import TestClient

from everloop.adapters.inference_log import read_captured, read_labels
from everloop.domain.batch import Batch
from everloop.domain.metrics import Predictions
from everloop.domain.pipelines import predict
from everloop.domain.spec import ServingSpec
from serving.app import LARGE_ROWS, Served, Serving
from serving.capture import Capture, Segments
from serving.contract import Contract
from serving.doors import Keys
from serving.following import Fixed, Following
from serving.front import Front
from serving.models import LoadedModel
from serving.plan import Plan, PlanFolder
from tests.factories import LINEAR, START, MadeModel, as_requests, make_model, make_rows, make_spec

SPEC = make_spec()
ROWS = make_rows(3, seed=5)
REQUESTS = as_requests(ROWS, SPEC)


async def no_host(*_: Any) -> None:
    """BentoML's own application has no part in these tests."""
    raise AssertionError("the host was asked")


def serving_of(served: Served, folder: Path, limits: ServingSpec = SPEC.serving) -> tuple[Serving, Front]:
    """A service that captures under `folder`, and the application in front of it."""
    serving = Serving()
    captures = [
        Capture(Segments(folder / kind / "bikes", max_bytes=1_000_000, max_seconds=3600))
        for kind in ("inference", "labels")
    ]
    serving.open(served, limits, keys=Keys([]), predictions=captures[0], labels=captures[1])
    front = Front(
        no_host,
        serving.routes,
        serving=lambda: serving.limits,
        keys=lambda: serving.keys,
        on_error=serving.count_error,
    )
    return serving, front


def client_of(model: LoadedModel, folder: Path) -> TestClient:
    """A client of a service of `model` that captures under `folder`."""
    return TestClient(serving_of(Fixed(model), folder)[1], raise_server_exceptions=False)


@pytest.fixture
def client(regressor: MadeModel, tmp_path: Path) -> TestClient:
    return client_of(regressor, tmp_path)


def counted(name: str, version: str = "1", **labels: str) -> float:
    """A counter of the model 'bikes' now."""
    return REGISTRY.get_sample_value(name, {"model": "bikes", "version": version, **labels}) or 0.0


def test_a_regression_answers_what_the_pipeline_says_and_with_which_version(
    client: TestClient, regressor: MadeModel
) -> None:
    """Numbers as they are, and no probabilities."""
    answer = client.post("/predict", json={"rows": REQUESTS})
    expected = predict(regressor.pipeline, ROWS, regressor.manifest.row_schema)
    assert answer.status_code == 200
    assert set(answer.json()) == {"predictions", "prediction_ids", "model_version"}
    assert answer.json()["predictions"] == pytest.approx(expected.values.tolist(), rel=1e-12)
    assert answer.json()["model_version"] == "1"


@pytest.mark.parametrize("name", ["classifier", "exported"])
def test_a_classification_adds_probabilities_and_the_order_of_its_classes(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """By either runtime."""
    model = request.getfixturevalue(name)
    answer = client_of(model, tmp_path).post("/predict", json={"rows": REQUESTS}).json()
    expected = predict(model.pipeline, ROWS, model.manifest.row_schema)
    assert answer["classes"] == ["no", "yes"]
    assert answer["predictions"] == [answer["classes"][np.argmax(row)] for row in answer["probabilities"]]
    np.testing.assert_allclose(answer["probabilities"], expected.probabilities, atol=model.manifest.tolerance)
    np.testing.assert_allclose(np.sum(answer["probabilities"], axis=1), 1, rtol=1e-6)


def test_an_exported_regression_answers_within_its_tolerance(tmp_path: Path) -> None:
    """ONNX Runtime's float32 goes out as numbers."""
    model = make_model(runtime="onnx")
    answer = client_of(model, tmp_path).post("/predict", json={"rows": REQUESTS}).json()
    expected = predict(model.pipeline, ROWS, model.manifest.row_schema)
    np.testing.assert_allclose(answer["predictions"], expected.values, atol=model.manifest.tolerance)


def test_a_row_of_nulls_where_null_is_allowed_is_answered_and_counted(client: TestClient) -> None:
    """The model was trained with nulls there; a count shows when there are more of them."""
    before = counted("everloop_nulls_total")
    answer = client.post("/predict", json={"rows": [{**REQUESTS[0], "wind": None, "city": None}]})
    assert (answer.status_code, len(answer.json()["predictions"])) == (200, 1)
    assert counted("everloop_nulls_total") - before == 2


def test_a_category_that_training_never_saw_is_answered_and_counted(client: TestClient) -> None:
    """The world may bring new ones; a count shows that it did."""
    before = counted("everloop_unseen_categories_total")
    answer = client.post("/predict", json={"rows": [{**REQUESTS[0], "city": "Atlantis", "season": 99}]})
    assert answer.status_code == 200
    assert counted("everloop_unseen_categories_total") - before == 2


def test_prediction_ids_are_unique_over_rows_and_requests(client: TestClient) -> None:
    """Also when a client sends its request again, under the id it had."""
    headers = {"X-Request-ID": "again"}
    answers = [
        client.post("/predict", json={"rows": REQUESTS}, headers=headers).json()["prediction_ids"] for _ in range(20)
    ]
    assert len({identifier for answer in answers for identifier in answer}) == 60


@pytest.mark.parametrize("name", ["regressor", "classifier", "exported"])
def test_captured_lines_match_the_answers(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """What a client was told is what is kept, with what it asked."""
    model = request.getfixturevalue(name)
    answer = client_of(model, tmp_path).post("/predict", json={"rows": REQUESTS}).json()
    found = read_captured(tmp_path / "inference", SPEC)
    assert found["prediction_id"].tolist() == answer["prediction_ids"]
    assert found["prediction"].tolist() == answer["predictions"]
    assert found["probabilities"].tolist() == answer.get("probabilities", [None] * 3)
    assert set(found["model_version"]) == {"1"}
    assert found["key"].tolist() == ROWS["id"].tolist()
    assert found["event_time"].tolist() == ROWS["when"].tolist()
    assert (found["latency_ms"] > 0).all()
    sent = pd.DataFrame(REQUESTS)[list(SPEC.features.names)]
    pd.testing.assert_frame_equal(found[[f"features.{name}" for name in sent]].set_axis(sent.columns, axis=1), sent)


def test_a_request_that_is_written_over_many_lines_is_one_line_of_the_log(client: TestClient, tmp_path: Path) -> None:
    """Line breaks between values are not in the values."""
    rows = [{**REQUESTS[0], "city": 'Porto\n"Łódź"'}]
    pretty = json.dumps({"rows": rows}, indent=2).replace("\n", "\r\n")
    client.post("/predict", content=pretty, headers={"X-Request-ID": "mine"})
    (path,) = tmp_path.glob("inference/bikes/date=*/*.jsonl")
    (line, rest) = path.read_bytes().split(b"\n")
    assert rest == b""
    assert json.loads(line)["request"] == {"rows": rows}
    assert json.loads(line)["request_id"] == "mine"
    assert read_captured(tmp_path / "inference", SPEC)["features.city"].tolist() == ['Porto\n"Łódź"']


def test_a_row_without_time_and_key_is_captured_with_the_time_it_was_served(client: TestClient, tmp_path: Path) -> None:
    """Time and key are optional."""
    bare = {name: REQUESTS[0][name] for name in SPEC.features.names}
    before = pd.Timestamp.now("UTC").tz_localize(None)
    client.post("/predict", json={"rows": [bare]})
    (line,) = read_captured(tmp_path / "inference", SPEC).to_dict("records")
    assert line["key"] is None
    assert before <= line["event_time"] == line["served_at"] <= pd.Timestamp.now("UTC").tz_localize(None)


@pytest.mark.parametrize("path", ["/predict", "/labels"])
def test_a_body_over_the_limit_is_413_and_names_the_setting(client: TestClient, path: str) -> None:
    """The limits are those of the spec."""
    assert client.post(path, content=b" " * 4000).status_code == 400
    answer = client.post(path, content=b" " * 4001)
    assert answer.status_code == 413
    assert answer.json()["error"]["limit"] == "serving.max_body_bytes"


def test_a_refusal_is_json_with_row_field_and_rule_counted_and_nothing_is_captured(
    client: TestClient, tmp_path: Path
) -> None:
    """One wrong row refuses the whole request."""
    before = counted("everloop_errors_total", kind="contract")
    answer = client.post(
        "/predict", json={"rows": [REQUESTS[0], {**REQUESTS[1], "temp": 51}]}, headers={"X-Request-ID": "mine"}
    )
    assert answer.status_code == 400
    error = {"row": 1, "field": "temp", "rule": "Expected float <= 50.0", "request_id": "mine"}
    assert answer.json() == {"error": error}
    assert counted("everloop_errors_total", kind="contract") - before == 1
    assert read_captured(tmp_path / "inference", SPEC).empty


def test_too_many_rows_are_413_and_name_the_setting(client: TestClient) -> None:
    """With what was sent, what is allowed, and what to do."""
    answer = client.post("/predict", json={"rows": REQUESTS[:1] * 6})
    assert answer.status_code == 413
    assert answer.json()["error"]["rule"] == "6 rows, at most 5 are allowed in one request; split it"
    assert answer.json()["error"]["limit"] == "serving.max_rows"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param('"wind": 1e39', id="a number that float32 makes infinite"),
        pytest.param(f'"season": 1{"0" * 20}', id="a category beyond 64 bits"),
        pytest.param(f'"id": 1{"0" * 20}', id="a key beyond 64 bits"),
        pytest.param('"when": "0001-01-01T00:00:00+05:00"', id="a time before the year 1 in UTC"),
    ],
)
def test_a_value_too_large_to_use_or_keep_is_refused(client: TestClient, change: str) -> None:
    """Something behind could not hold it."""
    sent = json.dumps({"rows": [REQUESTS[0]]})[:-3] + f", {change}}}]}}"
    answer = client.post("/predict", content=sent.encode())
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json")


def test_labels_are_accepted_counted_and_kept(client: TestClient, tmp_path: Path) -> None:
    """By key or by prediction id, with or without the time of observation."""
    sent = [{"key": 1, "label": 5.5, "observed_at": "2024-03-02T01:00:00+01:00"}, {"prediction_id": "a", "label": 6}]
    before, labels = pd.Timestamp.now("UTC").tz_localize(None), counted("everloop_labels_total")
    answer = client.post("/labels", json={"labels": sent})
    assert (answer.status_code, answer.json()) == (200, {"accepted": 2})
    assert counted("everloop_labels_total") - labels == 2
    found = read_labels(tmp_path / "labels", SPEC).set_index("label")
    assert (found.loc[5.5, "key"], found.loc[5.5, "observed_at"]) == (1, pd.Timestamp("2024-03-02"))
    assert found.loc[6, "prediction_id"] == "a"
    assert found.loc[6, "observed_at"] >= before


def test_labels_sent_twice_count_once(client: TestClient, tmp_path: Path) -> None:
    """A client that is not sure may send them again."""
    for _ in range(2):
        client.post("/labels", json={"labels": [{"key": 1, "label": 5}]})
    assert read_labels(tmp_path / "labels", SPEC)["label"].tolist() == [5]


def test_predictions_that_cannot_be_kept_are_answered_and_the_loss_is_told(client: TestClient, tmp_path: Path) -> None:
    """The service is degraded and not down; every row that was lost is counted."""
    (tmp_path / "inference").write_text("a file where the folder should be")
    for _ in range(2):
        assert client.post("/predict", json={"rows": REQUESTS}).status_code == 200
    said, ready = client.get("/model").json(), client.get("/readyz")
    assert said["capture"]["predictions"] == {"healthy": False, "problem": "Not a directory", "lost": 6}
    assert said["capture"]["labels"] == {"healthy": True, "problem": None, "lost": 0}
    assert (ready.status_code, ready.json()["health"]) == (200, "degraded")
    assert said["problems"] == ready.json()["problems"] == ["predictions are not kept: Not a directory"]
    (tmp_path / "inference").unlink()
    client.post("/predict", json={"rows": REQUESTS})
    assert client.get("/readyz").json() == {"health": "healthy", "problems": []}
    assert client.get("/model").json()["capture"]["predictions"] == {"healthy": True, "problem": None, "lost": 6}


def test_labels_that_cannot_be_kept_are_not_accepted(client: TestClient, tmp_path: Path) -> None:
    """The client has them still, and can send them again."""
    (tmp_path / "labels").write_text("a file where the folder should be")
    answer = client.post("/labels", json={"labels": [{"key": 1, "label": 1}]})
    assert answer.status_code == 503
    assert answer.json()["error"]["rule"] == "the labels cannot be kept now (Not a directory); send them again later"


def test_model_says_what_is_served_by_what_and_on_what_it_was_trained(client: TestClient, regressor: MadeModel) -> None:
    """Everything that is known about the version."""
    said = client.get("/model").json()
    expected = {"name": "bikes", "version": "1", "rows": 120, "refused": None, "code": "same", "alias": None}
    assert {name: said[name] for name in expected} == expected
    assert (said["runtime"], said["runtime_reason"]) == ("scikit-learn", "not asked for")
    assert said["trained_from"] == START.isoformat()
    assert said["made_at"] == regressor.manifest.made_at.isoformat()
    assert said["metrics"] == regressor.manifest.metrics
    assert [feature["name"] for feature in said["schema"]["features"]] == list(SPEC.features.names)
    assert [worker["version"] for worker in said["workers"]] == ["1"]
    assert (said["health"], said["problems"], said["registry_problem"]) == ("healthy", [], None)


class Broken:
    """A runtime that fails with words that must not get out."""

    def predict(self, _: Batch) -> Predictions:
        raise RuntimeError("/home/ada/model.onnx: out of memory")


def test_a_runtime_that_fails_is_500_without_a_path_or_a_trace(tmp_path: Path, regressor: MadeModel) -> None:
    """It is counted, and the next request is another one."""
    before = counted("everloop_errors_total", kind="internal")
    client = client_of(dataclasses.replace(regressor, runtime=Broken()), tmp_path)
    answer = client.post("/predict", json={"rows": REQUESTS})
    assert answer.status_code == 500
    assert not re.search("/home|onnx|Traceback|RuntimeError|memory", answer.text)
    assert counted("everloop_errors_total", kind="internal") - before == 1
    assert client.get("/readyz").status_code == 200


class Slow:
    """A runtime that answers when it is told to."""

    def __init__(self) -> None:
        self.go_on = threading.Event()

    def predict(self, batch: Batch) -> Predictions:
        self.go_on.wait(20)
        return Predictions(np.zeros(len(batch)))


def with_large_requests(model: LoadedModel, **changes: Any) -> LoadedModel:
    """`model` with room for requests that are computed in a thread."""
    contract = Contract(model.manifest.row_schema, max_rows=2 * LARGE_ROWS)
    return dataclasses.replace(model, contract=contract, **changes)


def test_a_large_request_is_answered_like_many_small_ones(tmp_path: Path, regressor: MadeModel) -> None:
    """It is computed in a thread, which nobody can tell."""
    limits = ServingSpec(max_rows=2 * LARGE_ROWS)
    client = TestClient(serving_of(Fixed(with_large_requests(regressor)), tmp_path, limits)[1])
    large = client.post("/predict", json={"rows": REQUESTS * 200}).json()
    small = client.post("/predict", json={"rows": REQUESTS}).json()
    assert large["predictions"] == small["predictions"] * 200
    assert len(read_captured(tmp_path / "inference", SPEC)) == 603


def test_an_answer_that_takes_too_long_is_504_while_small_requests_are_answered(
    tmp_path: Path, regressor: MadeModel
) -> None:
    """A large request does not stand in the way, and is captured by nobody."""
    slow = Slow()
    served = Fixed(with_large_requests(regressor, runtime=slow))
    _, front = serving_of(served, tmp_path, ServingSpec(max_rows=2 * LARGE_ROWS, timeout_seconds=0.5))

    async def ask() -> tuple[httpx.Response, httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(front), base_url="http://service") as client:
            large = asyncio.create_task(client.post("/predict", json={"rows": REQUESTS * 200}))
            await asyncio.sleep(0)
            other = await client.get("/readyz")
            return await large, other

    try:
        large, other = asyncio.run(_released(ask(), slow))
    finally:
        slow.go_on.set()
    assert other.status_code == 200
    assert large.status_code == 504
    error = large.json()["error"]
    assert (error["rule"], error["limit"]) == (
        "the answer took more than 0.5 s; send fewer rows",
        "serving.timeout_seconds",
    )
    assert read_captured(tmp_path / "inference", SPEC).empty


async def _released(asked: Any, slow: Slow) -> Any:
    """What was asked; afterwards the thread that computes may end, and the loop with it."""
    try:
        return await asked
    finally:
        slow.go_on.set()


def test_after_a_turn_the_next_request_is_answered_by_the_new_version(regressor: MadeModel, tmp_path: Path) -> None:
    """By its runtime, under its contract, with its number; GET /model says the same."""
    second = make_model(version="2", estimator=LINEAR["regression"])
    folder = PlanFolder(tmp_path / "plan")
    folder.create(Plan(turn=0, serve="bikes:v1"))
    following = Following(folder, load={"bikes:v1": regressor, "bikes:v2": second}.__getitem__)
    client = TestClient(serving_of(following, tmp_path)[1])
    before = client.post("/predict", json={"rows": REQUESTS}).json()
    folder.write(Plan(turn=0, serve="bikes:v1", prepare="bikes:v2"))
    following.check()
    prepared = client.post("/predict", json={"rows": REQUESTS}).json()
    folder.write(Plan(turn=1, serve="bikes:v2"))
    folder.open_turn().set(1)
    after = client.post("/predict", json={"rows": REQUESTS}).json()
    versions = [answer["model_version"] for answer in (before, prepared, after)]
    assert versions == ["1", "1", "2"]
    expected = predict(second.pipeline, ROWS, second.manifest.row_schema).values.tolist()
    assert after["predictions"] == pytest.approx(expected)
    said = client.get("/model").json()
    assert (said["version"], said["alias"]) == ("2", "champion")


def test_a_registry_that_cannot_be_read_is_told_by_who_goes_on(regressor: MadeModel, tmp_path: Path) -> None:
    """The service is degraded: it would not notice a new champion."""
    folder = PlanFolder(tmp_path / "plan")
    folder.create(Plan(turn=0, serve="bikes:v1", registry_problem="OperationalError"))
    client = TestClient(serving_of(Following(folder, load=lambda _: regressor), tmp_path)[1])
    assert client.get("/readyz").json() == {
        "health": "degraded",
        "problems": ["the registry cannot be read: OperationalError"],
    }
    assert client.get("/model").json()["registry_problem"] == "OperationalError"
    assert client.post("/predict", json={"rows": REQUESTS}).status_code == 200
