"""A supervisord event listener: when a server dies, what it left running is ended too.

A killed BentoML or MLflow parent leaves workers behind that hold its port, so the restarted server could not listen.
The worker is spared: the flow runs it started live on. Protocol: supervisord's manual, 'Event Listeners'.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

SPARED = "worker"


def main() -> None:
    """Answer supervisord's events until it ends."""
    while True:
        print("READY", flush=True)  # noqa: T201
        line = sys.stdin.readline()
        if not line:
            return
        header = _fields(line)
        event = _fields(sys.stdin.read(int(header["len"])))
        if header["eventname"] == "PROCESS_STATE_EXITED" and event["processname"] != SPARED:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(int(event["pid"]), signal.SIGKILL)
        print("RESULT 2\nOK", end="", flush=True)  # noqa: T201


def _fields(line: str) -> dict[str, str]:
    return dict(pair.split(":", 1) for pair in line.split())


if __name__ == "__main__":
    main()
