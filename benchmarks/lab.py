"""What the benchmarks of serving stand on: a home of their own, real versions of the demo's model, and its service."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everloop.adapters.registry import Version
    from everloop.domain.spec import ModelSpec

PROJECT = Path(__file__).resolve().parent.parent
MODEL = "bike-demand"


@contextlib.contextmanager
def temporary_home(**serving: Any) -> Iterator[Path]:
    """An EVERLOOP_HOME for this process, gone at the end; `serving` replaces keys of the model's `[serving]`.

    Call it before anything reads the settings.
    """
    from everloop.adapters.service import free_port

    with tempfile.TemporaryDirectory(prefix="everloop-bench-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        spec = home / "models" / MODEL / "model.toml"
        spec.parent.mkdir(parents=True)
        text, _, _ = (PROJECT / "models" / MODEL / "model.toml").read_text().partition("[serving]")
        lines = [f"{key} = {_toml(value)}" for key, value in {"port": free_port(), **serving}.items()]
        spec.write_text(f"{text}\n[serving]\n" + "\n".join(lines) + "\n")
        os.environ |= {"EVERLOOP_HOME": str(home), "EVERLOOP_MODELS": str(home / "models"), "EVERLOOP_THREADS": "1"}
        from everloop.settings import settings

        settings.cache_clear()
        settings().apply()
        yield home


def train_versions(count: int) -> tuple[ModelSpec, list[Version]]:
    """The spec and `count` registered, packaged versions; each is a different fit, so their answers differ.

    These are the steps of flows/train.py without Prefect around them; nothing is promoted.
    """
    from everloop.domain.search import SearchResult
    from everloop.settings import settings
    from tasks.extract import extract
    from tasks.package import package
    from tasks.prepare import prepare
    from tasks.search import search
    from tasks.wiring import registry

    spec = settings().spec(MODEL)
    snapshot = extract.fn(spec)
    data = prepare.fn(spec, snapshot)
    found: SearchResult = search.fn(spec, data)
    versions = []
    for position in range(count):
        parameters = {**found.best.parameters, "max_iter": 100 + position}
        configuration = found.best.model_copy(update={"parameters": parameters})
        version = register_fit(spec, snapshot, data, found, configuration, reason=f"benchmark {position}")
        package.fn(version)
        versions.append(registry().version(MODEL, version.number))
    return spec, versions


def register_fit(spec: ModelSpec, snapshot: Any, data: Any, found: Any, configuration: Any, *, reason: str) -> Version:
    """The registered version of one configuration, fitted, evaluated and exported as flows/train.py does it."""
    from everloop.domain.search import fit_configuration
    from everloop.domain.splits import within_history
    from tasks.evaluate import evaluate
    from tasks.export import export
    from tasks.fit import Challenger
    from tasks.reference import describe_reference
    from tasks.register import register
    from tasks.validate import validate

    rows = within_history(data.split.known, configuration.history, spec.time)
    challenger = Challenger(fit_configuration(configuration, rows, spec, data.schema), configuration, rows)
    evaluation = evaluate.fn(spec, data, challenger)
    return register.fn(
        spec, snapshot, data, found, challenger, evaluation, validate.fn(spec, evaluation),
        export.fn(data, challenger, evaluation), describe_reference.fn(spec, snapshot, data, challenger, evaluation),
        reason=reason, decision=None,
    )  # fmt: skip


@contextlib.contextmanager
def running_keeper(spec: ModelSpec, *, log: Path) -> Iterator[str]:
    """The address of `everloop serve`, ready; its processes are stopped at the end."""
    from everloop.adapters.service import describe_service
    from everloop.settings import settings

    here = settings()
    url = here.service_url(spec)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "serve", spec.name],
            cwd=PROJECT, env=here.environment(), stdout=output, stderr=output,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + here.boot_seconds
        while describe_service(url) is None:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the service did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.1)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def worker_pids(url: str) -> list[int]:
    """The process ids of the service's workers."""
    from everloop.adapters.service import describe_service

    found = describe_service(url)
    return [worker["pid"] for worker in found["workers"]] if found else []


def _toml(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()
