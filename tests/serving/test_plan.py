"""The plan: what the keeper wrote is what every worker reads, whole, and the number turns for all at once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from everloop.settings import PROJECT
from serving.plan import Plan, PlanFolder, Refusal, WorkerState, without_paths

FIRST = Plan(turn=0, serve="bikes:v1")


def state_of(pid: int, version: str = "1") -> WorkerState:
    """What a worker says."""
    return WorkerState(pid=pid, version=version, since=datetime(2024, 3, 1, tzinfo=UTC))


@pytest.fixture
def folder(tmp_path: Path) -> PlanFolder:
    made = PlanFolder(tmp_path / "plan")
    made.create(FIRST)
    return made


def test_a_plan_is_read_as_it_was_written(folder: PlanFolder) -> None:
    """With all that it says."""
    refused = Refusal(version="2", reason="it answers otherwise")
    plan = Plan(turn=3, serve="bikes:v1", prepare="bikes:v2", refused=refused, registry_problem="OperationalError")
    assert folder.read() == FIRST
    folder.write(plan)
    assert folder.read() == plan


def test_the_stamp_changes_with_every_plan_and_only_then(folder: PlanFolder) -> None:
    """Also when the plan says the same."""
    stamps = {folder.stamp(), folder.stamp()}
    for _ in range(3):
        folder.write(FIRST)
        stamps.add(folder.stamp())
    assert len(stamps) == 4


def test_a_reader_never_sees_half_a_plan(folder: PlanFolder) -> None:
    """The file is exchanged, not written over."""
    done = threading.Event()

    def write() -> None:
        for turn in range(300):
            reason = "x" * (turn * 50)
            folder.write(Plan(turn=turn, serve="bikes:v1", refused=Refusal(version="2", reason=reason)))
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    turns = [0]
    while not done.is_set():
        turns.append(folder.read().turn)
    writer.join()
    assert turns == sorted(turns)
    assert sorted(path.name for path in folder.folder.iterdir()) == ["plan.json", "turn", "workers"]


def test_a_new_turn_is_seen_by_whoever_has_it_open(folder: PlanFolder) -> None:
    """In this process."""
    mine, theirs = folder.open_turn(), folder.open_turn()
    assert (mine.get(), theirs.get()) == (0, 0)
    mine.set(2**40)
    assert theirs.get() == folder.open_turn().get() == 2**40


def test_a_new_turn_is_seen_by_another_process(folder: PlanFolder) -> None:
    """That had it open before."""
    program = (
        "import sys; from pathlib import Path; from serving.plan import PlanFolder\n"
        "turn = PlanFolder(Path(sys.argv[1])).open_turn()\n"
        "print(turn.get(), flush=True); input(); print(turn.get(), flush=True)\n"
    )
    command = [sys.executable, "-c", program, str(folder.folder)]
    with subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        before = other.stdout.readline()
        folder.open_turn().set(7)
        other.stdin.write("\n")
        other.stdin.flush()
        after = other.stdout.readline()
    assert (before, after) == ("0\n", "7\n")


def test_a_folder_that_is_created_again_starts_at_its_plans_turn(folder: PlanFolder) -> None:
    """Whatever was there before."""
    folder.open_turn().set(9)
    folder.create(Plan(turn=4, serve="bikes:v2"))
    assert (folder.open_turn().get(), folder.read().serve) == (4, "bikes:v2")


def test_states_are_those_of_workers_that_live(folder: PlanFolder) -> None:
    """One that is gone, or is only waited for by its parent, is left out and forgotten."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    for pid in (gone.pid, zombie.pid, os.getpid()):
        folder.report(state_of(pid))
    assert folder.workers() == [state_of(os.getpid())]
    zombie.wait()
    assert [path.stem for path in (folder.folder / "workers").glob("*.json")] == [str(os.getpid())]


def test_the_newest_state_of_a_worker_counts(folder: PlanFolder) -> None:
    """A worker has one file."""
    folder.report(state_of(os.getpid(), "1"))
    folder.report(state_of(os.getpid(), "2"))
    assert [state.version for state in folder.workers()] == ["2"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "FileNotFoundError: '/home/ada/.everloop/bentoml/models/bikes/v2/model.onnx'",
            "FileNotFoundError: '…/model.onnx'",
        ),
        ("/a/b/c: cannot be loaded", "…/c: cannot be loaded"),
        ("bikes:v2 is not in the bento store; run `prefect deployment run release/bikes`", None),
        ("row 3: 1.5 instead of 2.5", None),
    ],
)
def test_what_is_told_outside_names_no_folder(text: str, expected: str | None) -> None:
    """The name of the file stays, for who has to mend it."""
    assert without_paths(text) == (expected or text)
