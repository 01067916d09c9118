"""One process of a host at a time: who waits goes on when the other is done, or dead."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from everloop.adapters.locks import one_at_a_time

HOLDER = """
import sys
from pathlib import Path
from everloop.adapters.locks import one_at_a_time
with one_at_a_time(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_waits_until_the_first_lets_go_or_dies(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "monitor-bikes"
    command = [sys.executable, "-c", HOLDER, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    first = subprocess.Popen(command, **pipes)  # type: ignore[call-overload]
    assert first.stdout.readline() == "held\n"
    second = subprocess.Popen(command, **pipes)  # type: ignore[call-overload]
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(1)
    first.send_signal(signal.SIGKILL)
    assert second.stdout.readline() == "held\n"
    second.communicate()
    with one_at_a_time(path):
        assert second.returncode == 0
    first.wait()
