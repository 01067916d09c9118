"""A prediction service as its clients see it, and the process that serves a bento."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx

from everloop.domain.errors import ServingRefused

NUDGE = "nudge"
PR_SET_PDEATHSIG = 1


def serve_command(bento: str, port: int) -> list[str]:
    """The command that serves a bento of the store on 127.0.0.1:`port`."""
    return [
        sys.executable,
        "-m",
        "bentoml",
        "serve",
        bento,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--timeout-keep-alive",
        "90",
    ]


def serves(found: dict[str, Any] | None, version: str) -> bool:
    """True if what GET /model says means that every worker serves `version`."""
    if found is None:
        return False
    return {found["version"], *(worker["version"] for worker in found["workers"])} == {version}


def authorization(keys: Sequence[str]) -> dict[str, str]:
    """The header that opens a service with these API keys; nothing if it has none."""
    return {"Authorization": f"Bearer {keys[0]}"} if keys else {}


def nudge_keeper(folder: Path) -> None:
    """Afterwards the keeper that works in `folder` on this machine, if there is one, looks at the alias at once."""
    if folder.is_dir():
        (folder / NUDGE).touch()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def describe_service(url: str, keys: Sequence[str] = ()) -> dict[str, Any] | None:
    """What GET /model of the service says, None if nothing answers there. `keys`: its API keys, if it has some."""
    try:
        answer = httpx.get(f"{url}/model", timeout=5, headers=authorization(keys), trust_env=False)
    except httpx.TransportError:
        return None
    return answer.json() if answer.is_success else None


def read_metrics(url: str, keys: Sequence[str] = ()) -> str | None:
    """What GET /metrics of the service says, None if nothing answers there."""
    try:
        answer = httpx.get(f"{url}/metrics", timeout=5, headers=authorization(keys), trust_env=False)
    except httpx.TransportError:
        return None
    return answer.text if answer.is_success else None


@contextlib.contextmanager
def running_service(
    bento: str, *, environment: dict[str, str], log: Path, boot_seconds: float, keys: Sequence[str] = ()
) -> Iterator[str]:
    """The address of a service of `bento` on a free port, ready, stopped when the block ends.

    Raises:
        ServingRefused: it ends, or is not ready in time; the message quotes its last words.
    """
    url = f"http://127.0.0.1:{(port := free_port())}"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(serve_command(bento, port), env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            _wait_until_ready(process, url, bento, log, boot_seconds, keys)
            yield url
        finally:
            stop_process(process)


def _wait_until_ready(
    process: subprocess.Popen[bytes], url: str, bento: str, log: Path, seconds: float, keys: Sequence[str]
) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServingRefused(f"{bento}: the service ended with code {process.returncode}: {_last_words(log)}")
        if describe_service(url, keys) is not None:
            return
        time.sleep(0.1)
    raise ServingRefused(f"{bento}: the service was not ready after {seconds:.0f} s: {_last_words(log)}")


def end_with_parent() -> None:
    """Ask the kernel to end this process when the one that started it is gone; for `preexec_fn`, on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def stop_process(process: subprocess.Popen[bytes]) -> None:
    """Afterwards the process is gone, and its workers with it: asked first, killed after ten seconds.

    BentoML's workers end by themselves when their parent is gone.
    """
    for number, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            break


def _last_words(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"
