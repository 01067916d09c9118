"""An environment of its own for a tool that is compared with ours and does not fit our pinned versions.

    with isolated_python(["evidently", "pandas<3"]) as python:
        figures = run_isolated(python, "import json; print(json.dumps(…))", "argument")

The tool sees nothing of this environment: data goes over as files, figures come back as one JSON line.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

_READY = "everloop-ready"


@contextlib.contextmanager
def isolated_python(requirements: Sequence[str], *, keep: bool = False) -> Iterator[Path]:
    """The interpreter of a fresh environment with `requirements`, which pip finds where it always looks; gone at the end.

    With `keep` it stays in the temporary folder, and the next call with the same requirements takes it as it is.

    Raises:
        SystemExit: the environment could not be made; with the last lines that pip printed.
    """
    with contextlib.ExitStack() as stack:
        if keep:
            digest = hashlib.sha256("\n".join([sys.version, *requirements]).encode()).hexdigest()[:16]
            folder = Path(tempfile.gettempdir()) / f"everloop-isolated-{digest}"
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="everloop-isolated-")))
        python = folder / "bin" / "python"
        if not (folder / _READY).exists():
            _run([sys.executable, "-m", "venv", "--clear", str(folder)])
            _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements])
            (folder / _READY).touch()
        yield python


def run_isolated(python: Path, code: str, *arguments: str) -> Any:
    """What `code` printed last, from JSON; `arguments` are its sys.argv[1:].

    Raises:
        SystemExit: it failed; with the last lines that it printed.
    """
    return json.loads(_run([str(python), "-c", code, *arguments]).strip().splitlines()[-1])


@contextlib.contextmanager
def asked_isolated(python: Path, code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A running process of `code`, to be asked a line at a time with `ask`; stopped at the end."""
    process = subprocess.Popen(
        [str(python), "-u", "-c", code, *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=_environment(),
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def ask(process: subprocess.Popen[str], line: str) -> Any:
    """The JSON that the process answers to `line`; what it prints beside its answers must not begin with a brace.

    Raises:
        SystemExit: it died.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        print(line, file=process.stdin, flush=True)
    for answer in process.stdout:
        if answer.startswith("{"):
            return json.loads(answer)
    raise SystemExit(f"{process.args!r} ended with {process.wait()} and no answer to {line!r}")


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=_environment(), check=False)
    if done.returncode:
        raise SystemExit(
            f"{' '.join(command)[:300]} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-2000:]}"
        )
    return done.stdout


def _environment() -> dict[str, str]:
    """Ours, without what would let the tool see our packages, and with telemetry off."""
    ours = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    }
    return {**ours, "DO_NOT_TRACK": "1"}
