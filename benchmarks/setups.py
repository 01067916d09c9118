"""The five ways to serve that benchmarks/serving.py compares: started, waited for, and checked to serve the same model."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil  # type: ignore[import-untyped]

from benchmarks.lab import PROJECT, running_keeper, worker_pids
from benchmarks.load import Client

if TYPE_CHECKING:
    from everloop.adapters.registry import Version
    from everloop.domain.manifest import Manifest
    from everloop.domain.spec import ModelSpec

OURS, PROXIED, LIMIT = "ours", "ours, behind HAProxy", "the limit"
MLFLOW, BENTOML, FASTAPI = "mlflow models serve", "BentoML + scikit-learn", "FastAPI + scikit-learn"
SIZES = (1, 100)
RELATIVE_TOLERANCE = 1e-3
SERVERS = PROJECT / "benchmarks" / "servers"


@dataclass(frozen=True)
class Setup:
    """One way to serve the model: where it is asked, with which bodies by rows in each, and whose CPU it uses."""

    name: str
    port: int
    path: str
    bodies: dict[int, list[bytes]]
    pids: list[int]


@contextlib.contextmanager
def running_setups(home: Path, spec: ModelSpec, version: Version) -> Iterator[list[Setup]]:
    """Every set-up, ready and of one mind; their processes are gone at the end."""
    from tasks.wiring import registry

    registry().promote(version)
    manifest = registry().manifest(version)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(registry().model_folder(version))
        others = [
            stack.enter_context(_Server(name, command, home))
            for name, command in _commands(version, manifest, folder).items()
        ]
        url = stack.enter_context(running_keeper(spec, log=home / "keeper.log"))
        setups = [*_ours(url, spec, manifest), *(server.wait(manifest) for server in others)]
        for setup in setups:
            _check_answers(setup, manifest)
        yield setups


def _commands(version: Version, manifest: Manifest, folder: Path) -> dict[str, list[str]]:
    """The command that starts each set-up that is not ours; `{port}` stands for its port."""
    from everloop.adapters.model_files import ONNX_FILE, find_file

    onnx = find_file(folder, ONNX_FILE)
    if onnx is None:
        raise SystemExit(
            f"{version.label} has no {ONNX_FILE} ({manifest.runtime_reason}); there is no limit to measure"
        )
    numbers, texts = (
        ",".join(feature.name for feature in features)
        for features in (manifest.row_schema.numeric, manifest.row_schema.categorical)
    )
    on_port, source = ["--host", "127.0.0.1", "--port", "{port}"], f"models:/{version.model}/{version.number}"
    return {
        LIMIT: [str(SERVERS / "limit.py"), str(onnx), "{port}", numbers, texts],
        MLFLOW: ["-m", "mlflow", "models", "serve", "-m", source, "--env-manager", "local", *on_port],
        BENTOML: ["-m", "bentoml", "serve", "benchmarks.servers.bentoml_sklearn:BikeDemand", *on_port],
        FASTAPI: ["-m", "uvicorn", "benchmarks.servers.fastapi_sklearn:app", "--no-access-log", *on_port],
    }


class _Server:
    """A set-up that is not ours: started at once, gone with everything below it at the end of the block."""

    def __init__(self, name: str, command: list[str], home: Path) -> None:
        from everloop.adapters.service import free_port
        from everloop.settings import settings

        self._name, self._port, self._patience = name, free_port(), settings().boot_seconds
        self._log = home / f"{name.replace(' ', '-')}.log"
        with self._log.open("wb") as output:
            self._process = psutil.Popen(
                [sys.executable, *(word.replace("{port}", str(self._port)) for word in command)],
                cwd=PROJECT, env=settings().environment(), stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def __enter__(self) -> _Server:
        return self

    def __exit__(self, *_: object) -> None:
        tree = self._tree()
        for found in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                found.terminate()
        _, left = psutil.wait_procs(tree, timeout=10)
        for found in left:
            found.kill()
        psutil.wait_procs(left, timeout=10)

    def wait(self, manifest: Manifest) -> Setup:
        """The set-up, once it answers."""
        bodies, path = (_split(manifest), "/invocations") if self._name == MLFLOW else (_bodies(manifest), "/predict")
        setup = Setup(self._name, self._port, path, bodies, [])
        deadline = time.monotonic() + self._patience
        while not _ask(setup, bodies[1][:1]):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{self._name} did not start:\n{self._log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.2)
        setup.pids.extend(found.pid for found in self._tree())
        return setup

    def _tree(self) -> list[psutil.Process]:
        if self._process.poll() is not None:
            return []
        return [self._process, *self._process.children(recursive=True)]


def _ours(url: str, spec: ModelSpec, manifest: Manifest) -> list[Setup]:
    """Our worker at its bento's own port, and through the HAProxy in front, if there is one."""
    workers, bodies = worker_pids(url), _bodies(manifest)
    bento, keeper, *_ = psutil.Process(workers[0]).parents()
    command = bento.cmdline()
    setups = [Setup(OURS, int(command[command.index("--port") + 1]), "/predict", bodies, workers)]
    proxies = [child.pid for child in keeper.children() if child.name() == "haproxy"]
    if proxies:
        setups.append(Setup(PROXIED, spec.serving.port, "/predict", bodies, [*workers, *proxies]))
    return setups


def _bodies(manifest: Manifest) -> dict[int, list[bytes]]:
    """The recorded rows as a client of ours sends them."""
    rows = [request.row for request in manifest.rehearsal]
    return {size: [json.dumps({"rows": part}).encode() for part in _parts(rows, size)] for size in SIZES}


def _split(manifest: Manifest) -> dict[int, list[bytes]]:
    """The recorded rows as MLflow's scoring server takes them: the features alone, conformed to the model's signature."""
    from everloop.domain.schema import canonical_category

    schema = manifest.row_schema
    canonical = {feature.name: canonical_category for feature in schema.categorical}
    rows = [[canonical.get(name, float)(request.row[name]) for name in schema.names] for request in manifest.rehearsal]
    frames = {size: [{"columns": schema.names, "data": part} for part in _parts(rows, size)] for size in SIZES}
    return {
        size: [json.dumps({"dataframe_split": frame}).encode() for frame in found] for size, found in frames.items()
    }


def _parts(rows: list[Any], size: int) -> list[list[Any]]:
    return [rows[start : start + size] for start in range(0, len(rows) - size + 1, size)]


def _check_answers(setup: Setup, manifest: Manifest) -> None:
    """Every recorded row gets the recorded prediction, alone and among a hundred."""
    expected = np.array([request.prediction for request in manifest.rehearsal])
    for size in SIZES:
        answers = _ask(setup, setup.bodies[size])
        found = np.concatenate(answers) if answers else np.empty(0)
        wanted = expected[: len(setup.bodies[size]) * size]
        if len(found) != len(wanted):
            raise SystemExit(f"{setup.name} answered {len(found)} of {len(wanted)} rows; there is nothing to compare")
        worst = int(np.argmax(np.abs(found - wanted) / np.abs(wanted)))
        if not np.allclose(found, wanted, rtol=RELATIVE_TOLERANCE, atol=0):
            raise SystemExit(
                f"{setup.name} serves another model: row {worst} gets {found[worst]:.6g}, recorded is {wanted[worst]:.6g}"
            )


def _ask(setup: Setup, bodies: list[bytes]) -> list[list[float]]:
    """The predictions for each body; empty if one is not answered."""

    async def ask() -> list[list[float]]:
        client = Client(setup.port)
        found: list[list[float]] = []
        for body in bodies:
            answer = await client.post(setup.path, body)
            if answer.status != 200:
                found = []
                break
            content = json.loads(answer.body)
            found.append(content if isinstance(content, list) else content["predictions"])
        await client.close()
        return found

    return asyncio.run(ask())
