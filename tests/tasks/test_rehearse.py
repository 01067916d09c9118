"""Rehearse: a service that answers its recorded requests passes, one that does not is named with its first answer."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from everloop.adapters.registry import Version
from everloop.domain.errors import RehearsalFailed
from everloop.domain.manifest import Manifest
from everloop.settings import Settings
from tasks import rehearse as rehearsing
from tasks.rehearse import Rehearsal, rehearse
from tests.factories import MadeModel, make_model, make_spec


@pytest.fixture(scope="module")
def model() -> MadeModel:
    return make_model("binary", runtime="onnx")


class FakeRegistry:
    """Knows one manifest, and what a version was tagged with."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self.tags: dict[str, str] = {}

    def manifest(self, _: Version) -> Manifest:
        """The manifest."""
        return self._manifest

    def tag(self, _: Version, **tags: str) -> None:
        """Afterwards the version has these tags."""
        self.tags |= tags


class Stage:
    """A service behind real HTTP that answers by a model, changed by the test, and asks for a key."""

    def __init__(self, model: MadeModel, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.model = model
        self.registry = FakeRegistry(model.manifest)
        self.asked: list[int] = []
        self.keys: list[str | None] = []
        self.environment: dict[str, str] = {}
        self.status, self.shift = 200, 0.0
        stage = self

        class Answer(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                stage.keys.append(self.headers["authorization"])
                answer = json.dumps(stage.answer(body)).encode()
                self.send_response(stage.status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setattr(rehearsing, "registry", lambda: self.registry)
        monkeypatch.setattr(rehearsing, "settings", lambda: Settings(home=folder))
        monkeypatch.setattr(rehearsing, "running_service", self.running_service)
        monkeypatch.setattr(rehearsing, "show_markdown", lambda *_, **__: None)

    @contextlib.contextmanager
    def running_service(self, _: str, *, environment: dict[str, str], **__: Any) -> Iterator[str]:
        """The address of this service."""
        self.environment = environment
        yield f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, body: bytes) -> dict[str, Any]:
        """What the model says, with its probabilities shifted."""
        if self.status != 200:
            return {"error": {"rule": "the service failed"}}
        batch = self.model.contract.decode(body).batch
        self.asked.append(len(batch))
        found = self.model.runtime.predict(batch)
        assert found.probabilities is not None
        return {"predictions": found.values.tolist(), "probabilities": (found.probabilities + self.shift).tolist()}

    def rehearse(self, *, max_p95_latency_ms: float = 1000, api_key_env: str | None = None) -> Rehearsal:
        """The rehearsal of the model."""
        step: Any = rehearse
        gates = {"metric": "log_loss", "worst_allowed": 9.0, "max_p95_latency_ms": max_p95_latency_ms}
        spec = make_spec("binary", gates=gates, serving={"max_rows": 5, "api_key_env": api_key_env})
        return step.fn(spec, Version(model="bikes", number="1", run_id="r", source="s"), self.model.release)


@pytest.fixture
def stage(model: MadeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    made = Stage(model, tmp_path, monkeypatch)
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_a_service_that_answers_as_recorded_passes_with_its_latency(stage: Stage) -> None:
    """All rows are asked, as many at once as a request may hold, and then one by one."""
    rehearsal = stage.rehearse(max_p95_latency_ms=10_000)
    assert rehearsal.rows == 12
    assert rehearsal.p95_ms > 0
    assert stage.asked == [5, 5, 2] + [1] * 12
    assert stage.registry.tags == {"rehearsal_rows": "12", "rehearsal_p95_ms": f"{rehearsal.p95_ms:.2f}"}


def test_a_rehearsal_is_captured_elsewhere_under_the_limits_of_today(stage: Stage, tmp_path: Path) -> None:
    """Its rows are no traffic."""
    stage.rehearse(max_p95_latency_ms=10_000)
    assert not Path(stage.environment["EVERLOOP_CAPTURE"]).is_relative_to(tmp_path / "inference")
    assert json.loads(stage.environment["EVERLOOP_SERVING"])["max_rows"] == 5


def test_a_service_with_a_key_is_asked_with_it(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of those in force."""
    monkeypatch.setenv("BIKE_KEYS", "new,old")
    stage.rehearse(max_p95_latency_ms=10_000, api_key_env="BIKE_KEYS")
    assert set(stage.keys) == {"Bearer new"}


def test_a_score_beyond_the_tolerance_fails_the_rehearsal(stage: Stage) -> None:
    """Though every label is the same."""
    stage.shift = 10 * stage.model.manifest.tolerance
    with pytest.raises(
        RehearsalFailed, match=r"^5 of 5 recorded answers differ, first: row 0: .*; the champion stays$"
    ):
        stage.rehearse()
    assert stage.registry.tags == {}


def test_a_service_that_refuses_a_recorded_request_fails_with_its_words(stage: Stage) -> None:
    """So that somebody can mend it."""
    stage.status = 500
    with pytest.raises(RehearsalFailed, match=r"answered with 500: .*the service failed.*; the champion stays"):
        stage.rehearse()


def test_a_service_that_is_too_slow_fails_with_the_gate_it_missed(stage: Stage) -> None:
    """Its latency, the bar, and where the bar is set."""
    with pytest.raises(
        RehearsalFailed, match=r"bikes v1: 95 % of .* 1e-06 ms are allowed \(gates.max_p95_latency_ms\)"
    ):
        stage.rehearse(max_p95_latency_ms=1e-6)
