"""A prediction service as its clients see it, and the process that serves a bento."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from everloop.domain.errors import ServingRefused


def serve_command(bento: str, port: int) -> list[str]:
    """The command that serves a bento of the store on 127.0.0.1:`port`."""
    return [sys.executable, "-m", "bentoml", "serve", bento, "--host", "127.0.0.1", "--port", str(port)]


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def describe_service(url: str) -> dict[str, Any] | None:
    """What GET /model of the service says, None if nothing answers there."""
    try:
        answer = httpx.get(f"{url}/model", timeout=5)
    except httpx.TransportError:
        return None
    return answer.json() if answer.is_success else None


@contextlib.contextmanager
def running_service(bento: str, *, environment: dict[str, str], log: Path, boot_seconds: float) -> Iterator[str]:
    """The address of a service of `bento` on a free port, ready, stopped when the block ends.

    Raises:
        ServingRefused: it ends, or is not ready in time; the message quotes its last words.
    """
    url = f"http://127.0.0.1:{(port := free_port())}"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            serve_command(bento, port), env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            _wait_until_ready(process, url, bento, log, boot_seconds)
            yield url
        finally:
            _stop(process)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, bento: str, log: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServingRefused(f"{bento}: the service ended with code {process.returncode}: {_last_words(log)}")
        if describe_service(url) is not None:
            return
        time.sleep(0.1)
    raise ServingRefused(f"{bento}: the service was not ready after {seconds:.0f} s: {_last_words(log)}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Afterwards the process and its workers are gone: asked first, killed after ten seconds."""
    for number, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _last_words(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"
