"""Killing any part under traffic: it comes back, and nothing that was answered is lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from everloop.adapters.inference_log import read_captured
from tests.end_to_end.conftest import MODEL, Loop


def wait_until(happened: Callable[[], bool], *, seconds: float = 90) -> None:
    """Return as soon as `happened`; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"nothing happened within {seconds:.0f} s"
        time.sleep(0.1)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("part", [f"serve-{MODEL}", "worker", "prefect-server", "mlflow"])
def test_a_killed_part_comes_back_and_no_answered_prediction_is_lost(loop: Loop, part: str) -> None:
    spec = loop.settings.spec(MODEL)
    before = set(read_captured(loop.settings.inference, spec)["prediction_id"])
    answered: list[str] = []

    def send() -> bool:
        """One row; False if nobody answered."""
        answer = replay._post("/predict", {"rows": [row]})
        answered.extend(answer.get("prediction_ids", []))
        return bool(answer)

    replay = loop.replay(loop.future)
    row = _row(loop)
    for _ in range(20):
        assert send()
    wait_until(lambda: loop.stack.pid_of(part) is not None)
    pid = loop.stack.pid_of(part)
    assert pid is not None, f"{part} is not running"
    os.kill(pid, signal.SIGKILL)
    unanswered = sum(not send() for _ in range(20))
    wait_until(lambda: loop.stack.pid_of(part) not in (None, pid))
    wait_until(send)
    wait_until(loop.stack.is_server_ready)
    if part != f"serve-{MODEL}":
        assert unanswered == 0
    captured = set(read_captured(loop.settings.inference, spec)["prediction_id"]) - before
    assert set(answered) <= captured
    assert len(answered) == len(set(answered)) >= 21
    replay.close()


def _row(loop: Loop) -> dict[str, object]:
    spec = loop.settings.spec(MODEL)
    row = loop.future.iloc[0]
    return {name: row[name].item() for name in spec.features.names}
