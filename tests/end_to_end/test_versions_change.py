"""`everloop serve` with real processes: swaps, refusals, hand-overs and rollbacks while a client keeps asking."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import httpx
import pytest

from everloop.adapters.registry import Registry, Version
from everloop.adapters.service import describe_service, free_port, nudge_keeper, serves
from everloop.settings import PROJECT, Settings
from serving.models import Release
from serving.proxy import haproxy
from tests.end_to_end.test_parts_die import wait_until
from tests.factories import BIKES, as_requests, make_model, make_rows, make_spec, save_model

MODEL = "bikes"
KEY = "first-key"
SPEC = f"""{BIKES}[features]
numeric = ["temp", "wind"]
categorical = ["season", "city", "holiday"]
[[search.candidates]]
estimator = "sklearn.linear_model.Ridge"
[gates]
metric = "mae"
worst_allowed = 100.0
[serving]
workers = 2
max_rows = 5
api_key_env = "BIKES_KEYS"
"""
BUILD = """
import os, sys
from pathlib import Path
import serving.build
serving.build.PACKAGES = (*serving.build.PACKAGES, *sys.argv[3:])
print(serving.build.build_bento(Path(sys.argv[1]), sys.argv[2], environment=dict(os.environ)).model_dump_json())
"""


@dataclass
class Service:
    """A running `everloop serve`, its registry, and a client that asks until it is stopped."""

    settings: Settings
    process: subprocess.Popen[bytes]
    registry: Registry
    scratch: Path
    answers: list[tuple[int, str]] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        """Its address."""
        return self.settings.service_url(self.settings.spec(MODEL))

    def describe(self) -> dict[str, Any]:
        """What GET /model says."""
        found = describe_service(self.url, (KEY,))
        assert found is not None
        return found

    def promote(self, version: Version) -> None:
        """Move the alias as the release flow does."""
        self.registry.promote(version)
        nudge_keeper(self.settings.keeper_folder(MODEL))

    def wait_for(self, version: Version) -> None:
        """Return when every worker serves `version`."""
        wait_until(lambda: serves(describe_service(self.url, (KEY,)), version.number))

    def ask(self) -> None:
        """Send one row after the other, without retries."""
        rows = as_requests(make_rows(), make_spec())
        with httpx.Client(base_url=self.url, headers={"X-API-Key": KEY}, timeout=60) as client:
            while not self.stopped.is_set():
                try:
                    answer = client.post("/predict", json={"rows": rows[:1]})
                    self.answers.append((answer.status_code, answer.json().get("model_version", "")))
                except httpx.TransportError as exc:
                    self.answers.append((0, repr(exc)))


def _register(settings: Settings, scratch: Path, registry: Registry, *packages: str) -> Version:
    """A new version of the model, registered with its code digest and packaged; `packages` are dependencies more."""
    client = registry.client
    if not client.search_registered_models(f"name='{MODEL}'"):
        client.create_registered_model(MODEL)
    number = str(client.create_model_version(MODEL, source=str(scratch)).version)
    folder = save_model(make_model(runtime="onnx", version=number), scratch / f"v{number}")
    done = subprocess.run(  # in a process of its own: BentoML remembers the first store it has seen
        [sys.executable, "-c", BUILD, str(folder), number, *packages],
        cwd=PROJECT, env=settings.environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    release = Release.model_validate_json(done.stdout.splitlines()[-1])
    version = registry.version(MODEL, number)
    registry.tag(version, bento=release.tag, code_digest=release.code)
    return registry.version(MODEL, number)


def _start(settings: Settings, log: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "cli.main", "serve", MODEL],
        cwd=PROJECT, env=settings.environment(), stdout=log, stderr=log,
    )  # fmt: skip


def _spoil(service: Service, version: Version) -> None:
    """Make the stored model of `version` one that cannot be loaded."""
    folder = service.settings.home / "bentoml" / "models" / MODEL / f"v{version.number}"
    (folder / "model.onnx").write_bytes(b"no model")


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """Version 1 is champion and served by two workers, behind HAProxy and an API key; a client asks all the time."""
    (tmp_path / "models" / MODEL).mkdir(parents=True)
    (tmp_path / "models" / MODEL / "model.toml").write_text(SPEC)
    monkeypatch.setenv("BIKES_KEYS", f"{KEY}, second-key")
    settings = Settings(
        home=tmp_path / "home", models=tmp_path / "models", service_ports={MODEL: free_port()}, threads=1
    )
    settings.home.mkdir()
    registry = Registry(settings.mlflow)
    registry.promote(_register(settings, tmp_path, registry))
    with (tmp_path / "log").open("wb") as log:
        process = _start(settings, log)
    running = Service(settings, process, registry, tmp_path)
    asking = threading.Thread(target=running.ask)
    try:
        wait_until(lambda: describe_service(running.url, (KEY,)) is not None)
        asking.start()
        yield running
    finally:
        running.stopped.set()
        if asking.is_alive():
            asking.join()
        running.process.send_signal(signal.SIGTERM)
        running.process.wait(30)
        print((tmp_path / "log").read_text()[-5000:])


def _cli(service: Service, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *words],
        cwd=PROJECT, env=service.settings.environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.timeout(300)
@pytest.mark.skipif(haproxy() is None, reason="HAProxy is not installed: make haproxy")
def test_versions_change_without_a_failed_request(service: Service) -> None:
    """A swap, a refused version, a hand-over to other dependencies and a rollback, all under traffic."""
    second = _register(service.settings, service.scratch, service.registry)
    service.promote(second)
    service.wait_for(second)
    pids = {worker["pid"] for worker in service.describe()["workers"]}

    broken = _register(service.settings, service.scratch, service.registry)
    _spoil(service, broken)
    service.promote(broken)
    wait_until(lambda: service.describe()["refused"] is not None)
    refused = service.describe()
    assert refused["refused"]["version"] == broken.number
    assert "cannot be loaded" in refused["refused"]["reason"]
    assert str(service.settings.home) not in refused["refused"]["reason"]
    assert {worker["version"] for worker in refused["workers"]} == {second.number}

    other = _register(service.settings, service.scratch, service.registry, "httpx")
    assert other.tags["code_digest"] != second.tags["code_digest"]
    service.registry.restore(second)
    service.promote(other)
    service.wait_for(other)
    assert pids.isdisjoint(worker["pid"] for worker in service.describe()["workers"])

    done = _cli(service, "rollback", MODEL, "--reason", "complaints", "--by", "ada", "--json")
    assert done.returncode == 0, done.stderr
    assert '"champion": "v2"' in done.stdout
    assert serves(service.describe() | {"workers": []}, second.number)
    tags = service.registry.version(MODEL, other.number).tags
    assert (tags["rolled_back_by"], tags["rollback_reason"]) == ("ada", "complaints")

    service.stopped.set()
    time.sleep(0.5)
    failed = [answer for answer in service.answers if answer[0] != 200]
    assert not failed, failed[:5]
    assert {version for _, version in service.answers} == {"1", second.number, other.number}


@pytest.mark.timeout(300)
def test_a_killed_service_leaves_nothing_behind_and_its_doors_stay_closed(service: Service) -> None:
    """Every key of a rotation opens, no other does; after SIGKILL of the keeper nothing of it runs on."""
    rows = as_requests(make_rows(), make_spec())[:1]
    statuses = {
        key: httpx.post(f"{service.url}/predict", json={"rows": rows}, headers={"X-API-Key": key}).status_code
        for key in (KEY, "second-key", "third-key", "")
    }
    assert statuses == {KEY: 200, "second-key": 200, "third-key": 401, "": 401}
    assert httpx.get(f"{service.url}/readyz").json()["health"] == "healthy"
    assert httpx.get(f"{service.url}/metrics").status_code == 401

    second = _cli(service, "serve", MODEL)
    assert second.returncode == 1
    assert "is already being served" in second.stderr

    pids = [worker["pid"] for worker in service.describe()["workers"]]
    service.stopped.set()
    service.process.kill()
    service.process.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), seconds=20)
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{service.url}/livez")


@pytest.mark.timeout(300)
def test_a_service_that_cannot_start_its_champion_starts_the_version_before(service: Service) -> None:
    """It says so, and keeps trying; a model that answers is better than none."""
    second = _register(service.settings, service.scratch, service.registry)
    service.promote(second)
    service.wait_for(second)
    service.stopped.set()
    service.process.send_signal(signal.SIGTERM)
    service.process.wait(30)
    _spoil(service, second)
    with (service.scratch / "log").open("ab") as log:
        service.process = _start(service.settings, log)
    wait_until(lambda: describe_service(service.url, (KEY,)) is not None)
    wait_until(lambda: service.describe()["refused"] is not None)
    found = service.describe()
    assert (found["version"], found["refused"]["version"]) == ("1", second.number)
    assert not [answer for answer in service.answers if answer[0] != 200]
