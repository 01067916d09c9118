"""Capture: what was kept is in a segment, whole and once, whatever becomes of the disk or the process."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from everloop.adapters.inference_log import compact_labels
from everloop.settings import PROJECT
from serving import capture as capture_module
from serving.capture import Capture, Segments
from tests.factories import make_spec


def segments_in(folder: Path, *, max_bytes: int = 1_000_000, max_seconds: float = 3600) -> Segments:
    """Segments that are not closed while a test runs, unless it says so."""
    return Segments(folder, max_bytes=max_bytes, max_seconds=max_seconds)


def line(number: int, text: str = "") -> bytes:
    """A line that is told apart by its number."""
    return json.dumps({"n": number, "text": text}).encode() + b"\n"


def numbers_in(folder: Path) -> list[int]:
    """The numbers of all lines under `folder`, in the order of segments; each line must be whole."""
    paths = sorted(folder.glob("date=*/*.jsonl"))
    return [json.loads(one)["n"] for path in paths for one in path.read_bytes().splitlines()]


class Disk:
    """`os.write` of the capture: with `room` bytes left, and slow for as long as `blocked`."""

    def __init__(self) -> None:
        self.room: float = float("inf")
        self.quick = threading.Event()
        self.quick.set()
        self.writes = 0

    def write(self, file: int, data: bytes) -> int:
        """Like a disk: takes what it has room for, and fails when it has none."""
        self.writes += 1
        self.quick.wait(20)
        taken = int(min(self.room, len(data)))
        if not taken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= taken
        return _write(file, data[:taken])


_write = os.write


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk()
    monkeypatch.setattr(capture_module.os, "write", made.write)
    return made


def test_appended_lines_are_in_todays_segment_in_order(tmp_path: Path) -> None:
    """Byte for byte as they were given."""
    before = datetime.now(UTC)
    segments = segments_in(tmp_path / "bikes")
    for number in range(3):
        segments.append(line(number, "Łódź"))
    (path,) = tmp_path.glob("bikes/date=*/*.jsonl")
    assert path.read_bytes() == b"".join(line(number, "Łódź") for number in range(3))
    assert path.parent.name in {f"date={moment:%Y-%m-%d}" for moment in (before, datetime.now(UTC))}


def test_every_writer_has_segments_of_its_own(tmp_path: Path) -> None:
    """Two workers never write to one file."""
    for writer in (segments_in(tmp_path), segments_in(tmp_path)):
        writer.append(line(1))
    assert len(list(tmp_path.glob("date=*/*.jsonl"))) == 2


def test_nothing_is_made_before_the_first_line(tmp_path: Path) -> None:
    """A service that answers nothing leaves nothing."""
    Capture(segments_in(tmp_path / "bikes"))
    assert not (tmp_path / "bikes").exists()


def test_a_folder_that_is_a_file_is_an_os_error_and_the_file_stays(tmp_path: Path) -> None:
    """What is somebody else's is not touched."""
    (tmp_path / "bikes").write_text("mine")
    with pytest.raises(OSError, match=r"bikes"):
        segments_in(tmp_path / "bikes").append(line(1))
    assert (tmp_path / "bikes").read_text() == "mine"


def test_a_segment_that_has_grown_to_its_size_is_followed_by_another(tmp_path: Path) -> None:
    """No line is split between them, and their names sort in the order of writing."""
    segments = segments_in(tmp_path, max_bytes=2 * len(line(0)))
    for number in range(5):
        segments.append(line(number))
    sizes = [len(path.read_bytes().splitlines()) for path in sorted(tmp_path.glob("date=*/*.jsonl"))]
    assert sizes == [2, 2, 1]
    assert numbers_in(tmp_path) == [0, 1, 2, 3, 4]


class Clock:
    """The time, as the capture is told it."""

    def __init__(self, now: datetime) -> None:
        self.now_ = now

    def time(self) -> float:
        return self.now_.timestamp()

    def now(self, _: object) -> datetime:
        return self.now_


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock(datetime(2024, 3, 1, 22, 0, tzinfo=UTC))
    monkeypatch.setattr(capture_module, "time", made)
    monkeypatch.setattr(capture_module, "datetime", made)
    return made


def test_a_segment_that_has_grown_old_is_followed_by_another(tmp_path: Path, clock: Clock) -> None:
    """So that compaction gets it on the same day."""
    segments = segments_in(tmp_path, max_seconds=600)
    for minute in (0, 9, 10, 19, 20):
        clock.now_ = clock.now_.replace(minute=minute)
        segments.append(line(minute))
    sizes = [len(path.read_bytes().splitlines()) for path in sorted(tmp_path.glob("date=*/*.jsonl"))]
    assert sizes == [2, 2, 1]


def test_a_new_day_has_a_new_segment_in_its_own_folder(tmp_path: Path, clock: Clock) -> None:
    """However young the one of yesterday is."""
    segments = segments_in(tmp_path, max_seconds=100_000)
    segments.append(line(1))
    clock.now_ = datetime(2024, 3, 2, 0, 0, tzinfo=UTC)
    segments.append(line(2))
    assert [path.parent.name for path in sorted(tmp_path.glob("date=*/*.jsonl"))] == [
        "date=2024-03-01",
        "date=2024-03-02",
    ]


def is_locked(path: Path) -> bool:
    """True if somebody has the file open for writing."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_a_segment_is_locked_while_it_is_open_and_free_afterwards(tmp_path: Path) -> None:
    """Compaction tells by it what it may take."""
    segments = segments_in(tmp_path, max_bytes=1)
    segments.append(line(1))
    segments.append(line(2))
    first, second = sorted(tmp_path.glob("date=*/*.jsonl"))
    assert (is_locked(first), is_locked(second)) == (False, True)
    segments.close()
    assert not is_locked(second)


def test_a_compaction_while_a_segment_is_being_opened_loses_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between making a file and locking it there is a moment."""
    lock = fcntl.flock

    def compact_then_lock(file: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        compact_labels(tmp_path, make_spec())
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", compact_then_lock)
    segments = segments_in(tmp_path / "bikes")
    segments.append(line(1))
    assert numbers_in(tmp_path / "bikes") == [1]


def test_what_was_appended_survives_a_process_that_is_killed(tmp_path: Path) -> None:
    """It is the system's, not the process's."""
    program = (
        "import os, signal, sys; from pathlib import Path; from serving.capture import Capture, Segments\n"
        "capture = Capture(Segments(Path(sys.argv[1]), max_bytes=10000, max_seconds=3600))\n"
        "assert capture.keep(b'{\"n\": 1}\\n', 1) and capture.keep(b'{\"n\": 2}\\n', 1)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=PROJECT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert numbers_in(tmp_path) == [1, 2]


class Kept:
    """A capture, with what it said was lost."""

    def __init__(self, folder: Path) -> None:
        self.told: list[int] = []
        self.capture = Capture(segments_in(folder), on_lost=self.told.append)


@pytest.mark.parametrize("room", [0, 1, 10, len(line(0)) - 1])
def test_a_full_disk_takes_a_line_whole_or_not_at_all(tmp_path: Path, disk: Disk, room: int) -> None:
    """A part is cut off again, so that lines after it are whole; what was lost is counted."""
    kept = Kept(tmp_path)
    assert kept.capture.keep(line(0), 3)
    disk.room = room
    assert not kept.capture.keep(line(1), 5)
    assert not kept.capture.keep(line(2), 7)
    assert (kept.capture.lost, kept.told, kept.capture.is_degraded) == (12, [5, 7], True)
    assert kept.capture.problem == "No space left on device"
    disk.room = float("inf")
    assert kept.capture.keep(line(3), 1)
    assert (kept.capture.lost, kept.capture.problem, kept.capture.is_degraded) == (12, None, False)
    assert numbers_in(tmp_path) == [0, 3]


def test_a_disk_that_takes_a_line_in_parts_has_it_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short write is no failure."""
    monkeypatch.setattr(capture_module.os, "write", lambda file, data: _write(file, data[:7]))
    kept = Kept(tmp_path)
    assert all(kept.capture.keep(line(number), 1) for number in range(3))
    assert (numbers_in(tmp_path), kept.told) == ([0, 1, 2], [])


def test_a_loss_and_its_end_are_logged_once_each(tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    """Not once a request."""
    kept = Kept(tmp_path)
    for room in (0, 0, 0, 1000, 1000):
        disk.room = room
        kept.capture.keep(line(1), 1)
    assert [record.getMessage() for record in caplog.records if record.name == "everloop.capture"] == [
        "captured rows are lost: No space left on device",
        "captured rows are kept again",
    ]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch, disk: Disk) -> Disk:
    """A disk of which every write counts as slow until the test says otherwise."""
    monkeypatch.setattr(capture_module, "SLOW_SECONDS", -1.0)
    return disk


def be_quick(monkeypatch: pytest.MonkeyPatch, disk: Disk) -> None:
    """From now on every write counts as quick."""
    monkeypatch.setattr(capture_module, "SLOW_SECONDS", 1e9)
    disk.quick.set()


def test_after_a_slow_write_lines_wait_in_order_and_nobody_for_them(
    tmp_path: Path, slow: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`keep` returns while the disk hangs; what waits is told by its age; then everything is there once."""
    kept = Kept(tmp_path)
    assert kept.capture.keep(line(0), 1)
    slow.quick.clear()
    assert all(kept.capture.keep(line(number), 1) for number in range(1, 50))
    assert kept.capture.is_degraded
    assert kept.capture.lag_seconds > 0
    assert numbers_in(tmp_path) == [0]
    be_quick(monkeypatch, slow)
    kept.capture.wait(20)
    assert (kept.capture.is_degraded, kept.capture.lag_seconds) == (False, 0.0)
    assert kept.capture.keep(line(50), 1)
    kept.capture.wait(20)
    assert numbers_in(tmp_path) == list(range(51))
    assert (kept.capture.lost, kept.told) == (0, [])


def test_when_the_disk_is_quick_again_lines_are_written_at_once(
    tmp_path: Path, slow: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread ends; the next line is in its segment when `keep` returns."""
    kept = Kept(tmp_path)
    kept.capture.keep(line(0), 1)
    (thread,) = [one for one in threading.enumerate() if one.name == "capture"]
    be_quick(monkeypatch, slow)
    kept.capture.keep(line(1), 1)
    thread.join(20)
    assert not thread.is_alive()
    kept.capture.keep(line(2), 1)
    assert numbers_in(tmp_path) == [0, 1, 2]
    assert not [one for one in threading.enumerate() if one.name == "capture"]


def test_more_than_may_wait_is_lost_and_counted_exactly(
    tmp_path: Path, slow: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded; what waits is kept, what came too late is not, and each row is one or the other."""
    kept = Kept(tmp_path)
    kept.capture.keep(line(0), 1)
    slow.quick.clear()
    monkeypatch.setattr(capture_module, "PENDING_BYTES", 10 * len(line(1)))
    found = [kept.capture.keep(line(number % 10), 3) for number in range(1, 16)]
    assert found == [True] * 10 + [False] * 5
    assert (kept.capture.lost, kept.told, kept.capture.problem) == (15, [3] * 5, "the disk is too slow")
    be_quick(monkeypatch, slow)
    kept.capture.wait(20)
    assert len(numbers_in(tmp_path)) == 11
    assert (kept.capture.problem, kept.capture.lost) == (None, 15)


def test_lines_that_waited_for_a_disk_that_is_full_are_counted(
    tmp_path: Path, slow: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread counts like the loop does."""
    kept = Kept(tmp_path)
    kept.capture.keep(line(0), 1)
    slow.quick.clear()
    for number in range(1, 4):
        kept.capture.keep(line(number), 5)
    slow.room = 0
    be_quick(monkeypatch, slow)
    kept.capture.wait(20)
    assert (numbers_in(tmp_path), kept.capture.lost, kept.told) == ([0], 15, [5, 5, 5])
    slow.room = float("inf")
    assert kept.capture.keep(line(4), 1)
    kept.capture.wait(20)
    assert (numbers_in(tmp_path), kept.capture.is_degraded) == ([0, 4], False)


class Overtaken(Capture):
    """A capture whose thread ends between `keep` asking whether it lives and handing it a line."""

    overtake: Callable[[], None] | None = None

    def _is_drained(self) -> bool:
        found = super()._is_drained()
        if not found and self.overtake is not None:
            self.overtake()
        return found


def test_a_line_is_written_though_the_thread_ends_in_this_moment(
    tmp_path: Path, slow: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing waits for a thread that is gone."""
    kept = Overtaken(segments_in(tmp_path))
    kept.keep(line(0), 1)
    (thread,) = [one for one in threading.enumerate() if one.name == "capture"]

    def let_it_end() -> None:
        be_quick(monkeypatch, slow)
        thread.join(20)

    kept.overtake = let_it_end
    kept.keep(line(1), 1)
    kept.wait(0.5)
    assert numbers_in(tmp_path) == [0, 1]


def test_exact_counts_hold_while_the_disk_comes_and_goes(
    tmp_path: Path, slow: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kept and lost add up to what was asked, over full, slow and quick times."""
    kept: Any = Kept(tmp_path)
    for number in range(300):
        slow.room = 0 if number % 7 == 3 else float("inf")
        monkeypatch.setattr(capture_module, "SLOW_SECONDS", -1.0 if number % 50 == 10 else 1e9)
        kept.capture.keep(line(number), 1)
    be_quick(monkeypatch, slow)
    kept.capture.wait(20)
    found = numbers_in(tmp_path)
    assert len(found) == len(set(found))
    assert len(found) + kept.capture.lost == 300
    assert sum(kept.told) == kept.capture.lost


def test_what_waits_when_the_service_stops_is_written_or_counted(
    tmp_path: Path, slow: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop waits for the disk; what the disk has not taken by then is lost, and counted."""
    kept = Kept(tmp_path)
    kept.capture.keep(line(0), 1)
    slow.quick.clear()
    assert kept.capture.keep(line(1), 3)
    kept.capture.close(0.01)
    assert kept.capture.lost == 3
    be_quick(monkeypatch, slow)
    kept.capture.close(20)
    assert (kept.capture.lost, numbers_in(tmp_path)) == (3, [0, 1])
