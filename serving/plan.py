"""What the keeper of a service and its workers tell each other, as files in one folder.

    plan.json          the keeper's: the version to serve, the one to prepare, what was refused
    turn               eight bytes in shared memory: the number of the plan in force
    workers/<pid>.json each worker's: what it serves, what it has prepared
    failure            a worker's that could not start: why

The keeper writes a plan with a version to prepare; every worker loads it beside the old one, checks it, and says so. When
all have, the keeper writes the plan that serves it and turns the number: each request that starts after that is answered
by the new version, in every worker. If one worker refuses it, none serves it.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
import tempfile
from datetime import datetime
from pathlib import Path

from everloop.domain.spec_values import Frozen

_TURN = struct.Struct("=Q")


class Refusal(Frozen):
    """A version that is not served, and why."""

    version: str
    reason: str


class Plan(Frozen):
    """What the workers of one service shall do. `serve` and `prepare` are tags of the model store.

    `starting` is the version whose bento is being started to take over from this service.
    """

    turn: int
    serve: str
    prepare: str | None = None
    starting: str | None = None
    refused: Refusal | None = None
    registry_problem: str | None = None


class WorkerState(Frozen):
    """What one worker does."""

    pid: int
    version: str
    since: datetime
    prepared: str | None = None
    refused: Refusal | None = None


class PlanFolder:
    """The files of one service."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._plan = folder / "plan.json"
        self._workers = folder / "workers"

    def create(self, plan: Plan) -> None:
        """Afterwards the folder holds `plan`, and it is in force."""
        self._workers.mkdir(parents=True, exist_ok=True)
        (self.folder / "turn").write_bytes(_TURN.pack(plan.turn))
        self.write(plan)

    def write(self, plan: Plan) -> None:
        """Afterwards workers that look find `plan`."""
        _replace(self._plan, plan.model_dump_json())

    def read(self) -> Plan:
        """The newest plan."""
        return Plan.model_validate_json(self._plan.read_bytes())

    def stamp(self) -> tuple[int, int]:
        """Changes whenever a plan was written."""
        found = self._plan.stat()
        return found.st_ino, found.st_mtime_ns

    def open_turn(self) -> Turn:
        """The shared number."""
        return Turn(self.folder / "turn")

    def report(self, state: WorkerState) -> None:
        """Afterwards the keeper sees `state`."""
        _replace(self._workers / f"{state.pid}.json", state.model_dump_json())

    def report_failure(self, reason: str) -> None:
        """Afterwards the keeper sees why a worker cannot start; BentoML would start it again for ever."""
        _replace(self.folder / "failure", reason)

    def failure(self) -> str | None:
        """Why a worker could not start, None if none has said so."""
        path = self.folder / "failure"
        return path.read_text(encoding="utf-8") if path.is_file() else None

    def workers(self) -> list[WorkerState]:
        """The states of the workers that live."""
        found = []
        for path in sorted(self._workers.glob("*.json")):
            if _is_alive(int(path.stem)):
                found.append(WorkerState.model_validate_json(path.read_bytes()))
            else:
                path.unlink(missing_ok=True)
        return found


class Turn:
    """A number in a mapped file: reading it costs less than a microsecond and sees a change at once."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _TURN.size)
        self._view = memoryview(self._map).cast("Q")

    def get(self) -> int:
        """The number now."""
        return self._view[0]

    def set(self, turn: int) -> None:
        """Afterwards every process sees `turn`."""
        self._view[0] = turn


def without_paths(text: str) -> str:
    """`text` with folders left out of the paths in it: where things lie on this machine is nobody's business."""
    for root in (Path.home(), Path(tempfile.gettempdir()), Path.cwd()):
        text = text.replace(f"{root}/", "…/")
    return re.sub(r"/(?:[^\s/'\":]+/)+", "…/", text)


def _replace(path: Path, text: str) -> None:
    """Write beside and rename: a reader sees the old file or the new one, whole."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False
